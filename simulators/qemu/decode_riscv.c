/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RISC-V: rv64gc with Zba, Zbb and the vector extension 1.0. */
#include "decode.h"

enum { RA = 1, SP = 2 };

static unsigned field(uint32_t word, int low, int width)
{
    return word >> low & ((1u << width) - 1);
}

static int64_t sign_extend(uint64_t value, int bits)
{
    return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

static unsigned x(unsigned reg)
{
    return reg ? reg : REG_NONE;
}

static unsigned f(unsigned reg)
{
    return REG_FP + reg;
}

static unsigned v(unsigned reg)
{
    return REG_VEC + reg;
}

static void load(struct insn *i, unsigned dst, unsigned base, int64_t offset, unsigned size)
{
    i->cls = LOAD;
    reads(i, x(base));
    writes(i, dst);
    accesses(i, linear(x(base), offset), size, false);
}

static void store(struct insn *i, unsigned src, unsigned base, int64_t offset, unsigned size)
{
    i->cls = STORE;
    reads(i, x(base));
    reads(i, src);
    accesses(i, linear(x(base), offset), size, true);
}

static void alu(struct insn *i, unsigned cls, unsigned dst, unsigned a, unsigned b)
{
    i->cls = (uint8_t)cls;
    reads(i, a);
    reads(i, b);
    writes(i, dst);
}

static void add_immediate(struct insn *i, unsigned dst, unsigned src, int64_t imm)
{
    alu(i, INT_ALU, x(dst), x(src), REG_NONE);
    defines(i, x(dst), linear(x(src), imm));
}

static void branch(struct insn *i, unsigned a, unsigned b, int64_t offset)
{
    i->cls = BRANCH;
    reads(i, x(a));
    reads(i, x(b));
    i->target = i->pc + (uint64_t)offset;
}

static void jump(struct insn *i, unsigned link, unsigned base)
{
    i->cls = JUMP;
    reads(i, x(base));
    writes(i, x(link));
}

static void compressed0(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 2, 3) + 8, rs = field(w, 7, 3) + 8;
    unsigned wide = field(w, 10, 3) << 3 | field(w, 5, 2) << 6;
    unsigned word = field(w, 10, 3) << 3 | field(w, 6, 1) << 2 | field(w, 5, 1) << 6;
    switch (field(w, 13, 3)) {
    case 0:
        if (w == 0) {
            i->flags |= INSN_UNKNOWN;
            i->cls = OTHER;
            return;
        }
        add_immediate(i, rd, SP, field(w, 11, 2) << 4 | field(w, 7, 4) << 6 | field(w, 6, 1) << 2 |
                                     field(w, 5, 1) << 3);
        return;
    case 1: load(i, f(rd), rs, wide, 8); return;
    case 2: load(i, x(rd), rs, word, 4); return;
    case 3: load(i, x(rd), rs, wide, 8); return;
    case 5: store(i, f(rd), rs, wide, 8); return;
    case 6: store(i, x(rd), rs, word, 4); return;
    case 7: store(i, x(rd), rs, wide, 8); return;
    default: i->flags |= INSN_UNKNOWN; i->cls = OTHER; return;
    }
}

static void compressed1(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 7, 5), low = field(w, 7, 3) + 8, rs2 = field(w, 2, 3) + 8;
    int64_t imm = sign_extend(field(w, 12, 1) << 5 | field(w, 2, 5), 6);
    int64_t offset = sign_extend(field(w, 12, 1) << 8 | field(w, 10, 2) << 3 | field(w, 5, 2) << 6 |
                                     field(w, 3, 2) << 1 | field(w, 2, 1) << 5, 9);
    switch (field(w, 13, 3)) {
    case 0: add_immediate(i, rd, rd, imm); return;
    case 1: alu(i, INT_ALU, x(rd), x(rd), REG_NONE); return; /* c.addiw */
    case 2: add_immediate(i, rd, 0, imm); return;            /* c.li */
    case 3:
        if (rd == SP)
            add_immediate(i, SP, SP, sign_extend(field(w, 12, 1) << 9 | field(w, 6, 1) << 4 |
                          field(w, 5, 1) << 6 | field(w, 3, 2) << 7 | field(w, 2, 1) << 5, 10));
        else
            add_immediate(i, rd, 0, imm * 4096);
        return;
    case 4:
        if (field(w, 10, 2) == 3) {
            bool multiply = field(w, 12, 1) && field(w, 5, 2) == 2; /* c.mul of Zcb */
            alu(i, multiply ? INT_MUL : INT_ALU, low, low, rs2);
        } else {
            alu(i, INT_ALU, low, low, REG_NONE);
        }
        return;
    case 5: jump(i, 0, 0); return;
    default: branch(i, low, 0, offset); return;
    }
}

