/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the memory callbacks do. Most calls must end after a handful of instructions. */
#include "window.h"

#include <stdio.h>

counter_page *sequence;

static uint64_t l1d_misses(void)
{
    return levels[L1D].read_misses + levels[L1D].write_misses;
}

static void run_in_order(struct window *w)
{
    uint64_t misses = l1d_misses(), crossings = 0;
    for (unsigned n = 0; n < w->n_ops; n++) {
        const struct op *op = w->ops + n;
        uint64_t address = w->slots[op->slot].address + (uint64_t)op->offset;
        unsigned more = cache_range(&levels[L1D], address, op->size, op->store) - 1;
        crossings += more;
        if (!counting)
            continue;
        if (op->store)
            totals.line_writes += more;
        else
            totals.line_reads += more;
        if (config.streams)
            prefetch_observe(op->pc, address);
    }
    /* Without a miss, all lines were in the cache together, and are now the most recent ones. */
    bool same_again = misses == l1d_misses() && !crossings && !config.streams;
    w->state = levels[L1D].changes - !same_again;
}

static __attribute__((noinline, cold)) void run_unplanned(struct window *w, struct plan **place);

/* True when certainly no two lines of the plan share a set now. */
static bool apart(const struct window *w, const struct plan *plan, unsigned bits)
{
    uint64_t taken = 0;
    for (unsigned n = 0; n < plan->n; n++) {
        const struct touch *t = plan->touches + n;
        uint64_t line = (w->slots[t->slot].address >> bits) + (uint64_t)(int64_t)t->line;
        taken |= 1ull << (line & levels[L1D].set_mask & 63);
    }
    return (unsigned)__builtin_popcountll(taken) == plan->n;
}

static inline __attribute__((always_inline)) void run(struct window *w, unsigned bits)
{
    uint64_t mask = (1ull << bits) - 1;
    unsigned index = 0;
    for (unsigned n = 0; n < w->n_slots; n++) {
        struct slot *slot = w->slots + n;
        if (slot->address - slot->low >= slot->span) {
            const struct class *class = w->classes[n] + (slot->address & mask);
            slot->low = (slot->address & ~mask) + class->first;
            slot->span = class->span;
            slot->part = class->part;
        }
        index += slot->part;
    }
    const struct plan *plan = w->plans[index];
    if (__builtin_expect(plan->n == 0, 0)) {
        run_unplanned(w, w->plans + index);
        return;
    }
    if (plan->crowded && !apart(w, plan, bits)) {
        run_in_order(w);
        return;
    }
    const struct touch *t = plan->touches, *end = t + plan->n;
    const struct cache c = levels[L1D]; /* the compiler cannot know that tags do not change it */
    bool moved = false;
    do {
        uint64_t line = (w->slots[t->slot].address >> bits) + (uint64_t)(int64_t)t->line;
        uint64_t *tag = c.tags + (line & c.set_mask) * c.ways, want = (line + 1) << 1;
        if (__builtin_expect((*tag & ~1ull) == want, 1))
            *tag |= t->dirty;
        else
            cache_not_first(&levels[L1D], tag, line, t->store, t->dirty), moved = true;
    } while (++t < end);
    /* If every line was the most recent of its set already, their order is right as well. */
    if (moved)
        for (end = plan->touches + plan->n_all; t < end; t++)
            cache_touch(&levels[L1D], (w->slots[t->slot].address >> bits) + (uint64_t)(int64_t)t->line, false,
                        false);
    w->state = levels[L1D].changes;
    if (__builtin_expect(plan->more_reads | plan->more_writes, 0) && counting) {
        totals.line_reads += plan->more_reads;
        totals.line_writes += plan->more_writes;
        w->state--; /* to be counted every time */
    }
}

static void run_unplanned(struct window *w, struct plan **place)
{
    if (!levels[L1D].enabled)
        return;
    if (*place == &unknown_plan)
        *place = plan_build(w);
    if (*place == &in_order_plan)
        run_in_order(w);
    else
        run(w, levels[L1D].line_bits);
}

