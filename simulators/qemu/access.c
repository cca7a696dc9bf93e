/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Feeds the data cache with as few callbacks as possible, and still exactly.
 *
 * Within a translation block, many addresses differ from each other by constants known at
 * translation (symbols.c finds out). The accesses of a block are therefore gathered in windows; in a
 * window, one access per unknown base (the leader) reports its address, by a callback that only
 * stores it, and the last leader's callback runs all accesses of the window in program order.
 *
 * How the bases lie within their cache lines decides which lines the accesses touch. For each such
 * alignment a plan lists the touches that matter. LRU only sees the order of first uses, which
 * decides misses, and the order of last uses, which decides what is evicted later, as long as
 * nothing can be evicted inside the window itself: so a line appears once, or twice where both
 * orders differ. Where that condition does not hold, the accesses run one by one.
 */
#include "model.h"
#include "symbols.h"

#include <stdio.h>

enum { MAX_SLOTS = 8, MAX_OPS = 1024, PLAN_BITS = 5, MAX_PLANS_BUILT = 4096 };

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
    uint64_t alignment;
    uint16_t n, more_reads, more_writes; /* lines beyond one per access, by crossings */
    bool in_order;
    struct touch touches[];
};

struct window {
    unsigned n_slots, n_ops, bytes, bytes_seen, built;
    struct plan *plans[1 << PLAN_BITS];
    struct op ops[];
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
    uint16_t insn_bytes; /* all bytes that the callbacks of this instruction will report */
    uint8_t slot;
    bool store, split;
};

static struct pending pending[MAX_OPS];
static unsigned n_pending, n_slots;
static uint64_t slot_roots[MAX_SLOTS];
static int64_t slot_first[MAX_SLOTS]; /* offset of the first access of each slot */

static uint64_t slots[MAX_SLOTS];
static struct plan no_plan = {.alignment = ~0ull};
static counter_page *element_sequence;

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

static struct plan *plan_build(const struct window *w, uint64_t alignment)
{
    unsigned bits = levels[L1D].line_bits, most = 0;
    uint64_t mask = (1ull << bits) - 1;
    for (unsigned n = 0; n < w->n_ops; n++)
        most += 2 + (w->ops[n].size >> bits);
    struct plan *plan = calloc(1, sizeof *plan + 2 * most * sizeof(struct touch));
    uint16_t *last_use = calloc(most, sizeof *last_use), *order = calloc(most, sizeof *order);
    if (!plan || !last_use || !order)
        abort();
    plan->alignment = alignment;
    unsigned time = 0;
    for (unsigned n = 0; n < w->n_ops; n++) {
        const struct op *op = w->ops + n;
        int64_t start = (int64_t)(slots[op->slot] & mask) + op->offset;
        int64_t line = start >> bits, last = (start + op->size - 1) >> bits;
        if (op->store)
            plan->more_writes += (uint16_t)(last - line);
        else
            plan->more_reads += (uint16_t)(last - line);
        for (; line <= last; line++)
            last_use[plan_line(plan, op, (int32_t)line)] = (uint16_t)++time;
    }
    plan->in_order = !fits(w, plan);
    /* The touches are in order of first use. Sort by last use, and repeat what then differs. */
    unsigned distinct = plan->n, same = 0;
    for (unsigned n = 0; n < distinct; n++) {
        unsigned at = n;
        for (; at > 0 && last_use[order[at - 1]] > last_use[n]; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)n;
    }
    while (same < distinct && order[same] == same)
        same++;
    for (unsigned n = same; n < distinct; n++)
        plan->touches[plan->n++] = plan->touches[order[n]];
    free(last_use);
    free(order);
    return plan;
}

static __attribute__((noinline)) void run_unplanned(struct window *w, uint64_t alignment, struct plan **place);

static inline __attribute__((always_inline)) void run(struct window *w)
{
    unsigned bits = levels[L1D].line_bits;
    uint64_t mask = (1ull << bits) - 1, alignment = slots[0] & mask;
    for (unsigned n = 1; n < w->n_slots; n++)
        alignment = alignment << bits | (slots[n] & mask);
    struct plan **place = w->plans + (alignment * 0x9e3779b97f4a7c15ull >> (64 - PLAN_BITS));
    const struct plan *plan = *place;
    if (__builtin_expect(plan->alignment != alignment || plan->in_order, 0)) {
        run_unplanned(w, alignment, place);
        return;
    }
    const struct touch *t = plan->touches, *end = t + plan->n;
    do {
        uint64_t line = (slots[t->slot] >> bits) + (uint64_t)(int64_t)t->line;
        cache_touch(&levels[L1D], line, t->store, t->dirty);
    } while (++t < end);
    if (__builtin_expect(plan->more_reads | plan->more_writes, 0) && counting) {
        totals.line_reads += plan->more_reads;
        totals.line_writes += plan->more_writes;
    }
}

