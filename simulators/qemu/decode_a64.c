/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A64: the base instruction set with LSE atomics, floating point and Advanced SIMD; no SVE. */
#include "decode.h"

enum { A64_SP = 31, LINK = 30 };

static unsigned field(uint32_t word, int low, int width)
{
    return word >> low & ((1u << width) - 1);
}

static int64_t sign_extend(uint64_t value, int bits)
{
    return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

static unsigned x(unsigned reg) /* register 31 is zero */
{
    return reg == 31 ? REG_NONE : reg;
}

static unsigned v(unsigned reg)
{
    return REG_FP + reg;
}

static void operation(struct insn *i, unsigned cls, unsigned dst, unsigned a, unsigned b)
{
    i->cls = (uint8_t)cls;
    reads(i, a);
    reads(i, b);
    writes(i, dst);
}

/* Base register update of pre- and post-indexed accesses. */
static void write_back(struct insn *i, unsigned base, int64_t step)
{
    writes(i, base);
    i->quick = (uint8_t)base;
    defines(i, base, linear(base, step));
}

static void transfer(struct insn *i, struct linear address, unsigned size, bool store, bool simd)
{
    i->cls = store ? (simd ? VEC_STORE : STORE) : (simd ? VEC_LOAD : LOAD);
    reads(i, address.base);
    reads(i, address.index);
    accesses(i, address, size, store);
}

/* Also used for the second register of a pair. */
static void data_register(struct insn *i, unsigned reg, bool store)
{
    if (store)
        reads(i, reg);
    else
        writes(i, reg);
}

static void pair(uint32_t w, struct insn *i)
{
    bool simd = field(w, 26, 1), load = field(w, 22, 1);
    unsigned opc = field(w, 30, 2), mode = field(w, 23, 2), base = field(w, 5, 5);
    unsigned size = simd ? 4u << opc : opc == 2 ? 8 : 4;
    int64_t offset = sign_extend(field(w, 15, 7), 7) * size;
    bool post = mode == 1;
    i->flags |= INSN_SPLIT;
    transfer(i, linear(base, post ? 0 : offset), 2 * size, !load, simd && size == 16);
    for (int n = 0; n < 2; n++) {
        unsigned reg = field(w, n ? 10 : 0, 5);
        data_register(i, simd ? v(reg) : x(reg), !load);
    }
    if (mode == 1 || mode == 3)
        write_back(i, base, offset);
}

static void exclusive(uint32_t w, struct insn *i)
{
    unsigned base = field(w, 5, 5), size = 1u << field(w, 30, 2);
    bool load = field(w, 22, 1), plain = field(w, 23, 1), o1 = field(w, 21, 1);
    if (plain && !o1) { /* ldar, stlr: ordered but otherwise plain */
        transfer(i, linear(base, 0), size, !load, false);
        data_register(i, x(field(w, 0, 5)), !load);
        return;
    }
    i->cls = ATOMIC;
    i->flags |= INSN_DYNAMIC;
    reads(i, base);
    reads(i, x(field(w, 0, 5)));
    writes(i, x(field(w, 0, 5)));
    writes(i, x(field(w, 16, 5)));
    if (o1 && !plain && field(w, 31, 1)) /* ldxp, stxp */
        size = field(w, 30, 1) ? 16 : 8;
    bool swap = o1 && (plain || !field(w, 31, 1)); /* cas, casp */
    if (swap || load)
        accesses(i, linear(REG_NONE, 0), size, false);
    if (swap || !load)
        accesses(i, linear(REG_NONE, 0), size, true);
    writes(i, x(field(w, 10, 5)));
    writes(i, x(field(w, 0, 5) + 1));
    writes(i, x(field(w, 16, 5) + 1));
}

static void single(uint32_t w, struct insn *i)
{
    bool simd = field(w, 26, 1);
    unsigned size_bits = field(w, 30, 2), opc = field(w, 22, 2), base = field(w, 5, 5);
    unsigned reg = field(w, 0, 5), mode = field(w, 10, 2);
    bool store = simd ? !(opc & 1) : opc == 0;
    unsigned size = 1u << (simd && (opc & 2) ? 4 : size_bits);
    struct linear address;
    int64_t step = 0;
    if (!simd && size_bits == 3 && opc >= 2) { /* prefetch: no access */
        i->cls = OTHER;
        return;
    }
    if (field(w, 24, 1)) {
        address = linear(base, (int64_t)field(w, 10, 12) * size);
    } else if (field(w, 21, 1)) {
        if (mode == 0) { /* LSE atomics */
            operation(i, ATOMIC, x(reg), base, x(field(w, 16, 5)));
            i->flags |= INSN_DYNAMIC;
            accesses(i, linear(REG_NONE, 0), size, false);
            if (field(w, 12, 4) != 12) /* ldapr only loads */
                accesses(i, linear(REG_NONE, 0), size, true);
            return;
        }
        if (mode != 2) {
            i->cls = OTHER;
            i->flags |= INSN_UNKNOWN | INSN_DYNAMIC;
            return;
        }
        unsigned shift = field(w, 12, 1) ? (unsigned)__builtin_ctz(size) : 0, option = field(w, 13, 3);
        address = indexed(base, x(field(w, 16, 5)), shift, 0);
        address.extend = option == 3 || option == 7 ? 0 : (uint8_t)(option + 1);
    } else {
        int64_t offset = sign_extend(field(w, 12, 9), 9);
        address = linear(base, mode == 1 ? 0 : offset);
        step = mode & 1 ? offset : 0;
    }
    transfer(i, address, size, store, simd && size == 16);
    data_register(i, simd ? v(reg) : x(reg), store);
    if (!field(w, 24, 1) && !field(w, 21, 1) && (mode & 1))
        write_back(i, base, step);
}

/* ld1-ld4, st1-st4 and their single-element and replicating forms. */
static void structures(uint32_t w, struct insn *i)
{
    static const uint8_t registers[16] = {[0] = 4, [2] = 4, [4] = 3, [6] = 3, [7] = 1, [8] = 2, [10] = 2};
    bool one = field(w, 24, 1), load = field(w, 22, 1), post = field(w, 23, 1);
    unsigned base = field(w, 5, 5), opcode = field(w, 12, 4), rm = field(w, 16, 5), count, bytes;
    if (one) {
        unsigned scale = field(w, 14, 2), size = field(w, 10, 2);
        if (scale == 3)
            scale = size;
        else if (scale == 2 && (size & 1))
            scale = 3;
        count = ((field(w, 13, 1) << 1) | field(w, 21, 1)) + 1;
        bytes = count << scale;
    } else {
        count = registers[opcode];
        bytes = count * (field(w, 30, 1) ? 16 : 8);
    }
    i->flags |= INSN_SPLIT;
    transfer(i, linear(base, 0), bytes, !load, true);
    for (unsigned n = 0; n < count; n++) {
        unsigned reg = v((field(w, 0, 5) + n) & 31);
        data_register(i, reg, !load);
        if (one && load && field(w, 14, 2) != 3)
            reads(i, reg);
    }
    if (post) {
        reads(i, x(rm));
        writes(i, base);
        i->quick = (uint8_t)base;
        defines(i, base, rm == 31 ? linear(base, bytes) : indexed(base, rm, 0, 0));
    }
}

static void load_store(uint32_t w, struct insn *i)
{
    unsigned group = field(w, 28, 2);
    if (group == 0 && field(w, 26, 1) && !field(w, 31, 1)) {
        structures(w, i);
    } else if (group == 0 && !field(w, 26, 1) && !field(w, 24, 1)) {
        exclusive(w, i);
    } else if (group == 1 && !field(w, 24, 1)) { /* literal */
        unsigned opc = field(w, 30, 2);
        bool simd = field(w, 26, 1);
        int64_t address = (int64_t)i->pc + sign_extend(field(w, 5, 19), 19) * 4;
        if (!simd && opc == 3) {
            i->cls = OTHER;
            return;
        }
        transfer(i, linear(REG_NONE, address), simd ? 4u << opc : opc == 1 ? 8 : 4, false, simd && opc == 2);
        writes(i, simd ? v(field(w, 0, 5)) : x(field(w, 0, 5)));
    } else if (group == 1 && !field(w, 26, 1) && !field(w, 21, 1) && field(w, 10, 2) == 0) {
        /* ldapur, stlur */
        unsigned size = 1u << field(w, 30, 2);
        bool store = field(w, 22, 2) == 0;
        transfer(i, linear(field(w, 5, 5), sign_extend(field(w, 12, 9), 9)), size, store, false);
        data_register(i, x(field(w, 0, 5)), store);
    } else if (group == 2) {
        pair(w, i);
        if (!field(w, 26, 1) && field(w, 30, 2) == 1) /* ldpsw, stgp */
            i->flags |= field(w, 22, 1) ? 0 : INSN_UNKNOWN | INSN_DYNAMIC;
    } else if (group == 3) {
        single(w, i);
    } else {
        i->cls = OTHER;
        i->flags |= INSN_UNKNOWN | INSN_DYNAMIC;
    }
}

static void integer_immediate(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 0, 5), rn = field(w, 5, 5);
    bool wide = field(w, 31, 1);
    i->cls = INT_ALU;
    switch (field(w, 23, 3)) {
    case 0: case 1: { /* adr, adrp */
        int64_t imm = sign_extend((uint64_t)field(w, 5, 19) << 2 | field(w, 29, 2), 21);
        writes(i, x(rd));
        defines(i, x(rd), linear(REG_NONE, wide ? (int64_t)(i->pc & ~4095ull) + imm * 4096
                                                : (int64_t)i->pc + imm));
        return;
    }
    case 2: case 3: { /* add, sub; these may name the stack pointer */
        int64_t imm = (int64_t)field(w, 10, 12) << (field(w, 22, 1) ? 12 : 0);
        bool flags = field(w, 29, 1);
        unsigned dst = flags ? x(rd) : rd;
        if (field(w, 23, 1)) { /* addg, subg */
            i->flags |= INSN_UNKNOWN;
            return;
        }
        reads(i, rn);
        writes(i, dst);
        if (flags)
            writes(i, REG_FLAGS);
        if (wide)
            defines(i, dst, linear(rn, field(w, 30, 1) ? -imm : imm));
        return;
    }
    case 4: /* logical; may name the stack pointer, except with flags */
        reads(i, x(rn));
        if (field(w, 29, 2) == 3) {
            writes(i, x(rd));
            writes(i, REG_FLAGS);
        } else {
            writes(i, rd);
        }
        return;
    case 5: /* movn, movz, movk */
        if (field(w, 29, 2) == 3)
            reads(i, x(rd));
        else if (field(w, 29, 2) == 2)
            defines(i, x(rd), linear(REG_NONE, (int64_t)((uint64_t)field(w, 5, 16) << 16 * field(w, 21, 2))));
        writes(i, x(rd));
        return;
    default: /* bitfield, extract */
        reads(i, x(rn));
        if (field(w, 23, 3) == 7)
            reads(i, x(field(w, 16, 5)));
        else if (field(w, 29, 2) == 1) /* bfm keeps other bits */
            reads(i, x(rd));
        writes(i, x(rd));
        if (wide && field(w, 23, 3) == 6 && field(w, 29, 2) == 2) { /* lsl by immediate */
            unsigned shift = (64 - field(w, 16, 6)) & 63;
            if (field(w, 10, 6) == 63 - shift)
                defines(i, x(rd), indexed(REG_NONE, x(rn), shift, 0));
        }
        return;
    }
}

