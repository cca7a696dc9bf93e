/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * x86-64 up to AVX2, FMA and BMI. An instruction with a memory operand is classed by its
 * operation; its access is in `mem`. Anything not listed is INSN_UNKNOWN.
 */
#include "decode.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { NO_PREFIX, P66, PF3, PF2 };

struct x86 {
    const uint8_t *bytes;
    unsigned pos;
    uint8_t rex, vector_prefix, map, opcode;
    uint8_t vvvv, mod, reg, rm;
    bool vex, wide, long_vector, locked, repeated, segment, address32;
    struct linear address;
    struct insn *i;
};

static int64_t immediate(const uint8_t *p, unsigned size)
{
    uint64_t value = 0;
    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)p[n] << 8 * n;
    return (int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size);
}

static unsigned v(unsigned reg)
{
    return REG_FP + reg;
}

/* Without REX, byte registers 4-7 are the high bytes of 0-3. */
static unsigned byte_reg(const struct x86 *s, unsigned reg)
{
    return !s->rex && reg >= 4 && reg < 8 ? reg - 4 : reg;
}

static bool parse_prefixes(struct x86 *s)
{
    for (; s->pos < s->i->size; s->pos++) {
        uint8_t b = s->bytes[s->pos];
        if (b == 0x66)
            s->vector_prefix = s->vector_prefix > P66 ? s->vector_prefix : P66;
        else if (b == 0xf3)
            s->vector_prefix = PF3, s->repeated = true;
        else if (b == 0xf2)
            s->vector_prefix = PF2, s->repeated = true;
        else if (b == 0xf0)
            s->locked = true;
        else if (b == 0x64 || b == 0x65)
            s->segment = true;
        else if (b == 0x67)
            s->address32 = true;
        else if (b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26)
            break;
    }
    const uint8_t *p = s->bytes + s->pos;
    if (p[0] == 0xc5) {
        s->vex = true;
        s->rex = (~p[1] >> 5 & 4) | 0x40;
        s->vvvv = ~p[1] >> 3 & 15;
        s->long_vector = p[1] & 4;
        s->vector_prefix = p[1] & 3;
        s->map = 1;
        s->pos += 2;
    } else if (p[0] == 0xc4) {
        s->vex = true;
        s->rex = (~p[1] >> 5 & 7) | (p[2] >> 4 & 8) | 0x40;
        s->vvvv = ~p[2] >> 3 & 15;
        s->long_vector = p[2] & 4;
        s->vector_prefix = p[2] & 3;
        s->map = p[1] & 31;
        s->pos += 3;
    } else if (p[0] == 0x62) {
        return false;
    } else {
        if ((p[0] & 0xf0) == 0x40) {
            s->rex = p[0];
            s->pos++;
            p++;
        }
        if (p[0] == 0x0f) {
            s->map = p[1] == 0x38 ? 2 : p[1] == 0x3a ? 3 : 1;
            s->pos += s->map == 1 ? 1 : 2;
        }
    }
    s->wide = s->rex & 8;
    s->opcode = s->bytes[s->pos++];
    return s->map < 4;
}

static void parse_modrm(struct x86 *s)
{
    const uint8_t *p = s->bytes + s->pos;
    s->mod = p[0] >> 6;
    s->reg = (p[0] >> 3 & 7) | (s->rex << 1 & 8);
    s->rm = (p[0] & 7) | (s->rex << 3 & 8);
    s->pos++;
    p++;
    if (s->mod == 3)
        return;
    struct linear *a = &s->address;
    *a = linear(s->rm, 0);
    bool displacement = false;
    if ((s->rm & 7) == 4) {
        unsigned sib = *p++;
        unsigned index = (sib >> 3 & 7) | (s->rex << 2 & 8);
        s->pos++;
        *a = indexed((sib & 7) | (s->rex << 3 & 8), index == RSP ? REG_NONE : index, sib >> 6, 0);
        if ((sib & 7) == 5 && s->mod == 0) {
            a->base = REG_NONE;
            displacement = true;
        }
    } else if ((s->rm & 7) == 5 && s->mod == 0) { /* relative to the next instruction */
        *a = linear(REG_NONE, (int64_t)(s->i->pc + s->i->size));
        displacement = true;
    }
    unsigned size = s->mod == 1 ? 1 : s->mod == 2 || displacement ? 4 : 0;
    if (size)
        a->imm += immediate(p, size);
    s->pos += size;
    if (s->segment || s->address32)
        s->i->flags |= INSN_DYNAMIC;
}

static bool memory(const struct x86 *s)
{
    return s->mod != 3;
}

static unsigned operand_size(const struct x86 *s)
{
    return s->wide ? 8 : s->vector_prefix == P66 ? 2 : 4;
}

/* The r/m operand as source or destination, of `size` bytes, in register file `file`. */
static void rm_read(struct x86 *s, unsigned size, unsigned file)
{
    if (memory(s))
        accesses(s->i, s->address, size, false);
    else
        reads(s->i, file + (file == 0 && size == 1 ? byte_reg(s, s->rm) : s->rm));
}

static void rm_write(struct x86 *s, unsigned size, unsigned file)
{
    if (memory(s))
        accesses(s->i, s->address, size, true);
    else
        writes(s->i, file + (file == 0 && size == 1 ? byte_reg(s, s->rm) : s->rm));
}

static void address_reads(struct x86 *s)
{
    if (memory(s)) {
        reads(s->i, s->address.base);
        reads(s->i, s->address.index);
    }
}

