/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exact LRU caches: write-back, write-allocate, any number of levels behind each other.
 *
 * A set is an array of tags in order of use, most recent first, so no time stamps are needed. A tag
 * is (line number + 1) << 1, with the dirty flag in bit 0; zeroed memory is an empty cache. Levels
 * are neither inclusive nor exclusive: a miss fills every level on the way, an eviction disturbs
 * only its own level. A miss first fetches its line, then hands down the dirty victim. A write-back
 * that misses allocates its line without fetching it, because all of it is overwritten.
 */
#ifndef SIMTUNE_CACHE_H
#define SIMTUNE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

struct cache {
    uint64_t *tags;
    uint64_t set_mask; /* sets - 1; 0 also when the number of sets is no power of two */
    unsigned sets, ways, line_bits;
    uint8_t vector;     /* how many ways of a set are searched at a time, 0 = one */
    bool enabled;       /* while false, every access misses the fast path and changes nothing */
    struct cache *next; /* towards memory, or NULL */
    uint64_t *asleep;   /* the tags while the cache is disabled */
    uint64_t changes;   /* so far, of the order of lines in any set, or of `enabled` */
    uint64_t reads, writes; /* of levels behind the first: accesses from the level above */
    uint64_t read_misses, write_misses, writebacks;
    uint64_t fetched;   /* lines from memory, if this is the last level; never forgotten */
};

/* While set, it is told of every miss of an access, and which level had the line; NULL is memory. */
typedef void cache_miss_fn(const struct cache *, uint64_t line, const struct cache *server);
extern cache_miss_fn *cache_on_miss;

/* False when the geometry is impossible or memory is short. */
bool cache_init(struct cache *, unsigned sets, unsigned ways, unsigned line, struct cache *next);

/* Switches between modelling and ignoring accesses; the contents survive. Starts disabled. */
void cache_enable(struct cache *, bool enabled);

/* Sets the counts to zero and leaves the contents as they are. */
void cache_forget_counts(struct cache *);

/* A fill for the level above, or a write-back from it; counts in `reads` or `writes`. */
void cache_fill(struct cache *, uint64_t address);
void cache_write_back(struct cache *, uint64_t address);

/* One line, which is not the most recent one of its set. Misses count by `store`. */
void cache_slow(struct cache *, uint64_t line, bool store, bool dirty);

/* Puts a line in place without counting an access; true when it was not there. */
bool cache_prefetch(struct cache *, uint64_t line);

/* All lines that [address, address + size) touches, in order; returns how many. */
unsigned cache_range(struct cache *, uint64_t address, uint64_t size, bool store);

static inline uint64_t *cache_set(const struct cache *c, uint64_t line)
{
    uint64_t set = c->set_mask || c->sets == 1 ? line & c->set_mask : line % c->sets;
    return c->tags + set * c->ways;
}

/* One access to a line that is not the most recent one of its set; see below. */
static inline __attribute__((always_inline)) void cache_not_first(struct cache *c, uint64_t *tags,
                                                                  uint64_t line, bool store, bool dirty)
{
    uint64_t second = tags[1];
    if (c->ways > 1 && (second & ~1ull) == (line + 1) << 1) {
        tags[1] = tags[0];
        tags[0] = second | dirty;
        c->changes++;
    } else {
        cache_slow(c, line, store, dirty);
    }
}

/*
 * One access to one line, counting misses only: the number of accesses is known elsewhere. The
 * two most recent lines of a set are tested here, which leaves few calls. Where the mask is not the
 * set (odd number of sets) neither tag can match wrongly, since a tag names its whole line. Returns false if the order of the set did not
 * change.
 */
static inline __attribute__((always_inline)) bool cache_touch(struct cache *c, uint64_t line, bool store,
                                                              bool dirty)
{
    uint64_t *tags = c->tags + (line & c->set_mask) * c->ways;
    uint64_t want = (line + 1) << 1;
    uint64_t first = tags[0];
    if (__builtin_expect((first & ~1ull) == want, 1)) {
        if (dirty)
            tags[0] = want | 1;
        return false;
    }
    cache_not_first(c, tags, line, store, dirty);
    return true;
}

#endif
