/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Feeds the data cache with as few callbacks as possible, and still exactly.
 *
 * Within a translation block, many addresses differ from each other by constants known at
 * translation (symbols.c finds out). The accesses of a block are therefore gathered in windows; in a
 * window, one access per unknown base (the leader) reports its address, by a callback that only
 * stores it, and the last leader's callback runs all accesses of the window in program order.
 *
 * How the bases lie within their cache lines decides which lines the accesses touch. Positions that
 * make no difference form a class, and for each combination of classes a plan, made when it first
 * occurs, lists the touches that matter. LRU only sees the order of first uses, which
 * decides misses, and the order of last uses, which decides what is evicted later, as long as
 * nothing can be evicted inside the window itself: so a line appears once, or twice where both
 * orders differ. Where that condition does not hold, the accesses run one by one.
 *
 * Small loops often use each base for one address only, such as a load and a store of the same
 * element. Then the leaders' callbacks touch their lines at once, without a plan (`struct direct`).
 */
#include "model.h"
#include "symbols.h"

#include <stdio.h>

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
    struct touch touches[];
};

struct window {
    unsigned n_slots, n_ops;
    struct plan **plans;
    uint16_t (*classes)[MAX_LINE]; /* per slot and position: contribution to the index of the plan */
    struct op ops[];
};

/* An address that a window uses once or several times, touched by the callback of its first use. */
struct direct {
    uint64_t *slot;
    uint32_t size;
    bool store, dirty; /* what the first use does; whether any use stores */
    uint8_t n_again;   /* addresses used before as well as after this one, in order of last use */
    uint16_t reads, writes; /* how many uses */
    struct {
        const uint64_t *slot;
        uint32_t size;
    } again[MAX_SLOTS];
};

/* What a dynamic access or a check needs to know; lives as long as the translation. */
struct site {
    uint64_t pc;
    uint8_t flags;
    uint16_t size;
    uint8_t slot;
    int64_t offset;
};

struct pending {
    struct qemu_plugin_insn *handle;
    struct symbol address;
    uint64_t pc;
    uint16_t size;
    uint8_t slot;
    bool store, split;
};

static struct pending pending[MAX_OPS];
static unsigned n_pending, n_slots;
static uint64_t slot_roots[MAX_SLOTS];
static int64_t slot_first[MAX_SLOTS]; /* offset of the first access of each slot */

static uint64_t slots[MAX_SLOTS];
static struct plan unknown_plan, in_order_plan;
static counter_page *sequence; /* executions of instructions that are reported in parts */

/* ---- at run time ---- */

static __attribute__((noinline)) void run_in_order(const struct window *w)
{
    for (unsigned n = 0; n < w->n_ops; n++) {
        const struct op *op = w->ops + n;
        uint64_t address = slots[op->slot] + (uint64_t)op->offset;
        unsigned more = cache_range(&levels[L1D], address, op->size, op->store) - 1;
        if (op->store)
            totals.line_writes += more;
        else
            totals.line_reads += more;
        if (config.streams)
            prefetch_observe(op->pc, address);
    }
}

/* Adds the line to the plan, or finds it there. */
static unsigned plan_line(struct plan *plan, const struct op *op, int32_t line)
{
    unsigned n;
    for (n = 0; n < plan->n; n++)
        if (plan->touches[n].slot == op->slot && plan->touches[n].line == line)
            break;
    if (n == plan->n)
        plan->touches[plan->n++] = (struct touch){op->slot, op->store, op->store, line};
    plan->touches[n].dirty |= op->store;
    return n;
}

/* True when no set can receive more lines from the window than it has ways. */
static bool fits(const struct window *w, const struct plan *plan)
{
    const struct cache *l1 = &levels[L1D];
    unsigned worst[MAX_SLOTS] = {0}, sum = 0;
    for (unsigned a = 0; a < plan->n; a++) {
        unsigned same_set = 0;
        for (unsigned b = 0; b < plan->n; b++)
            same_set += plan->touches[a].slot == plan->touches[b].slot &&
                        (plan->touches[a].line - plan->touches[b].line) % (int32_t)l1->sets == 0;
        if (same_set > worst[plan->touches[a].slot])
            worst[plan->touches[a].slot] = same_set;
    }
    for (unsigned n = 0; n < w->n_slots; n++)
        sum += worst[n];
    return sum <= l1->ways;
}

