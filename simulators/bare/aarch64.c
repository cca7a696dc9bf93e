/* SPDX-License-Identifier: Apache-2.0
 *
 * Page tables with 4 KiB pages and 39 bits of address. The three gigabytes of memory are mapped one to
 * one for level 1 only; programs lie below them, tensors and stack above.
 */
#include "monitor.h"

enum { TABLE = 3, PAGE_ENTRY = 3, BLOCK = 1, ACCESSED = 1 << 10, INNER = 3 << 8, USER = 1 << 6 };
enum { READ_ONLY = 1 << 7, GIGABYTE_SHIFT = 30 };
#define NO_USER_CODE (1ull << 54)
#define NO_MONITOR_CODE (1ull << 53)
#define ADDRESS 0xfffffffff000ull

const unsigned address_bits = 39;

void map_init(void)
{
    page_root = table_new();
    for (uint64_t n = 0; n < 3; n++) { /* 0x40000000 to 0x100000000 */
        uint64_t address = ram_base + (n << GIGABYTE_SHIFT);
        page_root[address >> GIGABYTE_SHIFT] = address | BLOCK | ACCESSED | INNER | NO_USER_CODE;
    }
    uint64_t attributes = 0xff; /* write-back memory */
    /* 39 bits below, nothing above, write-back table walks, 40 bits of physical address */
    uint64_t control = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2ull << 32;
    uint64_t system;
    __asm__ volatile("msr mair_el1, %0\n\tmsr tcr_el1, %1\n\tmsr ttbr0_el1, %2\n\tisb\n\ttlbi vmalle1\n\tdsb sy"
                     : : "r"(attributes), "r"(control), "r"(page_root) : "memory");
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

uint64_t table_entry(uint64_t *table) { return (uint64_t)table | TABLE; }

uint64_t leaf_entry(uint64_t physical, int level, unsigned flags)
{
    uint64_t bits = ACCESSED | INNER | USER | NO_MONITOR_CODE | (level ? BLOCK : PAGE_ENTRY);
    return physical | bits | (flags & 2 ? 0 : READ_ONLY) | (flags & 1 ? 0 : NO_USER_CODE);
}

int entry_is_leaf(uint64_t entry, int level) { return level == 0 || (entry & 3) == BLOCK; }

int entry_is_user(uint64_t entry) { return (entry & USER) != 0; }

uint64_t entry_part(uint64_t entry, uint64_t offset, int level)
{
    return (entry + offset) | (level ? BLOCK : PAGE_ENTRY);
}

uint64_t entry_address(uint64_t entry) { return entry & ADDRESS; }

uint64_t clock_ns(void)
{
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks * 16; /* nothing is timed by it */
}

uint64_t hwcap(void) { return 3; /* floating point, vectors */ }
