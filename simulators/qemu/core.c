/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core of the scoreboard: one instruction after the other, in program order.
 *
 * Out-of-order kinds: dispatch is bounded by width, reorder buffer, scheduler and queues; an operation
 * takes the first cycle after its operands in which one of its ports is free, also one that an
 * instruction ahead of it in program order left; retirement is in order. In-order kinds issue in order, each
 * instruction not before the one ahead of it; their `rob` bounds how far issue runs ahead of completion.
 */
#include "scoreboard.h"

enum { HORIZON = 1 << 13 }; /* cycles that are booked at a time; more than most latencies */
enum { PATIENCE = 1 << 20 }; /* cycles to wait for an issue; more than any latency */

/* A cycle of the calendar; it stands for another one once its stamp differs. */
struct cycle {
    uint32_t stamp, ports, issued;
};

/* A ring of the times at which entries of a queue become free again. */
struct queue {
    uint64_t *free_at;
    unsigned size, next;
};

static struct cycle calendar[HORIZON];
static uint64_t full_until[N_CLASSES]; /* no port of the class is free in any cycle before */
static uint64_t ready[N_REGS];
static struct queue rob, loads, stores, fetched;
static uint64_t fetch, fetch_block, dispatch, retired, last_complete;
static uint64_t drained, waiting; /* scheduler: cycles counted off, instructions in it */
static uint64_t steps, causes[N_CAUSES];
static enum cause late; /* why the last dispatch was held up */
static bool mispredicted; /* and nothing was fetched since */
static unsigned fetched_now, dispatched_now, retired_now;

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool queue_init(struct queue *q, unsigned size)
{
    q->size = size;
    q->free_at = calloc(size ? size : 1, sizeof *q->free_at);
    return q->free_at != NULL;
}

static uint64_t queue_room(const struct queue *q)
{
    return q->size ? q->free_at[q->next] : 0;
}

static void queue_put(struct queue *q, uint64_t free_at)
{
    if (!q->size)
        return;
    q->free_at[q->next] = free_at;
    q->next = q->next + 1 == q->size ? 0 : q->next + 1;
}

bool core_init(void)
{
    for (unsigned n = 0; n < HORIZON; n++)
        calendar[n].stamp = UINT32_MAX;
    return queue_init(&rob, config.rob) && queue_init(&fetched, config.fetch_queue) && queue_init(&loads, config.load_queue) &&
           queue_init(&stores, config.store_queue);
}

static struct cycle *cycle_at(uint64_t time)
{
    struct cycle *c = calendar + time % HORIZON;
    if (c->stamp != (uint32_t)time)
        *c = (struct cycle){.stamp = (uint32_t)time};
    return c;
}

/* Books a port for several cycles in a row. */
static uint64_t book_long(const struct unit *u, uint64_t from)
{
    for (uint64_t time = from;; time++)
        for (uint32_t left = u->ports & ~cycle_at(time)->ports; left; left &= left - 1) {
            uint32_t port = left & -left;
            unsigned n = 1;
            while (n < u->busy && !(cycle_at(time + n)->ports & port))
                n++;
            if (n == u->busy) {
                while (n-- > 0)
                    cycle_at(time + n)->ports |= port;
                return time;
            }
        }
}

static uint64_t book(const struct unit *u, uint64_t from)
{
    if (u->busy != 1)
        return book_long(u, from);
    bool contiguous = from <= full_until[u->cls];
    uint64_t time = later(from, full_until[u->cls]);
    struct cycle *c = cycle_at(time);
    while (!(u->ports & ~c->ports))
        c = cycle_at(++time);
    uint32_t left = u->ports & ~c->ports;
    c->ports |= left & -left;
    if (contiguous)
        full_until[u->cls] = time;
    return time;
}

uint64_t core_port(const struct unit *u, uint64_t from)
{
    return book_long(u, from);
}

uint64_t core_steps(void)
{
    return steps;
}

uint64_t core_time(void)
{
    return retired;
}