/*
 * The touches are in order of first use. Where the order of last uses differs, and the lines might
 * share a set, touches are repeated at the end, in order of last use.
 */
static void repeat_touches(struct plan *plan, const uint16_t *last_use, uint16_t *order)
{
    unsigned distinct = plan->n, n_order = 0;
    bool again = true;
    for (unsigned a = 0; a < distinct; a++)
        order[a] = 0; /* 1 = repeat */
    while (again) {
        again = false;
        for (unsigned a = 0; a < distinct; a++)
            for (unsigned b = 0; b < distinct && !order[a]; b++) {
                const struct touch *s = plan->touches + a, *t = plan->touches + b;
                bool may_meet = a != b && (s->slot != t->slot ||
                                           (s->line - t->line) % (int32_t)levels[L1D].sets == 0);
                /* a is used after b for the last time, but b would end up in front of it */
                if (may_meet && last_use[a] > last_use[b] && (a < b || order[b]))
                    order[a] = again = true;
            }
    }
    for (unsigned a = 0; a < distinct; a++)
        if (order[a])
            order[n_order++] = (uint16_t)a; /* never ahead of what is still to be read */
    for (unsigned n = 0; n < n_order; n++) {
        unsigned at = n;
        uint16_t mine = order[n];
        for (; at > 0 && last_use[order[at - 1]] > last_use[mine]; at--)
            order[at] = order[at - 1];
        order[at] = mine;
    }
    for (unsigned n = 0; n < n_order; n++)
        plan->touches[distinct + n] = plan->touches[order[n]];
    plan->n_all = (uint16_t)(distinct + n_order);
}

/* The plan for where the slots lie now. */
static struct plan *plan_build(const struct window *w)
{
    unsigned bits = levels[L1D].line_bits, most = 0, time = 0;
    uint64_t mask = (1ull << bits) - 1;
    for (unsigned n = 0; n < w->n_ops; n++)
        most += 2 + (w->ops[n].size >> bits);
    struct plan *plan = calloc(1, sizeof *plan + 2 * most * sizeof(struct touch));
    uint16_t *last_use = calloc(most, sizeof *last_use), *order = calloc(most, sizeof *order);
    if (!plan || !last_use || !order)
        abort();
    for (unsigned n = 0; n < w->n_ops; n++) {
        const struct op *op = w->ops + n;
        int64_t start = (int64_t)(slots[op->slot] & mask) + op->offset;
        int64_t line = start >> bits, last = (start + op->size - 1) >> bits;
        *(op->store ? &plan->more_writes : &plan->more_reads) += (uint16_t)(last - line);
        for (; line <= last; line++)
            last_use[plan_line(plan, op, (int32_t)line)] = (uint16_t)++time;
    }
    bool good = fits(w, plan);
    repeat_touches(plan, last_use, order);
    free(last_use);
    free(order);
    if (good)
        return plan;
    free(plan);
    return &in_order_plan;
}

static __attribute__((noinline)) void run_unplanned(struct window *w, struct plan **place);

static inline __attribute__((always_inline)) void run(struct window *w, unsigned bits)
{
    uint64_t mask = (1ull << bits) - 1;
    unsigned index = 0;
    for (unsigned n = 0; n < w->n_slots; n++)
        index += w->classes[n][slots[n] & mask];
    const struct plan *plan = w->plans[index];
    if (__builtin_expect(plan->n == 0, 0)) {
        run_unplanned(w, w->plans + index);
        return;
    }
    const struct touch *t = plan->touches, *end = t + plan->n;
    bool moved = false;
    do {
        uint64_t line = (slots[t->slot] >> bits) + (uint64_t)(int64_t)t->line;
        moved |= cache_touch(&levels[L1D], line, t->store, t->dirty);
    } while (++t < end);
    /* If every line was the most recent of its set already, their order is right as well. */
    if (moved)
        for (end = plan->touches + plan->n_all; t < end; t++)
            cache_touch(&levels[L1D], (slots[t->slot] >> bits) + (uint64_t)(int64_t)t->line, false, false);
    if (__builtin_expect(plan->more_reads | plan->more_writes, 0) && counting) {
        totals.line_reads += plan->more_reads;
        totals.line_writes += plan->more_writes;
    }
}