static void branch_or_system(uint32_t w, struct insn *i)
{
    if (w == 0xd503201f + (0x51 << 5))
        i->flags |= INSN_MARK_BEGIN;
    if (w == 0xd503201f + (0x52 << 5))
        i->flags |= INSN_MARK_END;
    if (w == 0xd503201f + (0x53 << 5))
        i->flags |= INSN_MARK_WARM;
    if ((w & 0x7c000000) == 0x14000000) { /* b, bl */
        i->cls = JUMP;
        i->target = i->pc + (uint64_t)(sign_extend(field(w, 0, 26), 26) * 4);
        if (field(w, 31, 1))
            writes(i, LINK);
    } else if ((w & 0xff000000) == 0x54000000) {
        i->cls = BRANCH;
        reads(i, REG_FLAGS);
        i->target = i->pc + (uint64_t)(sign_extend(field(w, 5, 19), 19) * 4);
    } else if ((w & 0x7c000000) == 0x34000000) { /* cbz, cbnz, tbz, tbnz */
        i->cls = BRANCH;
        reads(i, x(field(w, 0, 5)));
        i->target = i->pc + (uint64_t)(field(w, 25, 1) ? sign_extend(field(w, 5, 14), 14) * 4
                                                       : sign_extend(field(w, 5, 19), 19) * 4);
    } else if ((w & 0xfe000000) == 0xd6000000) {
        i->cls = JUMP;
        reads(i, x(field(w, 5, 5)));
        if (field(w, 21, 2) == 1)
            writes(i, LINK);
    } else { /* system, hints, exceptions */
        i->cls = OTHER;
        if ((w & 0xff000000) == 0xd4000000)
            i->flags |= INSN_UNKNOWN; /* svc and its like */
        else if ((w & 0xfff00000) == 0xd5300000)
            writes(i, x(field(w, 0, 5))); /* mrs */
        else if ((w & 0xfff80000) == 0xd5080000)
            i->flags |= INSN_DYNAMIC; /* sys: dc zva, which QEMU 7.2 does not report */
        writes(i, REG_FLAGS);
    }
}

