/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sums the block table and writes the report: lines `name value` with the counters' canonical
 * names, lines `block ADDRESS EXECUTIONS INSTRUCTIONS CODE`, one `status` line, and last `end N`
 * with the number of lines before it, so that a truncated file is recognised.
 */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>

struct totals totals;
bool counting;

static const char *const status_names[] = {"complete", "no_region", "open_region", "instruction_limit",
                                           "needs_l1i"};
static unsigned lines_written;

/* Executions in all regions, the current one included. */
static uint64_t executions(unsigned index)
{
    const struct block *b = block_at(index);
    return b->executions + (counting ? block_counter(index) - b->base : 0);
}

uint64_t report_instructions(void)
{
    uint64_t sum = 0;
    for (unsigned n = 0, total = block_total(); n < total; n++)
        sum += executions(n) * block_at(n)->insns;
    return sum;
}

static void line(FILE *file, const char *name, const char *part, uint64_t value)
{
    fprintf(file, "%s%s %" PRIu64 "\n", name, part, value);
    lines_written++;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Distinct lines of executed code, sorted; the caller frees. */
static uint64_t *code_lines(unsigned bits, size_t *count)
{
    size_t n = 0, room = 0, distinct = 0;
    for (unsigned b = 0; b < block_total(); b++)
        room += executions(b) ? (block_at(b)->code_bytes >> bits) + 2 : 0;
    uint64_t *found = malloc((room + 1) * sizeof *found);
    if (!found)
        abort();
    for (unsigned b = 0; b < block_total(); b++) {
        const struct block *block = block_at(b);
        if (executions(b))
            for (uint64_t l = block->pc >> bits; l <= (block->pc + block->code_bytes - 1) >> bits; l++)
                found[n++] = l;
    }
    qsort(found, n, sizeof *found, by_value);
    for (size_t k = 0; k < n; k++)
        if (k == 0 || found[k] != found[k - 1])
            found[distinct++] = found[k];
    *count = distinct;
    return found;
}

/* If no set of L1I is asked to hold more lines than it has ways, each line misses exactly once. */
static bool footprint_is_exact(void)
{
    const struct cache *c = &levels[L1I];
    size_t count;
    bool exact = true;
    uint64_t *found = code_lines(c->line_bits, &count);
    unsigned *held = calloc(c->sets, sizeof *held);
    for (size_t n = 0; n < count && held; n++)
        exact &= ++held[found[n] % c->sets] <= c->ways;
    free(held);
    free(found);
    return exact;
}

static uint64_t distinct_lines(unsigned bits)
{
    size_t count;
    free(code_lines(bits, &count));
    return count;
}

/* Bytes of distinct code: block ranges may overlap, since one can jump into another's middle. */
static uint64_t code_bytes(void)
{
    return distinct_lines(0);
}

static void instruction_cache(FILE *file)
{
    struct cache *c = &levels[L1I];
    uint64_t fetches = 0;
    for (unsigned b = 0; b < block_total(); b++) {
        const struct block *k = block_at(b);
        uint64_t lines = ((k->pc + k->code_bytes - 1) >> c->line_bits) - (k->pc >> c->line_bits) + 1;
        fetches += executions(b) * lines;
    }
    if (!config.l1i_callback) {
        c->read_misses = distinct_lines(c->line_bits);
        for (struct cache *below = c->next; below; below = below->next) {
            uint64_t lines = distinct_lines(below->line_bits);
            below->reads += lines;
            below->read_misses += lines;
        }
    }
    line(file, "l1i", ".read_hits", fetches - c->read_misses);
    line(file, "l1i", ".read_misses", c->read_misses);
}

static void data_caches(FILE *file)
{
    for (unsigned n = L1D; n < N_LEVELS; n++) {
        const struct cache *c = &levels[n];
        if (!config.has_level[n])
            continue;
        line(file, level_names[n], ".read_hits", c->reads - c->read_misses);
        line(file, level_names[n], ".read_misses", c->read_misses);
        line(file, level_names[n], ".write_hits", c->writes - c->write_misses);
        line(file, level_names[n], ".write_misses", c->write_misses);
        line(file, level_names[n], ".writebacks", c->writebacks);
    }
    /* Memory is read by what misses in the last level; write-backs into that level fetch nothing. */
    const struct cache *last = levels[L1D].next;
    while (last && last->next)
        last = last->next;
    const struct cache *l1d = &levels[L1D], *l1i = &levels[L1I];
    uint64_t reads = last ? last->read_misses << last->line_bits
                          : ((l1d->read_misses + l1d->write_misses + totals.prefetches) << l1d->line_bits) +
                                (l1i->read_misses << l1i->line_bits);
    line(file, "dram_read_bytes", "", reads);
    line(file, "dram_write_bytes", "", last ? last->writebacks << last->line_bits
                                            : l1d->writebacks << l1d->line_bits);
}

struct hot {
    uint64_t executions;
    const struct block *block;
};

static int by_address(const void *a, const void *b)
{
    const struct block *x = ((const struct hot *)a)->block, *y = ((const struct hot *)b)->block;
    return x->pc != y->pc ? (x->pc > y->pc) - (x->pc < y->pc) : (x->insns > y->insns) - (x->insns < y->insns);
}

static int by_heat(const void *a, const void *b)
{
    const struct hot *x = a, *y = b;
    uint64_t p = x->executions * x->block->insns, q = y->executions * y->block->insns;
    return p != q ? (p < q) - (p > q) : by_address(a, b);
}

static void hot_blocks(FILE *file)
{
    unsigned total = block_total(), n = 0, merged = 0;
    struct hot *list = calloc(total + 1, sizeof *list);
    for (unsigned b = 0; list && b < total; b++)
        if (executions(b))
            list[n++] = (struct hot){executions(b), block_at(b)};
    if (!list)
        return;
    qsort(list, n, sizeof *list, by_address); /* the same code may have been translated twice */
    for (unsigned k = 0; k < n; k++) {
        if (merged && !by_address(list + merged - 1, list + k))
            list[merged - 1].executions += list[k].executions;
        else
            list[merged++] = list[k];
    }
    qsort(list, merged, sizeof *list, by_heat);
    for (unsigned k = 0; k < merged && k < config.hot_blocks; k++) {
        const struct block *b = list[k].block;
        fprintf(file, "block 0x%" PRIx64 " %" PRIu64 " %u ", b->pc, list[k].executions, b->insns);
        for (unsigned byte = 0; byte < b->code_bytes; byte++)
            fprintf(file, "%02x", b->code[byte]);
        fputc('\n', file);
        lines_written++;
    }
    free(list);
}

static void counters(FILE *file)
{
    uint64_t classes[N_CLASSES] = {0}, insns = 0, blocks = 0, millicycles = 0;
    struct totals t = totals;
    uint64_t static_bytes = 0;
    for (unsigned b = 0; b < block_total(); b++) {
        const struct block *k = block_at(b);
        uint64_t n = executions(b);
        for (unsigned c = 0; c < N_CLASSES; c++)
            classes[c] += n * k->classes[c];
        insns += n * k->insns;
        blocks += n;
        millicycles += n * k->issue_millicycles;
        t.loads += n * k->loads;
        t.stores += n * k->stores;
        t.load_bytes += n * k->load_bytes;
        t.store_bytes += n * k->store_bytes;
        t.line_reads += n * k->line_reads;
        t.line_writes += n * k->line_writes;
        static_bytes += n * (k->load_bytes + k->store_bytes);
    }
    line(file, "instructions", "", insns);
    line(file, "loads", "", t.loads);
    line(file, "stores", "", t.stores);
    line(file, "load_bytes", "", t.load_bytes);
    line(file, "store_bytes", "", t.store_bytes);
    line(file, "branches", "", classes[BRANCH]);
    line(file, "blocks", "", blocks);
    line(file, "code_bytes", "", code_bytes());
    for (unsigned c = 0; c < N_CLASSES; c++) {
        char name[40];
        snprintf(name, sizeof name, "insn.%s", class_names[c]);
        line(file, name, "", classes[c]);
    }
    if (config.issue_width) {
        fprintf(file, "issue_cycles %" PRIu64 ".%03u\n", millicycles / 1000, (unsigned)(millicycles % 1000));
        lines_written++;
    }
    if (config.scoreboard) {
        fprintf(file, "pipeline_cycles %.3f\n", scoreboard_cycles(insns));
        lines_written++;
    }
    if (config.gshare_table_bits)
        line(file, "branch_mispredicts", "", totals.mispredicts);
    if (config.streams)
        line(file, "prefetches", "", totals.prefetches);
    if (config.has_level[L1D]) {
        levels[L1D].reads = t.line_reads;
        levels[L1D].writes = t.line_writes;
    }
    if (config.has_level[L1I])
        instruction_cache(file);
    if (config.has_level[L1D])
        data_caches(file);
    if (config.verify) {
        line(file, "verify.static_bytes", "", static_bytes);
        line(file, "verify.reported_bytes", "", totals.verified_bytes);
    }
}

bool report_write(int status)
{
    FILE *file = fopen(config.out, "we");
    if (!file)
        return false;
    lines_written = 0;
    if (config.has_level[L1I] && !config.l1i_callback && status == STATUS_COMPLETE && !footprint_is_exact())
        status = STATUS_NEEDS_L1I;
    if (status != STATUS_NO_REGION && status != STATUS_NEEDS_L1I) {
        counters(file);
        hot_blocks(file);
    }
    fprintf(file, "status %s\n", status_names[status]);
    fprintf(file, "end %u\n", lines_written + 1);
    return fclose(file) == 0;
}
