/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stride prefetcher into L1D. It follows the lines that each load and store instruction touches,
 * in the `streams` instructions seen last; a stride that occurs twice in a row brings in `degree`
 * lines, `distance` strides ahead of the access.
 */
#include "model.h"

struct stream {
    uint64_t pc, line, used;
    int64_t stride;
    unsigned confidence;
};

static struct stream *streams;
static uint64_t now;

bool prefetch_init(void)
{
    streams = calloc(config.streams, sizeof *streams);
    return streams != NULL;
}

void prefetch_observe(uint64_t pc, uint64_t address)
{
    struct cache *l1 = &levels[L1D];
    uint64_t line = address >> l1->line_bits;
    struct stream *s = NULL, *oldest = streams;
    for (unsigned n = 0; n < config.streams && !s; n++) {
        if (streams[n].pc == pc)
            s = streams + n;
        else if (streams[n].used < oldest->used)
            oldest = streams + n;
    }
    now++;
    if (!s) {
        *oldest = (struct stream){.pc = pc, .line = line, .used = now};
        return;
    }
    s->used = now;
    int64_t stride = (int64_t)(line - s->line);
    if (stride == 0)
        return;
    s->confidence = stride == s->stride ? s->confidence + 1 : 0;
    s->stride = stride;
    s->line = line;
    if (s->confidence == 0)
        return;
    for (unsigned n = 0; n < config.degree; n++)
        totals.prefetches += cache_prefetch(l1, line + (uint64_t)(stride * (int64_t)(config.distance + n)));
}