static void run_unplanned(struct window *w, struct plan **place)
{
    if (!counting)
        return;
    if (*place == &unknown_plan)
        *place = plan_build(w);
    if (*place == &in_order_plan)
        run_in_order(w);
    else
        run(w, levels[L1D].line_bits);
}

static void on_slot(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *slot)
{
    (void)vcpu, (void)info;
    *(uint64_t *)slot = address;
}

/*
 * QEMU reports wide accesses in parts, and how many depends on its version (7.2 even reads 16 bytes
 * for a scalar FMA). The first part is the one that comes after a new execution of the instruction,
 * which an inline addition announces.
 */
static inline bool first_part(void)
{
    static uint64_t seen;
    uint64_t now = counter_page_values(sequence)[0];
    if (now == seen)
        return false;
    seen = now;
    return true;
}

static void on_slot_split(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *slot)
{
    (void)vcpu, (void)info;
    if (first_part())
        *(uint64_t *)slot = address;
}

static void on_run(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    struct window *w = data;
    (void)vcpu, (void)info;
    slots[w->n_slots - 1] = address;
    run(w, levels[L1D].line_bits);
}

/* The same for the usual line of 64 bytes. */
static void on_run_64(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    struct window *w = data;
    (void)vcpu, (void)info;
    slots[w->n_slots - 1] = address;
    run(w, 6);
}

static void on_run_split(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    struct window *w = data;
    (void)vcpu, (void)info;
    if (first_part()) {
        slots[w->n_slots - 1] = address;
        run(w, levels[L1D].line_bits);
    }
}

static unsigned touch_range(uint64_t address, unsigned size, bool store, bool dirty)
{
    unsigned bits = levels[L1D].line_bits;
    uint64_t first = address >> bits, last = (address + size - 1) >> bits;
    for (uint64_t line = first; line <= last; line++)
        cache_touch(&levels[L1D], line, store, dirty);
    return (unsigned)(last - first + 1);
}

/*
 * The line is not the most recent of its set, or there are two. Touching it puts it in front of
 * lines that are used again in the window, so these are touched again.
 */
static __attribute__((noinline)) void direct_slow(const struct direct *d, uint64_t address)
{
    if (!counting)
        return;
    unsigned more = touch_range(address, d->size, d->store, d->dirty) - 1;
    totals.line_reads += more * d->reads;
    totals.line_writes += more * d->writes;
    for (unsigned n = 0; n < d->n_again; n++)
        touch_range(*d->again[n].slot, d->again[n].size, false, false);
}

/* If the line is the most recent one of its set, nothing changes, so there is nothing to repeat. */
static inline __attribute__((always_inline)) void direct(const struct direct *d, uint64_t address, bool dirty)
{
    const struct cache *c = &levels[L1D];
    uint64_t line = address >> c->line_bits, last = (address + d->size - 1) >> c->line_bits;
    uint64_t *tags = c->tags + (line & c->set_mask) * c->ways, want = (line + 1) << 1;
    *d->slot = address;
    if (__builtin_expect((tags[0] & ~1ull) == want && line == last, 1)) {
        if (dirty)
            tags[0] = want | 1;
    } else {
        direct_slow(d, address);
    }
}

static void on_direct_clean(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)vcpu, (void)info;
    direct(data, address, false);
}

static void on_direct_dirty(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)vcpu, (void)info;
    direct(data, address, true);
}

/* A single access, whose size is below. */
static __attribute__((noinline)) void crossing(uint64_t address, unsigned size, bool store)
{
    if (!counting)
        return;
    unsigned more = cache_range(&levels[L1D], address, size, store) - 1;
    if (store)
        totals.line_writes += more;
    else
        totals.line_reads += more;
}

static inline __attribute__((always_inline)) void single(uint64_t address, void *size, bool store)
{
    unsigned bits = levels[L1D].line_bits;
    uint64_t line = address >> bits, last = (address + (uintptr_t)size - 1) >> bits;
    if (__builtin_expect(line != last, 0))
        crossing(address, (unsigned)(uintptr_t)size, store);
    else
        cache_touch(&levels[L1D], line, store, store);
}

