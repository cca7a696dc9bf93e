/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cache.h"

#include <stdlib.h>
#include <string.h>

cache_miss_fn *cache_on_miss;
static const struct cache *server; /* of the last fetch */

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
#if defined __x86_64__
    if (__builtin_cpu_supports("avx512f") && ways % 8 == 0 && ways <= 32)
        c->vector = 8;
    else if (__builtin_cpu_supports("avx2") && ways % 4 == 0 && ways <= 32)
        c->vector = 4;
#endif
    /* The fast path looks at the second way even when there is none, vectors at one before. */
    enum { ALIGNMENT = 64, BEFORE = ALIGNMENT / sizeof *c->tags };
    size_t bytes = ((size_t)sets * ways + 2 * BEFORE) * sizeof *c->tags / ALIGNMENT * ALIGNMENT;
    c->tags = aligned_alloc(ALIGNMENT, bytes);
    c->asleep = calloc((size_t)sets * ways, sizeof *c->asleep);
    if (!c->tags || !c->asleep)
        return false;
    memset(c->tags, 0, bytes);
    c->tags += BEFORE;
    return true;
}

void cache_enable(struct cache *c, bool enabled)
{
    if (c->enabled == enabled)
        return;
    /* The disabled cache is an empty one, so that the fast path needs no test of its own. */
    uint64_t *other = c->asleep;
    size_t bytes = (size_t)c->sets * c->ways * sizeof *c->tags;
    c->enabled = enabled;
    c->changes++;
    if (enabled) {
        memcpy(c->tags, other, bytes);
    } else {
        memcpy(other, c->tags, bytes);
        memset(c->tags, 0, bytes);
    }
}

#if defined __x86_64__
#include <immintrin.h>

/*
 * The same as below for sets of whole vectors. Without branches that depend on the depth of the
 * line, which cannot be predicted.
 */
static __attribute__((target("avx2"))) bool promote_avx2(struct cache *c, uint64_t line, bool dirty,
                                                         uint64_t *victim)
{
    uint64_t *tags = cache_set(c, line), want = (line + 1) << 1;
    const __m256i wanted = _mm256_set1_epi64x((long long)(want | 1)), one = _mm256_set1_epi64x(1);
    const __m256i lanes = _mm256_setr_epi64x(0, 1, 2, 3);
    unsigned found = 0;
    for (unsigned way = 0; way < c->ways; way += 4) {
        __m256i four = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)(tags + way)), one);
        found |= (unsigned)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(four, wanted))) << way;
    }
    unsigned at = found ? (unsigned)__builtin_ctz(found) : c->ways - 1;
    uint64_t tag = tags[at];
    const __m256i end = _mm256_set1_epi64x(at + 1);
    for (unsigned way = at & ~3u;; way -= 4) { /* from the back: way - 1 must still be the old one */
        __m256i old = _mm256_loadu_si256((const __m256i *)(tags + way));
        __m256i shifted = _mm256_loadu_si256((const __m256i *)(tags + way - 1));
        __m256i moves = _mm256_cmpgt_epi64(end, _mm256_add_epi64(lanes, _mm256_set1_epi64x(way)));
        _mm256_storeu_si256((__m256i *)(tags + way), _mm256_blendv_epi8(old, shifted, moves));
        if (way == 0)
            break;
    }
    tags[0] = (found ? tag : want) | dirty;
    *victim = tag;
    return found;
}

/* The same for sets of whole vectors of eight, from the front: a tag falls out of each at its end. */
static inline __attribute__((always_inline, target("avx512f"))) bool
promote_eights(uint64_t *tags, unsigned ways, uint64_t want, bool dirty, uint64_t *victim)
{
    const __m512i wanted = _mm512_set1_epi64((long long)(want | 1)), one = _mm512_set1_epi64(1);
    const __m512i one_back = _mm512_setr_epi64(0, 0, 1, 2, 3, 4, 5, 6);
    unsigned found = 0, way = 0;
    for (; way < ways; way += 8) {
        __m512i eight = _mm512_or_si512(_mm512_loadu_si512(tags + way), one);
        found |= (unsigned)_mm512_cmpeq_epi64_mask(eight, wanted) << way;
    }
    unsigned at = found ? (unsigned)__builtin_ctz(found) : ways - 1;
    uint64_t tag = tags[at], carried = (found ? tag : want) | dirty;
    for (way = 0; way <= at; way += 8) {
        __m512i old = _mm512_loadu_si512(tags + way);
        uint64_t last = tags[way + 7];
        __mmask8 moves = (__mmask8)((2u << (at - way < 8 ? at - way : 7)) - 1);
        __m512i moved = _mm512_mask_permutexvar_epi64(old, moves, one_back, old);
        _mm512_storeu_si512(tags + way, _mm512_mask_set1_epi64(moved, 1, (long long)carried));
        carried = last;
    }
    *victim = tag;
    return found;
}

static __attribute__((target("avx512f"))) bool promote_avx512(struct cache *c, uint64_t line, bool dirty,
                                                              uint64_t *victim)
{
    uint64_t *tags = cache_set(c, line), want = (line + 1) << 1;
    if (c->ways == 8) /* without loops */
        return promote_eights(tags, 8, want, dirty, victim);
    if (c->ways == 16)
        return promote_eights(tags, 16, want, dirty, victim);
    return promote_eights(tags, c->ways, want, dirty, victim);
}
#endif

/* Moves the line to the front of its set. Returns true for a hit, otherwise the victim. */
static bool promote(struct cache *c, uint64_t line, bool dirty, uint64_t *victim)
{
#if defined __x86_64__
    if (c->vector == 8)
        return promote_avx512(c, line, dirty, victim);
    if (c->vector == 4)
        return promote_avx2(c, line, dirty, victim);
#endif
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
    server = c->next;
    if (!c->next)
        c->fetched++;
    else
        cache_fill(c->next, line << c->line_bits);
    evict(c, victim);
}

/* Promotes a line that is likely to be the most recent one, unless its set is much used. */
static bool look_up(struct cache *c, uint64_t line, bool dirty, uint64_t *victim)
{
    uint64_t *first = cache_set(c, line);
    if ((*first & ~1ull) != (line + 1) << 1)
        return promote(c, line, dirty, victim);
    *first |= dirty;
    return true;
}

void cache_forget_counts(struct cache *c)
{
    c->reads = c->writes = c->read_misses = c->write_misses = c->writebacks = 0;
}

void cache_fill(struct cache *c, uint64_t address)
{
    uint64_t victim = 0, line = address >> c->line_bits;
    c->reads++;
    if (look_up(c, line, false, &victim))
        return;
    c->read_misses++;
    fetch(c, line, victim);
}

void cache_write_back(struct cache *c, uint64_t address)
{
    uint64_t victim = 0;
    c->writes++;
    if (look_up(c, address >> c->line_bits, true, &victim))
        return;
    c->write_misses++;
    evict(c, victim);
}

__attribute__((noinline)) void cache_slow(struct cache *c, uint64_t line, bool store, bool dirty)
{
    uint64_t victim = 0;
    c->changes++;
    if (!c->enabled || promote(c, line, dirty, &victim))
        return;
    if (store)
        c->write_misses++;
    else
        c->read_misses++;
    fetch(c, line, victim);
    if (cache_on_miss)
        cache_on_miss(c, line, server);
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
    c->changes++;
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