static void push(struct x86 *s)
{
    reads(s->i, RSP);
    accesses(s->i, linear(RSP, -8), 8, true);
    writes(s->i, RSP);
    s->i->quick = RSP;
    defines(s->i, RSP, linear(RSP, -8));
}

static void pop(struct x86 *s, int64_t extra)
{
    reads(s->i, RSP);
    accesses(s->i, linear(RSP, 0), 8, false);
    writes(s->i, RSP);
    s->i->quick = RSP;
    defines(s->i, RSP, linear(RSP, 8 + extra));
}

static void unknown(struct x86 *s)
{
    s->i->cls = OTHER;
    s->i->flags |= INSN_UNKNOWN | INSN_DYNAMIC;
}

static void direct(struct x86 *s, unsigned cls, unsigned size)
{
    s->i->cls = (uint8_t)cls;
    s->i->target = s->i->pc + s->i->size + (uint64_t)immediate(s->bytes + s->i->size - size, size);
}

/* add, or, adc, sbb, and, sub, xor, cmp: number 0-7; `store_form`: r/m is the destination. */
static void arithmetic(struct x86 *s, unsigned op, unsigned size, bool store_form, bool has_reg)
{
    struct insn *i = s->i;
    unsigned reg = size == 1 ? byte_reg(s, s->reg) : s->reg;
    i->cls = INT_ALU;
    address_reads(s);
    if (op == 6 && has_reg && !memory(s) && s->reg == s->rm && size >= 4) {
        writes(i, reg); /* xor with itself: zero */
        writes(i, REG_FLAGS);
        defines(i, reg, linear(REG_NONE, 0));
        return;
    }
    rm_read(s, size, 0);
    if (has_reg)
        reads(i, reg);
    if (op == 2 || op == 3)
        reads(i, REG_FLAGS);
    if (op != 7) {
        if (store_form)
            rm_write(s, size, 0);
        else
            writes(i, reg);
    }
    writes(i, REG_FLAGS);
    if (size == 8 && op == 0 && has_reg && !memory(s))
        defines(i, store_form ? s->rm : reg, indexed(s->rm, reg, 0, 0));
}

static void group1(struct x86 *s, unsigned size, unsigned imm_size)
{
    unsigned op = s->reg & 7;
    arithmetic(s, op, size, true, false);
    if (size == 8 && !memory(s) && (op == 0 || op == 5)) {
        int64_t imm = immediate(s->bytes + s->pos, imm_size);
        defines(s->i, s->rm, linear(s->rm, op == 0 ? imm : -imm));
    }
}

static void group3(struct x86 *s, unsigned size)
{
    struct insn *i = s->i;
    unsigned op = s->reg & 7;
    i->cls = INT_ALU;
    address_reads(s);
    rm_read(s, size, 0);
    if (op == 2 || op == 3)
        rm_write(s, size, 0);
    if (op >= 4) {
        i->cls = op < 6 ? INT_MUL : INT_DIV;
        reads(i, RAX);
        if (op >= 6)
            reads(i, RDX);
        writes(i, RAX);
        writes(i, RDX);
    }
    if (op != 2)
        writes(i, REG_FLAGS);
}

static void group5(struct x86 *s, unsigned size)
{
    struct insn *i = s->i;
    unsigned op = s->reg & 7;
    i->cls = INT_ALU;
    address_reads(s);
    if (op < 2) {
        rm_read(s, size, 0);
        rm_write(s, size, 0);
        writes(i, REG_FLAGS);
        if (size == 8 && !memory(s))
            defines(i, s->rm, linear(s->rm, op ? -1 : 1));
    } else if (op == 2 || op == 4) {
        i->cls = JUMP;
        rm_read(s, 8, 0);
        if (op == 2)
            push(s);
    } else if (op == 6) {
        i->cls = STORE;
        rm_read(s, 8, 0);
        push(s);
    } else {
        unknown(s);
    }
}

/* movs, cmps, stos, lods, scas */
static void string(struct x86 *s)
{
    struct insn *i = s->i;
    unsigned op = s->opcode & 0xfe, size = s->opcode & 1 ? operand_size(s) : 1;
    bool source = op == 0xa4 || op == 0xa6 || op == 0xac, destination = op != 0xac;
    i->cls = op == 0xaa ? STORE : LOAD;
    i->flags |= INSN_DYNAMIC | (s->repeated ? INSN_REPEATED : 0);
    struct linear nowhere = linear(REG_NONE, 0);
    if (source || op == 0xae)
        accesses(i, nowhere, size, false);
    if (op == 0xa4 || op == 0xaa)
        accesses(i, nowhere, size, true);
    else if (op == 0xa6)
        accesses(i, nowhere, size, false);
    if (source) {
        reads(i, RSI);
        writes(i, RSI);
    }
    if (destination) {
        reads(i, RDI);
        writes(i, RDI);
    }
    if (s->repeated) {
        reads(i, RCX);
        writes(i, RCX);
    }
    if (op == 0xac)
        writes(i, RAX);
    else if (op != 0xa4)
        reads(i, RAX);
    if (op == 0xa6 || op == 0xae)
        writes(i, REG_FLAGS);
}

static void move(struct x86 *s, unsigned size, bool to_rm)
{
    struct insn *i = s->i;
    unsigned reg = size == 1 ? byte_reg(s, s->reg) : s->reg;
    i->cls = !memory(s) ? INT_ALU : to_rm ? STORE : LOAD;
    address_reads(s);
    if (to_rm) {
        reads(i, reg);
        rm_write(s, size, 0);
    } else {
        rm_read(s, size, 0);
        writes(i, reg);
    }
    if (!memory(s) && size == 8)
        defines(i, to_rm ? s->rm : reg, linear(to_rm ? reg : s->rm, 0));
}

