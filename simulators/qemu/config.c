/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration file: one setting per line, a key and its values. Unknown keys are errors, so
 * that the Python side and this one cannot drift apart unnoticed.
 *
 *   roi marker|all              limit INSTRUCTIONS           blocks N
 *   l1i SETS WAYS LINE          l1d, l2, l3 likewise         l1i_mode footprint|callback
 *   branch TABLE_BITS HISTORY_BITS LOOP_TRIPS                prefetch STREAMS DEGREE DISTANCE
 *   issue in-order|out-of-order WIDTH                        class NAME LATENCY BUSY PORT_MASK EARLY
 *   scoreboard FULL WINDOW PERIOD
 *   core RETIRE_WIDTH ROB SCHEDULER LOAD_QUEUE STORE_QUEUE
 *   front_end MISPREDICT_PENALTY TAKEN_BRANCH_PENALTY FETCH_BYTES FETCH_QUEUE FETCH_LINES
 *             FUSE_BRANCHES
 *   memory_unit FORWARD_LATENCY FORWARD_FAIL SPLIT_PENALTY STORE_INTERVAL MISSES EARLY_FETCH
 *               DEPENDENCE_BYTES ASSUME_HITS MASKED_STORE SET_INTERVAL
 *   tlb ENTRIES L2_ENTRIES L2_LATENCY WALK_LATENCY           fetch_ahead STREAMS DISTANCE
 *   serve l2|l3|memory LATENCY INTERVAL                      (beyond L1D; interval in 1/256 cycles)
 *   verify 0|1                  (checks every address that the plugin derives; for tests)
 */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

struct config config = {.distance = 1};
struct cache levels[N_LEVELS];

const char *const level_names[N_LEVELS] = {"l1i", "l1d", "l2", "l3"};

const char *const class_names[N_CLASSES] = {
    "int_alu", "int_mul", "int_div", "load", "store", "atomic", "branch", "jump", "fp_add", "fp_mul",
    "fp_fma", "fp_div", "fp_misc", "vec_alu", "vec_mul", "vec_fp_add", "vec_fp_mul", "vec_fp_fma",
    "vec_fp_div", "vec_misc", "vec_shuffle", "vec_load", "vec_store", "vec_config", "other"};

void config_complain(const char *text, int length)
{
    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        return; /* nowhere left to complain */
}

static bool read_level(unsigned level, const char *values)
{
    unsigned sets, ways, line;
    if (sscanf(values, "%u %u %u", &sets, &ways, &line) != 3)
        return false;
    if (line > 256) /* MAX_LINE of window.h */
        return false;
    config.has_level[level] = true;
    return cache_init(&levels[level], sets, ways, line, NULL);
}

static bool read_class(const char *values)
{
    char name[32];
    struct class_timing t;
    if (sscanf(values, "%31s %u %u %x %u", name, &t.latency, &t.busy, &t.ports, &t.early) != 5)
        return false;
    if (!t.busy || !t.ports || t.ports >> MAX_PORTS)
        return false;
    for (unsigned n = 0; n < N_CLASSES; n++)
        if (!strcmp(name, class_names[n])) {
            config.classes[n] = t;
            return true;
        }
    return false;
}

static bool read_server(const char *values)
{
    char name[32];
    unsigned latency, interval, level = MEMORY;
    if (sscanf(values, "%31s %u %u", name, &latency, &interval) != 3)
        return false;
    for (unsigned n = L2; n < N_LEVELS; n++)
        if (!strcmp(name, level_names[n]))
            level = n;
    config.level_latency[level] = latency;
    config.level_interval[level] = interval;
    return true;
}