static void compressed2(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 7, 5), rs2 = field(w, 2, 5), bit12 = field(w, 12, 1);
    unsigned wide = bit12 << 5 | field(w, 5, 2) << 3 | field(w, 2, 3) << 6;
    unsigned word = bit12 << 5 | field(w, 4, 3) << 2 | field(w, 2, 2) << 6;
    unsigned wide_store = field(w, 10, 3) << 3 | field(w, 7, 3) << 6;
    unsigned word_store = field(w, 9, 4) << 2 | field(w, 7, 2) << 6;
    switch (field(w, 13, 3)) {
    case 0: alu(i, INT_ALU, x(rd), x(rd), REG_NONE); return; /* c.slli */
    case 1: load(i, f(rd), SP, wide, 8); return;
    case 2: load(i, x(rd), SP, word, 4); return;
    case 3: load(i, x(rd), SP, wide, 8); return;
    case 4:
        if (rs2) {
            if (bit12) {
                alu(i, INT_ALU, x(rd), x(rd), x(rs2));
                defines(i, x(rd), indexed(x(rd), x(rs2), 0, 0));
            } else {
                add_immediate(i, rd, rs2, 0);
            }
        } else if (rd) {
            jump(i, bit12 ? RA : 0, rd);
        } else {
            i->cls = OTHER; /* c.ebreak */
            i->flags |= INSN_UNKNOWN;
        }
        return;
    case 5: store(i, f(rs2), SP, wide_store, 8); return;
    case 6: store(i, x(rs2), SP, word_store, 4); return;
    default: store(i, x(rs2), SP, wide_store, 8); return;
    }
}

static void integer_register(uint32_t w, struct insn *i, bool word)
{
    unsigned rd = x(field(w, 7, 5)), rs1 = x(field(w, 15, 5)), rs2 = x(field(w, 20, 5));
    unsigned funct3 = field(w, 12, 3), funct7 = field(w, 25, 7);
    if (funct7 == 1) {
        alu(i, funct3 < 4 ? INT_MUL : INT_DIV, rd, rs1, rs2);
        return;
    }
    alu(i, INT_ALU, rd, rs1, rs2);
    if (!word && funct7 == 0 && funct3 == 0)
        defines(i, rd, indexed(rs1, rs2, 0, 0));
    else if (!word && funct7 == 16 && (funct3 == 2 || funct3 == 4 || funct3 == 6))
        defines(i, rd, indexed(rs2, rs1, funct3 / 2, 0)); /* sh1add, sh2add, sh3add */
}

static void floating_point(uint32_t w, struct insn *i)
{
    unsigned rd = field(w, 7, 5), rs1 = field(w, 15, 5), rs2 = field(w, 20, 5);
    unsigned op = field(w, 27, 5);
    switch (op) {
    case 0: case 1: alu(i, FP_ADD, f(rd), f(rs1), f(rs2)); return;
    case 2: alu(i, FP_MUL, f(rd), f(rs1), f(rs2)); return;
    case 3: alu(i, FP_DIV, f(rd), f(rs1), f(rs2)); return;
    case 11: alu(i, FP_DIV, f(rd), f(rs1), REG_NONE); return;
    case 20: case 24: case 28: /* compare, to integer, move or classify: integer result */
        alu(i, FP_MISC, x(rd), f(rs1), op == 20 ? f(rs2) : REG_NONE);
        return;
    case 26: case 30: alu(i, FP_MISC, f(rd), x(rs1), REG_NONE); return;
    case 8: alu(i, FP_MISC, f(rd), f(rs1), REG_NONE); return;
    default: alu(i, FP_MISC, f(rd), f(rs1), f(rs2)); return; /* sign, min, max */
    }
}

