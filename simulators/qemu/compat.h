/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QEMU plugin interface, declared by hand so that no QEMU header is needed, and a thin layer
 * over what differs between its versions. -DQEMU_PLUGIN_API=1 is for QEMU 7 and 8, =4 for QEMU
 * 9.2 and later (scoreboards instead of plain counters, instruction bytes copied to a buffer).
 */
#ifndef SIMTUNE_COMPAT_H
#define SIMTUNE_COMPAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef QEMU_PLUGIN_API
#define QEMU_PLUGIN_API 1
#endif

#define PLUGIN_EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

typedef struct {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    int smp_vcpus, max_vcpus;
} qemu_info_t;

enum { QEMU_PLUGIN_CB_NO_REGS = 0 };
enum { QEMU_PLUGIN_MEM_RW = 3 };
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };

typedef void tb_trans_fn(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void exec_fn(unsigned vcpu, void *data);
typedef void mem_fn(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data);
typedef void udata_fn(qemu_plugin_id_t, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_fn *);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, exec_fn *, int flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, exec_fn *, int flags, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_fn *, int flags, int rw, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, udata_fn *, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

/* Counters come in pages, because a scoreboard cannot grow by one element. */
enum { COUNTERS_PER_PAGE = 1024 };

#if QEMU_PLUGIN_API == 1

const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int op, void *, uint64_t);

typedef uint64_t counter_page;

static inline counter_page *counter_page_new(void)
{
    return calloc(COUNTERS_PER_PAGE, sizeof(uint64_t));
}

static inline const uint64_t *counter_page_values(counter_page *page)
{
    return page;
}

static inline void count_insn(struct qemu_plugin_insn *insn, counter_page *page, unsigned i)
{
    qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, page + i, 1);
}

static inline void insn_bytes(const struct qemu_plugin_insn *insn, void *buffer, size_t size)
{
    memcpy(buffer, qemu_plugin_insn_data(insn), size);
}

/* The layout of meminfo behind the two accessors of QEMU 7 and 8; a call for each would show. */
static inline unsigned mem_size(qemu_plugin_meminfo_t info)
{
    return 1u << (info >> 4 & 7);
}

static inline bool mem_is_store(qemu_plugin_meminfo_t info)
{
    return info >> 17 & 1;
}

#else

struct qemu_plugin_scoreboard;
typedef struct {
    struct qemu_plugin_scoreboard *score;
    size_t offset;
} qemu_plugin_u64;

size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *dest, size_t len);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t element_size);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned vcpu);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, int op,
                                                         qemu_plugin_u64 entry, uint64_t);

typedef struct qemu_plugin_scoreboard counter_page;

static inline counter_page *counter_page_new(void)
{
    return qemu_plugin_scoreboard_new(COUNTERS_PER_PAGE * sizeof(uint64_t));
}

/* Only the first thread of the guest is counted. */
static inline const uint64_t *counter_page_values(counter_page *page)
{
    return qemu_plugin_scoreboard_find(page, 0);
}

static inline void count_insn(struct qemu_plugin_insn *insn, counter_page *page, unsigned i)
{
    qemu_plugin_u64 entry = {page, i * sizeof(uint64_t)};
    qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_ADD_U64, entry, 1);
}

static inline void insn_bytes(const struct qemu_plugin_insn *insn, void *buffer, size_t size)
{
    qemu_plugin_insn_data(insn, buffer, size);
}

static inline unsigned mem_size(qemu_plugin_meminfo_t info)
{
    return 1u << qemu_plugin_mem_size_shift(info);
}

static inline bool mem_is_store(qemu_plugin_meminfo_t info)
{
    return qemu_plugin_mem_is_store(info);
}

#endif
#endif
