/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * gshare: two-bit counters, indexed by branch address xor the history of outcomes; and, for branches
 * that go one way a number of times and then once the other, a count of how often. Where that number was
 * the same twice in a row, and is not above `loop_trips`, the count predicts instead of the counters.
 */
#include "model.h"

enum { LOOPS = 1024, CONFIDENT = 2 };

static struct loop {
    uint64_t branch;
    unsigned trips, seen; /* in a row last time, and so far */
    uint8_t confidence;
    bool way; /* the usual one */
} loops[LOOPS];

static uint8_t *counters;
static uint64_t mask, history_mask, history;
static const struct block *previous; /* the last block, when it ended in a conditional branch */

bool branch_init(void)
{
    mask = (1ull << config.gshare_table_bits) - 1;
    history_mask = (1ull << config.gshare_history_bits) - 1;
    counters = malloc(mask + 1);
    if (counters)
        memset(counters, 1, mask + 1); /* weakly not taken */
    return counters != NULL;
}

void branch_reset_history(void)
{
    previous = NULL;
}

/* Learns what the branch did; true if the loop predictor was sure of it, with its prediction. */
static bool loop_predicts(uint64_t branch, bool taken, bool *prediction)
{
    struct loop *l = loops + (branch >> 1) % LOOPS;
    if (l->branch != branch) {
        *l = (struct loop){.branch = branch, .way = taken, .seen = 1};
        return false;
    }
    bool sure = l->confidence >= CONFIDENT && l->trips <= config.loop_trips;
    *prediction = l->seen == l->trips ? !l->way : l->way;
    if (taken == l->way) {
        if (l->seen++ >= l->trips && l->confidence) /* more than ever since it was sure */
            l->confidence = 0;
    } else if (l->seen == 0) { /* twice in a row: the usual way is the other one */
        *l = (struct loop){.branch = branch, .way = taken, .seen = 2};
    } else {
        l->confidence = l->seen != l->trips ? 0 : l->confidence < CONFIDENT ? l->confidence + 1 : CONFIDENT;
        l->trips = l->seen;
        l->seen = 0;
    }
    return sure;
}

bool branch_step(const struct block *block)
{
    bool mispredicted = false;
    if (previous) {
        bool taken = block->pc != previous->fall_through, by_loop = false;
        uint8_t *counter = counters + (((previous->fall_through >> 1) ^ history) & mask);
        bool prediction = *counter >= 2;
        if (config.loop_trips && loop_predicts(previous->fall_through, taken, &by_loop))
            prediction = by_loop;
        mispredicted = prediction != taken;
        totals.mispredicts += mispredicted;
        if (taken && *counter < 3)
            ++*counter;
        else if (!taken && *counter > 0)
            --*counter;
        history = (history << 1 | taken) & history_mask;
    }
    previous = block->fall_through ? block : NULL;
    return mispredicted;
}

/* At the start of every block: where it starts tells what the branch before it did. */
void branch_block(unsigned vcpu, void *block)
{
    (void)vcpu;
    if (counting)
        branch_step(block);
}
