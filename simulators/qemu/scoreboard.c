/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The scoreboard's blocks: translating them into steps, sampling, and replaying what was executed. */
#include "scoreboard.h"

struct replay {
    unsigned n;
    struct step steps[];
};

static bool detailed;           /* blocks are replayed now */
static int64_t left;            /* instructions until that changes, or the first part of a window ends */
static enum { SKIPPING, WARMING, MEASURING } phase;
static bool first_part;         /* the first `full` instructions, which count as they are */
static const struct block *previous;
static uint64_t previous_stall; /* of fetching it */
static uint64_t insns;          /* replayed so far */
static struct tally {
    uint64_t insns, cycles, causes[N_CAUSES];
} mark, exact, sampled; /* at the start of what is being measured; measured */

const char *const cause_names[N_CAUSES] = {"core", "front_end", "mispredicts", "stores", "forwarding",
                                           "l2",   "l3",        "memory"};

bool scoreboard_init(void)
{
    for (unsigned c = 0; c < N_CLASSES; c++)
        if (!config.classes[c].ports)
            return false;
    return config.issue_width && config.retire_width && config.has_level[L1D] && core_init() && lsu_init();
}

/* ---- translation ---- */

static struct unit unit_of(const struct insn *i, unsigned cls)
{
    const struct class_timing *t = &config.classes[cls];
    unsigned busy = busy_of(i, cls);
    return (struct unit){t->ports, (uint16_t)t->latency, (uint8_t)(busy < 255 ? busy : 255), (uint8_t)cls,
                         (uint8_t)t->early};
}

/* SIMD and floating point share registers on A64 and x86, and the way to them is longer. */
static bool to_simd_register(const struct insn *i)
{
    for (unsigned n = 0; n < i->n_dst; n++)
        if (i->dst[n] >= REG_FP && i->dst[n] < REG_VEC)
            return config.shared_simd;
    return false;
}

static unsigned widest_store(const struct insn *i)
{
    unsigned widest = 0;
    for (unsigned n = 0; n < i->n_mem; n++)
        if (i->mem[n].store && i->mem[n].size > widest)
            widest = i->mem[n].size;
    return widest;
}

static bool is_address(const struct insn *i, unsigned reg)
{
    if (i->flags & INSN_DYNAMIC)
        return reg < REG_FP;
    for (unsigned n = 0; n < i->n_mem; n++)
        if (reg == i->mem[n].address.base || reg == i->mem[n].address.index)
            return true;
    return false;
}

/* A copy from register to register, which renaming does. */
static bool renamed(const struct insn *i)
{
    return (i->flags & INSN_MOVE) || (config.out_of_order && i->cls == INT_ALU && !i->n_mem && i->n_src == 1 &&
                                      i->defines != REG_NONE && i->value.base == i->src[0] &&
                                      i->value.index == REG_NONE && i->value.imm == 0);
}

static bool sets_flags(const struct insn *i)
{
    for (unsigned n = 0; n < i->n_dst; n++)
        if (i->dst[n] == REG_FLAGS)
            return true;
    return false;
}

/* `before` is the instruction ahead of it in the block, or NULL. */
static void make_step(struct step *s, const struct insn *i, const struct insn *before, const struct place *places)
{
    bool own_load = i->cls == LOAD || i->cls == VEC_LOAD, own_store = i->cls == STORE || i->cls == VEC_STORE;
    *s = (struct step){.quick = i->quick};
    if (config.fetch_bytes)
        s->fetch_block = (i->pc + i->size - 1) / config.fetch_bytes;
    if (i->is_load || own_load) {
        unsigned cls = own_load ? i->cls : extra_access(i, false);
        s->flags |= STEP_LOAD;
        s->load = unit_of(i, cls < N_CLASSES ? cls : LOAD);
        if (to_simd_register(i)) {
            const struct class_timing *t = &config.classes[VEC_LOAD];
            s->load.latency = (uint16_t)t->latency;
            if (config.x86) {
                s->load.ports = t->ports;
                s->load.cls = VEC_LOAD;
            }
        }
    }
    if (i->is_store || own_store) {
        unsigned cls = own_store ? i->cls : extra_access(i, true);
        s->flags |= STEP_STORE;
        s->store = unit_of(i, cls < N_CLASSES ? cls : STORE);
        if (config.x86 && widest_store(i) < 32) /* only whole registers need the wide path */
            s->store = unit_of(i, STORE);
        if (i->flags & INSN_MASKED) {
            s->flags |= STEP_MASKED;
            s->store = unit_of(i, VEC_STORE);
            s->store.busy = (uint8_t)config.masked_store;
        }
    }
    if (renamed(i) && !s->flags)
        s->flags |= STEP_FREE;
    else if (!own_load && !own_store)
        s->flags |= STEP_PLAIN, s->op = unit_of(i, i->cls);
    if (i->cls == BRANCH || i->cls == JUMP)
        s->flags |= STEP_BRANCH;
    if (i->flags & INSN_REPEATED)
        s->flags |= STEP_REPEATED;
    if (config.fuse_branches && i->cls == BRANCH && before && before->cls == INT_ALU && !before->is_store &&
        sets_flags(before))
        s->flags |= STEP_FUSED;
    for (unsigned n = 0; n < i->n_src; n++) {
        if ((s->flags & (STEP_LOAD | STEP_STORE)) && s->n_address < MAX_STEP_ADDRESS && is_address(i, i->src[n]))
            s->address[s->n_address++] = i->src[n];
        else if (s->n_src < MAX_STEP_SRC)
            s->src[s->n_src++] = i->src[n];
    }
    s->n_dst = i->n_dst;
    memcpy(s->dst, i->dst, sizeof s->dst);
    for (unsigned m = 0; m < 2; m++)
        if (places[m].base)
            *(m < i->n_mem ? (i->mem[m].store ? &s->writes : &s->reads)
                           : i->is_store ? &s->writes : &s->reads) = places[m];
    if ((s->flags & STEP_LOAD) && (s->flags & STEP_STORE) && !s->reads.base)
        s->reads = s->writes; /* read, changed and written back */
}

