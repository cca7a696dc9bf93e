/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

bool cache_init(struct cache *c, unsigned sets, unsigned ways, unsigned line, struct cache *next)
{
    memset(c, 0, sizeof *c);
    if (!sets || !ways || line < 8 || (line & (line - 1)))
        return false;
    c->sets = sets;
    c->ways = ways;
    c->line_bits = (unsigned)__builtin_ctz(line);
    c->next = next;
    if (!(sets & (sets - 1)))
        c->set_mask = sets - 1;
    /* Two tags more than needed: the fast path looks at the second way even when there is none. */
    c->tags = calloc((size_t)sets * ways + 2, sizeof *c->tags);
    c->asleep = calloc((size_t)sets * ways + 2, sizeof *c->asleep);
    return c->tags && c->asleep;
}

void cache_enable(struct cache *c, bool enabled)
{
    if (c->enabled == enabled)
        return;
    /* The disabled cache is an empty one, so that the fast path needs no test of its own. */
    uint64_t *other = c->asleep;
    size_t bytes = ((size_t)c->sets * c->ways + 2) * sizeof *c->tags;
    c->enabled = enabled;
    if (enabled) {
        memcpy(c->tags, other, bytes);
    } else {
        memcpy(other, c->tags, bytes);
        memset(c->tags, 0, bytes);
    }
}

/* Moves the line to the front of its set. Returns true for a hit, otherwise the victim. */
static bool promote(struct cache *c, uint64_t line, bool dirty, uint64_t *victim)
{
    uint64_t *tags = cache_set(c, line), want = (line + 1) << 1, carried = tags[0];
    unsigned way;
    if ((carried & ~1ull) == want) {
        tags[0] = carried | dirty;
        return true;
    }
    for (way = 1; way < c->ways; way++) {
        uint64_t tag = tags[way];
        tags[way] = carried;
        if ((tag & ~1ull) == want) {
            tags[0] = tag | dirty;
            return true;
        }
        carried = tag;
    }
    tags[0] = want | dirty;
    *victim = carried;
    return false;
}

static void evict(struct cache *c, uint64_t victim)
{
    if (!(victim & 1))
        return;
    c->writebacks++;
    if (c->next)
        cache_write_back(c->next, ((victim >> 1) - 1) << c->line_bits);
}

static void fetch(struct cache *c, uint64_t line, uint64_t victim)
{
    if (c->next)
        cache_fill(c->next, line << c->line_bits);
    evict(c, victim);
}

void cache_fill(struct cache *c, uint64_t address)
{
    uint64_t victim = 0, line = address >> c->line_bits;
    c->reads++;
    if (promote(c, line, false, &victim))
        return;
    c->read_misses++;
    fetch(c, line, victim);
}

void cache_write_back(struct cache *c, uint64_t address)
{
    uint64_t victim = 0;
    c->writes++;
    if (promote(c, address >> c->line_bits, true, &victim))
        return;
    c->write_misses++;
    evict(c, victim);
}

__attribute__((noinline)) void cache_slow(struct cache *c, uint64_t line, bool store, bool dirty)
{
    uint64_t victim = 0;
    if (!c->enabled || promote(c, line, dirty, &victim))
        return;
    if (store)
        c->write_misses++;
    else
        c->read_misses++;
    fetch(c, line, victim);
}

bool cache_prefetch(struct cache *c, uint64_t line)
{
    const uint64_t *tags = cache_set(c, line);
    uint64_t victim = 0, want = (line + 1) << 1;
    if (!c->enabled)
        return false;
    for (unsigned way = 0; way < c->ways; way++)
        if ((tags[way] & ~1ull) == want)
            return false;
    promote(c, line, false, &victim);
    fetch(c, line, victim);
    return true;
}

unsigned cache_range(struct cache *c, uint64_t address, uint64_t size, bool store)
{
    uint64_t line = address >> c->line_bits, last = (address + size - 1) >> c->line_bits;
    unsigned touched = (unsigned)(last - line + 1);
    for (; line <= last; line++)
        cache_touch(c, line, store, store);
    return touched;
}
