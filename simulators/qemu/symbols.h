/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses within one translation block as "unknown value + constant". Two addresses with the
 * same root differ by the difference of their offsets, whatever the registers hold.
 */
#ifndef SIMTUNE_SYMBOLS_H
#define SIMTUNE_SYMBOLS_H

#include "decode.h"

struct symbol {
    uint64_t root; /* 0 = the constant zero */
    int64_t offset;
};

void symbols_reset(void);
struct symbol symbols_address(const struct linear *);
void symbols_update(const struct insn *); /* after the accesses of the instruction */

#endif