static bool read_scoreboard(const char *key, const char *values, bool *known)
{
    struct config *c = &config;
    unsigned early = 0, assume = 0, fuse = 0;
    *known = true;
    if (!strcmp(key, "scoreboard")) {
        c->scoreboard = true;
        return sscanf(values, "%" SCNd64 " %" SCNd64 " %" SCNd64, &c->full, &c->window, &c->period) == 3 &&
               c->full >= 0 && c->window > 0 && c->period >= c->window;
    }
    if (!strcmp(key, "core"))
        return sscanf(values, "%u %u %u %u %u", &c->retire_width, &c->rob, &c->scheduler, &c->load_queue,
                      &c->store_queue) == 5 && c->retire_width;
    if (!strcmp(key, "front_end")) {
        int read = sscanf(values, "%u %u %u %u %u %u", &c->mispredict_penalty, &c->taken_branch_penalty, &c->fetch_bytes,
                      &c->fetch_queue, &c->fetch_lines, &fuse);
        c->fuse_branches = fuse;
        return read == 6;
    }
    if (!strcmp(key, "memory_unit")) {
        int read = sscanf(values, "%u %u %u %u %u %u %u %u %u %u", &c->forward_latency, &c->forward_fail,
                          &c->split_penalty, &c->store_interval, &c->misses, &early, &c->dependence_bytes, &assume,
                          &c->masked_store, &c->set_interval);
        c->early_fetch = early;
        c->assume_hits = assume;
        c->granule_bits = c->dependence_bytes >= 16 ? 4 : 3;
        return read == 10 && c->misses <= 64 && c->masked_store && c->masked_store < 256;
    }
    if (!strcmp(key, "tlb"))
        return sscanf(values, "%u %u %u %u", &c->tlb_entries, &c->l2_tlb_entries, &c->l2_tlb_latency,
                      &c->walk_latency) == 4;
    if (!strcmp(key, "fetch_ahead"))
        return sscanf(values, "%u %u", &c->fetch_streams, &c->fetch_distance) == 2 && c->fetch_streams <= 64 &&
               c->fetch_distance < 64;
    if (!strcmp(key, "serve"))
        return read_server(values);
    *known = false;
    return false;
}

static bool read_setting(const char *key, const char *values)
{
    char word[32] = "";
    sscanf(values, "%31s", word);
    if (!strcmp(key, "roi"))
        config.roi_all = !strcmp(word, "all");
    else if (!strcmp(key, "limit"))
        return sscanf(values, "%lu", &config.limit) == 1;
    else if (!strcmp(key, "blocks"))
        return sscanf(values, "%u", &config.hot_blocks) == 1;
    else if (!strcmp(key, "verify"))
        config.verify = *word == '1';
    else if (!strcmp(key, "l1i_mode"))
        config.l1i_callback = !strcmp(word, "callback");
    else if (!strcmp(key, "branch"))
        return sscanf(values, "%u %u %u", &config.gshare_table_bits, &config.gshare_history_bits,
                      &config.loop_trips) == 3 &&
               config.gshare_table_bits <= 28 && config.gshare_history_bits <= 63;
    else if (!strcmp(key, "prefetch"))
        return sscanf(values, "%u %u %u", &config.streams, &config.degree, &config.distance) == 3;
    else if (!strcmp(key, "issue")) {
        config.out_of_order = !strcmp(word, "out-of-order");
        return sscanf(values, "%*s %u", &config.issue_width) == 1;
    } else if (!strcmp(key, "class"))
        return read_class(values);
    else {
        bool known, good = read_scoreboard(key, values, &known);
        if (known)
            return good;
        for (unsigned n = 0; n < N_LEVELS; n++)
            if (!strcmp(key, level_names[n]))
                return read_level(n, values);
        return false;
    }
    return true;
}

/*
 * Numbers the ports so that those which fewer classes can use come first: an instruction that has a
 * choice leaves the others to those that have none.
 */
static void rename_ports(void)
{
    unsigned demand[MAX_PORTS] = {0}, order[MAX_PORTS];
    for (unsigned c = 0; c < N_CLASSES; c++)
        for (unsigned p = 0; p < MAX_PORTS; p++)
            if (config.classes[c].ports >> p & 1)
                demand[p] += 840 / (unsigned)__builtin_popcount(config.classes[c].ports);
    for (unsigned p = 0; p < MAX_PORTS; p++) {
        unsigned at = p;
        for (; at > 0 && demand[order[at - 1]] > demand[p]; at--)
            order[at] = order[at - 1];
        order[at] = p;
    }
    for (unsigned c = 0; c < N_CLASSES; c++) {
        uint32_t ports = 0;
        for (unsigned n = 0; n < MAX_PORTS; n++)
            ports |= (config.classes[c].ports >> order[n] & 1) << n;
        config.classes[c].ports = ports;
    }
}

bool config_read(const char *path)
{
    char line[256], message[512];
    FILE *file = fopen(path, "re");
    bool good = file != NULL;
    while (good && fgets(line, sizeof line, file)) {
        char key[32];
        int used = 0;
        if (sscanf(line, "%31s %n", key, &used) == 1 && *key != '#')
            good = read_setting(key, line + used);
    }
    if (file)
        fclose(file);
    if (good) {
        struct cache *below = NULL;
        for (unsigned n = L3; n >= L2; n--)
            if (config.has_level[n]) {
                levels[n].next = below;
                levels[n].enabled = true;
                below = &levels[n];
            }
        levels[L1I].next = levels[L1D].next = below;
        rename_ports();
        return true;
    }
    int n = snprintf(message, sizeof message, "simtune plugin: bad configuration %.200s: %.200s\n", path,
                     file ? line : "cannot be opened");
    config_complain(message, n);
    return false;
}