static void map0(struct x86 *s)
{
    struct insn *i = s->i;
    unsigned op = s->opcode, low = (op & 7) | (s->rex << 3 & 8);
    unsigned size = op & 1 ? operand_size(s) : 1;
    if (op < 0x40) {
        if ((op & 7) < 4) {
            parse_modrm(s);
            arithmetic(s, op >> 3, size, !(op & 2), true);
        } else if ((op & 7) < 6) {
            i->cls = INT_ALU;
            reads(i, RAX);
            if (op >> 3 != 7)
                writes(i, RAX);
            writes(i, REG_FLAGS);
        } else {
            unknown(s);
        }
        return;
    }
    if (op >= 0x50 && op < 0x58) {
        i->cls = STORE;
        reads(i, low);
        push(s);
        return;
    }
    if (op >= 0x58 && op < 0x60) {
        i->cls = LOAD;
        pop(s, 0);
        if (low == RSP)
            i->flags |= INSN_UNKNOWN;
        writes(i, low);
        return;
    }
    if (op >= 0x70 && op < 0x80) {
        reads(i, REG_FLAGS);
        direct(s, BRANCH, 1);
        return;
    }
    if (op >= 0x91 && op < 0x98) {
        i->cls = INT_ALU;
        reads(i, RAX);
        reads(i, low);
        writes(i, RAX);
        writes(i, low);
        return;
    }
    if (op >= 0xb0 && op < 0xc0) {
        i->cls = INT_ALU;
        writes(i, op < 0xb8 ? byte_reg(s, low) : low);
        if (op >= 0xb8 && s->wide)
            defines(i, low, linear(REG_NONE, immediate(s->bytes + s->pos, 8)));
        else if (op >= 0xb8 && s->vector_prefix != P66)
            defines(i, low, linear(REG_NONE, (int64_t)(uint32_t)immediate(s->bytes + s->pos, 4)));
        return;
    }
    if (op >= 0xd8 && op < 0xe0) { /* x87: the class is coarse, the access is not */
        static const uint8_t sizes[8][8] = {{4, 4, 4, 4, 4, 4, 4, 4}, {4, 0, 4, 4, 0, 2, 0, 2},
            {4, 4, 4, 4, 4, 4, 4, 4}, {4, 4, 4, 4, 0, 10, 0, 10}, {8, 8, 8, 8, 8, 8, 8, 8},
            {8, 8, 8, 8, 0, 0, 0, 2}, {2, 2, 2, 2, 2, 2, 2, 2}, {2, 2, 2, 2, 10, 8, 10, 8}};
        parse_modrm(s);
        i->cls = FP_MISC;
        i->flags |= INSN_DYNAMIC;
        if (memory(s)) {
            unsigned sub = s->reg & 7, bytes = sizes[op & 7][sub];
            bool store = (op & 1) && (sub == 2 || sub == 3 || sub == 1 || sub == 7 || (op == 0xdf && sub == 6));
            if (op == 0xdb && sub == 5)
                store = false;
            if (op == 0xd9 && sub == 5)
                store = false;
            address_reads(s);
            if (bytes)
                accesses(i, s->address, bytes, store);
        } else if (op == 0xdf) {
            writes(i, RAX); /* fnstsw ax */
        }
        writes(i, REG_FLAGS);
        return;
    }
    switch (op) {
    case 0x63:
        parse_modrm(s);
        i->cls = memory(s) ? LOAD : INT_ALU;
        address_reads(s);
        rm_read(s, 4, 0);
        writes(i, s->reg);
        return;
    case 0x68: case 0x6a: i->cls = STORE; push(s); return;
    case 0x69: case 0x6b:
        parse_modrm(s);
        i->cls = INT_MUL;
        address_reads(s);
        rm_read(s, operand_size(s), 0);
        writes(i, s->reg);
        writes(i, REG_FLAGS);
        return;
    case 0x80: case 0x81: case 0x83:
        parse_modrm(s);
        group1(s, size, op == 0x81 ? (operand_size(s) == 2 ? 2 : 4) : 1);
        return;
    case 0x84: case 0x85:
        parse_modrm(s);
        arithmetic(s, 7, size, true, true);
        return;
    case 0x86: case 0x87:
        parse_modrm(s);
        i->cls = memory(s) ? ATOMIC : INT_ALU;
        if (memory(s))
            i->flags |= INSN_DYNAMIC;
        address_reads(s);
        rm_read(s, size, 0);
        reads(i, size == 1 ? byte_reg(s, s->reg) : s->reg);
        rm_write(s, size, 0);
        writes(i, size == 1 ? byte_reg(s, s->reg) : s->reg);
        return;
    case 0x88: case 0x89: case 0x8a: case 0x8b:
        parse_modrm(s);
        move(s, size, op < 0x8a);
        i->flags |= size >= 4 && !memory(s) ? INSN_MOVE : 0; /* narrower ones merge */
        return;
    case 0x8d:
        parse_modrm(s);
        i->cls = INT_ALU;
        address_reads(s);
        i->flags &= (uint16_t)~INSN_DYNAMIC;
        writes(i, s->reg);
        if (s->wide && !s->address32)
            defines(i, s->reg, s->address);
        return;
    case 0x8f:
        parse_modrm(s);
        i->cls = LOAD;
        i->flags |= INSN_DYNAMIC;
        pop(s, 0);
        rm_write(s, 8, 0);
        return;
    case 0x90: i->cls = s->rex & 1 ? INT_ALU : OTHER;
        if (s->rex & 1)
            unknown(s);
        return;
    case 0x98: i->cls = INT_ALU; reads(i, RAX); writes(i, RAX); return;
    case 0x99: i->cls = INT_ALU; reads(i, RAX); writes(i, RDX); return;
    case 0x9c: i->cls = STORE; reads(i, REG_FLAGS); push(s); return;
    case 0x9d: i->cls = LOAD; pop(s, 0); writes(i, REG_FLAGS); return;
    case 0x9b: i->cls = OTHER; return;
    case 0xa4: case 0xa5: case 0xa6: case 0xa7: case 0xaa: case 0xab: case 0xac: case 0xad: case 0xae:
    case 0xaf: string(s); return;
    case 0xa8: case 0xa9: i->cls = INT_ALU; reads(i, RAX); writes(i, REG_FLAGS); return;
    case 0xc0: case 0xc1: case 0xd0: case 0xd1: case 0xd2: case 0xd3:
        parse_modrm(s);
        i->cls = INT_ALU;
        address_reads(s);
        rm_read(s, size, 0);
        if (op >= 0xd2)
            reads(i, RCX);
        rm_write(s, size, 0);
        writes(i, REG_FLAGS);
        if (op == 0xc1 && size == 8 && !memory(s) && (s->reg & 7) == 4)
            defines(i, s->rm, indexed(REG_NONE, s->rm, s->bytes[s->pos] & 63, 0));
        return;
    case 0xc2: i->cls = JUMP; pop(s, (uint16_t)immediate(s->bytes + s->pos, 2)); return;
    case 0xc3: i->cls = JUMP; pop(s, 0); return;
    case 0xc6: case 0xc7:
        parse_modrm(s);
        i->cls = memory(s) ? STORE : INT_ALU;
        address_reads(s);
        rm_write(s, size, 0);
        if (!memory(s) && size == 8)
            defines(i, s->rm, linear(REG_NONE, immediate(s->bytes + s->pos, 4)));
        return;
    case 0xc9:
        i->cls = LOAD;
        reads(i, RBP);
        accesses(i, linear(RBP, 0), 8, false);
        writes(i, RSP);
        writes(i, RBP);
        defines(i, RSP, linear(RBP, 8));
        return;
    case 0xe0: case 0xe1: case 0xe2: case 0xe3:
        reads(i, RCX);
        if (op != 0xe3)
            writes(i, RCX);
        direct(s, BRANCH, 1);
        return;
    case 0xe8: push(s); direct(s, JUMP, 4); return;
    case 0xe9: direct(s, JUMP, 4); return;
    case 0xeb: direct(s, JUMP, 1); return;
    case 0xf6: case 0xf7: parse_modrm(s); group3(s, size); return;
    case 0xf5: case 0xf8: case 0xf9: i->cls = INT_ALU; writes(i, REG_FLAGS); return;
    case 0xfc: case 0xfd: i->cls = OTHER; return;
    case 0xfe: case 0xff: parse_modrm(s); group5(s, size); return;
    default: unknown(s); return;
    }
}

