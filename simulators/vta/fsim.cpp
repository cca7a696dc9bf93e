// SPDX-License-Identifier: Apache-2.0
#include "fsim.hpp"

#include <algorithm>
#include <sstream>

#include "kernels.hpp"

namespace vta {
namespace {

const char* const kTokenNames[] = {"l2g", "g2l", "g2s", "s2g"};
const char* const kModuleNames[] = {"load", "compute", "store"};

struct Random {  // splitmix64
    uint64_t state;
    uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
};

// HLS cores have this many cycles between reading an accumulator and writing it.
constexpr int64_t kPipeline = 3;

}  // namespace

std::string describe(const Program& program, const Widths& widths, const std::vector<uint32_t> (&lists)[3],
                     const size_t (&at)[3], const int64_t (&tokens)[5]) {
    std::ostringstream out;
    out << "no module can go on;";
    for (int m = 0; m < 3; m++) {
        out << ' ' << kModuleNames[m] << " at " << at[m] << " of " << lists[m].size();
        if (at[m] < lists[m].size()) {
            const uint32_t index = lists[m][at[m]];
            const Insn insn = decode(program.insns[index], widths);
            const std::string text = disassemble(insn);
            out << " (instruction " << index << ": " << text.substr(0, text.find(' ')) << " waits for";
            const bool pops[] = {insn.pop_prev, insn.pop_next};
            for (int side = 0; side < 2; side++)
                if (pops[side] && tokens[kQueue[m][side]] == 0) out << ' ' << kTokenNames[kQueue[m][side]];
            out << ')';
        }
        out << ';';
    }
    out << " tokens:";
    for (int q = 0; q < 4; q++) out << ' ' << kTokenNames[q] << '=' << tokens[q];
    return out.str();
}

Tensors pack(const Hardware& hardware, const int8_t* inp, int64_t inp_bytes, const int8_t* wgt, int64_t wgt_bytes,
              const int32_t* bias, int64_t bias_words, int64_t out_bytes) {
    const int64_t lanes = int64_t(hardware.batch) * hardware.block, weights = int64_t(hardware.block) * hardware.block;
    Tensors t;
    t.inp_size = inp_bytes / lanes;
    t.wgt_size = wgt_bytes / weights;
    t.inp.resize(size_t(t.inp_size * packed_input(hardware.batch, hardware.block)));
    pack_inputs(inp, t.inp_size, hardware.batch, hardware.block, t.inp.data());
    t.wgt.resize(size_t(t.wgt_size * packed_weight(hardware.batch, hardware.block)));
    pack_weights(wgt, t.wgt_size, hardware.batch, hardware.block, t.wgt.data());
    t.bias.assign(bias, bias + bias_words);
    t.bias_size = bias_words / lanes;
    t.out_size = out_bytes / lanes;
    return t;
}

Fsim::Fsim(const Hardware& hardware)
    : hardware_(hardware),
      widths_(hardware),
      uop_(size_t(hardware.uop_core_depth)),
      inp_(size_t(hardware.inp_depth)),
      wgt_(size_t(hardware.wgt_depth)),
      inp_bytes_(packed_input(hardware.batch, hardware.block)),
      wgt_bytes_(packed_weight(hardware.batch, hardware.block)),
      acc_(size_t(hardware.acc_depth) * hardware.batch * hardware.block) {
    const std::vector<int8_t> zeros(size_t(std::max(hardware.batch, hardware.block)) * hardware.block, 0);
    const std::vector<int8_t> poison(zeros.size(), 0x55);
    auto element = [&](std::vector<uint8_t>& to, const std::vector<int8_t>& from, bool weights) {
        to.resize(size_t(weights ? wgt_bytes_ : inp_bytes_));
        (weights ? pack_weights : pack_inputs)(from.data(), 1, hardware.batch, hardware.block, to.data());
    };
    element(zero_inp_, zeros, false);
    element(zero_wgt_, zeros, true);
    element(poison_inp_, poison, false);
    element(poison_wgt_, poison, true);
}

void Fsim::run(const Program& program, const Tensors& tensors, int8_t* out, uint64_t seed, int first) {
    Random random{seed};
    // What a program reads without having written it must not be right by chance.
    std::fill(uop_.begin(), uop_.end(), uint32_t(random.next()) & 0x00010001u);
    std::fill(inp_.begin(), inp_.end(), poison_inp_.data());
    std::fill(wgt_.begin(), wgt_.end(), poison_wgt_.data());
    for (size_t i = 0; i < acc_.size(); i++) acc_[i] = int32_t(i * 0x9e3779b1u + seed);
    if (hardware_.hls_hazard) written_.assign(size_t(hardware_.acc_depth), -kPipeline - 1);
    clock_ = 0;
    int64_t tokens[5] = {};
    int64_t begin = 0;
    for (const int64_t end : program.segments) {
        std::vector<uint32_t> lists[3];
        for (int64_t i = begin; i < end; i++)
            lists[check(program.insns[size_t(i)], size_t(i))].push_back(uint32_t(i));
        begin = end;
        size_t at[3] = {};
        Insn next[3];
        for (int m = 0; m < 3; m++)
            if (!lists[m].empty()) decode(program.insns[lists[m][0]], widths_, next[m]);
        auto can_go = [&](int m) {
            return at[m] < lists[m].size() && (!next[m].pop_prev || tokens[kQueue[m][0]] > 0) &&
                   (!next[m].pop_next || tokens[kQueue[m][1]] > 0);
        };
        while (at[0] < lists[0].size() || at[1] < lists[1].size() || at[2] < lists[2].size()) {
            int ready[3], count = 0;
            for (int m = 0; m < 3; m++)
                if (can_go(m)) ready[count++] = m;
            if (count == 0) throw Failure(Stage::run, Code::deadlock, describe(program, widths_, lists, at, tokens));
            int m = ready[count == 1 ? 0 : random.next() % uint64_t(count)];
            if (first >= 0 && can_go(first)) m = first;
            const Insn& insn = next[m];
            if (insn.pop_prev) tokens[kQueue[m][0]]--;
            if (insn.pop_next) tokens[kQueue[m][1]]--;
            if (insn.opcode == LOAD)
                load(insn, program, tensors);
            else if (insn.opcode == STORE)
                store(insn, tensors, out);
            else if (insn.opcode != FINISH)
                compute(insn);
            if (insn.push_prev) tokens[kQueue[m][2]]++;
            if (insn.push_next) tokens[kQueue[m][3]]++;
            if (++at[m] < lists[m].size()) decode(program.insns[lists[m][at[m]]], widths_, next[m]);
        }
    }
    for (int q = 0; q < 4; q++)
        if (tokens[q] != 0)
            throw Failure(Stage::run, Code::tokens,
                          std::to_string(tokens[q]) + " tokens are left in " + kTokenNames[q] + " at the end");
}

void Fsim::check_index(const char* what, int64_t most, int64_t depth) const {
    if (most >= depth)
        throw Failure(Stage::run, Code::oob,
                      std::string(what) + " index " + std::to_string(most) + " is outside of its " +
                          std::to_string(depth) + " entries");
}

void Fsim::load(const Insn& insn, const Program& program, const Tensors& t) {
    if (insn.x_size == 0) return;
    const int64_t width = insn.x_pad_0 + insn.x_size + insn.x_pad_1;
    const int64_t rows = insn.y_pad_0 + insn.y_size + insn.y_pad_1;
    const int64_t last = insn.dram_base + (insn.y_size - 1) * insn.x_stride + insn.x_size - 1;
    const int64_t lanes = int64_t(hardware_.batch) * hardware_.block;
    if (insn.memory == UOP) {
        check_index("micro-op memory", last, int64_t(program.uops.size()));
        check_index("micro-op buffer", insn.sram_base + insn.x_size - 1, hardware_.uop_depth);
        for (int64_t i = 0; i < insn.x_size; i++)
            uop_[size_t((insn.sram_base + i) % hardware_.uop_core_depth)] = program.uops[size_t(insn.dram_base + i)];
        return;
    }
    // Rows of the transfer, zeros around them; `copy` gets element numbers and how many.
    auto each = [&](auto zero, auto copy) {
        int64_t to = insn.sram_base;
        for (int64_t y = 0; y < rows; y++, to += width) {
            const int64_t row = y - insn.y_pad_0;
            if (row < 0 || row >= insn.y_size) {
                zero(to, width);
                continue;
            }
            zero(to, insn.x_pad_0);
            copy(to + insn.x_pad_0, insn.dram_base + row * insn.x_stride, insn.x_size);
            zero(to + insn.x_pad_0 + insn.x_size, insn.x_pad_1);
        }
    };
    const int64_t most = insn.sram_base + rows * width - 1;
    if (insn.memory == INP) {
        check_index("input tensor", last, t.inp_size);
        check_index("input buffer", most, hardware_.inp_depth);
        each([&](int64_t to, int64_t n) { std::fill_n(inp_.begin() + to, n, zero_inp_.data()); },
             [&](int64_t to, int64_t from, int64_t n) {
                 for (int64_t i = 0; i < n; i++) inp_[size_t(to + i)] = t.inp.data() + (from + i) * inp_bytes_;
             });
    } else if (insn.memory == WGT) {
        check_index("weight tensor", last, t.wgt_size);
        check_index("weight buffer", most, hardware_.wgt_depth);
        each([&](int64_t to, int64_t n) { std::fill_n(wgt_.begin() + to, n, zero_wgt_.data()); },
             [&](int64_t to, int64_t from, int64_t n) {
                 for (int64_t i = 0; i < n; i++) wgt_[size_t(to + i)] = t.wgt.data() + (from + i) * wgt_bytes_;
             });
    } else if (insn.memory == ACC) {
        check_index("bias tensor", last, t.bias_size);
        check_index("accumulator", most, hardware_.acc_depth);
        each([&](int64_t to, int64_t n) { std::fill_n(acc_.begin() + to * lanes, n * lanes, 0); },
             [&](int64_t to, int64_t from, int64_t n) {
                 std::copy_n(t.bias.begin() + from * lanes, n * lanes, acc_.begin() + to * lanes);
             });
    } else {
        throw Failure(Stage::run, Code::oob, "a load into a memory that cannot be loaded here");
    }
}

void Fsim::store(const Insn& insn, const Tensors& t, int8_t* out) {
    if (insn.x_size == 0) return;
    const int64_t lanes = int64_t(hardware_.batch) * hardware_.block;
    if (insn.memory != OUT || insn.y_pad_0 || insn.y_pad_1 || insn.x_pad_0 || insn.x_pad_1)
        throw Failure(Stage::run, Code::oob, "a store takes the output buffer, without padding");
    check_index("output tensor", insn.dram_base + (insn.y_size - 1) * insn.x_stride + insn.x_size - 1, t.out_size);
    check_index("output buffer", insn.sram_base + insn.y_size * insn.x_size - 1, hardware_.acc_depth);
    const int32_t* source = acc_.data() + insn.sram_base * lanes;
    for (int64_t y = 0; y < insn.y_size; y++, source += insn.x_size * lanes)
        narrow(source, insn.x_size * lanes, out + (insn.dram_base + y * insn.x_stride) * lanes);
}

// A core without interlock reads an accumulator before the pipeline has written it.
void Fsim::watch(const Insn& insn, const Uop* uops, size_t count) {
    for (int64_t o = 0; o < insn.iter_out; o++)
        for (int64_t i = 0; i < insn.iter_in; i++)
            for (size_t u = 0; u < count; u++, clock_++) {
                const int64_t dst = uops[u].dst + o * insn.dst_out + i * insn.dst_in;
                if (clock_ - written_[size_t(dst)] < kPipeline)
                    throw Failure(Stage::check, Code::hazard,
                                  "accumulator " + std::to_string(dst) + " is used again after " +
                                      std::to_string(clock_ - written_[size_t(dst)]) + " cycles");
                written_[size_t(dst)] = clock_;
            }
}

void Fsim::compute(const Insn& insn) {
    const int64_t outs = insn.iter_out - 1, ins = insn.iter_in - 1;
    if (insn.uop_end <= insn.uop_bgn || outs < 0 || ins < 0) return;
    const bool alu = insn.opcode == ALU;
    const size_t count = size_t(insn.uop_end - insn.uop_bgn);
    check_index("micro-op buffer", insn.uop_end - 1, hardware_.uop_depth);
    decoded_.resize(count);
    Uop most;
    for (size_t u = 0; u < count; u++) {
        const Uop uop = decode(uop_[size_t((insn.uop_bgn + int64_t(u)) % hardware_.uop_core_depth)], alu, widths_);
        decoded_[u] = uop;
        most.dst = std::max(most.dst, uop.dst);
        most.src = std::max(most.src, uop.src);
        most.wgt = std::max(most.wgt, uop.wgt);
    }
    const int64_t lanes = int64_t(hardware_.batch) * hardware_.block;
    check_index("accumulator", most.dst + outs * insn.dst_out + ins * insn.dst_in, hardware_.acc_depth);
    if (!alu) {
        if (insn.reset) {
            for (const Uop& uop : decoded_)
                for (int64_t o = 0; o <= outs; o++)
                    for (int64_t i = 0; i <= ins; i++)
                        std::fill_n(acc_.begin() + (uop.dst + o * insn.dst_out + i * insn.dst_in) * lanes, lanes, 0);
            return;
        }
        check_index("input buffer", most.src + outs * insn.src_out + ins * insn.src_in, hardware_.inp_depth);
        check_index("weight buffer", most.wgt + outs * insn.wgt_out + ins * insn.wgt_in, hardware_.wgt_depth);
        if (hardware_.hls_hazard) watch(insn, decoded_.data(), count);
        gemm({inp_.data(), wgt_.data(), acc_.data(), hardware_.batch, hardware_.block}, insn, decoded_.data(), count);
        return;
    }
    if (insn.alu_op > ALU_MUL) throw Failure(Stage::run, Code::oob, "an unknown ALU operation");
    if (!insn.use_imm)
        check_index("accumulator", most.src + outs * insn.src_out + ins * insn.src_in, hardware_.acc_depth);
    const int32_t imm = int32_t(insn.imm);
    if (insn.use_imm && count == 1 && insn.dst_out == 1 && ins == 0) {  // consecutive elements
        alu_imm(insn.alu_op, acc_.data() + decoded_[0].dst * lanes, imm, (outs + 1) * lanes);
        return;
    }
    for (int64_t o = 0; o <= outs; o++) {
        if (insn.use_imm && count == 1 && insn.dst_in == 1) {
            alu_imm(insn.alu_op, acc_.data() + (decoded_[0].dst + o * insn.dst_out) * lanes, imm, (ins + 1) * lanes);
            continue;
        }
        for (int64_t i = 0; i <= ins; i++)
            for (const Uop& uop : decoded_) {
                int32_t* dst = acc_.data() + (uop.dst + o * insn.dst_out + i * insn.dst_in) * lanes;
                if (insn.use_imm)
                    alu_imm(insn.alu_op, dst, imm, lanes);
                else
                    alu_pair(insn.alu_op, dst, acc_.data() + (uop.src + o * insn.src_out + i * insn.src_in) * lanes,
                             lanes);
            }
    }
}

}  // namespace vta
