/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads and stores of the scoreboard.
 *
 * A line that the cache model fetched in this block is in flight from the first access that needs it:
 * as long as its level takes, no more of them at once than `misses`, and no faster after each other
 * than the level delivers. A stream of misses that a prefetcher recognises was asked for earlier, by the
 * miss `distance` lines before.
 *
 * Stores leave their queue in order, each once it is retired and has its line. A load that finds an
 * older store to the same bytes in the queue gets its data from there; when the store holds only a
 * part of them, the load waits until it has left.
 */
#include "scoreboard.h"

enum { LOGGED = 1024, LOOK_AHEAD = 32, IN_FLIGHT = 1024, FORWARDING = 1024, MAX_MISSES = 64, REMEMBERED = 64 };
enum { MAX_STREAMS = 64, HISTORY = 64, TLB_WAYS = 8, L2_TLB_WAYS = 8, PAGE_BITS = 12 };

static struct {
    uint64_t line;
    unsigned level;
} logged[LOGGED];
static unsigned n_logged, n_served; /* those at the front that were waited for */
static uint64_t code_stall;
enum cause lsu_cause;

static struct {
    uint64_t line, ready;
    unsigned level;
} in_flight[IN_FLIGHT];

static uint64_t buffers[MAX_MISSES]; /* when each miss buffer is free again */
static struct set { /* of L1D */
    uint64_t missed[REMEMBERED]; /* the last lines that missed */
    uint64_t at[REMEMBERED]; /* the instructions that missed them */
    unsigned next;
    uint64_t free; /* for another line, in 1/256 cycles */
} *sets;
static uint64_t link_free[N_LEVELS + 1]; /* in 1/256 cycles, by level that delivers */

static struct stored {
    uint64_t granule, start, end, ready, left;
    struct step *step;
    bool whole; /* can be forwarded */
} stored[FORWARDING];
static uint64_t last_left;

static struct stream {
    uint64_t line, used;
    int64_t stride;
    unsigned confidence;
    uint64_t asked[HISTORY]; /* when each of the last misses happened */
} streams[MAX_STREAMS];
static uint64_t n_misses;

static uint64_t *tlb, *l2_tlb;
static unsigned tlb_sets, l2_tlb_sets;

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t *tlb_init(unsigned entries, unsigned ways, unsigned *sets)
{
    *sets = (entries + ways - 1) / ways;
    return calloc((size_t)(*sets ? *sets : 1) * ways, sizeof(uint64_t));
}

bool lsu_init(void)
{
    tlb = tlb_init(config.tlb_entries, TLB_WAYS, &tlb_sets);
    l2_tlb = tlb_init(config.l2_tlb_entries, L2_TLB_WAYS, &l2_tlb_sets);
    sets = calloc(levels[L1D].sets, sizeof *sets);
    return tlb && l2_tlb && sets;
}

/*
 * Which level would serve a line from memory if the region had run before, as when a kernel is timed: as
 * long as all lines so far fit into a level, those that were never there before would be.
 */
static unsigned resident_level(void)
{
    unsigned last = config.has_level[L3] ? L3 : config.has_level[L2] ? L2 : L1D;
    uint64_t lines = levels[last].fetched;
    for (unsigned level = L2; level <= last; level++)
        if (lines <= (uint64_t)levels[level].sets * levels[level].ways)
            return level;
    return MEMORY;
}

/* Code that goes on where the last missing line ended was asked for `fetch_lines` lines before. */
static uint64_t code_latency(uint64_t line, unsigned level)
{
    static uint64_t last;
    bool goes_on = line == last + 1;
    uint64_t latency = config.level_latency[level], interval = config.level_interval[level] >> 8;
    last = line;
    return goes_on ? later(latency / (1 + config.fetch_lines), interval < latency ? interval : latency) : latency;
}

void lsu_note_miss(const struct cache *cache, uint64_t line, const struct cache *server)
{
    unsigned level = server ? (unsigned)(server - levels) : resident_level();
    if (cache == &levels[L1I])
        code_stall += code_latency(line, level);
    else if (n_logged < LOGGED)
        logged[n_logged].line = line, logged[n_logged++].level = level;
}

uint64_t lsu_fetch_stall(void)
{
    uint64_t stall = code_stall;
    code_stall = 0;
    return stall;
}

void lsu_block_done(void)
{
    n_logged = n_served = 0;
}

/* ---- address translation ---- */

