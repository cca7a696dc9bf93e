// SPDX-License-Identifier: Apache-2.0
#include "counters.hpp"

#include <algorithm>

namespace vta {

const std::vector<std::string>& counter_names() {
    static const std::vector<std::string> names = {
        "insns", "noops", "insn_bytes", "segments",
        "inp.loads", "inp.rows", "inp.bursts", "inp.bytes",
        "wgt.loads", "wgt.rows", "wgt.bursts", "wgt.bytes",
        "acc.loads", "acc.rows", "acc.bursts", "acc.bytes",
        "uop.loads", "uop.rows", "uop.bursts", "uop.bytes",
        "out.stores", "out.rows", "out.bursts", "out.bytes",
        "pad_elements", "inp.redundancy", "wgt.redundancy",
        "gemm.insns", "gemm.uops", "gemm.longest", "gemm.kernel_uops", "gemm.iter_out", "gemm.iter_in",
        "gemm.reuse", "reset.insns", "reset.uops", "alu.insns", "alu.imm_vectors", "alu.tt_vectors",
        "uop.misses", "tokens.l2g", "tokens.g2l", "tokens.g2s", "tokens.s2g",
        "tiles", "reduction_rounds", "threads", "fill.inp", "fill.wgt", "fill.acc", "macs_per_byte",
        "bound.load", "bound.compute", "bound.store", "bound.max", "bound.sum",
        "t.load.busy", "t.load.wait_token", "t.load.wait_insn", "t.load.wait_bus",
        "t.compute.busy", "t.compute.wait_token", "t.compute.wait_insn", "t.compute.wait_bus",
        "t.store.busy", "t.store.wait_token", "t.store.wait_insn", "t.store.wait_bus",
        "t.bus.busy", "t.bus.bursts",
        "t.most_tokens.l2g", "t.most_tokens.g2l", "t.most_tokens.g2s", "t.most_tokens.s2g",
    };
    return names;
}

namespace {

struct Memories {
    double transfers = 0, rows = 0, bursts = 0, bytes = 0;
};

// Bursts of a transfer: rows never merge, and a burst does not cross a multiple of its longest.
int64_t bursts_of(const Insn& insn, int64_t element, int shift) {
    int64_t total = 0;
    for (int64_t y = 0; y < insn.y_size; y++) {
        const int64_t first = (insn.dram_base + y * insn.x_stride) * element;
        const int64_t last = first + insn.x_size * element - 1;
        total += (last >> shift) - (first >> shift) + 1;
    }
    return total;
}

// Micro-ops between two uses of an accumulator: the channels and rows that the kernel unrolls.
double reuse_distance(const Layer& layer, const Plan& plan) {
    const int64_t nest[] = {plan.tci, plan.tw, layer.kw, layer.kh, plan.tco, plan.th};
    int64_t distance = 1;
    for (int i = 0, folded = 0; i < 6; i++) {
        if (nest[i] == 1 || folded++ < 2) continue;
        if (i >= 4) distance *= nest[i];
    }
    return double(distance);
}

}  // namespace

void count(const Program& program, const Hardware& hardware, const Timing& timing, const Layer& layer,
           const Plan& plan, int64_t uop_misses, const Timed& timed, double* values) {
    const Widths widths(hardware);
    int shift = 0;  // of the longest burst, a power of two
    while (1 << shift < timing.bus_bytes * timing.max_beats) shift++;
    Memories memory[6];
    double noops = 0, pads = 0, gemms = 0, gemm_uops = 0, gemm_longest = 0, kernel_uops = 0, outer = 0, inner = 0;
    double resets = 0, reset_uops = 0, alus = 0, imm = 0, tt = 0, tokens[4] = {}, bound[3] = {};
    Insn insn;
    for (const Word& word : program.insns) {
        decode(word, widths, insn);
        const Module module = insn.module();
        tokens[0] += module == M_LOAD && insn.push_next;
        tokens[1] += module == M_COMPUTE && insn.push_prev;
        tokens[2] += module == M_COMPUTE && insn.push_next;
        tokens[3] += module == M_STORE && insn.push_prev;
        if (insn.noop() || insn.opcode == FINISH) {
            noops += insn.noop();
            bound[module] += 1;
        } else if (insn.opcode == LOAD || insn.opcode == STORE) {
            const int64_t element = hardware.bytes(insn.memory), elements = insn.y_size * insn.x_size;
            const int64_t bursts = bursts_of(insn, element, shift);
            const double pad = double((insn.x_pad_0 + insn.x_size + insn.x_pad_1) *
                                          (insn.y_pad_0 + insn.y_size + insn.y_pad_1) -
                                      elements);
            Memories& m = memory[insn.memory];
            m.transfers++;
            m.rows += double(insn.y_size);
            m.bursts += double(bursts);
            m.bytes += double(elements * element);
            pads += pad;
            double cycles = double(elements * element) / timing.bus_bytes * timing.beat_milli / 1000;
            cycles += double(bursts) * (insn.opcode == STORE ? timing.wr_ov : timing.rd_ov);
            if (insn.opcode == STORE) cycles += double(elements * timing.out_read);
            if (!timing.pad_overlap) cycles += pad * timing.pad_cycles;
            bound[module] += cycles + timing.insn_ov;
        } else {
            const double uops = double(insn.uop_end - insn.uop_bgn);
            const double steps = uops * double(insn.iter_out) * double(insn.iter_in);
            if (insn.opcode == ALU) {
                alus++;
                (insn.use_imm ? imm : tt) += steps;
                bound[module] += timing.alu_ov + steps * (insn.use_imm ? timing.alu_imm : timing.alu_tt);
            } else {
                bound[module] += timing.gemm_ov + steps * timing.gemm_ii;
                if (insn.reset) {
                    resets++;
                    reset_uops += steps;
                } else {
                    gemms++;
                    gemm_uops += steps;
                    gemm_longest = std::max(gemm_longest, steps);
                    kernel_uops = uops;
                    outer = double(insn.iter_out);
                    inner = double(insn.iter_in);
                }
            }
            bound[module] += timing.insn_ov;
        }
    }
    double* out = values;
    auto put = [&](double value) { *out++ = value; };
    auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
    put(double(program.insns.size()));
    put(noops);
    put(16 * double(program.insns.size()));
    put(double(program.segments.size()));
    for (int m : {INP, WGT, ACC, UOP, OUT})
        for (double value : {memory[m].transfers, memory[m].rows, memory[m].bursts, memory[m].bytes}) put(value);
    put(pads);
    const double inp_tensor = double(layer.n) * layer.ci * layer.h * layer.w * double(hardware.bytes(INP));
    const double wgt_tensor = double(layer.co) * layer.ci * layer.kh * layer.kw * double(hardware.bytes(WGT));
    put(share(memory[INP].bytes, inp_tensor));
    put(share(memory[WGT].bytes, wgt_tensor));
    put(gemms);
    put(gemm_uops);
    put(gemm_longest);
    put(kernel_uops);
    put(outer);
    put(inner);
    put(reuse_distance(layer, plan));
    put(resets);
    put(reset_uops);
    put(alus);
    put(imm);
    put(tt);
    put(double(uop_misses));
    for (double value : tokens) put(value);
    put(double(plan.b0 * plan.i0 * plan.j0 * plan.c0));
    put(double(plan.k0));
    put(double(plan.nt));
    put(share(double(plan.nt * plan.inp_size), double(hardware.inp_depth)));
    put(share(double(plan.nt * plan.wgt_size), double(hardware.wgt_depth)));
    put(share(double(plan.nt * (plan.acc_size + plan.tco)), double(hardware.acc_depth)));
    double bytes = 16 * double(program.insns.size());
    for (const Memories& m : memory) bytes += m.bytes;
    put(gemm_uops * hardware.batch * hardware.block * hardware.block / bytes);
    put(bound[M_LOAD]);
    put(bound[M_COMPUTE]);
    put(bound[M_STORE]);
    put(std::max({bound[0], bound[1], bound[2]}));
    put(bound[0] + bound[1] + bound[2]);
    for (const ModuleTimes& times : timed.modules)
        for (int64_t value : {times.busy, times.wait_token, times.wait_insn, times.wait_bus}) put(double(value));
    put(double(timed.bus_busy));
    put(double(timed.bursts));
    for (int64_t value : timed.most_tokens) put(double(value));
}

}  // namespace vta
