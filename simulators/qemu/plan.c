/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plans: which lines a window touches, each as rarely as possible.
 *
 * LRU only sees the order of first uses, which decides misses, and the order of last uses, which
 * decides what is evicted later, as long as nothing can be evicted inside the window itself: so a
 * line appears once, or twice where both orders differ. Where that condition does not hold, the
 * accesses run one by one.
 */
#include "window.h"

struct plan unknown_plan, in_order_plan;

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
struct plan *plan_build(const struct window *w)
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
        int64_t start = (int64_t)(w->slots[op->slot].address & mask) + op->offset;
        int64_t line = start >> bits, last = (start + op->size - 1) >> bits;
        *(op->store ? &plan->more_writes : &plan->more_reads) += (uint16_t)(last - line);
        for (; line <= last; line++)
            last_use[plan_line(plan, op, (int32_t)line)] = (uint16_t)++time;
    }
    plan->crowded = !fits(w, plan);
    repeat_touches(plan, last_use, order);
    free(last_use);
    free(order);
    return plan;
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

void plan_classify(struct window *w)
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
            struct class *class = w->classes[s] + position;
            *class = (struct class){(uint16_t)(k * combinations), (uint16_t)position, 1};
            if (position && class[-1].part == class->part)
                class->first = class[-1].first;
        }
        combinations *= known;
        for (unsigned position = line; position-- > 0;) {
            struct class *class = w->classes[s] + position;
            bool last = position + 1 == line || class[1].first != class->first;
            class->span = last ? (uint16_t)(position + 1 - class->first) : class[1].span;
        }
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
