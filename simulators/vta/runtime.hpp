// SPDX-License-Identifier: Apache-2.0
// The runtime under the emitter: instruction buffer with dependency tokens, and the micro-op cache.
#pragma once

#include <memory>
#include <vector>

#include "isa.hpp"

namespace vta {

// A loop that is folded into the instruction, with its index steps.
struct UopLoop {
    int64_t extent = 1, dst = 0, src = 0, wgt = 0;
};

// A micro-op kernel: recorded once, loaded when it is not resident.
struct Kernel {
    bool alu = false, reset = false, use_imm = false;
    int alu_op = ALU_MIN;
    int64_t imm = 0;
    std::vector<UopLoop> loops;  // at most two
    std::vector<Uop> uops;
    int64_t begin = 0, end = 0;  // its place; empty when it is not resident
    Word word{};                 // its instruction there, without tokens

    bool resident() const { return end > begin; }
    // Throws UOP_DEP when one of the two latest micro-ops has the same destination, UOP_CNT when full.
    void push(const Uop& uop, const Hardware& hardware);
};

struct Program {
    std::vector<Word> insns;
    std::vector<uint32_t> uops;     // in memory
    std::vector<int64_t> segments;  // one past each FINISH
};

class Runtime {
  public:
    Runtime(const Hardware& hardware, const Widths& widths) : hardware_(hardware), widths_(widths) {}

    // An edge from one module to a neighbour: the sender's side and the receiver's side.
    void push_token(Module from, Module to);
    void pop_token(Module from, Module to);

    void transfer(const Insn& insn);  // a LOAD or STORE, without tokens
    void run(Kernel& kernel);         // loads the micro-ops if need be, then a GEMM or ALU instruction
    void finish();                    // end of the stream
    void reserve(size_t insns) { program_.insns.reserve(insns); }
    Program take() { return std::move(program_); }
    int64_t misses() const { return misses_; }

  private:
    void append(Module module, const Word& word);
    void append_with_pops(Module module, const Word& word);
    void commit_pops(Module module);
    void noop(Module module, uint64_t flags);
    Word instruction(const Kernel& kernel) const;
    void place(Kernel& kernel);
    void synchronise_if_full();

    const Hardware& hardware_;
    const Widths& widths_;
    Program program_;
    int last_ = -1;                      // module of the last instruction, which is still open for a push
    uint64_t pops_[3] = {};              // pending, as flags
    std::vector<Kernel*> resident_;      // by place
    int64_t next_ = 0;                   // where the next kernel goes
    int64_t misses_ = 0;
    int64_t segment_ = 0;                // first instruction since the last synchronisation
    int64_t segment_uops_ = 0;
};

}  // namespace vta