/* Packed by default; the scalar class when the prefix says so. */
static void sse_class(struct x86 *s, unsigned packed, unsigned scalar)
{
    s->i->cls = (uint8_t)(s->vector_prefix >= PF3 ? scalar : packed);
}

static unsigned vector_bytes(const struct x86 *s)
{
    return s->long_vector ? 32 : 16;
}

static unsigned sse_bytes(const struct x86 *s)
{
    return s->vector_prefix == PF3 ? 4 : s->vector_prefix == PF2 ? 8 : vector_bytes(s);
}

/* reg = op(vvvv or reg, r/m); `dependent` false where the first operand is not read. */
static void vector_op(struct x86 *s, unsigned bytes, bool dependent)
{
    struct insn *i = s->i;
    address_reads(s);
    rm_read(s, bytes, REG_FP);
    if (s->vex && dependent)
        reads(i, v(s->vvvv));
    else if (dependent)
        reads(i, v(s->reg));
    writes(i, v(s->reg));
}

static void vector_move(struct x86 *s, unsigned bytes, bool to_rm)
{
    bool scalar = bytes < 16;
    address_reads(s);
    if (memory(s))
        s->i->cls = to_rm ? (scalar ? STORE : VEC_STORE) : scalar ? LOAD : VEC_LOAD;
    else
        s->i->cls = scalar ? FP_MISC : VEC_MISC;
    if (to_rm) {
        reads(s->i, v(s->reg));
        rm_write(s, bytes, REG_FP);
    } else {
        rm_read(s, bytes, REG_FP);
        if (!memory(s) && scalar)
            reads(s->i, v(s->vex ? s->vvvv : s->reg));
        writes(s->i, v(s->reg));
    }
}

static unsigned packed_integer_class(unsigned op)
{
    switch (op) {
    case 0x60: case 0x61: case 0x62: case 0x63: case 0x67: case 0x68: case 0x69: case 0x6a: case 0x6b:
    case 0x6c: case 0x6d: case 0x70: return VEC_SHUFFLE;
    case 0xd5: case 0xe4: case 0xe5: case 0xf4: case 0xf5: return VEC_MUL;
    case 0xda: case 0xde: case 0xea: case 0xee: case 0xe6: return VEC_MISC; /* min, max; conversion */
    default: return VEC_ALU;
    }
}