static unsigned vector_integer_class(unsigned funct6, bool multiply_group)
{
    if (multiply_group) {
        if (funct6 < 8)
            return VEC_MISC; /* reductions */
        if (funct6 < 14 && funct6 != 8 && funct6 != 9 && funct6 != 10 && funct6 != 11)
            return VEC_SHUFFLE; /* vslide1up, vslide1down */
        if (funct6 < 12)
            return VEC_ALU; /* averaging add */
        if (funct6 < 32)
            return funct6 == 23 ? VEC_SHUFFLE : VEC_MISC; /* vcompress; masks, moves, extends */
        if (funct6 < 36)
            return VEC_FP_DIV; /* integer divide shares the long-latency class */
        return funct6 >= 48 && funct6 < 56 ? VEC_ALU : VEC_MUL; /* widening add, else multiply */
    }
    switch (funct6) {
    case 4: case 5: case 6: case 7: return VEC_MISC; /* min, max */
    case 12: case 14: case 15: return VEC_SHUFFLE; /* gather, slide */
    case 16: case 17: case 18: case 19: case 23: return VEC_MISC; /* carry masks, merge, move */
    case 39: return VEC_MUL; /* vsmul */
    case 48: case 49: return VEC_MISC; /* widening reduction */
    default: return VEC_ALU;
    }
}

static unsigned vector_float_class(unsigned funct6)
{
    switch (funct6) {
    case 0: case 2: case 39: case 48: case 50: case 52: case 54: return VEC_FP_ADD;
    case 14: case 15: return VEC_SHUFFLE;
    case 32: case 33: return VEC_FP_DIV;
    case 36: case 56: return VEC_FP_MUL;
    case 19: return VEC_FP_DIV; /* vfsqrt; also the rare vfclass and estimates */
    default:
        return (funct6 >= 40 && funct6 < 48) || funct6 >= 60 ? VEC_FP_FMA : VEC_MISC;
    }
}

static void vector(uint32_t w, struct insn *i)
{
    unsigned vd = field(w, 7, 5), rs1 = field(w, 15, 5), vs2 = field(w, 20, 5);
    unsigned funct3 = field(w, 12, 3), funct6 = field(w, 26, 6);
    bool masked = !field(w, 25, 1);
    if (funct3 == 7) {
        i->cls = VEC_CONFIG;
        if (field(w, 30, 2) != 3)
            reads(i, x(rs1));
        writes(i, x(vd));
        writes(i, REG_VTYPE);
        if (field(w, 30, 2) != 2) /* the type is in the instruction: vsetvli, vsetivli */
            i->scale = (uint8_t)(field(w, 20, 3) < 4 ? 1u << field(w, 20, 3) : 1);
        return;
    }
    bool floating = funct3 == 1 || funct3 == 5, multiply_group = funct3 == 2 || funct3 == 6;
    i->cls = (uint8_t)(floating ? vector_float_class(funct6) : vector_integer_class(funct6, multiply_group));
    reads(i, v(vs2));
    if (funct3 < 3)
        reads(i, v(rs1));
    else if (funct3 == 5)
        reads(i, f(rs1));
    else if (funct3 != 3)
        reads(i, x(rs1));
    if (masked)
        reads(i, v(0));
    reads(i, REG_VTYPE);
    if (funct6 == 16 && (floating || multiply_group)) { /* moves between element 0 and a scalar */
        i->cls = VEC_MISC;
        if (funct3 == 1)
            writes(i, f(vd));
        else if (funct3 == 2)
            writes(i, x(vd));
        else
            writes(i, v(vd));
        return;
    }
    bool accumulates = (floating && i->cls == VEC_FP_FMA) ||
                       (multiply_group && funct6 >= 40 && funct6 != 56 && (funct6 < 48 || funct6 >= 60));
    if (accumulates)
        reads(i, v(vd));
    writes(i, v(vd));
}

static void vector_memory(uint32_t w, struct insn *i, bool is_store)
{
    unsigned mop = field(w, 26, 2);
    i->cls = is_store ? VEC_STORE : VEC_LOAD;
    i->flags |= INSN_DYNAMIC | INSN_ELEMENTS;
    i->is_load = !is_store;
    i->is_store = is_store;
    reads(i, x(field(w, 15, 5)));
    if (mop == 2)
        reads(i, x(field(w, 20, 5)));
    else if (mop)
        reads(i, v(field(w, 20, 5)));
    if (!field(w, 25, 1))
        reads(i, v(0));
    reads(i, REG_VTYPE);
    if (is_store) {
        reads(i, v(field(w, 7, 5)));
        return;
    }
    unsigned fields = field(w, 29, 3) + 1;
    for (unsigned n = 0; n < fields && n < MAX_DST; n++)
        writes(i, v((field(w, 7, 5) + n) & 31));
}

