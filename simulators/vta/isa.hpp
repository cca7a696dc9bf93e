// SPDX-License-Identifier: Apache-2.0
// The 128-bit instructions and 32-bit micro-ops: fields, encoding, text.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "spec.hpp"

namespace vta {

enum Opcode : int { LOAD = 0, STORE = 1, GEMM = 2, FINISH = 3, ALU = 4 };
enum AluOp : int { ALU_MIN = 0, ALU_MAX = 1, ALU_ADD = 2, ALU_SHR = 3, ALU_MUL = 4 };
enum Module : int { M_LOAD = 0, M_COMPUTE = 1, M_STORE = 2 };

// Token queues, and the one of each flag by module: pop prev, pop next, push prev, push next. The
// last queue stands for flags towards modules that do not exist; nothing is ever in it.
enum Token : int { L2G = 0, G2L = 1, G2S = 2, S2G = 3, NO_QUEUE = 4 };
constexpr int kQueue[3][4] = {
    {NO_QUEUE, G2L, NO_QUEUE, L2G}, {L2G, S2G, G2L, G2S}, {G2S, NO_QUEUE, S2G, NO_QUEUE}};

// The token flags in the low word of an instruction.
constexpr uint64_t kPopPrev = 1 << 3, kPopNext = 1 << 4, kPushPrev = 1 << 5, kPushNext = 1 << 6;

using Word = std::array<uint64_t, 2>;

// One instruction, all kinds in one: which fields count depends on the opcode.
struct Insn {
    int opcode = FINISH;
    bool pop_prev = false, pop_next = false, push_prev = false, push_next = false;
    // LOAD, STORE
    int memory = UOP;
    int64_t sram_base = 0, dram_base = 0, y_size = 0, x_size = 0, x_stride = 0;
    int64_t y_pad_0 = 0, y_pad_1 = 0, x_pad_0 = 0, x_pad_1 = 0;  // top, bottom, left, right
    // GEMM, ALU
    bool reset = false;
    int64_t uop_bgn = 0, uop_end = 0, iter_out = 0, iter_in = 0;
    int64_t dst_out = 0, dst_in = 0, src_out = 0, src_in = 0, wgt_out = 0, wgt_in = 0;
    int alu_op = ALU_MIN;
    bool use_imm = false;
    int64_t imm = 0;

    bool noop() const { return (opcode == LOAD || opcode == STORE) && x_size == 0; }
    Module module() const {
        if (opcode == STORE) return M_STORE;
        if (opcode == LOAD && (memory == INP || memory == WGT)) return M_LOAD;
        return M_COMPUTE;
    }
};

struct Uop {
    int dst = 0, src = 0, wgt = 0;
};

// Bits of an index into each buffer; together they decide how instructions are laid out.
struct Widths {
    explicit Widths(const Hardware& hardware);
    int uop, inp, wgt, acc;
};

// Throws Failure (stage run, FIELD_*) for a value that its field cannot hold.
Word encode(const Insn& insn, const Widths& widths);
Insn decode(const Word& word, const Widths& widths);
// Fills in the fields that the opcode has, and leaves the others as they are.
void decode(const Word& word, const Widths& widths, Insn& insn);
// The module that runs an instruction. Throws Failure (stage run, OOB) for what no module understands.
Module check(const Word& word, size_t index);
uint32_t encode(const Uop& uop, bool alu, const Widths& widths);
Uop decode(uint32_t word, bool alu, const Widths& widths);

std::string disassemble(const Insn& insn);
Insn assemble(const std::string& line);  // throws std::invalid_argument

}  // namespace vta