static bool zero_idiom(const struct x86 *s)
{
    return s->mod == 3 && (s->vex ? s->vvvv : s->reg) == s->rm;
}

static void map1_vector(struct x86 *s)
{
    struct insn *i = s->i;
    unsigned op = s->opcode, bytes = vector_bytes(s);
    bool scalar = s->vector_prefix >= PF3;
    switch (op) {
    case 0x10: case 0x11: vector_move(s, sse_bytes(s), op & 1); return;
    case 0x12: case 0x16:
        if (s->vector_prefix >= PF3) { /* movddup, movsldup, movshdup */
            vector_op(s, s->vector_prefix == PF2 && !s->long_vector ? 8 : bytes, false);
            i->cls = memory(s) ? VEC_LOAD : VEC_SHUFFLE;
        } else {
            vector_op(s, 8, true);
            i->cls = memory(s) ? LOAD : VEC_SHUFFLE;
        }
        return;
    case 0x13: case 0x17: vector_move(s, 8, true); return;
    case 0x28: case 0x29:
        vector_move(s, bytes, op & 1);
        i->flags |= memory(s) ? 0 : INSN_MOVE;
        return;
    case 0x2b: case 0xe7: vector_move(s, bytes, true); return;
    case 0x6f: case 0x7f:
        vector_move(s, !s->vex && !s->vector_prefix ? 8 : bytes, op == 0x7f);
        i->flags |= memory(s) ? 0 : INSN_MOVE;
        return;
    case 0xf0: vector_move(s, bytes, false); return;
    case 0xd6: vector_move(s, 8, true); return;
    case 0x7e:
        if (s->vector_prefix == PF3) {
            vector_move(s, 8, false);
            return;
        } /* fall through */
    case 0x6e: {
        unsigned size = s->wide ? 8 : 4;
        address_reads(s);
        i->cls = !memory(s) ? FP_MISC : op == 0x7e ? STORE : LOAD;
        if (op == 0x7e) {
            reads(i, v(s->reg));
            rm_write(s, size, 0);
        } else {
            rm_read(s, size, 0);
            writes(i, v(s->reg));
        }
        return;
    }
    case 0x2a: /* integer to float */
        i->cls = scalar ? FP_MISC : VEC_MISC;
        address_reads(s);
        rm_read(s, scalar ? (s->wide ? 8 : 4) : 8, 0);
        writes(i, v(s->reg));
        return;
    case 0x2c: case 0x2d:
        i->cls = scalar ? FP_MISC : VEC_MISC;
        address_reads(s);
        rm_read(s, scalar ? sse_bytes(s) : 16, REG_FP);
        writes(i, scalar ? s->reg : v(s->reg));
        return;
    case 0x2e: case 0x2f:
        i->cls = FP_MISC;
        address_reads(s);
        rm_read(s, s->vector_prefix == P66 ? 8 : 4, REG_FP);
        reads(i, v(s->reg));
        writes(i, REG_FLAGS);
        return;
    case 0x50: case 0xd7: case 0xc5: /* to an integer register */
        i->cls = VEC_MISC;
        reads(i, v(s->rm));
        writes(i, s->reg);
        return;
    case 0xc4:
        vector_op(s, 2, true);
        i->cls = VEC_SHUFFLE;
        return;
    case 0x51: vector_op(s, sse_bytes(s), scalar && s->vex); sse_class(s, VEC_FP_DIV, FP_DIV); return;
    case 0x52: case 0x53: vector_op(s, sse_bytes(s), scalar && s->vex); sse_class(s, VEC_MISC, FP_MISC); return;
    case 0x54: case 0x55: case 0x56: case 0x57:
        i->cls = VEC_ALU;
        if (op == 0x57 && zero_idiom(s))
            writes(i, v(s->reg));
        else
            vector_op(s, bytes, true);
        return;
    case 0x58: case 0x5c: vector_op(s, sse_bytes(s), true); sse_class(s, VEC_FP_ADD, FP_ADD); return;
    case 0x59: vector_op(s, sse_bytes(s), true); sse_class(s, VEC_FP_MUL, FP_MUL); return;
    case 0x5e: vector_op(s, sse_bytes(s), true); sse_class(s, VEC_FP_DIV, FP_DIV); return;
    case 0x5d: case 0x5f: case 0xc2: vector_op(s, sse_bytes(s), true); sse_class(s, VEC_MISC, FP_MISC); return;
    case 0x5a: /* float to double reads half a vector */
        vector_op(s, scalar ? sse_bytes(s) : s->vector_prefix == P66 ? bytes : bytes / 2, scalar);
        sse_class(s, VEC_MISC, FP_MISC);
        return;
    case 0x5b: vector_op(s, bytes, false); i->cls = VEC_MISC; return;
    case 0xe6: vector_op(s, s->vector_prefix == PF3 ? bytes / 2 : bytes, false); i->cls = VEC_MISC; return;
    case 0x7c: case 0x7d: case 0xd0: vector_op(s, bytes, true); i->cls = VEC_FP_ADD; return;
    case 0x14: case 0x15: case 0xc6: vector_op(s, bytes, true); i->cls = VEC_SHUFFLE; return;
    case 0x70: vector_op(s, bytes, false); i->cls = VEC_SHUFFLE; return;
    case 0x71: case 0x72: case 0x73: /* shift by immediate: destination is vvvv or r/m */
        i->cls = VEC_ALU;
        if ((s->reg & 7) == 3 || (s->reg & 7) == 7)
            i->cls = op == 0x73 ? VEC_SHUFFLE : VEC_ALU;
        reads(i, v(s->rm));
        writes(i, v(s->vex ? s->vvvv : s->rm));
        return;
    case 0xf7: i->cls = VEC_STORE; i->flags |= INSN_DYNAMIC | INSN_ELEMENTS; i->is_store = true; return;
    default:
        i->cls = (uint8_t)packed_integer_class(op);
        if ((op == 0xef || op == 0xf8 || op == 0xf9 || op == 0xfa || op == 0xfb) && zero_idiom(s)) {
            writes(i, v(s->reg));
            return;
        }
        /* a shift count is always 16 bytes; without prefix these are MMX */
        if ((op >= 0xd1 && op <= 0xd3) || op == 0xe1 || op == 0xe2 || (op >= 0xf1 && op <= 0xf3))
            bytes = 16;
        vector_op(s, !s->vex && !s->vector_prefix ? 8 : bytes, true);
        return;
    }
}

