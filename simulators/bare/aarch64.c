/* SPDX-License-Identifier: Apache-2.0
 *
 * Page tables with 4 KiB pages and 39 bits of address. The three gigabytes of memory are mapped one to
 * one for level 1 only; programs lie below them, tensors and stack above.
 */
#include "monitor.h"

enum { VALID = 1, TABLE = 3, PAGE_ENTRY = 3, BLOCK = 1, ACCESSED = 1 << 10, INNER = 3 << 8, USER = 1 << 6 };
enum { READ_ONLY = 1 << 7, GIGABYTE_SHIFT = 30 };
#define NO_USER_CODE (1ull << 54)
#define NO_MONITOR_CODE (1ull << 53)
#define ADDRESS 0xfffffffff000ull

static uint64_t *root;

void map_init(void)
{
    root = table_new();
    for (uint64_t n = 0; n < 3; n++) { /* 0x40000000 to 0x100000000 */
        uint64_t address = ram_base + (n << GIGABYTE_SHIFT);
        root[address >> GIGABYTE_SHIFT] = address | BLOCK | ACCESSED | INNER | NO_USER_CODE;
    }
    uint64_t attributes = 0xff; /* write-back memory */
    /* 39 bits below, nothing above, write-back table walks, 40 bits of physical address */
    uint64_t control = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2ull << 32;
    uint64_t system;
    __asm__ volatile("msr mair_el1, %0\n\tmsr tcr_el1, %1\n\tmsr ttbr0_el1, %2\n\tisb\n\ttlbi vmalle1\n\tdsb sy"
                     : : "r"(attributes), "r"(control), "r"(root) : "memory");
    __asm__ volatile("mrs %0, sctlr_el1" : "=r"(system));
    /* translation, caches; the program may zero lines, maintain caches and read their types */
    system |= 1 | 1 << 2 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 26;
    system &= ~(2ull | 1ull << 19); /* no alignment checks, writable code is code */
    __asm__ volatile("msr sctlr_el1, %0\n\tisb" : : "r"(system) : "memory");
}

void map_done(void)
{
    __asm__ volatile("dsb ishst\n\ttlbi vmalle1is\n\tdsb ish\n\tisb" : : : "memory");
}

/* The entry of `address` at a level (1 root, 2 blocks of 2 MiB, 3 pages), tables made on the way. */
static uint64_t *entry(uint64_t address, int level)
{
    uint64_t *table = root;
    for (int at = 1;; at++) {
        uint64_t *place = table + (address >> (12 + 9 * (3 - at)) & 511);
        if (at == level)
            return place;
        if (!*place)
            *place = (uint64_t)table_new() | TABLE;
        else if ((*place & 3) == BLOCK) { /* split it */
            uint64_t *parts = table_new(), step = 1ull << (12 + 9 * (2 - at));
            for (uint64_t n = 0; n < 512; n++)
                parts[n] = (*place + n * step) | (at == 2 ? PAGE_ENTRY : BLOCK);
            *place = (uint64_t)parts | TABLE;
        }
        table = (uint64_t *)(*place & ADDRESS);
    }
}

void map(uint64_t address, uint64_t physical, uint64_t bytes, unsigned flags)
{
    uint64_t bits = ACCESSED | INNER | USER | NO_MONITOR_CODE;
    bits |= (flags & 2 ? 0 : READ_ONLY) | (flags & 1 ? 0 : NO_USER_CODE);
    while (bytes) {
        int big = address % BIG_PAGE == 0 && physical % BIG_PAGE == 0 && bytes >= BIG_PAGE;
        uint64_t step = big ? BIG_PAGE : PAGE;
        *entry(address, big ? 2 : 3) = physical | bits | (big ? BLOCK : PAGE_ENTRY);
        address += step, physical += step, bytes -= step;
    }
}

void unmap(uint64_t address, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += PAGE)
        *entry(address + done, 3) = 0;
    map_done();
}

uint64_t physical(uint64_t address, uint64_t *left)
{
    uint64_t *table = root;
    if (address >> 39)
        return 0;
    for (int at = 1; at <= 3; at++) {
        uint64_t e = table[address >> (12 + 9 * (3 - at)) & 511], page = 1ull << (12 + 9 * (3 - at));
        if (!(e & VALID))
            return 0;
        if (at == 3 || (e & 3) == BLOCK) {
            if (!(e & USER))
                return 0; /* the monitor's own */
            *left = page - address % page;
            return (e & ADDRESS & ~(page - 1)) + address % page;
        }
        table = (uint64_t *)(e & ADDRESS);
    }
    return 0;
}

uint64_t clock_ns(void)
{
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks * 16; /* nothing is timed by it */
}

uint64_t hwcap(void) { return 3; /* floating point, vectors */ }
