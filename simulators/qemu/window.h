/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Windows: runs of accesses within a translation block that are done at once, exactly.
 *
 * Many addresses in a block differ from each other by constants known at translation (symbols.c
 * finds out). In a window, one access per unknown base (the leader of a slot) reports its address,
 * by a callback that only stores it, and the last leader's callback runs all accesses of the window
 * in program order.
 *
 * Most runs change nothing. When a window touches the same lines as the last time, and nothing else
 * changed the cache in between, every access hits and leaves the order of its set as it was, because
 * the lines are its most recent ones already. So a slot remembers for which addresses the
 * window would touch the same lines, and the window at which state of the cache it ran.
 *
 * How the bases lie within their cache lines decides which lines the accesses touch. Positions that
 * make no difference form a class, and for each combination of classes a plan, made when it first
 * occurs, lists the touches that matter (plan.c).
 */
#ifndef SIMTUNE_WINDOW_H
#define SIMTUNE_WINDOW_H

#include "model.h"

enum { MAX_SLOTS = 8, MAX_OPS = 1024, MAX_LINE = 256, MAX_PLANS = 1 << 14 };

struct op {
    uint8_t slot;
    bool store;
    uint16_t size;
    int64_t offset; /* from the value of the slot */
    uint64_t pc;
};

struct touch {
    uint8_t slot;
    bool store, dirty;
    int32_t line; /* relative to the line of the slot's value */
};

struct plan {
    uint16_t n, n_all; /* first uses; with the repeated touches */
    uint16_t more_reads, more_writes; /* lines beyond one per access, by crossings */
    bool crowded; /* a set might get more lines than it has ways, unless all lie apart */
    struct touch touches[];
};

struct slot {
    uint64_t address;
    uint64_t low, span; /* addresses that lead to the same lines as the last one that was looked at */
    uint64_t part;      /* its share of the index of the plan */
};

/* Neighbouring positions of a slot in its line that make no difference. */
struct class {
    uint16_t part, first, span;
};

struct window {
    struct slot slots[MAX_SLOTS];
    uint64_t state; /* of the cache after the last run, if another one like it would change nothing */
    unsigned n_slots, n_ops;
    struct plan **plans;
    struct class (*classes)[MAX_LINE]; /* per slot and position */
    struct op ops[];
};

/* What a dynamic access or a check needs to know; lives as long as the translation. */
struct site {
    uint64_t pc;
    const struct slot *slot; /* or NULL */
    int64_t offset;
    uint16_t size, flags;
    uint64_t first; /* address of the latest execution, and the lines that it touched */
    uint32_t lines;
};

/* plan.c: stand-ins for a plan that is not made yet, and one that cannot be made. */
extern struct plan unknown_plan, in_order_plan;
struct plan *plan_build(const struct window *);
void plan_classify(struct window *);

/* window.c: callbacks. `data` is a slot, a window, the size of the access or a site. */
extern counter_page *sequence; /* executions of instructions that are reported in parts */
mem_fn on_slot, on_slot_split, on_run, on_run_64, on_run_split, on_load, on_store;
mem_fn on_dynamic, on_element, on_verify;

#endif