static void compare_exchange(struct x86 *s, unsigned size, bool exchange)
{
    s->i->cls = memory(s) ? ATOMIC : INT_ALU;
    if (memory(s))
        s->i->flags |= INSN_DYNAMIC;
    address_reads(s);
    rm_read(s, size, 0);
    reads(s->i, s->reg);
    rm_write(s, size, 0);
    if (exchange) {
        reads(s->i, RAX);
        writes(s->i, RAX);
    } else {
        writes(s->i, size == 1 ? byte_reg(s, s->reg) : s->reg);
    }
    writes(s->i, REG_FLAGS);
}

static void map1(struct x86 *s)
{
    struct insn *i = s->i;
    unsigned op = s->opcode, size = operand_size(s);
    if (op >= 0x80 && op < 0x90) {
        reads(i, REG_FLAGS);
        direct(s, BRANCH, 4);
        return;
    }
    if (op >= 0xc8 && op < 0xd0) { /* bswap */
        i->cls = INT_ALU;
        reads(i, (op & 7) | (s->rex << 3 & 8));
        writes(i, (op & 7) | (s->rex << 3 & 8));
        return;
    }
    switch (op) {
    case 0x05: case 0x0b: i->cls = OTHER; i->flags |= INSN_UNKNOWN; return;
    case 0x31: case 0xa2: i->cls = OTHER; i->flags |= INSN_UNKNOWN; return;
    case 0x77: i->cls = OTHER; return;
    default: break;
    }
    parse_modrm(s);
    if ((op >= 0x10 && op < 0x18) || (op >= 0x28 && op < 0x30) || (op >= 0x50 && op < 0x80) ||
        op == 0xc2 || (op >= 0xc4 && op < 0xc7) || op >= 0xd0) {
        map1_vector(s);
        return;
    }
    address_reads(s);
    i->cls = INT_ALU;
    if (op >= 0x40 && op < 0x50) {
        rm_read(s, size, 0);
        reads(i, s->reg);
        reads(i, REG_FLAGS);
        writes(i, s->reg);
        return;
    }
    if (op >= 0x90 && op < 0xa0) {
        reads(i, REG_FLAGS);
        rm_write(s, 1, 0);
        return;
    }
    switch (op) {
    case 0x01:
        if (s->mod == 3 && s->reg == 2 && s->rm == 0) { /* xgetbv */
            i->cls = OTHER;
            writes(i, RAX);
            writes(i, RDX);
            return;
        }
        unknown(s);
        return;
    case 0x0d: case 0x18: case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1e: case 0x1f:
        i->cls = OTHER;
        i->flags &= (uint16_t)~INSN_DYNAMIC;
        return;
    case 0xa3: case 0xab: case 0xb3: case 0xbb: /* bit tests: memory form reaches anywhere */
        if (memory(s))
            i->flags |= INSN_DYNAMIC;
        rm_read(s, size, 0);
        reads(i, s->reg);
        if (op != 0xa3)
            rm_write(s, size, 0);
        writes(i, REG_FLAGS);
        return;
    case 0xba:
        rm_read(s, size, 0);
        if ((s->reg & 7) != 4)
            rm_write(s, size, 0);
        writes(i, REG_FLAGS);
        return;
    case 0xa4: case 0xa5: case 0xac: case 0xad:
        rm_read(s, size, 0);
        reads(i, s->reg);
        if (op & 1)
            reads(i, RCX);
        rm_write(s, size, 0);
        writes(i, REG_FLAGS);
        return;
    case 0xae:
        i->cls = OTHER;
        if (!memory(s))
            return;
        if ((s->reg & 7) == 2 || (s->reg & 7) == 3)
            accesses(i, s->address, 4, (s->reg & 7) == 3); /* ldmxcsr, stmxcsr */
        else if ((s->reg & 7) < 7) {
            i->flags |= INSN_DYNAMIC; /* state save and restore */
            i->is_load = (s->reg & 7) == 1 || (s->reg & 7) == 5;
            i->is_store = !i->is_load;
        }
        return;
    case 0xaf:
        i->cls = INT_MUL;
        rm_read(s, size, 0);
        reads(i, s->reg);
        writes(i, s->reg);
        writes(i, REG_FLAGS);
        return;
    case 0xb0: compare_exchange(s, 1, true); i->n_src = i->n_src; return;
    case 0xb1: compare_exchange(s, size, true); return;
    case 0xc0: compare_exchange(s, 1, false); return;
    case 0xc1: compare_exchange(s, size, false); return;
    case 0xc3: i->cls = STORE; reads(i, s->reg); rm_write(s, size, 0); return;
    case 0xc7:
        if (!memory(s)) {
            writes(i, s->rm); /* rdrand */
            writes(i, REG_FLAGS);
            i->cls = OTHER;
            return;
        }
        if ((s->reg & 7) != 1) {
            unknown(s);
            return;
        }
        i->cls = ATOMIC;
        i->flags |= INSN_DYNAMIC;
        accesses(i, s->address, s->wide ? 16 : 8, false);
        accesses(i, s->address, s->wide ? 16 : 8, true);
        writes(i, RAX);
        writes(i, RDX);
        writes(i, REG_FLAGS);
        return;
    case 0xb6: case 0xb7: case 0xbe: case 0xbf:
        i->cls = memory(s) ? LOAD : INT_ALU;
        rm_read(s, op & 1 ? 2 : 1, 0);
        writes(i, s->reg);
        return;
    case 0xb8: case 0xbc: case 0xbd:
        rm_read(s, size, 0);
        writes(i, s->reg);
        writes(i, REG_FLAGS);
        return;
    default: unknown(s); return;
    }
}