static void on_load(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *size)
{
    (void)vcpu, (void)info;
    single(address, size, false);
}

static void on_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *size)
{
    (void)vcpu, (void)info;
    single(address, size, true);
}

static void dynamic_access(uint64_t pc, uint64_t address, unsigned size, bool store)
{
    if (!config.has_level[L1D])
        return;
    unsigned lines = cache_range(&levels[L1D], address, size, store);
    if (store)
        totals.line_writes += lines;
    else
        totals.line_reads += lines;
    if (config.streams)
        prefetch_observe(pc, address);
}

static void on_dynamic(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    const struct site *site = data;
    unsigned size = mem_size(info);
    bool store = mem_is_store(info);
    (void)vcpu;
    if (!counting)
        return;
    if (site->flags & (INSN_REPEATED | INSN_UNKNOWN)) {
        *(store ? &totals.stores : &totals.loads) += 1;
        *(store ? &totals.store_bytes : &totals.load_bytes) += size;
    }
    dynamic_access(site->pc, address, size, store);
}

/* Elements of one vector instruction that follow each other in one line are one access. */
static void on_element(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    static uint64_t seen, line;
    static bool started;
    const struct site *site = data;
    unsigned size = mem_size(info), bits = levels[L1D].line_bits;
    bool store = mem_is_store(info);
    (void)vcpu;
    if (!counting)
        return;
    *(store ? &totals.store_bytes : &totals.load_bytes) += size;
    uint64_t now = counter_page_values(sequence)[0], last = (address + size - 1) >> bits;
    if (started && now == seen && address >> bits == line && last == line)
        return;
    started = true;
    seen = now;
    line = last;
    dynamic_access(site->pc, address, size, store);
}

static void on_verify(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    static unsigned complaints;
    const struct site *site = data;
    (void)vcpu;
    if (counting)
        totals.verified_bytes += mem_size(info);
    if (site->slot == MAX_SLOTS)
        return;
    uint64_t from_start = address - (slots[site->slot] + (uint64_t)site->offset);
    if (from_start >= (site->flags & INSN_SPLIT ? 32u : site->size) && complaints++ < 20) {
        char text[128];
        int n = snprintf(text, sizeof text, "verify: 0x%llx is off by %lld\n",
                         (unsigned long long)site->pc, (long long)from_start);
        config_complain(text, n);
    }
}

/* ---- at translation ---- */

static void *keep(const void *data, size_t size)
{
    void *copy = malloc(size); /* as long as the translation, which has no end that we hear of */
    if (!copy)
        abort();
    return memcpy(copy, data, size);
}

static void on_memory(struct qemu_plugin_insn *handle, mem_fn *fn, void *data)
{
    /* Always for reads and writes: the filter of QEMU 7.2 is off by one. */
    qemu_plugin_register_vcpu_mem_cb(handle, fn, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, data);
}

static void announce(struct qemu_plugin_insn *handle)
{
    if (!sequence)
        sequence = counter_page_new();
    count_insn(handle, sequence, 0);
}

static void verify(const struct pending *p, unsigned slot, int64_t offset)
{
    struct site site = {.pc = p->pc, .size = p->size, .slot = (uint8_t)slot, .offset = offset};
    if (p->split)
        site.flags = INSN_SPLIT; /* QEMU may read more than the program */
    on_memory(p->handle, on_verify, keep(&site, sizeof site));
}

/* The access that reports the address of a slot: one that needs a single callback, if any. */
static unsigned leader_of(unsigned slot)
{
    unsigned best = MAX_OPS;
    for (unsigned n = 0; n < n_pending; n++)
        if (pending[n].slot == slot && (best == MAX_OPS || (pending[best].split && !pending[n].split)))
            if (best == MAX_OPS || !config.verify)
                best = n;
    return best;
}

/* Which lines, counted from its own, the accesses of a slot touch when it lies at `position`. */
static uint64_t footprint(const struct window *w, unsigned slot, int64_t position)
{
    unsigned bits = levels[L1D].line_bits;
    uint64_t hash = 0;
    for (unsigned n = 0; n < w->n_ops; n++)
        if (w->ops[n].slot == slot) {
            int64_t start = position + w->ops[n].offset, end = start + w->ops[n].size - 1;
            hash = (hash ^ (uint64_t)(start >> bits)) * 0x9e3779b97f4a7c15ull;
            hash = (hash ^ (uint64_t)(end >> bits)) * 0xc2b2ae3d27d4eb4full;
        }
    return hash;
}