static bool tlb_hit(uint64_t *table, unsigned sets, unsigned ways, uint64_t page)
{
    /* Hashed, so that pages at equal distances spread as in the fully associative tables of most cores. */
    uint64_t *set = table + ((page ^ page >> 3 ^ page >> 7) % sets) * ways, carried = page + 1;
    for (unsigned way = 0; way < ways; way++) {
        uint64_t entry = set[way];
        set[way] = carried;
        if (entry == page + 1)
            return true;
        carried = entry;
    }
    return false;
}

static unsigned translate(uint64_t address)
{
    static uint64_t last_page = UINT64_MAX;
    uint64_t page = address >> PAGE_BITS;
    if (page == last_page || !tlb_sets)
        return 0;
    last_page = page;
    if (tlb_hit(tlb, tlb_sets, TLB_WAYS, page))
        return 0;
    if (!l2_tlb_sets)
        return config.walk_latency;
    if (tlb_hit(l2_tlb, l2_tlb_sets, L2_TLB_WAYS, page))
        return config.l2_tlb_latency;
    return config.l2_tlb_latency + config.walk_latency;
}

/* ---- lines ---- */

/* When the prefetcher, if it knows the stream, asked for the line; `now` otherwise. */
static uint64_t asked_for(uint64_t line, uint64_t now)
{
    struct stream *s = NULL, *oldest = streams;
    for (unsigned n = 0; n < config.fetch_streams; n++) {
        int64_t step = (int64_t)(line - streams[n].line);
        if (step && step == streams[n].stride)
            s = streams + n; /* goes on */
        else if (!s && step && step >= -4 && step <= 4 && streams[n].confidence == 0)
            s = streams + n; /* may become one */
        if (streams[n].used < oldest->used)
            oldest = streams + n;
    }
    n_misses++;
    if (!s) {
        *oldest = (struct stream){.line = line, .used = n_misses};
        return now;
    }
    int64_t step = (int64_t)(line - s->line);
    s->confidence = step == s->stride ? s->confidence + 1 : 1;
    s->stride = step;
    s->line = line;
    s->used = n_misses;
    unsigned ahead = s->confidence > 2 ? s->confidence - 2 : 0;
    if (ahead > config.fetch_distance)
        ahead = config.fetch_distance;
    s->asked[s->confidence % HISTORY] = now;
    return ahead ? s->asked[(s->confidence - ahead) % HISTORY] : now;
}

/*
 * Lines that take turns in a set fill it one after the other, the slower the more of them there are
 * (measured: strides of 1, 2 and 4 KiB through 8 to 1,000 lines on a Zen 4). How many there are is told
 * by the misses in the set since this line missed the last time. Sets half the cache apart share.
 */
static uint64_t set_room(uint64_t line, uint64_t now)
{
    unsigned ways = levels[L1D].ways, n = levels[L1D].sets, distance = 1;
    struct set *set = sets + line % n, *first = sets + line % (n > 1 ? n / 2 : 1);
    while (distance < REMEMBERED && set->missed[(set->next - distance) % REMEMBERED] != line + 1)
        distance++;
    set->at[set->next % REMEMBERED] = core_steps();
    set->missed[set->next++ % REMEMBERED] = line + 1;
    if (distance == REMEMBERED || distance <= ways)
        distance = distance == REMEMBERED && set->missed[set->next % REMEMBERED] ? 4 * ways : ways;
    unsigned crowd = distance - ways < 3 * ways ? distance - ways : 3 * ways;
    uint64_t from = later(now << 8, first->free);
    first->free = from + ((uint64_t)config.set_interval << 8) * crowd / (3 * ways);
    return from >> 8;
}

/* A line comes from `level`, wanted at `now`. */
static uint64_t fetch(uint64_t line, unsigned level, uint64_t now)
{
    unsigned first = 0;
    uint64_t asked = config.fetch_streams ? asked_for(line, now) : now;
    for (unsigned n = 1; n < config.misses; n++)
        if (buffers[n] < buffers[first])
            first = n;
    if (config.misses)
        asked = asked < now ? asked : later(now, buffers[first]);
    if (config.set_interval)
        asked = later(asked, set_room(line, asked));
    uint64_t free_at = later(asked << 8, link_free[level]);
    link_free[level] = free_at + config.level_interval[level];
    uint64_t there = later(asked + config.level_latency[level], (free_at >> 8) + config.level_latency[level]);
    if (there < now)
        there = now;
    buffers[first] = there;
    in_flight[line % IN_FLIGHT].line = line;
    in_flight[line % IN_FLIGHT].ready = there;
    in_flight[line % IN_FLIGHT].level = level;
    if (there > now)
        lsu_cause = CAUSE_L2 + (level - L2);
    return there;
}

