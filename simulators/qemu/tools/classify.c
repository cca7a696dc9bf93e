/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Classes of RISC-V instructions, by the plugin's own decoder, for simulators that only tell how often
 * each address was executed. One instruction per line, its bytes in hex in the order of memory; answers
 * with class, whether it loads, whether it stores, and the bytes of each, -1 where they vary.
 */
#include "../decode.h"

#include <stdio.h>
#include <string.h>

const char *const class_names[N_CLASSES] = {0};

int main(void)
{
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        uint8_t bytes[32] = {0};
        struct insn insn = {0};
        unsigned value, n = 0;
        for (const char *at = line; n < 8 && sscanf(at, "%2x", &value) == 1; at += 2)
            bytes[n++] = (uint8_t)value;
        insn.size = (uint8_t)n;
        decode_riscv(bytes, &insn);
        int varies = insn.flags & INSN_DYNAMIC ? 1 : 0, read = 0, written = 0;
        for (unsigned k = 0; k < insn.n_mem; k++)
            *(insn.mem[k].store ? &written : &read) += insn.mem[k].size;
        printf("%u %d %d %d %d\n", insn.cls, insn.is_load, insn.is_store, varies && insn.is_load ? -1 : read,
               varies && insn.is_store ? -1 : written);
    }
    return 0;
}
