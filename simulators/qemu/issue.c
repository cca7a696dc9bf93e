/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Static cost of one execution of a block, in cycles, every access hitting L1D.
 *
 * In-order kinds are stepped through instruction by instruction: at most `width` per cycle, in
 * order, each when its sources are ready and one of its ports is free. A block that branches to
 * itself is repeated until it is in its steady state. Out-of-order kinds get the largest of three
 * bounds: issue width, ports, and, for a block that loops, the chain of dependences carried around.
 *
 * An x86 instruction with a memory operand also does what a load or store of its kind does. RVV
 * operations hold their port LMUL times as long.
 */
#include "model.h"

enum { REPEATS = 12, MEASURED = 6, MAX_MASKS = 10 };

struct core {
    uint64_t ready[N_REGS], port_free[MAX_PORTS];
    uint64_t cycle;    /* in which the last instruction was issued */
    unsigned issued;   /* in that cycle */
};

static bool is_vector(unsigned cls)
{
    return cls >= VEC_ALU && cls <= VEC_STORE;
}

unsigned busy_of(const struct insn *i, unsigned cls)
{
    unsigned scale = is_vector(cls) && i->scale > 1 ? i->scale : 1;
    return config.classes[cls].busy * scale;
}

unsigned extra_access(const struct insn *i, bool store)
{
    bool own = i->cls == LOAD || i->cls == STORE || i->cls == ATOMIC || i->cls == VEC_LOAD || i->cls == VEC_STORE;
    bool wide = false;
    if (own || !(store ? i->is_store : i->is_load))
        return N_CLASSES;
    for (unsigned n = 0; n < i->n_mem; n++)
        wide |= i->mem[n].store == store && i->mem[n].size >= 16;
    return store ? (wide ? VEC_STORE : STORE) : wide ? VEC_LOAD : LOAD;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The port of the class that is free first. */
static unsigned choose_port(const struct core *core, unsigned cls)
{
    unsigned best = MAX_PORTS;
    for (unsigned p = 0; p < MAX_PORTS; p++)
        if (config.classes[cls].ports >> p & 1 && (best == MAX_PORTS || core->port_free[p] < core->port_free[best]))
            best = p;
    return best;
}

static void advance(struct core *core, uint64_t cycle)
{
    if (cycle > core->cycle) {
        core->cycle = cycle;
        core->issued = 0;
    }
    if (core->issued == config.issue_width) {
        core->cycle++;
        core->issued = 0;
    }
}

static void set_results(uint64_t *ready, const struct insn *i, uint64_t start, unsigned latency)
{
    for (unsigned n = 0; n < i->n_dst; n++) {
        unsigned reg = i->dst[n];
        ready[reg] = start + (reg == i->quick ? 1 : latency);
    }
}

static void step_in_order(struct core *core, const struct insn *i)
{
    unsigned load = extra_access(i, false), store = extra_access(i, true), port = choose_port(core, i->cls);
    unsigned latency = config.classes[i->cls].latency;
    uint64_t start = core->cycle;
    uint64_t wanted = 0, early = config.classes[i->cls].early;
    for (unsigned n = 0; n < i->n_src; n++)
        wanted = later(wanted, core->ready[i->src[n]]);
    start = later(start, wanted - (wanted < early ? wanted : early));
    start = later(start, core->port_free[port]);
    if (load < N_CLASSES) { /* the operation follows its load without holding up the issue */
        unsigned load_port = choose_port(core, load);
        start = later(start, core->port_free[load_port]);
        latency += config.classes[load].latency;
        advance(core, start);
        core->port_free[load_port] = core->cycle + busy_of(i, load);
    } else {
        advance(core, start);
    }
    if (store < N_CLASSES) {
        unsigned store_port = choose_port(core, store);
        core->port_free[store_port] = later(core->cycle, core->port_free[store_port]) + busy_of(i, store);
    }
    core->port_free[port] = core->cycle + busy_of(i, i->cls);
    core->issued++;
    set_results(core->ready, i, core->cycle, latency);
}

static unsigned in_order(const struct insn *insns, unsigned n, bool loops)
{
    struct core core = {.cycle = 0};
    uint64_t mark = 0;
    for (unsigned repeat = 0; repeat < REPEATS; repeat++) {
        for (unsigned k = 0; k < n; k++)
            step_in_order(&core, insns + k);
        if (!loops)
            return (unsigned)(core.cycle + 1) * 1000;
        if (repeat + 1 == REPEATS - MEASURED)
            mark = core.cycle * config.issue_width + core.issued;
    }
    /* In issue slots, so that a loop that needs 1.5 cycles is not rounded. */
    uint64_t slots = core.cycle * config.issue_width + core.issued - mark;
    return (unsigned)(slots * 1000 / (MEASURED * config.issue_width));
}

/* Work that only the ports of a mask can do needs at least its sum over their number. */
static unsigned port_bound(const struct insn *insns, unsigned n)
{
    uint32_t masks[MAX_MASKS];
    uint64_t work[N_CLASSES] = {0}, worst = 0;
    unsigned n_masks = 0;
    for (unsigned k = 0; k < n; k++) {
        unsigned classes[3] = {insns[k].cls, extra_access(insns + k, false), extra_access(insns + k, true)};
        for (unsigned m = 0; m < 3; m++)
            if (classes[m] < N_CLASSES)
                work[classes[m]] += busy_of(insns + k, classes[m]);
    }
    for (unsigned c = 0; c < N_CLASSES; c++) {
        unsigned m = 0;
        while (m < n_masks && masks[m] != config.classes[c].ports)
            m++;
        if (work[c] && m == n_masks && n_masks < MAX_MASKS)
            masks[n_masks++] = config.classes[c].ports;
    }
    for (unsigned set = 1; set < 1u << n_masks; set++) { /* Hall's condition over unions of masks */
        uint32_t ports = 0;
        uint64_t sum = 0;
        for (unsigned m = 0; m < n_masks; m++)
            if (set >> m & 1)
                ports |= masks[m];
        for (unsigned c = 0; c < N_CLASSES; c++)
            if (work[c] && !(config.classes[c].ports & ~ports))
                sum += work[c];
        worst = later(worst, sum * 1000 / (unsigned)__builtin_popcount(ports));
    }
    return (unsigned)worst;
}

/* How much later each repetition ends when only dependences matter. */
static unsigned chain_bound(const struct insn *insns, unsigned n)
{
    uint64_t ready[N_REGS] = {0}, end = 0, mark = 0;
    for (unsigned repeat = 0; repeat < REPEATS; repeat++) {
        for (unsigned k = 0; k < n; k++) {
            const struct insn *i = insns + k;
            unsigned latency = config.classes[i->cls].latency;
            uint64_t start = 0, operands = 0;
            unsigned load = extra_access(i, false);
            for (unsigned s = 0; s < i->n_src; s++) {
                bool address = load < N_CLASSES && (i->src[s] == i->mem[0].address.base ||
                                                    i->src[s] == i->mem[0].address.index);
                uint64_t *when = address ? &start : &operands;
                *when = later(*when, ready[i->src[s]]);
            }
            if (load < N_CLASSES) /* only the address has to wait for the load */
                start += config.classes[load].latency;
            start = later(start, operands);
            set_results(ready, i, start, latency);
            end = later(end, start + latency);
        }
        if (repeat + 1 == REPEATS - MEASURED)
            mark = end;
    }
    return (unsigned)((end - mark) * 1000 / MEASURED);
}

unsigned issue_cost(const struct insn *insns, unsigned n, bool loops)
{
    for (unsigned k = 0; k < n; k++)
        if (!config.classes[insns[k].cls].ports)
            return 0; /* not configured */
    if (!config.out_of_order)
        return in_order(insns, n, loops);
    uint64_t cost = later(n * 1000 / config.issue_width, port_bound(insns, n));
    return (unsigned)later(cost, loops ? chain_bound(insns, n) : 0);
}