/* When a line that is accessed at `now` is in L1D: at once, unless it is missing or on its way. */
static uint64_t line_there(uint64_t line, uint64_t now)
{
    for (unsigned n = n_served; n < n_logged && n < n_served + LOOK_AHEAD; n++)
        if (logged[n].line == line) { /* nearly always the first, since both are in program order */
            unsigned level = logged[n].level;
            logged[n] = logged[n_served++];
            return fetch(line, level, now);
        }
    if (in_flight[line % IN_FLIGHT].line != line || in_flight[line % IN_FLIGHT].ready <= now)
        return now;
    lsu_cause = CAUSE_L2 + (in_flight[line % IN_FLIGHT].level - L2);
    return in_flight[line % IN_FLIGHT].ready;
}

/*
 * Whether so many lines come into the set of this one while a store waits to retire that its own is gone
 * by then: loads run ahead by the reorder buffer, and what was asked for early was in vain.
 */
static bool gone_again(uint64_t line)
{
    unsigned ways = levels[L1D].ways;
    const struct set *set = sets + line % levels[L1D].sets;
    if (!config.set_interval || set->next < ways || ways > REMEMBERED)
        return false;
    return 2 * (core_steps() - set->at[(set->next - ways) % REMEMBERED]) < 3 * (uint64_t)config.rob;
}

/* ---- loads and stores ---- */

static struct stored *stored_at(uint64_t address)
{
    return stored + (address >> config.granule_bits) % FORWARDING;
}

/*
 * The time when the bytes can be had, considering stores that are still in the queue. A core compares
 * pieces of `dependence_bytes`: a load that was ahead of a store to another part of the piece is sent
 * back, and waits for that store from then on.
 */
static uint64_t forwarded(struct step *step, uint64_t address, unsigned size, uint64_t start, uint64_t from_cache)
{
    unsigned bits = config.granule_bits;
    uint64_t end = address + size, last = (end - 1) >> bits;
    uint64_t when = from_cache;
    for (uint64_t granule = address >> bits; granule <= last; granule++) {
        const struct stored *s = stored_at(granule << bits);
        if (s->granule != granule || s->left <= start)
            continue;
        if (s->end <= address || s->start >= end) {
            if (config.dependence_bytes > 1 && s->ready > start)
                step->waits_for = s->step;
            continue;
        }
        if (s->whole && s->start <= address && s->end >= end)
            return later(start, s->ready) + config.forward_latency;
        lsu_cause = CAUSE_FORWARDING;
        when = later(when, s->left + config.forward_fail);
    }
    return when;
}

uint64_t lsu_load(struct step *s, uint64_t start)
{
    const struct place *p = &s->reads;
    lsu_cause = CAUSE_CORE;
    if (!p->base)
        return start + s->load.latency;
    uint64_t address = *p->base + (uint64_t)p->offset;
    unsigned bits = levels[L1D].line_bits, size = p->size;
    uint64_t line = address >> bits, last = (address + size - 1) >> bits;
    if (p->lines && *p->lines > 1)
        last = line + *p->lines - 1;
    start += translate(address);
    uint64_t there = line_there(line, start);
    while (line < last) {
        there = later(there, line_there(++line, core_port(&s->load, start + 1)) + config.split_penalty);
    }
    return forwarded(s, address, size, start, there + s->load.latency);
}

uint64_t lsu_store(struct step *s, uint64_t address_ready, uint64_t data_ready, uint64_t retired)
{
    const struct place *p = &s->writes;
    s->executed = later(address_ready, data_ready);
    uint64_t left = later(retired + 1, last_left + config.store_interval);
    if (p->base) {
        uint64_t address = *p->base + (uint64_t)p->offset, end = address + p->size;
        unsigned bits = levels[L1D].line_bits;
        uint64_t line = address >> bits, last = (end - 1) >> bits;
        if (p->lines && *p->lines > 1)
            last = line + *p->lines - 1;
        uint64_t asked = (config.early_fetch ? address_ready : left) + translate(address);
        left = later(left, line_there(line, asked));
        if (gone_again(line))
            left = later(left, last_left + config.level_latency[L2]);
        while (line < last)
            left = later(left, line_there(++line, asked)) + config.store_interval;
        unsigned piece = config.granule_bits;
        for (uint64_t granule = address >> piece; granule <= (end - 1) >> piece; granule++)
            *stored_at(granule << piece) = (struct stored){granule, address, end,
                                                            data_ready, left, s, !(s->flags & STEP_MASKED)};
    }
    last_left = left;
    return left;
}