static void run_unplanned(struct window *w, uint64_t alignment, struct plan **place)
{
    if (!counting)
        return;
    if ((*place)->alignment != alignment && !config.streams && w->built < MAX_PLANS_BUILT) {
        if (*place != &no_plan)
            free(*place);
        *place = plan_build(w, alignment);
        w->built++;
        if (!(*place)->in_order) {
            run(w);
            return;
        }
    }
    run_in_order(w);
}

static void on_slot(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *slot)
{
    (void)vcpu, (void)info;
    *(uint64_t *)slot = address;
}

/* An access in several parts, in ascending order: its end is what the last part leaves. */
static void on_slot_split(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *slot)
{
    (void)vcpu;
    *(uint64_t *)slot = address + mem_size(info);
}

static void on_run(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    struct window *w = data;
    (void)vcpu, (void)info;
    slots[w->n_slots - 1] = address;
    run(w);
}

static void on_run_split(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    struct window *w = data;
    unsigned size = mem_size(info);
    (void)vcpu;
    w->bytes_seen += size;
    if (w->bytes_seen < w->bytes)
        return;
    w->bytes_seen = 0;
    slots[w->n_slots - 1] = address + size;
    run(w);
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
    static uint64_t sequence, line;
    static bool started;
    const struct site *site = data;
    unsigned size = mem_size(info), bits = levels[L1D].line_bits;
    bool store = mem_is_store(info);
    (void)vcpu;
    if (!counting)
        return;
    *(store ? &totals.store_bytes : &totals.load_bytes) += size;
    uint64_t now = counter_page_values(element_sequence)[0], last = (address + size - 1) >> bits;
    if (started && now == sequence && address >> bits == line && last == line)
        return;
    started = true;
    sequence = now;
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
    if (from_start >= site->size && complaints++ < 20) {
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

static void verify(const struct pending *p, unsigned slot, int64_t offset)
{
    struct site site = {.pc = p->pc, .size = p->size, .slot = (uint8_t)slot, .offset = offset};
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

static void close_window(void)
{
    unsigned leaders[MAX_SLOTS], order[MAX_SLOTS], position[MAX_SLOTS];
    if (!n_pending)
        return;
    if (n_pending == 1 && !pending[0].split && !config.streams && !config.verify) {
        void *size = (void *)(uintptr_t)pending[0].size;
        on_memory(pending[0].handle, pending[0].store ? on_store : on_load, size);
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
    for (unsigned n = 0; n < 1u << PLAN_BITS; n++)
        w->plans[n] = &no_plan;
    for (unsigned s = 0; s < n_slots; s++) {
        const struct pending *p = pending + leaders[s];
        bool last = position[s] == n_slots - 1;
        if (last) {
            w->bytes = p->insn_bytes;
            on_memory(p->handle, p->split ? on_run_split : on_run, w);
        } else {
            on_memory(p->handle, p->split ? on_slot_split : on_slot, slots + position[s]);
        }
    }
    for (unsigned n = 0; n < n_pending; n++) {
        const struct pending *p = pending + n, *leader = pending + leaders[p->slot];
        int64_t offset = p->address.offset - leader->address.offset - (leader->split ? leader->size : 0);
        w->ops[n] = (struct op){(uint8_t)position[p->slot], p->store, p->size, offset, p->pc};
        bool own = p->handle == leader->handle;
        if (config.verify && (n == 0 || p->handle != pending[n - 1].handle))
            verify(p, own ? MAX_SLOTS : position[p->slot], offset);
    }
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
    unsigned bytes = insn->mem[0].size + (insn->n_mem > 1 ? insn->mem[1].size : 0u);
    pending[n_pending++] = (struct pending){
        .handle = handle, .address = address, .pc = insn->pc, .size = mem->size, .slot = (uint8_t)slot,
        .store = mem->store, .insn_bytes = (uint16_t)bytes,
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
        if (insn->flags & INSN_ELEMENTS) {
            if (!element_sequence)
                element_sequence = counter_page_new();
            count_insn(handle, element_sequence, 0);
        }
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
