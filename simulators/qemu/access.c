/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instruments the data accesses of a translation block with as few callbacks as possible (window.h). */
#include "window.h"
#include "symbols.h"

struct pending {
    struct qemu_plugin_insn *handle;
    struct symbol address;
    uint64_t pc;
    uint16_t size;
    uint8_t slot;
    bool store, split;
    struct place *place; /* to be told where the address will be */
};

static struct pending pending[MAX_OPS];
static unsigned n_pending, n_slots;
static uint64_t slot_roots[MAX_SLOTS];
static int64_t slot_first[MAX_SLOTS]; /* offset of the first access of each slot */

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

static void verify(const struct pending *p, const struct slot *slot, int64_t offset)
{
    struct site site = {.pc = p->pc, .size = p->size, .slot = slot, .offset = offset};
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

static void close_window(void)
{
    unsigned leaders[MAX_SLOTS], order[MAX_SLOTS], position[MAX_SLOTS];
    if (!n_pending)
        return;
    if (n_pending == 1 && !pending->split && !config.verify && !config.streams &&
        !config.scoreboard) {
        /* Nobody else asks for its address. */
        on_memory(pending->handle, pending->store ? on_store : on_load, (void *)(uintptr_t)pending->size);
        n_pending = n_slots = 0;
        return;
    }
    /* Number the slots by the order of their leaders, from the last, which runs the window, on. */
    for (unsigned s = 0; s < n_slots; s++) {
        unsigned at = s;
        leaders[s] = leader_of(s);
        for (; at > 0 && leaders[order[at - 1]] > leaders[s]; at--)
            order[at] = order[at - 1];
        order[at] = s;
    }
    for (unsigned s = 0; s < n_slots; s++)
        position[order[s]] = n_slots - 1 - s;
    struct window *w = calloc(1, sizeof *w + n_pending * sizeof(struct op));
    if (!w)
        abort();
    w->n_slots = n_slots;
    w->n_ops = n_pending;
    for (unsigned s = 0; s < n_slots; s++) {
        const struct pending *p = pending + leaders[s];
        bool last = position[s] == 0;
        if (p->split)
            announce(p->handle);
        if (last) {
            mem_fn *whole = levels[L1D].line_bits == 6 ? on_run_64 : on_run;
            on_memory(p->handle, p->split ? on_run_split : whole, w);
        } else {
            on_memory(p->handle, p->split ? on_slot_split : on_slot, w->slots + position[s]);
        }
    }
    for (unsigned n = 0; n < n_pending; n++) {
        const struct pending *p = pending + n, *leader = pending + leaders[p->slot];
        int64_t offset = p->address.offset - leader->address.offset;
        w->ops[n] = (struct op){(uint8_t)position[p->slot], p->store, p->size, offset, p->pc};
        *p->place = (struct place){&w->slots[position[p->slot]].address, offset, p->size, NULL};
        bool own = p->handle == leader->handle;
        if (config.verify && (n == 0 || p->handle != pending[n - 1].handle))
            verify(p, own ? NULL : w->slots + position[p->slot], offset);
    }
    plan_classify(w);
    w->state = levels[L1D].changes - 1;
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

static void add_access(struct qemu_plugin_insn *handle, const struct insn *insn, unsigned m, struct place *place)
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
        .store = mem->store, .place = place,
        .split = mem->size > 8 || insn->n_mem > 1 || (insn->flags & INSN_SPLIT)};
}

void access_insn(struct qemu_plugin_insn *handle, const struct insn *insn, struct block *block,
                 struct place places[2])
{
    bool uncertain = insn->flags & INSN_UNKNOWN;
    if ((insn->flags & INSN_DYNAMIC) && (insn->is_load || insn->is_store || uncertain)) {
        struct site site = {.pc = insn->pc, .flags = insn->flags};
        close_window();
        if (config.has_level[L1D] || (insn->flags & (INSN_ELEMENTS | INSN_REPEATED)) || uncertain) {
            struct site *kept = keep(&site, sizeof site);
            on_memory(handle, insn->flags & INSN_ELEMENTS ? on_element : on_dynamic, kept);
            places[0] = (struct place){&kept->first, 0, 8, &kept->lines};
        }
        if (insn->flags & INSN_ELEMENTS)
            announce(handle);
        else if (config.verify && !(insn->flags & (INSN_REPEATED | INSN_UNKNOWN)))
            verify(&(struct pending){.handle = handle, .pc = insn->pc}, NULL, 0);
    } else {
        for (unsigned m = 0; m < insn->n_mem; m++) {
            if (insn->mem[m].store)
                block->line_writes++;
            else
                block->line_reads++;
            if (config.has_level[L1D]) {
                if (m == 0 && n_pending + 2 > MAX_OPS)
                    close_window();
                add_access(handle, insn, m, places + m);
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
