/* SPDX-License-Identifier: Apache-2.0
 *
 * Sv39 page tables. The monitor itself runs in machine mode, without translation.
 */
#include "monitor.h"

enum { VALID = 1, READ = 2, WRITE = 4, EXECUTE = 8, USER = 16, ACCESSED = 64, DIRTY = 128 };

const unsigned address_bits = 38;

void map_init(void)
{
    page_root = table_new();
    uint64_t satp = 8ull << 60 | (uint64_t)page_root >> 12;
    __asm__ volatile("csrw satp, %0" : : "r"(satp));
}

void map_done(void) { __asm__ volatile("sfence.vma" : : : "memory"); }

uint64_t table_entry(uint64_t *table) { return (uint64_t)table >> 12 << 10 | VALID; }

uint64_t leaf_entry(uint64_t physical, int level, unsigned flags)
{
    uint64_t bits = VALID | USER | ACCESSED | DIRTY;
    (void)level;
    bits |= (flags & 4 ? READ : 0) | (flags & 2 ? READ | WRITE : 0) | (flags & 1 ? EXECUTE : 0);
    return physical >> 12 << 10 | bits;
}

int entry_is_leaf(uint64_t entry, int level)
{
    (void)level;
    return (entry & (READ | WRITE | EXECUTE)) != 0;
}

int entry_is_user(uint64_t entry) { return (entry & USER) != 0; }

uint64_t entry_part(uint64_t entry, uint64_t offset, int level)
{
    (void)level;
    return entry + (offset >> 12 << 10);
}

uint64_t entry_address(uint64_t entry) { return entry >> 10 << 12; }

uint64_t clock_ns(void)
{
    uint64_t cycles;
    __asm__ volatile("csrr %0, mcycle" : "=r"(cycles));
    return cycles; /* as if at 1 GHz: nothing is timed by it */
}

uint64_t hwcap(void)
{
    /* a, c, d, f, i, m, as Linux names them */
    return 1 << 0 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 12;
}
