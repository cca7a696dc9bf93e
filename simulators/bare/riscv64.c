/* SPDX-License-Identifier: Apache-2.0
 *
 * Sv39 page tables. The monitor itself runs in machine mode, without translation.
 */
#include "monitor.h"

enum { VALID = 1, USER = 16, ACCESSED = 64, DIRTY = 128 };

static uint64_t *root;

void map_init(void)
{
    root = table_new();
    uint64_t satp = 8ull << 60 | (uint64_t)root >> 12;
    __asm__ volatile("csrw satp, %0" : : "r"(satp));
}

void map_done(void) { __asm__ volatile("sfence.vma" : : : "memory"); }

/* The entry of `address` at a level (2 root, 0 pages of 4 KiB), tables made on the way. */
static uint64_t *entry(uint64_t address, int level)
{
    uint64_t *table = root;
    for (int at = 2;; at--) {
        uint64_t *place = table + (address >> (12 + 9 * at) & 511);
        if (at == level)
            return place;
        if (!*place)
            *place = (uint64_t)table_new() >> 12 << 10 | VALID;
        else if (*place & 14) { /* a big page: split it */
            uint64_t *parts = table_new(), step = 1ull << (12 + 9 * (at - 1));
            for (uint64_t n = 0; n < 512; n++)
                parts[n] = *place + (n * step >> 12 << 10);
            *place = (uint64_t)parts >> 12 << 10 | VALID;
        }
        table = (uint64_t *)(*place >> 10 << 12);
    }
}

void map(uint64_t address, uint64_t physical, uint64_t bytes, unsigned flags)
{
    uint64_t bits = VALID | USER | ACCESSED | DIRTY;
    bits |= (flags & 4 ? 2 : 0) | (flags & 2 ? 6 : 0) | (flags & 1 ? 8 : 0);
    while (bytes) {
        int big = address % BIG_PAGE == 0 && physical % BIG_PAGE == 0 && bytes >= BIG_PAGE;
        uint64_t step = big ? BIG_PAGE : PAGE;
        *entry(address, big) = physical >> 12 << 10 | bits;
        address += step, physical += step, bytes -= step;
    }
}

void unmap(uint64_t address, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += PAGE)
        *entry(address + done, 0) = 0;
    map_done();
}

uint64_t physical(uint64_t address, uint64_t *left)
{
    uint64_t *table = root;
    if (address >> 38)
        return 0;
    for (int at = 2; at >= 0; at--) {
        uint64_t e = table[address >> (12 + 9 * at) & 511], page = 1ull << (12 + 9 * at);
        if (!(e & VALID))
            return 0;
        if (e & 14) {
            *left = page - address % page;
            return (e >> 10 << 12) + address % page;
        }
        table = (uint64_t *)(e >> 10 << 12);
    }
    return 0;
}

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
