/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the plugin share: configuration, the block table and the running totals. */
#ifndef SIMTUNE_MODEL_H
#define SIMTUNE_MODEL_H

#include "cache.h"
#include "compat.h"
#include "decode.h"

#include <stdio.h>

enum { L1I, L1D, L2, L3, N_LEVELS, MEMORY = N_LEVELS };
extern const char *const level_names[N_LEVELS];

enum { MAX_PORTS = 24 };

struct class_timing {
    unsigned latency, busy, early;
    uint32_t ports;
};

struct config {
    bool roi_all, l1i_callback, verify, out_of_order;
    uint64_t limit;       /* instructions inside the region, 0 = none */
    unsigned hot_blocks;  /* how many to report */
    unsigned issue_width; /* 0 = no issue model */
    struct class_timing classes[N_CLASSES];
    bool has_level[N_LEVELS];
    unsigned gshare_table_bits, gshare_history_bits; /* 0 table bits = no predictor */
    unsigned loop_trips;                             /* that are counted, 0 = no loop predictor */
    unsigned streams, degree, distance;              /* 0 streams = no prefetcher */
    /* The scoreboard, see scoreboard.h. Of the sizes, 0 means unlimited. */
    bool scoreboard, early_fetch, assume_hits, fuse_branches;
    bool x86, shared_simd; /* FP registers are those of SIMD */
    int64_t full, window, period; /* instructions */
    unsigned retire_width, rob, scheduler, load_queue, store_queue, misses;
    unsigned mispredict_penalty, taken_branch_penalty, fetch_bytes, fetch_queue, fetch_lines;
    unsigned forward_latency, forward_fail, split_penalty, store_interval;
    unsigned dependence_bytes, granule_bits, masked_store, set_interval;
    unsigned tlb_entries, l2_tlb_entries, l2_tlb_latency, walk_latency;
    unsigned fetch_streams, fetch_distance;                            /* prefetching */
    unsigned level_latency[N_LEVELS + 1], level_interval[N_LEVELS + 1]; /* beyond L1D; 1/256 cycles */
    char out[4096];
};
extern struct config config;

/* False after a message on stderr. */
bool config_read(const char *path);
void config_complain(const char *text, int length);

/*
 * A run of instructions that always execute together: a translation block, or the piece of one
 * between two region markers. `executions` holds those of finished regions; `base` is the counter
 * at the start of the current one.
 */
struct block {
    uint64_t pc, executions, base;
    uint64_t fall_through; /* after a conditional branch at the end, otherwise 0 */
    uint32_t code_bytes;
    uint16_t insns, classes[N_CLASSES];
    uint16_t loads, stores, line_reads, line_writes;
    uint32_t load_bytes, store_bytes, issue_millicycles;
    uint8_t *code;
    struct replay *replay; /* scoreboard.c */
};

/* Blocks never move, and the watchdog reads them while the guest runs. */
struct block *block_new(struct qemu_plugin_insn *first);
unsigned block_total(void);
struct block *block_at(unsigned index);
uint64_t block_counter(unsigned index);

/* Totals that only callbacks can know. */
struct totals {
    uint64_t line_reads, line_writes; /* beyond the one line per static access */
    uint64_t loads, stores, load_bytes, store_bytes;
    uint64_t verified_bytes, mispredicts, prefetches;
};
extern struct totals totals;
extern struct cache levels[N_LEVELS];
extern bool counting; /* inside the region of interest */

/* Where one access of a block finds its address after the block was executed. */
struct place {
    const uint64_t *base; /* NULL: not known, taken for a hit */
    int64_t offset;
    uint32_t size;
    const uint32_t *lines; /* of a dynamic access: how many lines it touched, or NULL */
};

/* access.c, window.c, plan.c: the accesses of one translation block. */
void access_begin_block(void);
void access_insn(struct qemu_plugin_insn *, const struct insn *, struct block *, struct place places[2]);
void access_barrier(void); /* the accesses so far are done before what follows */
void access_enable(bool enabled);

/* branch.c, prefetch.c, issue.c */
bool branch_init(void);
void branch_reset_history(void);
void branch_block(unsigned vcpu, void *block);
bool branch_step(const struct block *); /* the branch before this block was mispredicted */
bool prefetch_init(void);
void prefetch_observe(uint64_t pc, uint64_t address);
unsigned issue_cost(const struct insn *insns, unsigned n, bool loops);
unsigned busy_of(const struct insn *, unsigned cls);
/* The access that an instruction of another class does besides; N_CLASSES if none. */
unsigned extra_access(const struct insn *, bool store);

/* scoreboard.c */
bool scoreboard_init(void);
void scoreboard_translate(struct block *, const struct insn *, unsigned n, struct place (*places)[2]);
void scoreboard_begin(void);
void scoreboard_end(void);
exec_fn scoreboard_block;
unsigned scoreboard_write(FILE *, uint64_t region_insns); /* lines written */

/* report.c */
enum { STATUS_COMPLETE, STATUS_NO_REGION, STATUS_OPEN_REGION, STATUS_LIMIT, STATUS_NEEDS_L1I };
enum { EXIT_LIMIT = 99, EXIT_NEEDS_L1I = 98 };
bool report_write(int status);
uint64_t report_instructions(void);

#endif