const uint64_t *core_causes(void)
{
    return causes;
}

/* No instruction is dispatched before `time`. */
static void hold_dispatch(uint64_t time)
{
    if (time > dispatch) {
        dispatch = time;
        dispatched_now = 0;
    }
}

static void hold_for_stores(void)
{
    uint64_t room = queue_room(&stores);
    if (room > dispatch)
        late = CAUSE_STORES;
    hold_dispatch(room);
}

static void hold_fetch(uint64_t time)
{
    if (time > fetch) {
        fetch = time;
        fetched_now = 0;
    }
}

/* An aligned block of bytes per cycle, as wide as the issue, as far ahead as the queue has room. */
static void fetch_one(const struct step *s)
{
    hold_fetch(queue_room(&fetched));
    if (fetched_now == config.issue_width || (config.fetch_bytes && s->fetch_block != fetch_block))
        hold_fetch(fetch + 1);
    fetch_block = s->fetch_block;
    fetched_now++;
    if (fetch > dispatch)
        late = mispredicted ? CAUSE_MISPREDICTS : CAUSE_FRONT_END;
    mispredicted = false;
    hold_dispatch(fetch);
}

void core_fetch_stall(uint64_t cycles)
{
    hold_fetch(fetch + cycles);
}

/* Instructions leave the scheduler when they issue. */
static void wait_for_scheduler(void)
{
    uint64_t last = later(drained, dispatch) + PATIENCE;
    while (drained < dispatch || waiting >= config.scheduler) {
        if (drained == last)
            waiting = 0; /* issues so far ahead that the calendar has lost them */
        drained++;
        const struct cycle *c = calendar + drained % HORIZON;
        if (c->stamp == (uint32_t)drained)
            waiting -= c->issued < waiting ? c->issued : waiting;
        hold_dispatch(drained);
    }
}

static uint64_t dispatch_one(const struct step *s)
{
    fetch_one(s);
    if (dispatched_now == config.issue_width)
        hold_dispatch(dispatch + 1);
    hold_dispatch(queue_room(&rob));
    if (s->flags & STEP_LOAD)
        hold_dispatch(queue_room(&loads));
    if (s->flags & STEP_STORE)
        hold_for_stores();
    if (config.scheduler) {
        wait_for_scheduler();
        waiting++;
    }
    dispatched_now++;
    queue_put(&fetched, dispatch);
    return dispatch;
}

static void note_issue(uint64_t time)
{
    if (config.scheduler) {
        if (time <= drained)
            waiting -= waiting > 0;
        else
            cycle_at(time)->issued++;
    }
}

/* `cause` is why the instruction took as long as it did once it was dispatched. */
static uint64_t retire(uint64_t complete, enum cause cause)
{
    if (complete > retired) {
        uint64_t gap = complete - retired, idle = dispatch > retired ? dispatch - retired : 0;
        causes[late] += idle < gap ? idle : gap;
        causes[cause] += idle < gap ? gap - idle : 0;
        late = CAUSE_CORE;
        retired = complete;
        retired_now = 0;
    } else if (retired_now == config.retire_width) {
        retired++;
        causes[CAUSE_CORE]++;
        retired_now = 0;
    }
    retired_now++;
    queue_put(&rob, retired);
    return retired;
}

static uint64_t operands(const uint8_t *regs, unsigned n, uint64_t from)
{
    for (unsigned k = 0; k < n; k++)
        from = later(from, ready[regs[k]]);
    return from;
}

static void results(const struct step *s, uint64_t when, uint64_t quick)
{
    for (unsigned n = 0; n < s->n_dst; n++)
        ready[s->dst[n]] = s->dst[n] == s->quick ? quick : when;
}

