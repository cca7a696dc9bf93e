/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the models need to know about one instruction: its class, its memory accesses, and the
 * registers it reads and writes. One decoder per instruction set fills the same structure.
 */
#ifndef SIMTUNE_DECODE_H
#define SIMTUNE_DECODE_H

#include <stdbool.h>
#include <stdint.h>

/* In the order of INSTRUCTION_CLASSES in simtune/counters.py. */
enum insn_class {
    INT_ALU, INT_MUL, INT_DIV, LOAD, STORE, ATOMIC, BRANCH, JUMP, FP_ADD, FP_MUL, FP_FMA, FP_DIV,
    FP_MISC, VEC_ALU, VEC_MUL, VEC_FP_ADD, VEC_FP_MUL, VEC_FP_FMA, VEC_FP_DIV, VEC_MISC,
    VEC_SHUFFLE, VEC_LOAD, VEC_STORE, VEC_CONFIG, OTHER, N_CLASSES
};

extern const char *const class_names[N_CLASSES];

/*
 * One register space for all instruction sets: 0-31 integer, then floating point (on A64 and x86
 * also SIMD), then the separate vector file of RISC-V. The A64 stack pointer is 31; the RISC-V and
 * A64 zero registers are REG_NONE.
 */
enum {
    REG_FP = 32,
    REG_VEC = 64,
    REG_FLAGS = 96,
    REG_VTYPE = 97,
    N_REGS = 98,
    REG_NONE = 255
};

/* base + (extend(index) << shift) + imm, in 64 bits. REG_NONE counts as zero. */
struct linear {
    uint8_t base, index, shift;
    uint8_t extend; /* 0 = the whole register; otherwise a code for a narrower, extended one */
    int64_t imm;
};

struct mem_operand {
    struct linear address;
    uint16_t size;
    bool store;
};

enum {
    INSN_UNKNOWN = 1,  /* not recognised: may have changed any register */
    INSN_DYNAMIC = 2,  /* addresses, or their number, are only known to the memory callback */
    INSN_ELEMENTS = 4, /* dynamic, an access per vector element: neighbours in one line are one */
    INSN_REPEATED = 8, /* dynamic, x86 string instruction: accesses and bytes counted as they come */
    INSN_MARK_BEGIN = 16,
    INSN_MARK_END = 32,
    INSN_MARK_WARM = 256,
    INSN_MASKED = 512, /* stores some elements of a register only */
    INSN_MOVE = 128, /* copies a register to another of the same kind */
    INSN_SPLIT = 64 /* QEMU reports the access in several parts though it has at most 8 bytes */
};

enum { MAX_SRC = 8, MAX_DST = 6 };

struct insn {
    uint64_t pc;
    uint64_t target; /* of a direct branch, otherwise 0 */
    uint8_t size, cls;
    uint16_t flags;
    uint8_t n_src, n_dst, n_mem;
    uint8_t src[MAX_SRC], dst[MAX_DST];
    uint8_t defines;  /* register that gets the value `value`, or REG_NONE */
    uint8_t quick;    /* destination that is ready after one cycle (address write-back) */
    bool is_load, is_store;
    uint8_t scale;    /* RVV: registers per operand (LMUL), at least 1 */
    struct linear value;
    struct mem_operand mem[2];
};

/* Decoders get `insn` zeroed apart from pc and size. */
void decode_riscv(const uint8_t *bytes, struct insn *insn);
void decode_a64(const uint8_t *bytes, struct insn *insn);
void decode_x86(const uint8_t *bytes, struct insn *insn);

/* Bytes that a whole instruction starting with `bytes` has; 30 bytes must be readable. */
unsigned x86_length(const uint8_t *bytes);

static inline void reads(struct insn *insn, unsigned reg)
{
    if (reg < N_REGS && insn->n_src < MAX_SRC)
        insn->src[insn->n_src++] = (uint8_t)reg;
}

static inline void writes(struct insn *insn, unsigned reg)
{
    if (reg < N_REGS && insn->n_dst < MAX_DST)
        insn->dst[insn->n_dst++] = (uint8_t)reg;
}

/* Records that `reg` becomes a linear function of registers (which is what addresses are made of). */
static inline void defines(struct insn *insn, unsigned reg, struct linear value)
{
    insn->defines = (uint8_t)reg;
    insn->value = value;
}

static inline struct linear linear(unsigned base, int64_t imm)
{
    return (struct linear){.base = (uint8_t)base, .index = REG_NONE, .imm = imm};
}

static inline struct linear indexed(unsigned base, unsigned index, unsigned shift, int64_t imm)
{
    return (struct linear){
        .base = (uint8_t)base, .index = (uint8_t)index, .shift = (uint8_t)shift, .imm = imm};
}

static inline void accesses(struct insn *insn, struct linear address, unsigned size, bool store)
{
    if (insn->n_mem < 2)
        insn->mem[insn->n_mem++] = (struct mem_operand){address, (uint16_t)size, store};
    if (store)
        insn->is_store = true;
    else
        insn->is_load = true;
}

#endif