static void integer_register(uint32_t w, struct insn *i)
{
    unsigned rd = x(field(w, 0, 5)), rn = x(field(w, 5, 5)), rm = x(field(w, 16, 5));
    bool wide = field(w, 31, 1), subtract = field(w, 30, 1);
    unsigned group = field(w, 21, 4);
    operation(i, INT_ALU, REG_NONE, rn, rm);
    if (!field(w, 28, 1)) { /* logical, add, sub */
        bool arithmetic = field(w, 24, 1), flags = arithmetic ? field(w, 29, 1) : field(w, 29, 2) == 3;
        bool extended = arithmetic && field(w, 21, 1);
        if (extended && !flags)
            rd = field(w, 0, 5);
        if (extended) {
            i->src[0] = (uint8_t)field(w, 5, 5); /* may be the stack pointer */
            i->n_src = 1;
            reads(i, rm);
        }
        writes(i, rd);
        if (flags)
            writes(i, REG_FLAGS);
        if (wide && arithmetic && !subtract) {
            struct linear sum = indexed(extended ? field(w, 5, 5) : rn, rm, 0, 0);
            unsigned option = field(w, 13, 3);
            sum.shift = (uint8_t)(extended ? field(w, 10, 3) : field(w, 10, 6));
            sum.extend = extended && option != 3 && option != 7 ? (uint8_t)(option + 1) : 0;
            if (extended || field(w, 22, 2) == 0)
                defines(i, rd, sum);
        } else if (wide && !arithmetic && field(w, 29, 2) == 1 && !field(w, 21, 1) && rn == REG_NONE &&
                   field(w, 22, 2) == 0) { /* mov, lsl as orr with zero */
            defines(i, rd, indexed(REG_NONE, rm, field(w, 10, 6), 0));
        }
        return;
    }
    if (field(w, 24, 1)) { /* multiply-add */
        i->cls = INT_MUL;
        reads(i, x(field(w, 10, 5)));
        writes(i, rd);
        return;
    }
    writes(i, rd);
    switch (group & 7) {
    case 0: /* with carry */
        reads(i, REG_FLAGS);
        if (field(w, 29, 1))
            writes(i, REG_FLAGS);
        return;
    case 2: /* conditional compare: no destination */
        i->n_dst = 0;
        if (field(w, 11, 1)) { /* immediate */
            i->n_src = 0;
            reads(i, rn);
        }
        reads(i, REG_FLAGS);
        writes(i, REG_FLAGS);
        return;
    case 4: reads(i, REG_FLAGS); return; /* conditional select */
    default:
        if (subtract) { /* one source */
            i->n_src = 0;
            reads(i, rn);
        } else if (field(w, 10, 6) == 2 || field(w, 10, 6) == 3) {
            i->cls = INT_DIV;
        } else if (field(w, 29, 1)) {
            writes(i, REG_FLAGS); /* subps */
        }
        return;
    }
}

