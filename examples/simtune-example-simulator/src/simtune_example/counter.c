/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The stand-in for a simulator: a plugin for QEMU 7 and 8 that counts between the marks of RISC-V code.
 *   qemu-riscv64 -plugin counter.so,out=FILE program
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct {
    const char *target_name;
} info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);

EXPORT int qemu_plugin_version = 1;
EXPORT int qemu_plugin_install(uint64_t, const info_t *, int, char **);

static uint64_t executed, base, total;
static bool inside, seen;
static char out[4096];

static void begin(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    base = executed;
    inside = seen = true;
}

static void end(unsigned cpu, void *unused)
{
    (void)cpu, (void)unused;
    if (inside)
        total += executed - base;
    inside = false;
}

static void translate(uint64_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t n = 0; n < qemu_plugin_tb_n_insns(tb); n++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, n);
        uint32_t code = 0;
        memcpy(&code, qemu_plugin_insn_data(insn), qemu_plugin_insn_size(insn) == 4 ? 4 : 2);
        if (code == 0x51102013 || code == 0x51202013) /* slti x0, x0, 0x511 and 0x512 */
            qemu_plugin_register_vcpu_insn_exec_cb(insn, code == 0x51102013 ? begin : end, 0, NULL);
        else
            qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &executed, 1);
    }
}

static void finish(uint64_t id, void *unused)
{
    (void)id, (void)unused;
    FILE *file = fopen(out, "w");
    if (!file)
        return;
    fprintf(file, "regions %d\nopen %d\ninstructions %lu\n", seen, inside, total);
    fclose(file);
}

int qemu_plugin_install(uint64_t id, const info_t *info, int argc, char **argv)
{
    for (int n = 0; n < argc; n++)
        if (!strncmp(argv[n], "out=", 4))
            snprintf(out, sizeof out, "%s", argv[n] + 4);
    if (!*out || strcmp(info->target_name, "riscv64"))
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
