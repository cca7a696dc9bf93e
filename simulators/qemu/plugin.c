/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * simtune's QEMU plugin: counts what a region of a guest program executes, and models its caches.
 *
 *   qemu-ARCH -plugin simtune.so,config=FILE,out=FILE program
 *
 * Everything that a block does every time is worked out once, at translation; at run time an inline
 * addition per block counts its executions. Only data accesses need callbacks (access.c). The
 * region starts and ends at marker instructions, which are themselves not counted. One guest thread
 * is modelled.
 */
#include "scoreboard.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

enum { BLOCK_PAGES = 4096, MAX_INSN_BYTES = 16 };

PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_API;
PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t, const qemu_info_t *, int, char **);

static struct block *block_pages[BLOCK_PAGES];
static counter_page *counter_pages[BLOCK_PAGES];
static unsigned n_blocks;
static pthread_mutex_t region_lock = PTHREAD_MUTEX_INITIALIZER;
static bool region_seen, reported, warm;
static pid_t own_pid;
static void (*decode)(const uint8_t *, struct insn *);

/* ---- the block table ---- */

unsigned block_total(void)
{
    return __atomic_load_n(&n_blocks, __ATOMIC_ACQUIRE);
}

struct block *block_at(unsigned index)
{
    return block_pages[index / COUNTERS_PER_PAGE] + index % COUNTERS_PER_PAGE;
}

uint64_t block_counter(unsigned index)
{
    const uint64_t *values = counter_page_values(counter_pages[index / COUNTERS_PER_PAGE]);
    return __atomic_load_n(values + index % COUNTERS_PER_PAGE, __ATOMIC_RELAXED);
}

struct block *block_new(struct qemu_plugin_insn *first)
{
    unsigned page = n_blocks / COUNTERS_PER_PAGE, index = n_blocks % COUNTERS_PER_PAGE;
    if (page == BLOCK_PAGES)
        abort(); /* four million translations */
    if (!block_pages[page]) {
        counter_pages[page] = counter_page_new();
        block_pages[page] = calloc(COUNTERS_PER_PAGE, sizeof(struct block));
        if (!counter_pages[page] || !block_pages[page])
            abort();
    }
    count_insn(first, counter_pages[page], index);
    return block_pages[page] + index;
}

/* ---- the region of interest ---- */

static void finish(int status, int exit_code)
{
    if (reported || getpid() != own_pid) /* a forked child has nothing to report */
        return;
    reported = true;
    if (!report_write(status) && !exit_code)
        exit_code = 1;
    if (exit_code)
        _exit(exit_code);
}

/* From here on the data caches follow what happens, so that the region finds in them what it would. */
static void warm_begin(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    if (counting)
        return;
    warm = true;
    access_enable(true);
}

static void region_begin(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    if (counting)
        return;
    pthread_mutex_lock(&region_lock);
    for (unsigned n = 0; n < block_total(); n++)
        block_at(n)->base = block_counter(n);
    branch_reset_history();
    if (config.scoreboard)
        scoreboard_begin();
    region_seen = counting = true;
    access_enable(true);
    for (unsigned n = L1D; warm && n < N_LEVELS; n++)
        cache_forget_counts(&levels[n]);
    warm = false;
    if (config.has_level[L1I])
        cache_enable(&levels[L1I], true);
    pthread_mutex_unlock(&region_lock);
}

static bool over_limit(void)
{
    return config.limit && report_instructions() > config.limit;
}

static void region_end(unsigned vcpu, void *unused)
{
    (void)vcpu, (void)unused;
    if (!counting)
        return;
    pthread_mutex_lock(&region_lock);
    if (over_limit())
        finish(STATUS_LIMIT, EXIT_LIMIT);
    if (config.scoreboard)
        scoreboard_end();
    for (unsigned n = 0; n < block_total(); n++) {
        struct block *block = block_at(n);
        block->executions += block_counter(n) - block->base;
    }
    counting = false;
    access_enable(false);
    if (config.has_level[L1I])
        cache_enable(&levels[L1I], false);
    pthread_mutex_unlock(&region_lock);
}

static void *watchdog(void *unused)
{
    (void)unused;
    for (;;) {
        usleep(10000);
        pthread_mutex_lock(&region_lock);
        if (counting && over_limit())
            finish(STATUS_LIMIT, EXIT_LIMIT);
        pthread_mutex_unlock(&region_lock);
    }
    return NULL;
}