static void map2(struct x86 *s)
{
    struct insn *i = s->i;
    unsigned op = s->opcode, bytes = vector_bytes(s);
    parse_modrm(s);
    if (op >= 0xf0) { /* movbe, crc32, BMI */
        unsigned size = s->wide ? 8 : 4;
        address_reads(s);
        if (s->vex && op == 0xf3) { /* blsr, blsmsk, blsi: destination is vvvv */
            i->cls = INT_ALU;
            rm_read(s, size, 0);
            writes(i, s->vvvv);
            writes(i, REG_FLAGS);
        } else if (s->vex) {
            i->cls = op == 0xf6 && s->vector_prefix == PF2 ? INT_MUL : INT_ALU;
            rm_read(s, size, 0);
            if (i->cls == INT_MUL) { /* mulx */
                reads(i, RDX);
                writes(i, s->vvvv);
            } else {
                reads(i, s->vvvv);
            }
            writes(i, s->reg);
            if (op == 0xf2 || (op == 0xf5 && !s->vector_prefix) || (op == 0xf7 && !s->vector_prefix))
                writes(i, REG_FLAGS);
        } else if (op <= 0xf1 && s->vector_prefix != PF2) { /* movbe */
            i->cls = op == 0xf1 ? STORE : LOAD;
            if (op == 0xf1) {
                reads(i, s->reg);
                rm_write(s, operand_size(s), 0);
            } else {
                rm_read(s, operand_size(s), 0);
                writes(i, s->reg);
            }
        } else if (op <= 0xf1) {
            i->cls = INT_ALU;
            rm_read(s, op == 0xf0 ? 1 : operand_size(s), 0);
            reads(i, s->reg);
            writes(i, s->reg);
        } else if (op == 0xf6) { /* adcx, adox */
            i->cls = INT_ALU;
            rm_read(s, size, 0);
            reads(i, s->reg);
            reads(i, REG_FLAGS);
            writes(i, s->reg);
            writes(i, REG_FLAGS);
        } else {
            unknown(s);
        }
        return;
    }
    if (s->vex && (op & 15) >= 6 && op >= 0x96 && op < 0xc0) { /* FMA; odd from 9 on are scalar */
        bool scalar = (op & 15) > 8 && (op & 1);
        i->cls = scalar ? FP_FMA : VEC_FP_FMA;
        i->flags |= INSN_SPLIT;
        vector_op(s, scalar ? (s->wide ? 8 : 4) : bytes, true);
        reads(i, v(s->reg));
        return;
    }
    if (op >= 0x90 && op < 0x94) { /* gather: an element that the mask skips is not loaded */
        i->cls = VEC_LOAD;
        i->flags |= INSN_DYNAMIC | INSN_ELEMENTS;
        i->is_load = true;
        reads(i, s->address.base);
        reads(i, v(s->address.index));
        reads(i, v(s->vvvv));
        writes(i, v(s->reg));
        writes(i, v(s->vvvv));
        return;
    }
    switch (op) {
    case 0x2c: case 0x2d: case 0x2e: case 0x2f: case 0x8c: case 0x8e: { /* masked moves */
        bool store = op == 0x2e || op == 0x2f || op == 0x8e;
        i->flags |= store ? INSN_MASKED : 0;
        i->cls = store ? VEC_STORE : VEC_LOAD;
        i->flags |= INSN_DYNAMIC | INSN_ELEMENTS;
        i->is_load = !store;
        i->is_store = store;
        address_reads(s);
        reads(i, v(s->vvvv));
        if (store)
            reads(i, v(s->reg));
        else
            writes(i, v(s->reg));
        return;
    }
    case 0x18: case 0x58: vector_op(s, 4, false); break;
    case 0x19: case 0x59: vector_op(s, 8, false); break;
    case 0x1a: case 0x5a: vector_op(s, 16, false); break;
    case 0x78: vector_op(s, 1, false); break;
    case 0x79: vector_op(s, 2, false); break;
    case 0x2a: vector_move(s, bytes, false); return;
    case 0x13: vector_op(s, bytes / 2, false); i->cls = VEC_MISC; return;
    case 0x20: case 0x23: case 0x25: case 0x30: case 0x33: case 0x35:
        vector_op(s, bytes / 2, false);
        i->cls = VEC_MISC;
        return;
    case 0x21: case 0x24: case 0x31: case 0x34: vector_op(s, bytes / 4, false); i->cls = VEC_MISC; return;
    case 0x22: case 0x32: vector_op(s, bytes / 8, false); i->cls = VEC_MISC; return;
    case 0x17: case 0x0e: case 0x0f:
        address_reads(s);
        rm_read(s, bytes, REG_FP);
        reads(i, v(s->reg));
        writes(i, REG_FLAGS);
        i->cls = VEC_MISC;
        return;
    case 0x00: case 0x0c: case 0x0d: case 0x16: case 0x2b: case 0x36:
        vector_op(s, bytes, true);
        i->cls = VEC_SHUFFLE;
        return;
    case 0x10: case 0x14: case 0x15: vector_op(s, bytes, true); reads(i, v(0)); i->cls = VEC_MISC; return;
    case 0x04: case 0x0b: case 0x28: case 0x40: vector_op(s, bytes, true); i->cls = VEC_MUL; return;
    case 0x38: case 0x39: case 0x3a: case 0x3b: case 0x3c: case 0x3d: case 0x3e: case 0x3f: case 0x41:
        vector_op(s, bytes, true);
        i->cls = VEC_MISC;
        return;
    case 0x1c: case 0x1d: case 0x1e: vector_op(s, bytes, false); i->cls = VEC_ALU; return;
    default: vector_op(s, bytes, true); i->cls = VEC_ALU; return;
    }
    i->cls = memory(s) ? VEC_LOAD : VEC_SHUFFLE; /* broadcasts */
}