static void step_out_of_order(struct step *s)
{
    uint64_t from = dispatch_one(s) + 1, issued = from, complete = from, address = from;
    enum cause cause = CAUSE_CORE;
    if (s->flags & (STEP_LOAD | STEP_STORE))
        address = operands(s->address, s->n_address, from);
    uint64_t data = operands(s->src, s->n_src, from);
    if (s->flags & STEP_LOAD) {
        if (s->waits_for)
            address = later(address, s->waits_for->executed);
        issued = book(&s->load, address);
        complete = lsu_load(s, issued);
        cause = lsu_cause;
        data = later(data, complete);
        queue_put(&loads, later(complete, retired));
    }
    if (s->flags & STEP_PLAIN) {
        uint64_t start = book(&s->op, data);
        issued = later(issued, start);
        complete = data = start + s->op.latency;
    } else if (s->flags & STEP_FREE) {
        complete = data;
        issued = from;
    }
    results(s, data, address + 1);
    if (s->flags & STEP_STORE) {
        uint64_t start = book(&s->store, address);
        issued = later(issued, s->flags & STEP_LOAD ? issued : start);
        complete = later(start + 1, data);
        note_issue(issued);
        queue_put(&stores, lsu_store(s, start, data, retire(complete, cause)));
    } else {
        note_issue(issued);
        retire(complete, cause);
    }
    last_complete = complete;
}

static void step_in_order(struct step *s)
{
    fetch_one(s);
    hold_dispatch(queue_room(&rob));
    if (dispatched_now == config.issue_width)
        hold_dispatch(dispatch + 1);
    if (s->flags & STEP_STORE)
        hold_for_stores();
    if (s->flags & STEP_LOAD)
        hold_dispatch(queue_room(&loads));
    uint64_t wanted = operands(s->src, s->n_src, operands(s->address, s->n_address, 0)), start = dispatch;
    unsigned early = s->flags & STEP_LOAD ? s->load.early : s->flags & STEP_STORE ? s->store.early : s->op.early;
    wanted -= wanted < early ? wanted : early; /* operands that are read in a later stage */
    start = later(start, wanted);
    uint64_t complete = start, data = start;
    enum cause cause = CAUSE_CORE;
    if (s->flags & STEP_LOAD) {
        start = book(&s->load, start);
        hold_dispatch(start);
        complete = data = lsu_load(s, start);
        cause = lsu_cause;
        if (config.assume_hits)
            data = start + s->load.latency;
    }
    if (s->flags & STEP_PLAIN) {
        start = book(&s->op, s->flags & STEP_LOAD ? data : start);
        if (!(s->flags & STEP_LOAD))
            hold_dispatch(start);
        data = start + s->op.latency;
        complete = later(complete, data);
    }
    if (s->flags & STEP_STORE) {
        start = book(&s->store, start);
        hold_dispatch(start);
        complete = start + 1;
    }
    dispatched_now++;
    queue_put(&fetched, dispatch);
    results(s, data, start + 1);
    uint64_t done = retire(complete, cause);
    if (s->flags & STEP_LOAD)
        queue_put(&loads, done);
    if (s->flags & STEP_STORE)
        queue_put(&stores, lsu_store(s, start, data, done));
    last_complete = complete;
}

/* QEMU executes a string instruction once per element; a core moves whole pieces. */
static bool inside_piece(void)
{
    enum { ELEMENTS = 32 };
    static unsigned n;
    return n++ % ELEMENTS != 0;
}

void core_step(struct step *s)
{
    steps++;
    if ((s->flags & STEP_REPEATED) && inside_piece())
        return;
    if (s->flags & STEP_FUSED) { /* a part of the comparison ahead of it */
        last_complete = later(last_complete, operands(s->src, s->n_src, 0));
        return;
    }
    if (config.out_of_order)
        step_out_of_order(s);
    else
        step_in_order(s);
}

void core_branch(bool taken, bool missed)
{
    mispredicted = missed;
    if (missed)
        hold_fetch(last_complete + config.mispredict_penalty);
    else if (taken) /* the rest of a fetch group is lost, and what the front end needs to turn around */
        hold_fetch(fetch + config.taken_branch_penalty);
}