static void at_exit(qemu_plugin_id_t id, void *unused)
{
    (void)id, (void)unused;
    pthread_mutex_lock(&region_lock); /* for good: the watchdog must not end a finished run */
    if (config.roi_all && over_limit())
        finish(STATUS_LIMIT, EXIT_LIMIT);
    bool open = counting && !config.roi_all;
    if (config.roi_all && config.scoreboard)
        scoreboard_end();
    finish(open ? STATUS_OPEN_REGION : region_seen ? STATUS_COMPLETE : STATUS_NO_REGION, 0);
}

/* ---- translation ---- */

static void fetch_code(unsigned vcpu, void *data)
{
    const struct block *block = data;
    (void)vcpu;
    if (counting)
        cache_range(&levels[L1I], block->pc, block->code_bytes, false);
}

/*
 * Code that is translated inside the region is about to run. If it cannot fit, the footprint rule
 * for L1I will fail in the end: stop now, and be started again with callbacks.
 */
static void watch_footprint(uint64_t pc, uint64_t bytes)
{
    static uint64_t *held;
    const struct cache *c = &levels[L1I];
    if (!config.has_level[L1I] || config.l1i_callback || !counting)
        return;
    if (!held && !(held = calloc((size_t)c->sets * c->ways, sizeof *held)))
        abort();
    for (uint64_t line = pc >> c->line_bits; line <= (pc + bytes - 1) >> c->line_bits; line++) {
        uint64_t *set = held + line % c->sets * c->ways;
        unsigned way = 0;
        while (way < c->ways && set[way] && set[way] != line)
            way++;
        if (way == c->ways) {
            pthread_mutex_lock(&region_lock);
            finish(STATUS_NEEDS_L1I, EXIT_NEEDS_L1I);
        }
        set[way] = line;
    }
}

static void close_block(struct block *block, const struct insn *insns, unsigned n, const uint8_t *code,
                        struct place (*places)[2])
{
    const struct insn *last = insns + n - 1;
    block->insns = (uint16_t)n;
    block->code_bytes = (uint32_t)(last->pc + last->size - block->pc);
    if (last->cls == BRANCH)
        block->fall_through = last->pc + last->size;
    for (unsigned k = 0; k < n; k++) {
        const struct insn *i = insns + k;
        bool dynamic_count = i->flags & (INSN_REPEATED | INSN_UNKNOWN);
        block->classes[i->cls]++;
        block->loads += i->is_load && !dynamic_count;
        block->stores += i->is_store && !dynamic_count;
        for (unsigned m = 0; m < i->n_mem && !dynamic_count; m++)
            *(i->mem[m].store ? &block->store_bytes : &block->load_bytes) += i->mem[m].size;
    }
    if (config.issue_width)
        block->issue_millicycles = issue_cost(insns, n, last->target == block->pc);
    if (config.scoreboard)
        scoreboard_translate(block, insns, n, places);
    block->code = malloc(block->code_bytes);
    if (block->code)
        memcpy(block->code, code, block->code_bytes);
    __atomic_store_n(&n_blocks, n_blocks + 1, __ATOMIC_RELEASE);
}

/*
 * RVV: how many registers an operation works on, by the last vsetvli. That ends a translation block,
 * so what a block starts with is known by its address, or else is what was seen last.
 */
static unsigned group_size(struct insn *insn, bool first)
{
    enum { REMEMBERED = 1024 };
    static struct {
        uint64_t pc;
        unsigned scale;
    } after[REMEMBERED];
    static unsigned scale = 1;
    if (first && after[insn->pc / 2 % REMEMBERED].pc == insn->pc)
        scale = after[insn->pc / 2 % REMEMBERED].scale;
    if (insn->cls == VEC_CONFIG && insn->scale) {
        uint64_t next = insn->pc + insn->size;
        scale = insn->scale;
        after[next / 2 % REMEMBERED].pc = next;
        after[next / 2 % REMEMBERED].scale = scale;
    }
    return scale;
}