static void atomic(uint32_t w, struct insn *i)
{
    unsigned op = field(w, 27, 5);
    alu(i, ATOMIC, x(field(w, 7, 5)), x(field(w, 15, 5)), x(field(w, 20, 5)));
    i->flags |= INSN_DYNAMIC;
    i->is_load = op != 3;
    i->is_store = op != 2;
    for (int n = 0; n < 2; n++) /* sizes for the byte counts; the addresses come by callback */
        if (n ? i->is_store : i->is_load)
            accesses(i, linear(REG_NONE, 0), field(w, 12, 3) == 3 ? 8 : 4, n == 1);
}

void decode_riscv(const uint8_t *p, struct insn *i)
{
    uint32_t w = p[0] | (uint32_t)p[1] << 8;
    i->defines = i->quick = REG_NONE;
    if ((w & 3) != 3) {
        ((w & 3) == 0 ? compressed0 : (w & 3) == 1 ? compressed1 : compressed2)(w, i);
        return;
    }
    w |= (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    unsigned rd = field(w, 7, 5), rs1 = field(w, 15, 5), rs2 = field(w, 20, 5);
    unsigned funct3 = field(w, 12, 3);
    int64_t imm = sign_extend(w >> 20, 12);
    int64_t store_imm = sign_extend(field(w, 25, 7) << 5 | rd, 12);
    if (w == 0x51102013) /* slti x0, x0, 0x511 */
        i->flags |= INSN_MARK_BEGIN;
    if (w == 0x51202013)
        i->flags |= INSN_MARK_END;
    if (w == 0x51302013)
        i->flags |= INSN_MARK_WARM;
    switch (w & 0x7f) {
    case 0x03: load(i, x(rd), rs1, imm, 1u << (funct3 & 3)); return;
    case 0x07:
        if (funct3 >= 1 && funct3 <= 4)
            load(i, f(rd), rs1, imm, 1u << funct3);
        else
            vector_memory(w, i, false);
        return;
    case 0x23: store(i, x(rs2), rs1, store_imm, 1u << funct3); return;
    case 0x27:
        if (funct3 >= 1 && funct3 <= 4)
            store(i, f(rs2), rs1, store_imm, 1u << funct3);
        else
            vector_memory(w, i, true);
        return;
    case 0x2f: atomic(w, i); return;
    case 0x63:
        branch(i, rs1, rs2, sign_extend(field(w, 31, 1) << 12 | field(w, 25, 6) << 5 |
                                            field(w, 8, 4) << 1 | field(w, 7, 1) << 11, 13));
        return;
    case 0x67: jump(i, rd, rs1); return;
    case 0x6f: jump(i, rd, 0); return;
    case 0x13:
        alu(i, INT_ALU, x(rd), x(rs1), REG_NONE);
        if (funct3 == 0)
            defines(i, x(rd), linear(x(rs1), imm));
        else if (funct3 == 1 && w >> 26 == 0)
            defines(i, x(rd), indexed(REG_NONE, x(rs1), field(w, 20, 6), 0));
        return;
    case 0x1b: alu(i, INT_ALU, x(rd), x(rs1), REG_NONE); return;
    case 0x33: integer_register(w, i, false); return;
    case 0x3b: integer_register(w, i, true); return;
    case 0x37: add_immediate(i, rd, 0, (int32_t)(w & 0xfffff000)); return;
    case 0x17: add_immediate(i, rd, 0, (int64_t)i->pc + (int32_t)(w & 0xfffff000)); return;
    case 0x43: case 0x47: case 0x4b: case 0x4f:
        alu(i, FP_FMA, f(rd), f(rs1), f(rs2));
        reads(i, f(field(w, 27, 5)));
        return;
    case 0x53: floating_point(w, i); return;
    case 0x57: vector(w, i); return;
    case 0x73: /* system and CSR: writes rd */
        alu(i, OTHER, x(rd), funct3 && funct3 < 4 ? x(rs1) : REG_NONE, REG_NONE);
        if (funct3 == 0)
            i->flags |= INSN_UNKNOWN;
        return;
    case 0x0f: i->cls = OTHER; return;
    default: i->cls = OTHER; i->flags |= INSN_UNKNOWN; return;
    }
}