void scoreboard_translate(struct block *block, const struct insn *list, unsigned n, struct place (*places)[2])
{
    struct replay *r = malloc(sizeof *r + n * sizeof *r->steps);
    if (!r)
        abort();
    r->n = n;
    for (unsigned k = 0; k < n; k++)
        make_step(r->steps + k, list + k, k ? list + k - 1 : NULL, places[k]);
    block->replay = r;
}

/* ---- sampling ---- */

static void set_detailed(bool on)
{
    detailed = on;
    cache_on_miss = on ? lsu_note_miss : NULL;
}

static void measure_from_here(void)
{
    mark.cycles = core_time();
    mark.insns = insns;
    memcpy(mark.causes, core_causes(), sizeof mark.causes);
}

static void take_measurement(void)
{
    struct tally *t = first_part ? &exact : &sampled;
    t->cycles += core_time() - mark.cycles;
    t->insns += insns - mark.insns;
    for (unsigned c = 0; c < N_CAUSES; c++)
        t->causes[c] += core_causes()[c] - mark.causes[c];
}

/* A window starts with a quarter that only warms up what the scoreboard remembers. */
static void next_phase(void)
{
    int64_t warm = config.window / 4;
    if (phase == MEASURING) {
        take_measurement();
        first_part = false;
        phase = SKIPPING;
        left += config.period - config.window;
        set_detailed(false);
        return;
    }
    if (phase == SKIPPING) {
        phase = WARMING;
        set_detailed(true);
        left += warm;
        if (warm)
            return;
    }
    phase = MEASURING;
    measure_from_here();
    left += config.window - warm;
}

void scoreboard_begin(void)
{
    previous = NULL;
    lsu_block_done();
    first_part = true;
    set_detailed(true);
    phase = MEASURING;
    /* Where nothing is skipped nothing need be extrapolated: the first part is all there is. */
    left = config.period > config.window ? config.full : INT64_MAX;
    measure_from_here();
    if (!left)
        next_phase();
}

static void replay(const struct block *block, bool taken, bool mispredicted)
{
    struct step *s = block->replay->steps, *end = s + block->replay->n;
    insns += block->replay->n;
    if (previous_stall)
        core_fetch_stall(previous_stall);
    for (; s < end; s++)
        core_step(s);
    lsu_block_done();
    if (end[-1].flags & STEP_BRANCH)
        core_branch(taken, mispredicted);
}

void scoreboard_end(void)
{
    if (detailed && previous)
        replay(previous, false, false);
    previous = NULL;
    if (phase == MEASURING)
        take_measurement();
    set_detailed(false);
    phase = SKIPPING;
}

/* What was measured stands for what was skipped, too. */
static double whole(uint64_t in_first_part, uint64_t in_windows, uint64_t region_insns)
{
    uint64_t rest = region_insns > exact.insns ? region_insns - exact.insns : 0;
    double rate = sampled.insns ? (double)in_windows / (double)sampled.insns
                : exact.insns   ? (double)in_first_part / (double)exact.insns
                                : 0;
    return (double)in_first_part + (double)rest * rate;
}

unsigned scoreboard_write(FILE *file, uint64_t region_insns)
{
    fprintf(file, "pipeline_cycles %.3f\n", whole(exact.cycles, sampled.cycles, region_insns));
    for (unsigned c = 0; c < N_CAUSES; c++)
        fprintf(file, "pipeline.%s %.3f\n", cause_names[c], whole(exact.causes[c], sampled.causes[c], region_insns));
    return 1 + N_CAUSES;
}

/* At the start of every block: the one before it is done, and where it went is known. */
void scoreboard_block(unsigned vcpu, void *data)
{
    const struct block *block = data;
    (void)vcpu;
    if (!counting)
        return;
    bool mispredicted = config.gshare_table_bits && branch_step(block);
    if (detailed && previous)
        replay(previous, block->pc != previous->pc + previous->code_bytes, mispredicted);
    previous = detailed ? block : NULL;
    previous_stall = lsu_fetch_stall();
    left -= block->insns;
    if (left <= 0)
        next_phase();
}
