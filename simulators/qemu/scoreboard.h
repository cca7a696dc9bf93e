/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pipeline scoreboard: when would a core of this machine have executed what the guest executes?
 *
 * A block is translated once into steps (scoreboard.c). At run time every executed block is replayed
 * with the addresses that its accesses really had: dispatch, ports and retirement in core.c, loads,
 * stores, caches' latencies and address translation in lsu.c. Which level serves a line is not
 * decided here: the cache model logs its misses, and the first access to such a line waits for it.
 *
 * Replaying everything would cost more than counting does, so long regions are sampled: the first
 * `full` instructions completely, then `window` out of every `period`.
 */
#ifndef SIMTUNE_SCOREBOARD_H
#define SIMTUNE_SCOREBOARD_H

#include "model.h"

enum { MAX_STEP_SRC = 6, MAX_STEP_ADDRESS = 2 };

struct unit { /* how one class executes */
    uint32_t ports;
    uint16_t latency;
    uint8_t busy, cls, early;
};

enum { STEP_LOAD = 1, STEP_STORE = 2, STEP_PLAIN = 4, STEP_BRANCH = 8, STEP_FREE = 16, STEP_REPEATED = 32,
       STEP_MASKED = 64, STEP_FUSED = 128 };

/* One instruction: an optional load, then an optional operation, then an optional store. */
struct step {
    struct unit load, op, store;
    uint8_t flags, n_src, n_address, n_dst, quick;
    uint8_t src[MAX_STEP_SRC], address[MAX_STEP_ADDRESS], dst[MAX_DST];
    struct step *waits_for; /* a load: store that it was once too early for */
    uint64_t executed;      /* a store: when it had address and data */
    uint64_t fetch_block; /* number of the aligned piece of code it ends in */
    struct place reads, writes;
};

/* What the oldest instruction waits for in a cycle in which nothing more retires. */
enum cause {
    CAUSE_CORE, CAUSE_FRONT_END, CAUSE_MISPREDICTS, CAUSE_STORES, CAUSE_FORWARDING, CAUSE_L2, CAUSE_L3,
    CAUSE_MEMORY, N_CAUSES
};
extern const char *const cause_names[N_CAUSES];

/* core.c */
bool core_init(void);
void core_step(struct step *);
void core_fetch_stall(uint64_t cycles);
void core_branch(bool taken, bool mispredicted);
uint64_t core_time(void); /* cycles up to the last retirement */
uint64_t core_steps(void); /* instructions so far */
const uint64_t *core_causes(void); /* of these cycles, per cause */

/* lsu.c: a load that has its address at `start` in cycle counts; when its data are there. */
bool lsu_init(void);
uint64_t lsu_load(struct step *, uint64_t start);
extern enum cause lsu_cause; /* why the last load took longer than a hit; CAUSE_CORE if it did not */
/* A store with address and data ready, retired at `retired`: when its queue entry is free again. */
uint64_t lsu_store(struct step *, uint64_t address_ready, uint64_t data_ready, uint64_t retired);
uint64_t lsu_fetch_stall(void); /* cycles that missing code costs, since the last call */
cache_miss_fn lsu_note_miss; /* of the block that is being executed */
void lsu_block_done(void); /* forgets the misses of the replayed block */

/* core.c, for lsu.c: another cycle of one of these ports, from `from` on. */
uint64_t core_port(const struct unit *, uint64_t from);

#endif
