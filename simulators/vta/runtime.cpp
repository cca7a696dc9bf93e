// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

#include <algorithm>

namespace vta {

void Kernel::push(const Uop& uop, const Hardware& hardware) {
    const size_t size = uops.size();
    for (size_t back = 1; back <= 2 && back <= size; back++)
        if (uops[size - back].dst == uop.dst)
            throw Failure(Stage::run, Code::uop_dep,
                          "micro-op " + std::to_string(size) + " writes accumulator " + std::to_string(uop.dst) +
                              ", as micro-op " + std::to_string(size - back) + " does");
    if (int64_t(size) >= hardware.uop_depth)
        throw Failure(Stage::run, Code::uop_cnt,
                      "a kernel has more than " + std::to_string(hardware.uop_depth) + " micro-ops");
    uops.push_back(uop);
}

void Runtime::push_token(Module from, Module to) {
    commit_pops(from);
    const uint64_t flag = from < to ? kPushNext : kPushPrev;
    if (last_ == from && !(program_.insns.back()[0] & flag))
        program_.insns.back()[0] |= flag;
    else
        noop(from, flag);
}

void Runtime::pop_token(Module from, Module to) {
    const uint64_t flag = from < to ? kPopPrev : kPopNext;
    if (pops_[to] & flag) commit_pops(to);
    pops_[to] |= flag;
}

void Runtime::commit_pops(Module module) {
    if (!pops_[module]) return;
    const uint64_t flags = pops_[module];
    pops_[module] = 0;
    noop(module, flags);
}

void Runtime::noop(Module module, uint64_t flags) {
    Insn insn;
    insn.opcode = module == M_STORE ? STORE : LOAD;
    insn.memory = module == M_STORE ? OUT : module == M_LOAD ? INP : UOP;
    Word word = encode(insn, widths_);
    word[0] |= flags;
    append(module, word);
}

void Runtime::append(Module module, const Word& word) {
    program_.insns.push_back(word);
    last_ = module;
}

void Runtime::append_with_pops(Module module, const Word& word) {
    append(module, word);
    program_.insns.back()[0] |= pops_[module];
    pops_[module] = 0;
}

void Runtime::transfer(const Insn& insn) {
    append_with_pops(insn.module(), encode(insn, widths_));
    synchronise_if_full();
}

void Runtime::run(Kernel& kernel) {
    if (!kernel.resident()) {
        place(kernel);
        Insn load;
        load.opcode = LOAD;
        load.memory = UOP;
        load.sram_base = kernel.begin;
        load.dram_base = int64_t(program_.uops.size());
        load.y_size = 1;
        load.x_size = load.x_stride = int64_t(kernel.uops.size());
        for (const Uop& uop : kernel.uops) program_.uops.push_back(encode(uop, kernel.alu, widths_));
        append_with_pops(M_COMPUTE, encode(load, widths_));
        misses_++;
        kernel.word = instruction(kernel);
    }
    append_with_pops(M_COMPUTE, kernel.word);
    synchronise_if_full();
}

Word Runtime::instruction(const Kernel& kernel) const {
    Insn insn;
    insn.opcode = kernel.alu ? ALU : GEMM;
    insn.reset = kernel.reset;
    insn.uop_bgn = kernel.begin;
    insn.uop_end = kernel.end;
    const UopLoop one;
    const UopLoop& outer = kernel.loops.size() > 0 ? kernel.loops[0] : one;
    const UopLoop& inner = kernel.loops.size() > 1 ? kernel.loops[1] : one;
    insn.iter_out = outer.extent;
    insn.iter_in = inner.extent;
    insn.dst_out = outer.dst;
    insn.dst_in = inner.dst;
    insn.src_out = outer.src;
    insn.src_in = inner.src;
    insn.wgt_out = outer.wgt;
    insn.wgt_in = inner.wgt;
    insn.alu_op = kernel.alu_op;
    insn.use_imm = kernel.use_imm;
    insn.imm = kernel.imm;
    return encode(insn, widths_);
}

// Bump allocation; at the end of the buffer it starts again, and what it overlaps is evicted.
void Runtime::place(Kernel& kernel) {
    const int64_t size = int64_t(kernel.uops.size());
    if (next_ + size > hardware_.uop_depth) next_ = 0;
    kernel.begin = next_;
    kernel.end = next_ += size;
    auto overlaps = [&](Kernel* other) {
        if (other->begin >= kernel.end || other->end <= kernel.begin) return false;
        other->begin = other->end = 0;
        return true;
    };
    resident_.erase(std::remove_if(resident_.begin(), resident_.end(), overlaps), resident_.end());
    resident_.push_back(&kernel);
}

void Runtime::finish() {
    push_token(M_STORE, M_COMPUTE);
    push_token(M_LOAD, M_COMPUTE);
    pop_token(M_STORE, M_COMPUTE);
    pop_token(M_LOAD, M_COMPUTE);
    for (Module module : {M_LOAD, M_COMPUTE, M_STORE}) commit_pops(module);
    Insn insn;
    insn.opcode = FINISH;
    append(M_COMPUTE, encode(insn, widths_));
    last_ = -1;
    segment_ = int64_t(program_.insns.size());
    segment_uops_ = int64_t(program_.uops.size());
    program_.segments.push_back(segment_);
    for (Kernel* kernel : resident_) kernel->begin = kernel->end = 0;
    resident_.clear();
    next_ = 0;
}

// Leaves room for the end of the stream and for what belongs to the next instruction.
void Runtime::synchronise_if_full() {
    const int64_t insns = int64_t(program_.insns.size()) - segment_;
    const int64_t uops = int64_t(program_.uops.size()) - segment_uops_;
    if (insns + 16 > hardware_.insn_limit || uops + hardware_.uop_depth > hardware_.uop_limit) finish();
}

}  // namespace vta