static void map3(struct x86 *s)
{
    struct insn *i = s->i;
    unsigned op = s->opcode, bytes = vector_bytes(s);
    parse_modrm(s);
    i->cls = VEC_SHUFFLE;
    switch (op) {
    case 0xf0: /* rorx */
        i->cls = INT_ALU;
        address_reads(s);
        rm_read(s, s->wide ? 8 : 4, 0);
        writes(i, s->reg);
        return;
    case 0x14: case 0x15: case 0x16: case 0x17: {
        static const uint8_t sizes[4] = {1, 2, 4, 4};
        address_reads(s);
        reads(i, v(s->reg));
        rm_write(s, op == 0x16 && s->wide ? 8 : sizes[op & 3], 0);
        i->cls = memory(s) ? STORE : VEC_SHUFFLE;
        return;
    }
    case 0x19: case 0x39: case 0x1d:
        address_reads(s);
        reads(i, v(s->reg));
        rm_write(s, op == 0x1d ? bytes / 2 : 16, REG_FP);
        i->cls = op == 0x1d ? VEC_MISC : memory(s) ? VEC_STORE : VEC_SHUFFLE;
        return;
    case 0x18: case 0x38: vector_op(s, 16, true); return;
    case 0x20: case 0x22: {
        unsigned size = op == 0x20 ? 1 : s->wide ? 8 : 4;
        address_reads(s);
        rm_read(s, size, 0);
        reads(i, v(s->vex ? s->vvvv : s->reg));
        writes(i, v(s->reg));
        return;
    }
    case 0x21: vector_op(s, 4, true); return;
    case 0x00: case 0x01: case 0x04: case 0x05: vector_op(s, bytes, false); return;
    case 0x08: case 0x09: vector_op(s, bytes, false); i->cls = VEC_MISC; return;
    case 0x0a: vector_op(s, 4, true); i->cls = FP_MISC; return;
    case 0x0b: vector_op(s, 8, true); i->cls = FP_MISC; return;
    case 0x02: case 0x0c: case 0x0d: case 0x0e: case 0x4a: case 0x4b: case 0x4c:
        vector_op(s, bytes, true);
        i->cls = VEC_MISC;
        return;
    case 0x40: case 0x41: vector_op(s, bytes, true); i->cls = VEC_FP_MUL; return;
    case 0x44: vector_op(s, bytes, true); i->cls = VEC_MUL; return;
    case 0x42: vector_op(s, bytes, true); i->cls = VEC_ALU; return;
    case 0x60: case 0x61: case 0x62: case 0x63:
        vector_op(s, 16, true);
        i->cls = VEC_MISC;
        writes(i, RCX);
        writes(i, REG_FLAGS);
        return;
    default: vector_op(s, bytes, true); return;
    }
}

void decode_x86(const uint8_t *bytes, struct insn *i)
{
    struct x86 s = {.bytes = bytes, .i = i, .mod = 3};
    static const uint8_t mark[] = {0x0f, 0x1f, 0x84, 0x00};
    i->defines = i->quick = REG_NONE;
    if (i->size == 8 && !__builtin_memcmp(bytes, mark, 4)) {
        uint32_t id = (uint32_t)immediate(bytes + 4, 4);
        i->flags |= id == 0x51510001   ? INSN_MARK_BEGIN
                    : id == 0x51510002 ? INSN_MARK_END
                    : id == 0x51510003 ? INSN_MARK_WARM
                                       : 0;
    }
    if (!parse_prefixes(&s)) {
        unknown(&s);
        return;
    }
    static void (*const maps[])(struct x86 *) = {map0, map1, map2, map3};
    maps[s.map](&s);
    if (s.locked) {
        i->cls = ATOMIC;
        i->flags |= INSN_DYNAMIC;
    }
    /* Two different places: leave their order to the callbacks. */
    if (i->n_mem == 2 && (i->mem[0].address.base != i->mem[1].address.base ||
                          i->mem[0].address.imm != i->mem[1].address.imm ||
                          i->mem[0].address.index != i->mem[1].address.index))
        i->flags |= INSN_DYNAMIC;
}