static void classify_positions(struct window *w)
{
    unsigned line = 1u << levels[L1D].line_bits, combinations = 1;
    uint64_t seen[MAX_LINE];
    static struct plan *in_order[1] = {&in_order_plan};
    w->classes = calloc(w->n_slots, sizeof *w->classes);
    if (!w->classes)
        abort();
    for (unsigned s = 0; s < w->n_slots && combinations <= MAX_PLANS; s++) {
        unsigned known = 0;
        for (unsigned position = 0; position < line; position++) {
            unsigned k = 0;
            uint64_t mine = footprint(w, s, position);
            while (k < known && seen[k] != mine)
                k++;
            if (k == known)
                seen[known++] = mine;
            w->classes[s][position] = (uint16_t)(k * combinations);
        }
        combinations *= known;
    }
    if (combinations > MAX_PLANS || config.streams) { /* prefetching follows each access */
        memset(w->classes, 0, w->n_slots * sizeof *w->classes);
        w->plans = in_order;
        return;
    }
    w->plans = calloc(combinations, sizeof *w->plans);
    if (!w->plans)
        abort();
    for (unsigned n = 0; n < combinations; n++)
        w->plans[n] = &unknown_plan;
}

/* Registers the pending accesses without a plan, if each slot has one address only. */
static bool close_directly(void)
{
    unsigned first[MAX_SLOTS], last[MAX_SLOTS], lines = levels[L1D].sets > 1 ? 1 : 2;
    struct direct d[MAX_SLOTS] = {0};
    if (config.streams || n_slots * lines > levels[L1D].ways)
        return false;
    for (unsigned n = 0; n < n_pending; n++) {
        const struct pending *p = pending + n;
        struct direct *mine = d + p->slot;
        if (p->split)
            return false;
        if (!mine->size) {
            mine->slot = slots + p->slot;
            mine->size = p->size;
            mine->store = p->store;
            first[p->slot] = n;
        }
        if (p->address.offset != slot_first[p->slot] || p->size != mine->size)
            return false;
        mine->dirty |= p->store;
        *(p->store ? &mine->writes : &mine->reads) += 1;
        last[p->slot] = n;
    }
    for (unsigned s = 0; s < n_slots; s++) {
        bool plain = d[s].reads + d[s].writes == 1 && !config.verify; /* nobody asks for its address */
        unsigned order[MAX_SLOTS];
        for (unsigned t = 0; t < n_slots; t++) {
            if (first[t] >= first[s] || last[t] <= first[s])
                continue;
            unsigned at = d[s].n_again++;
            for (; at > 0 && last[order[at - 1]] > last[t]; at--)
                order[at] = order[at - 1];
            order[at] = t;
        }
        for (unsigned n = 0; n < d[s].n_again; n++) {
            d[s].again[n].slot = slots + order[n];
            d[s].again[n].size = d[order[n]].size;
        }
        if (plain && !d[s].n_again)
            on_memory(pending[first[s]].handle, d[s].store ? on_store : on_load, (void *)(uintptr_t)d[s].size);
        else
            on_memory(pending[first[s]].handle, d[s].dirty ? on_direct_dirty : on_direct_clean,
                      keep(d + s, sizeof *d));
    }
    for (unsigned n = 0; n < n_pending && config.verify; n++)
        if (n != first[pending[n].slot])
            verify(pending + n, pending[n].slot, 0);
        else
            verify(pending + n, MAX_SLOTS, 0);
    return true;
}

