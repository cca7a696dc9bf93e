/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Length of an x86 instruction. QEMU knows it, but hands one instruction too many to plugins: when
 * an instruction crosses a page and is not the first of its block, QEMU 7.2 takes it back out of
 * the block (the next block starts with it) and forgets to do so in the plugin's list. There it is
 * the last one, with only its bytes from the first page.
 */
#include "decode.h"

enum { MODRM = 1, IMM8 = 2, IMM16 = 4, IMM32 = 8 /* 16 bits with an operand-size prefix */ };

static unsigned one_byte_layout(uint8_t op, uint8_t modrm, bool wide, unsigned *imm64)
{
    if (op < 0x40)
        return (op & 7) < 4 ? MODRM : (op & 7) == 4 ? IMM8 : (op & 7) == 5 ? IMM32 : 0;
    if ((op >= 0x70 && op < 0x80) || (op >= 0xb0 && op < 0xb8) || (op >= 0xe0 && op < 0xe8))
        return IMM8;
    if (op >= 0xb8 && op < 0xc0) {
        *imm64 = wide ? 4 : 0; /* four bytes more */
        return IMM32;
    }
    if ((op >= 0x84 && op < 0x90) || (op >= 0xd0 && op < 0xd4) || (op >= 0xd8 && op < 0xe0))
        return MODRM;
    switch (op) {
    case 0x63: case 0xfe: case 0xff: return MODRM;
    case 0x68: case 0xa9: case 0xe8: case 0xe9: return IMM32;
    case 0x69: case 0x81: case 0xc7: return MODRM | IMM32;
    case 0x6a: case 0xa8: case 0xcd: case 0xeb: return IMM8;
    case 0x6b: case 0x80: case 0x83: case 0xc0: case 0xc1: case 0xc6: return MODRM | IMM8;
    case 0xc2: case 0xca: return IMM16;
    case 0xc8: return IMM16 | IMM8;
    case 0xf6: return MODRM | ((modrm >> 3 & 7) < 2 ? IMM8 : 0);
    case 0xf7: return MODRM | ((modrm >> 3 & 7) < 2 ? IMM32 : 0);
    default: return 0;
    }
}

static unsigned two_byte_layout(uint8_t op)
{
    if (op >= 0x80 && op < 0x90)
        return IMM32;
    if ((op >= 0x30 && op < 0x38) || (op >= 0xc8 && op < 0xd0) || (op >= 0xa0 && op < 0xa3) ||
        (op >= 0xa8 && op < 0xab))
        return 0;
    if ((op >= 0x70 && op < 0x74) || op == 0xa4 || op == 0xac || op == 0xba || op == 0xc2 ||
        (op >= 0xc4 && op < 0xc7))
        return MODRM | IMM8;
    switch (op) {
    case 0x05: case 0x06: case 0x07: case 0x08: case 0x09: case 0x0b: case 0x0e: case 0x77:
        return 0;
    default:
        return MODRM;
    }
}

unsigned x86_length(const uint8_t *p)
{
    unsigned pos = 0, map = 0, imm64 = 0;
    bool half = false, wide = false;
    for (;; pos++) {
        if (p[pos] == 0x66)
            half = true;
        else if (p[pos] != 0x67 && p[pos] != 0xf0 && p[pos] != 0xf2 && p[pos] != 0xf3 &&
                 p[pos] != 0x64 && p[pos] != 0x65 && (p[pos] & 0xe7) != 0x26)
            break;
        if (pos == 14)
            return 15;
    }
    if ((p[pos] & 0xf0) == 0x40)
        wide = p[pos++] & 8;
    if (p[pos] == 0xc5) { /* two-byte VEX */
        pos += 2;
        map = 1;
    } else if (p[pos] == 0xc4) { /* three-byte VEX */
        map = p[pos + 1] & 31;
        pos += 3;
    } else if (p[pos] == 0x0f) {
        map = p[pos + 1] == 0x38 ? 2 : p[pos + 1] == 0x3a ? 3 : 1;
        pos += map == 1 ? 1 : 2;
    }
    uint8_t op = p[pos++];
    unsigned layout = map == 0   ? one_byte_layout(op, p[pos], wide, &imm64)
                      : map == 1 ? two_byte_layout(op)
                      : map == 2 ? MODRM
                                 : MODRM | IMM8;
    if (map == 0 && op >= 0xa0 && op < 0xa4)
        pos += 8; /* moves with an absolute address */
    if (layout & MODRM) {
        uint8_t mod = p[pos] >> 6, rm = p[pos] & 7;
        pos++;
        if (mod != 3) {
            uint8_t base = rm;
            if (rm == 4)
                base = p[pos++] & 7; /* SIB */
            pos += mod == 1 ? 1 : mod == 2 || base == 5 ? 4 : 0;
        }
    }
    return pos + (layout & IMM8 ? 1 : 0) + (layout & IMM16 ? 2 : 0) +
           (layout & IMM32 ? (half ? 2 : 4) : 0) + imm64;
}
