/* SPDX-License-Identifier: GPL-2.0-or-later */
/* gshare: two-bit counters, indexed by branch address xor the history of outcomes. */
#include "model.h"

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

bool branch_step(const struct block *block)
{
    bool mispredicted = false;
    if (previous) {
        bool taken = block->pc != previous->fall_through;
        uint8_t *counter = counters + (((previous->fall_through >> 1) ^ history) & mask);
        mispredicted = (*counter >= 2) != taken;
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