static void scalar_float(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 0, 5), rn = field(w, 5, 5), rm = field(w, 16, 5);
    if (field(w, 24, 1)) {
        operation(i, FP_FMA, v(rd), v(rn), v(rm));
        reads(i, v(field(w, 10, 5)));
        return;
    }
    i->cls = FP_MISC;
    if (!field(w, 21, 1)) { /* fixed-point conversion */
        bool from_integer = field(w, 17, 1);
        operation(i, FP_MISC, from_integer ? v(rd) : x(rd), from_integer ? x(rn) : v(rn), REG_NONE);
        return;
    }
    switch (field(w, 10, 2)) {
    case 1: /* conditional compare */
        reads(i, v(rn));
        reads(i, v(rm));
        reads(i, REG_FLAGS);
        writes(i, REG_FLAGS);
        return;
    case 2: {
        unsigned op = field(w, 12, 4);
        unsigned cls = op == 0 || op == 8 ? FP_MUL : op == 1 ? FP_DIV : op == 2 || op == 3 ? FP_ADD : FP_MISC;
        operation(i, cls, v(rd), v(rn), v(rm));
        return;
    }
    case 3: operation(i, FP_MISC, v(rd), v(rn), v(rm)); reads(i, REG_FLAGS); return; /* fcsel */
    default: break;
    }
    if (field(w, 12, 1)) { /* move immediate */
        writes(i, v(rd));
    } else if (field(w, 13, 1)) { /* compare */
        reads(i, v(rn));
        if (!field(w, 3, 1))
            reads(i, v(rm));
        writes(i, REG_FLAGS);
    } else if (field(w, 14, 1)) { /* one source */
        operation(i, field(w, 15, 6) == 3 ? FP_DIV : FP_MISC, v(rd), v(rn), REG_NONE);
    } else { /* to or from an integer register */
        unsigned opcode = field(w, 16, 3);
        bool from_integer = opcode == 2 || opcode == 3 || opcode == 7;
        operation(i, FP_MISC, from_integer ? v(rd) : x(rd), from_integer ? x(rn) : v(rn), REG_NONE);
    }
}