/* False for an instruction that QEMU took back out of the block, see length_x86.c. */
static bool last_is_whole(struct qemu_plugin_tb *tb, size_t n)
{
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    uint8_t raw[2 * MAX_INSN_BYTES] = {0};
    size_t size = qemu_plugin_insn_size(last);
    uint64_t left = -qemu_plugin_insn_vaddr(last) & 0xfff; /* bytes on its page */
    if (left == 0 || left >= MAX_INSN_BYTES || size > left || size >= MAX_INSN_BYTES)
        return true;
    insn_bytes(last, raw, size);
    return x86_length(raw) <= size;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    static struct insn insns[512];
    static struct place places[512][2];
    static uint8_t code[512 * MAX_INSN_BYTES];
    static const size_t room = sizeof insns / sizeof *insns;
    size_t n = qemu_plugin_tb_n_insns(tb), used = 0, bytes = 0;
    struct block *block = NULL;
    (void)id;
    access_begin_block();
    if (n > 1 && decode == decode_x86 && !last_is_whole(tb, n))
        n--;
    for (size_t k = 0; k < n; k++) {
        struct qemu_plugin_insn *handle = qemu_plugin_tb_get_insn(tb, k);
        uint8_t raw[2 * MAX_INSN_BYTES] = {0}; /* decoders may look past the end */
        struct insn *insn = insns + used;
        *insn = (struct insn){.pc = qemu_plugin_insn_vaddr(handle)};
        insn->size = (uint8_t)qemu_plugin_insn_size(handle);
        if (insn->size > MAX_INSN_BYTES)
            insn->size = MAX_INSN_BYTES;
        insn_bytes(handle, raw, insn->size);
        decode(raw, insn);
        insn->scale = (uint8_t)group_size(insn, k == 0);
        bool marker = insn->flags & (INSN_MARK_BEGIN | INSN_MARK_END | INSN_MARK_WARM) && !config.roi_all;
        if (block && (marker || used == room)) {
            access_barrier();
            close_block(block, insns, (unsigned)used, code, places);
            block = NULL;
        }
        if (marker) {
            exec_fn *fn = insn->flags & INSN_MARK_BEGIN ? region_begin
                          : insn->flags & INSN_MARK_END ? region_end
                                                        : warm_begin;
            access_barrier();
            qemu_plugin_register_vcpu_insn_exec_cb(handle, fn, QEMU_PLUGIN_CB_NO_REGS, NULL);
            continue;
        }
        if (!block) {
            block = block_new(handle);
            block->pc = insn->pc;
            insns[0] = *insn;
            insn = insns;
            used = bytes = 0;
            if (config.has_level[L1I] && config.l1i_callback)
                qemu_plugin_register_vcpu_insn_exec_cb(handle, fetch_code, QEMU_PLUGIN_CB_NO_REGS, block);
            if (config.scoreboard)
                qemu_plugin_register_vcpu_insn_exec_cb(handle, scoreboard_block, QEMU_PLUGIN_CB_NO_REGS, block);
            else if (config.gshare_table_bits)
                qemu_plugin_register_vcpu_insn_exec_cb(handle, branch_block, QEMU_PLUGIN_CB_NO_REGS, block);
        }
        memset(places[used], 0, sizeof places[used]);
        access_insn(handle, insn, block, places[used]);
        memcpy(code + bytes, raw, insn->size);
        bytes += insn->size;
        used++;
    }
    access_barrier();
    if (block) {
        close_block(block, insns, (unsigned)used, code, places);
        watch_footprint(block->pc, block->code_bytes);
    }
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*decode)(const uint8_t *, struct insn *);
    } targets[] = {{"riscv64", decode_riscv}, {"aarch64", decode_a64}, {"x86_64", decode_x86}};
    const char *path = NULL;
    for (int n = 0; n < argc; n++) {
        if (!strncmp(argv[n], "config=", 7))
            path = argv[n] + 7;
        else if (!strncmp(argv[n], "out=", 4))
            snprintf(config.out, sizeof config.out, "%s", argv[n] + 4);
    }
    for (size_t n = 0; n < sizeof targets / sizeof *targets; n++)
        if (!strcmp(info->target_name, targets[n].name))
            decode = targets[n].decode;
    own_pid = getpid();
    bool good = decode && path && *config.out && config_read(path);
    if (good && config.gshare_table_bits)
        good = branch_init();
    config.x86 = decode == decode_x86;
    config.shared_simd = decode != decode_riscv;
    if (good && config.scoreboard)
        good = scoreboard_init();
    if (good && config.streams)
        good = prefetch_init();
    if (!good) {
        static const char usage[] = "simtune plugin: needs a known guest, config=FILE and out=FILE\n";
        config_complain(usage, sizeof usage - 1);
        return 1;
    }
    pthread_t thread;
    if (config.limit && pthread_create(&thread, NULL, watchdog, NULL))
        return 1;
    if (config.roi_all)
        region_begin(0, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