static void close_window(void)
{
    unsigned leaders[MAX_SLOTS], order[MAX_SLOTS], position[MAX_SLOTS];
    if (!n_pending)
        return;
    if (close_directly()) {
        n_pending = n_slots = 0;
        return;
    }
    /* Number the slots by the order of their leaders, so that the last one runs the window. */
    for (unsigned s = 0; s < n_slots; s++) {
        unsigned at = s;
        leaders[s] = leader_of(s);
        for (; at > 0 && leaders[order[at - 1]] > leaders[s]; at--)
            order[at] = order[at - 1];
        order[at] = s;
    }
    for (unsigned s = 0; s < n_slots; s++)
        position[order[s]] = s;
    struct window *w = calloc(1, sizeof *w + n_pending * sizeof(struct op));
    if (!w)
        abort();
    w->n_slots = n_slots;
    w->n_ops = n_pending;
    for (unsigned s = 0; s < n_slots; s++) {
        const struct pending *p = pending + leaders[s];
        bool last = position[s] == n_slots - 1;
        if (p->split)
            announce(p->handle);
        if (last) {
            on_memory(p->handle, p->split ? on_run_split : levels[L1D].line_bits == 6 ? on_run_64 : on_run, w);
        } else {
            on_memory(p->handle, p->split ? on_slot_split : on_slot, slots + position[s]);
        }
    }
    for (unsigned n = 0; n < n_pending; n++) {
        const struct pending *p = pending + n, *leader = pending + leaders[p->slot];
        int64_t offset = p->address.offset - leader->address.offset;
        w->ops[n] = (struct op){(uint8_t)position[p->slot], p->store, p->size, offset, p->pc};
        bool own = p->handle == leader->handle;
        if (config.verify && (n == 0 || p->handle != pending[n - 1].handle))
            verify(p, own ? MAX_SLOTS : position[p->slot], offset);
    }
    classify_positions(w);
    n_pending = n_slots = 0;
}

void access_begin_block(void)
{
    symbols_reset();
    n_pending = n_slots = 0;
}

void access_barrier(void)
{
    close_window();
}

static unsigned slot_for(const struct symbol *address)
{
    for (unsigned s = 0; s < n_slots; s++) {
        int64_t distance = address->offset - slot_first[s];
        if (slot_roots[s] == address->root && distance < 1 << 30 && distance > -(1 << 30))
            return s;
    }
    if (n_slots == MAX_SLOTS)
        return MAX_SLOTS;
    slot_roots[n_slots] = address->root;
    slot_first[n_slots] = address->offset;
    return n_slots++;
}

static void add_access(struct qemu_plugin_insn *handle, const struct insn *insn, unsigned m)
{
    const struct mem_operand *mem = insn->mem + m;
    struct symbol address = symbols_address(&mem->address);
    unsigned slot = slot_for(&address);
    if (slot == MAX_SLOTS || n_pending == MAX_OPS) {
        close_window();
        slot = slot_for(&address);
    }
    pending[n_pending++] = (struct pending){
        .handle = handle, .address = address, .pc = insn->pc, .size = mem->size, .slot = (uint8_t)slot,
        .store = mem->store,
        .split = mem->size > 8 || insn->n_mem > 1 || (insn->flags & INSN_SPLIT)};
}

void access_insn(struct qemu_plugin_insn *handle, const struct insn *insn, struct block *block)
{
    bool uncertain = insn->flags & INSN_UNKNOWN;
    if ((insn->flags & INSN_DYNAMIC) && (insn->is_load || insn->is_store || uncertain)) {
        struct site site = {.pc = insn->pc, .flags = insn->flags};
        close_window();
        if (config.has_level[L1D] || (insn->flags & (INSN_ELEMENTS | INSN_REPEATED)) || uncertain)
            on_memory(handle, insn->flags & INSN_ELEMENTS ? on_element : on_dynamic, keep(&site, sizeof site));
        if (insn->flags & INSN_ELEMENTS)
            announce(handle);
        else if (config.verify && !(insn->flags & (INSN_REPEATED | INSN_UNKNOWN)))
            verify(&(struct pending){.handle = handle, .pc = insn->pc}, MAX_SLOTS, 0);
    } else {
        for (unsigned m = 0; m < insn->n_mem; m++) {
            if (insn->mem[m].store)
                block->line_writes++;
            else
                block->line_reads++;
            if (config.has_level[L1D]) {
                if (m == 0 && n_pending + 2 > MAX_OPS)
                    close_window();
                add_access(handle, insn, m);
            }
        }
    }
    symbols_update(insn);
}

void access_enable(bool enabled)
{
    if (config.has_level[L1D])
        cache_enable(&levels[L1D], enabled);
}