/* Three registers of the same type; also used for the scalar forms. */
static unsigned three_same_class(uint32_t w)
{
    unsigned opcode = field(w, 11, 5), u = field(w, 29, 1), high = field(w, 23, 1);
    if (opcode < 24)
        switch (opcode) {
        case 18: case 19: case 22: return VEC_MUL; /* mla, mls, mul, sqdmulh */
        case 12: case 13: case 20: case 21: return VEC_MISC; /* max, min */
        default: return VEC_ALU;
        }
    switch (opcode) {
    case 25: return VEC_FP_FMA;                        /* fmla, fmls, fmlal */
    case 26: return u && high ? VEC_MISC : VEC_FP_ADD; /* fadd, fsub, faddp; fabd */
    case 27: return VEC_FP_MUL;                        /* fmul, fmulx */
    case 31: return u ? (high ? VEC_MISC : VEC_FP_DIV) : VEC_FP_FMA; /* fdiv; frecps */
    default: return VEC_MISC;
    }
}

static unsigned scalar_simd_class(unsigned cls)
{
    switch (cls) {
    case VEC_FP_ADD: return FP_ADD;
    case VEC_FP_MUL: return FP_MUL;
    case VEC_FP_FMA: return FP_FMA;
    case VEC_FP_DIV: return FP_DIV;
    default: return cls;
    }
}

