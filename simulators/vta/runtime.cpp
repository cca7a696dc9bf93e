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
    const bool next = from < to;
    bool& flag = next ? last_.push_next : last_.push_prev;
    if (open_ && last_.module() == from && !flag) {
        flag = true;
        program_.insns.back()[0] |= next ? kPushNext : kPushPrev;
    } else {
        noop(from, false, false, !next, next);
    }
}

void Runtime::pop_token(Module from, Module to) {
    bool& pending = from < to ? pop_prev_[to] : pop_next_[to];
    if (pending) commit_pops(to);
    pending = true;
}

void Runtime::commit_pops(Module module) {
    const bool prev = pop_prev_[module], next = pop_next_[module];
    if (!prev && !next) return;
    pop_prev_[module] = pop_next_[module] = false;
    noop(module, prev, next, false, false);
}

void Runtime::noop(Module module, bool pop_prev, bool pop_next, bool push_prev, bool push_next) {
    Insn insn;
    insn.opcode = module == M_STORE ? STORE : LOAD;
    insn.memory = module == M_STORE ? OUT : module == M_LOAD ? INP : UOP;
    insn.pop_prev = pop_prev;
    insn.pop_next = pop_next;
    insn.push_prev = push_prev;
    insn.push_next = push_next;
    append(insn, false);
}

void Runtime::append(Insn insn, bool takes_pops) {
    if (takes_pops) {
        const Module module = insn.module();
        insn.pop_prev = pop_prev_[module];
        insn.pop_next = pop_next_[module];
        pop_prev_[module] = pop_next_[module] = false;
    }
    program_.insns.push_back(encode(insn, widths_));
    last_ = insn;
    open_ = true;
}

void Runtime::transfer(Insn insn) {
    append(insn, true);
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
        append(load, true);
        misses_++;
    }
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
    append(insn, true);
    synchronise_if_full();
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
    append(insn, false);
    open_ = false;
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