/* A slot that leaves its lines counts as a change of the cache, so that its window runs. */
static inline __attribute__((always_inline)) void set_slot(struct slot *slot, uint64_t address)
{
    slot->address = address;
    if (__builtin_expect(address - slot->low >= slot->span, 0))
        levels[L1D].changes++;
}

void on_slot(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *slot)
{
    (void)vcpu, (void)info;
    set_slot(slot, address);
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

void on_slot_split(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *slot)
{
    (void)vcpu, (void)info;
    if (first_part())
        set_slot(slot, address);
}

/* The last leader has slot 0. */
static inline __attribute__((always_inline)) bool same_again(struct window *w, uint64_t address)
{
    w->slots[0].address = address;
    return address - w->slots[0].low < w->slots[0].span && w->state == levels[L1D].changes;
}

void on_run(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *window)
{
    (void)vcpu, (void)info;
    if (!same_again(window, address))
        run(window, levels[L1D].line_bits);
}

/* The same for the usual line of 64 bytes. */
static __attribute__((noinline)) void run_64(struct window *w)
{
    run(w, 6);
}

void on_run_64(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *window)
{
    (void)vcpu, (void)info;
    if (!same_again(window, address))
        run_64(window);
}

void on_run_split(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *window)
{
    (void)vcpu, (void)info;
    if (first_part() && !same_again(window, address)) {
        if (levels[L1D].line_bits == 6)
            run_64(window);
        else
            run(window, levels[L1D].line_bits);
    }
}

/* A single access, whose size is below. */
static __attribute__((noinline)) void crossing(uint64_t address, unsigned size, bool store)
{
    if (!levels[L1D].enabled)
        return;
    unsigned more = cache_range(&levels[L1D], address, size, store) - 1;
    if (!counting)
        return;
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

void on_load(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *size)
{
    (void)vcpu, (void)info;
    single(address, size, false);
}

void on_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *size)
{
    (void)vcpu, (void)info;
    single(address, size, true);
}

static void dynamic_access(uint64_t pc, uint64_t address, unsigned size, bool store)
{
    if (!config.has_level[L1D])
        return;
    unsigned lines = cache_range(&levels[L1D], address, size, store);
    if (!counting)
        return;
    if (store)
        totals.line_writes += lines;
    else
        totals.line_reads += lines;
    if (config.streams)
        prefetch_observe(pc, address);
}

void on_dynamic(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    struct site *site = data;
    unsigned size = mem_size(info);
    bool store = mem_is_store(info);
    (void)vcpu;
    site->first = address;
    if (!counting && !levels[L1D].enabled)
        return;
    if (counting && (site->flags & (INSN_REPEATED | INSN_UNKNOWN))) {
        *(store ? &totals.stores : &totals.loads) += 1;
        *(store ? &totals.store_bytes : &totals.load_bytes) += size;
    }
    dynamic_access(site->pc, address, size, store);
}

/* Elements of one vector instruction that follow each other in one line are one access. */
void on_element(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    static uint64_t seen, line;
    static bool started;
    struct site *site = data;
    unsigned size = mem_size(info), bits = levels[L1D].line_bits;
    bool store = mem_is_store(info);
    (void)vcpu;
    if (!counting && !levels[L1D].enabled)
        return;
    if (counting)
        *(store ? &totals.store_bytes : &totals.load_bytes) += size;
    uint64_t now = counter_page_values(sequence)[0], last = (address + size - 1) >> bits;
    if (started && now == seen && address >> bits == line && last == line)
        return;
    if (!started || now != seen) {
        site->first = address;
        site->lines = 0;
    }
    site->lines++;
    started = true;
    seen = now;
    line = last;
    dynamic_access(site->pc, address, size, store);
}

void on_verify(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    static unsigned complaints;
    const struct site *site = data;
    (void)vcpu;
    if (counting)
        totals.verified_bytes += mem_size(info);
    if (!site->slot)
        return;
    uint64_t from_start = address - (site->slot->address + (uint64_t)site->offset);
    if (from_start >= (site->flags & INSN_SPLIT ? 32u : site->size) && complaints++ < 20) {
        char text[128];
        int n = snprintf(text, sizeof text, "verify: 0x%llx is off by %lld\n",
                         (unsigned long long)site->pc, (long long)from_start);
        config_complain(text, n);
    }
}