static void simd(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 0, 5), rn = field(w, 5, 5), rm = field(w, 16, 5);
    unsigned opcode = field(w, 11, 5), u = field(w, 29, 1);
    bool scalar = field(w, 28, 1);
    operation(i, VEC_MISC, v(rd), v(rn), REG_NONE);
    if (field(w, 24, 1)) { /* by element, shift by immediate, modified immediate */
        if (field(w, 10, 1)) {
            i->cls = VEC_ALU;
            if (field(w, 19, 4) == 0 && !scalar) { /* movi and its like */
                i->cls = VEC_MISC;
                i->n_src = 0;
                if ((field(w, 12, 4) & 9) == 1)
                    reads(i, v(rd));
            } else if (opcode >= 28 || opcode == 28) {
                i->cls = VEC_MISC; /* conversion */
            } else if (opcode == 2 || opcode == 6 || (u && (opcode == 8 || opcode == 10))) {
                reads(i, v(rd)); /* accumulate or insert */
            }
            return;
        }
        unsigned op = field(w, 12, 4);
        bool floating = (op == 1 || op == 5 || op == 9) && (field(w, 22, 2) >= 2 || field(w, 22, 2) == 0) && (op == 9 || !u);
        bool long_float = op == 0 && !u && field(w, 22, 2) == 2;
        i->cls = floating ? (op == 9 ? VEC_FP_MUL : VEC_FP_FMA) : long_float ? VEC_FP_FMA : VEC_MUL;
        if (u && (op & 9) == 1 && op < 8)
            i->cls = VEC_FP_FMA; /* fcmla */
        reads(i, v(rm));
        if (i->cls == VEC_FP_FMA || (i->cls == VEC_MUL && op != 8 && op != 10 && op != 11 && op != 12 && op != 13))
            reads(i, v(rd));
    } else if (field(w, 21, 1) && field(w, 10, 1)) { /* three same */
        i->cls = (uint8_t)three_same_class(w);
        if (opcode == 3 && !scalar && rn == rm && u && field(w, 22, 2) == 0) {
            i->n_src = 0; /* eor of a register with itself */
            return;
        }
        reads(i, v(rm));
        if (i->cls == VEC_FP_FMA || opcode == 18 || (opcode == 3 && u && field(w, 22, 2)) || opcode == 15)
            if (opcode != 31)
                reads(i, v(rd));
    } else if (field(w, 21, 1) && !field(w, 11, 1) && field(w, 10, 2) == 0) { /* three different */
        unsigned op = field(w, 12, 4);
        i->cls = op >= 8 && op != 11 ? VEC_MUL : op == 9 || op == 11 ? VEC_MUL : VEC_ALU;
        reads(i, v(rm));
        if (op == 5 || op == 8 || op == 9 || op == 10 || op == 11)
            reads(i, v(rd));
    } else if (field(w, 21, 1)) { /* two registers, across lanes, pairwise */
        unsigned op = field(w, 12, 5);
        i->cls = VEC_MISC;
        if (field(w, 17, 4) == 0 && (op < 12 || op == 18 || op == 20)) {
            i->cls = op == 0 || op == 1 ? VEC_SHUFFLE : VEC_ALU; /* rev; count, compare, abs, narrow */
            if (op == 6 || op == 18 || op == 20)
                reads(i, v(rd));
        } else if (field(w, 17, 4) == 0 && op == 31 && field(w, 23, 1)) {
            i->cls = VEC_FP_DIV; /* fsqrt */
        } else if (field(w, 17, 4) == 8 && scalar && op == 13 && u) {
            i->cls = VEC_FP_ADD; /* faddp of a pair */
        } else if (field(w, 17, 4) == 8 && (field(w, 12, 5) == 27 || field(w, 12, 5) == 3)) {
            i->cls = VEC_ALU; /* addv, saddlv */
        }
    } else if (!field(w, 10, 1)) { /* tbl, ext, zip */
        i->cls = VEC_SHUFFLE;
        reads(i, v(rm));
        if (!field(w, 11, 1) && !u && field(w, 12, 1)) /* tbx */
            reads(i, v(rd));
        if (!field(w, 11, 1) && !u)
            for (unsigned n = 1; n <= field(w, 13, 2); n++)
                reads(i, v((rn + n) & 31));
    } else if (field(w, 15, 1)) { /* three same, extra: dot products, complex */
        unsigned op = field(w, 11, 4);
        i->cls = op >= 8 && u ? VEC_FP_FMA : VEC_MUL;
        reads(i, v(rm));
        reads(i, v(rd));
        if (op >= 12 && u)
            i->cls = VEC_FP_ADD; /* fcadd */
    } else { /* copy: dup, ins, smov, umov */
        unsigned op = field(w, 11, 4);
        i->cls = VEC_SHUFFLE;
        if (!u && (op == 1 || op == 3)) { /* from an integer register */
            i->n_src = 0;
            reads(i, x(rn));
        }
        if (!u && (op == 5 || op == 7)) { /* to an integer register */
            i->n_dst = 0;
            writes(i, x(rd));
        } else if (u || op == 3) {
            reads(i, v(rd)); /* insert keeps the other elements */
        }
    }
    if (scalar)
        i->cls = (uint8_t)scalar_simd_class(i->cls);
}

void decode_a64(const uint8_t *p, struct insn *i)
{
    uint32_t w = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    i->defines = i->quick = REG_NONE;
    unsigned op0 = field(w, 25, 4);
    if ((op0 & 14) == 8) {
        integer_immediate(w, i);
    } else if ((op0 & 14) == 10) {
        branch_or_system(w, i);
    } else if ((op0 & 5) == 4) {
        load_store(w, i);
    } else if ((op0 & 7) == 5) {
        integer_register(w, i);
    } else if ((op0 & 7) == 7) {
        if (field(w, 28, 1) && !field(w, 30, 1))
            scalar_float(w, i);
        else if ((w & 0xff000000) == 0xce000000 || field(w, 31, 1)) {
            operation(i, VEC_ALU, v(field(w, 0, 5)), v(field(w, 5, 5)), v(field(w, 16, 5)));
        } else if ((w & 0xff3e0c00) == 0x4e280800 || (w & 0xff200c00) == 0x5e000000 ||
                   (w & 0xff3e0c00) == 0x5e280800) { /* AES, SHA */
            operation(i, VEC_ALU, v(field(w, 0, 5)), v(field(w, 5, 5)), v(field(w, 0, 5)));
        } else {
            simd(w, i);
        }
    } else {
        i->cls = OTHER;
        i->flags |= INSN_UNKNOWN | INSN_DYNAMIC;
    }
}
