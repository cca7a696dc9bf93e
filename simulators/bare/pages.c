/* SPDX-License-Identifier: Apache-2.0
 *
 * Three levels of tables with 512 entries each, from level 2, the root, down to pages of 4 KiB at level
 * 0. What an entry looks like is up to the instruction set.
 */
#include "monitor.h"

uint64_t *page_root;

static uint64_t reach(int level)
{
    return PAGE << 9 * level;
}

static uint64_t *place(uint64_t *table, uint64_t address, int level)
{
    return table + (address / reach(level) & 511);
}

/* The entry of `address` at a level, tables made on the way. */
static uint64_t *entry(uint64_t address, int level)
{
    uint64_t *table = page_root;
    for (int at = 2;; at--) {
        uint64_t *found = place(table, address, at);
        if (at == level)
            return found;
        if (!*found)
            *found = table_entry(table_new());
        else if (entry_is_leaf(*found, at)) { /* a big page: split it */
            uint64_t *parts = table_new();
            for (uint64_t n = 0; n < 512; n++)
                parts[n] = entry_part(*found, n * reach(at - 1), at - 1);
            *found = table_entry(parts);
        }
        table = (uint64_t *)entry_address(*found);
    }
}

void map(uint64_t address, uint64_t physical, uint64_t bytes, unsigned flags)
{
    while (bytes) {
        int level = address % BIG_PAGE == 0 && physical % BIG_PAGE == 0 && bytes >= BIG_PAGE;
        *entry(address, level) = leaf_entry(physical, level, flags);
        address += reach(level), physical += reach(level), bytes -= reach(level);
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
    uint64_t *table = page_root;
    if (address >> address_bits)
        return 0;
    for (int at = 2; at >= 0; at--) {
        uint64_t e = *place(table, address, at), offset = address % reach(at);
        if (!e)
            return 0;
        if (entry_is_leaf(e, at)) {
            *left = reach(at) - offset;
            return entry_is_user(e) ? entry_address(e) + offset : 0; /* 0: the monitor's own */
        }
        table = (uint64_t *)entry_address(e);
    }
    return 0;
}
