// SPDX-License-Identifier: Apache-2.0
#include "emit.hpp"

#include <algorithm>

namespace vta {
namespace {

std::string text(int64_t value) { return std::to_string(value); }

[[noreturn]] void no_rows(Code code, const char* scope, const Axis* axes, int count) {
    std::string shape;
    for (int i = 0; i < count; i++)
        shape += (i ? ", " : "") + text(axes[i].extent) + " by " + text(axes[i].stride);
    throw Failure(Stage::lower, code, std::string("Scope[") + scope + "]: cannot detect 2d pattern in " + shape);
}

// A split whose outer part a virtual thread divides. If it does not, the last round is guarded, and
// a guarded store is no copy pattern.
int64_t rounds(int64_t extent, int64_t threads, const char* loop) {
    const int64_t count = (extent + threads - 1) / threads;
    if (count * threads != extent)
        throw Failure(Stage::lower, Code::vt_div,
                      std::string("Cannot match copy pattern: ") + text(threads) + " threads do not divide the " +
                          text(extent) + " tiles of " + loop);
    return count;
}

int64_t allocate(int64_t& used, int64_t size, int64_t depth, Code code, const char* tag) {
    const int64_t base = used;
    used += size;
    if (used > depth)
        throw Failure(Stage::lower, code,
                      std::string("Allocation exceed bound of memory tag ") + tag + ": " + text(used) +
                          " elements, " + text(depth) + " fit");
    return base;
}

}  // namespace

bool fold(const Axis* axes, int count, Rows& rows) {
    Axis kept[8];
    int dims = 0;
    for (int i = 0; i < count; i++) {
        if (axes[i].extent == 1) continue;
        if (dims && kept[dims - 1].stride == axes[i].extent * axes[i].stride) {
            kept[dims - 1].extent *= axes[i].extent;
            kept[dims - 1].stride = axes[i].stride;
        } else {
            kept[dims++] = axes[i];
        }
    }
    if (dims == 0 || kept[dims - 1].stride != 1) kept[dims++] = {1, 1};
    if (dims > 2) return false;
    rows.x = kept[dims - 1].extent;
    rows.y = dims == 2 ? kept[0].extent : 1;
    rows.stride = dims == 2 ? kept[0].stride : rows.x;
    return true;
}

Plan lower(const Layer& layer, const Hardware& hardware, const Config& config) {
    Plan p{};
    p.tb = layer.dense ? config.tile_b : 1;
    p.th = config.tile_h;
    p.tw = config.tile_w;
    p.tci = config.tile_ci;
    p.tco = config.tile_co;
    p.b0 = layer.n / p.tb;
    p.i0 = layer.oh / p.th;
    p.j0 = layer.ow / p.tw;
    p.c0 = layer.co / p.tco;
    p.k0 = layer.ci / p.tci;
    p.nt_c = config.oc_nthread;
    p.nt_h = config.h_nthread;
    p.nt = p.nt_c * p.nt_h;
    p.hin = (p.th - 1) * layer.stride + layer.kh;
    p.win = (p.tw - 1) * layer.stride + layer.kw;
    const int64_t plane = int64_t(layer.oh) * layer.ow, taps = int64_t(layer.kh) * layer.kw;

    rounds(p.c0, p.nt_c, "tile_co");
    rounds(p.i0, p.nt_h, "tile_h");
    const Axis out[] = {{p.tb, layer.co * plane}, {p.tco, plane}, {p.th, layer.ow}, {p.tw, 1}};
    if (!fold(out, 4, p.out)) no_rows(Code::st_2d, "global", out, 4);
    if (layer.ph || layer.pw) {
        // A padded load names rows and columns itself, so nothing is folded.
        if (p.tci > 1)
            throw Failure(Stage::lower, Code::inp_pad, "Do not support pad on the innermost block");
        p.inp = {p.hin, p.win, layer.w};
    } else {
        const Axis inp[] = {{p.tci, int64_t(layer.h) * layer.w}, {p.hin, layer.w}, {p.win, 1}};
        if (!fold(inp, 3, p.inp)) no_rows(Code::inp_2d, "local.inp_buffer", inp, 3);
    }
    const Axis wgt[] = {{p.tco, layer.ci * taps}, {p.tci, taps}, {taps, 1}};
    if (!fold(wgt, 3, p.wgt)) no_rows(Code::inp_2d, "local.wgt_buffer", wgt, 3);
    p.bias = {1, p.tco, p.tco};

    p.inp_size = p.tci * p.hin * p.win;
    p.wgt_size = p.tco * p.tci * taps;
    p.acc_size = p.tb * p.tco * p.th * p.tw;
    int64_t inp_used = 0, wgt_used = 0, acc_used = 0;
    p.inp_base = allocate(inp_used, p.nt * p.inp_size, hardware.inp_depth, Code::sram_inp, "local.inp_buffer");
    p.wgt_base = allocate(wgt_used, p.nt * p.wgt_size, hardware.wgt_depth, Code::sram_wgt, "local.wgt_buffer");
    p.acc_base = allocate(acc_used, p.nt * p.acc_size, hardware.acc_depth, Code::sram_acc, "local.acc_buffer");
    p.bias_base = allocate(acc_used, p.nt * p.tco, hardware.acc_depth, Code::sram_acc, "local.acc_buffer");
    return p;
}

namespace {

// Folds the two outermost loops that are left into the instruction and unrolls the others.
void record(Kernel& kernel, std::vector<UopLoop> nest, const Uop& base, const Hardware& hardware) {
    nest.erase(std::remove_if(nest.begin(), nest.end(), [](const UopLoop& loop) { return loop.extent == 1; }),
               nest.end());
    const size_t folded = std::min<size_t>(2, nest.size());
    kernel.loops.assign(nest.begin(), nest.begin() + folded);
    nest.erase(nest.begin(), nest.begin() + folded);
    int64_t total = 1;
    for (const UopLoop& loop : nest) total *= loop.extent;
    kernel.uops.reserve(size_t(std::min(total, hardware.uop_depth)));
    std::vector<int64_t> at(nest.size(), 0);
    for (int64_t step = 0; step < total; step++) {
        Uop uop = base;
        for (size_t i = 0; i < nest.size(); i++) {
            uop.dst += int(at[i] * nest[i].dst);
            uop.src += int(at[i] * nest[i].src);
            uop.wgt += int(at[i] * nest[i].wgt);
        }
        kernel.push(uop, hardware);
        for (size_t i = nest.size(); i-- > 0;) {
            if (++at[i] < nest[i].extent) break;
            at[i] = 0;
        }
    }
}

class Emitter {
  public:
    Emitter(const Layer& layer, const Hardware& hardware, const Plan& plan)
        : layer_(layer), hardware_(hardware), plan_(plan), widths_(hardware), runtime_(hardware, widths_) {}

    Program run(int64_t* misses) {
        record_kernels();
        const Plan& p = plan_;
        const int64_t tiles = p.b0 * p.i0 * p.j0 * p.c0, rounds = p.tb * (3 * p.k0 + 2);
        runtime_.reserve(size_t(tiles * (rounds + 8) + 64));
        for (int64_t v = 0; v < p.nt; v++) runtime_.push_token(M_STORE, M_COMPUTE);
        for (int64_t b = 0; b < p.b0; b++)
            for (int64_t i = 0; i < p.i0 / p.nt_h; i++)
                for (int64_t c = 0; c < p.c0 / p.nt_c; c++)
                    for (int64_t j = 0; j < p.j0; j++) tile(b, i, c, j);
        for (int64_t v = 0; v < p.nt; v++) runtime_.pop_token(M_STORE, M_COMPUTE);
        runtime_.finish();
        if (misses) *misses = runtime_.misses();
        return runtime_.take();
    }

  private:
    // The kernels of a virtual thread. Those that a batch loop surrounds exist once per batch.
    struct Kernels {
        std::vector<Kernel> reset, gemm;
        Kernel shift, add, low, high;
    };

    void record_kernels() {
        // A kernel's signature holds the variables that it captures: one 32-bit index per thread axis.
        const int captured = 4 * ((plan_.nt_c > 1) + (plan_.nt_h > 1));
        if (captured > 4)
            throw Failure(Stage::run, Code::uop_sig,
                          "a micro-op signature has " + std::to_string(captured) + " bytes, 0 or 4 are allowed");
        const Plan& p = plan_;
        const int64_t plane = p.th * p.tw, taps = int64_t(layer_.kh) * layer_.kw, s = layer_.stride;
        kernels_.resize(size_t(p.nt));
        for (int64_t v = 0; v < p.nt; v++) {
            Kernels& k = kernels_[size_t(v)];
            const int64_t tile = p.acc_base + v * p.acc_size, bias = p.bias_base + v * p.tco;
            for (int64_t b = 0; b < p.tb; b++) {
                const Uop start{int(tile + b * p.tco * plane), 0, 0};
                Kernel reset;
                reset.reset = true;
                record(reset, {{p.tw, 1, 0, 0}, {p.tco, plane, 0, 0}, {p.th, p.tw, 0, 0}}, start, hardware_);
                k.reset.push_back(std::move(reset));
                Kernel gemm;
                record(gemm,
                       {{p.tci, 0, p.hin * p.win, taps},
                        {p.tw, 1, s, 0},
                        {layer_.kw, 0, 1, 1},
                        {layer_.kh, 0, p.win, layer_.kw},
                        {p.tco, plane, 0, p.tci * taps},
                        {p.th, p.tw, p.win * s, 0}},
                       {start.dst, int(p.inp_base + v * p.inp_size), int(p.wgt_base + v * p.wgt_size)}, hardware_);
                k.gemm.push_back(std::move(gemm));
            }
            const Uop self{int(tile), int(tile), 0};
            auto immediate = [&](Kernel& kernel, int op, int64_t imm) {
                kernel.alu = kernel.use_imm = true;
                kernel.alu_op = op;
                kernel.imm = imm;
                record(kernel, {{p.acc_size, 1, 1, 0}}, self, hardware_);
            };
            immediate(k.shift, ALU_SHR, layer_.shift);
            immediate(k.low, ALU_MIN, 127);
            immediate(k.high, ALU_MAX, 0);
            k.add.alu = true;
            k.add.alu_op = ALU_ADD;
            record(k.add, {{p.tb, p.tco * plane, 0, 0}, {p.tco, plane, 1, 0}, {plane, 1, 0, 0}},
                   {int(tile), int(bias), 0}, hardware_);
        }
    }

    void tile(int64_t b, int64_t i, int64_t c, int64_t j) {
        const Plan& p = plan_;
        for (int64_t bi = 0; bi < p.tb; bi++) {
            for (int64_t v = 0; v < p.nt; v++) {
                if (bi == 0) runtime_.pop_token(M_STORE, M_COMPUTE);
                runtime_.run(kernels_[size_t(v)].reset[size_t(bi)]);
                runtime_.push_token(M_COMPUTE, M_LOAD);
            }
            for (int64_t k = 0; k < p.k0; k++) {
                for (int64_t v = 0; v < p.nt; v++) {
                    runtime_.pop_token(M_COMPUTE, M_LOAD);
                    load_input(v, b * p.tb + bi, row(i, v), j, k);
                    load_weights(v, channel(c, v), k);
                    runtime_.push_token(M_LOAD, M_COMPUTE);
                }
                for (int64_t v = 0; v < p.nt; v++) {
                    runtime_.pop_token(M_LOAD, M_COMPUTE);
                    runtime_.run(kernels_[size_t(v)].gemm[size_t(bi)]);
                    runtime_.push_token(M_COMPUTE, M_LOAD);
                }
            }
            for (int64_t v = 0; v < p.nt; v++) runtime_.pop_token(M_COMPUTE, M_LOAD);
        }
        for (int64_t v = 0; v < p.nt; v++) {
            Kernels& k = kernels_[size_t(v)];
            runtime_.run(k.shift);
            load_bias(v, channel(c, v));
            runtime_.run(k.add);
            runtime_.run(k.low);
            runtime_.run(k.high);
            runtime_.push_token(M_COMPUTE, M_STORE);
        }
        for (int64_t v = 0; v < p.nt; v++) {
            runtime_.pop_token(M_COMPUTE, M_STORE);
            store(v, b, row(i, v), channel(c, v), j);
            runtime_.push_token(M_STORE, M_COMPUTE);
        }
    }

    int64_t row(int64_t i, int64_t v) const { return i * plan_.nt_h + v % plan_.nt_h; }
    int64_t channel(int64_t c, int64_t v) const { return c * plan_.nt_c + v / plan_.nt_h; }

    // Between rows in memory, from `dram` on, and a buffer, from `sram` on.
    static Insn rows(int opcode, int memory, const Rows& rows, int64_t sram, int64_t dram) {
        Insn insn;
        insn.opcode = opcode;
        insn.memory = memory;
        insn.sram_base = sram;
        insn.dram_base = dram;
        insn.y_size = rows.y;
        insn.x_size = rows.x;
        insn.x_stride = rows.stride;
        return insn;
    }

    void load_input(int64_t v, int64_t b, int64_t i, int64_t j, int64_t k) {
        const Plan& p = plan_;
        Insn insn = rows(LOAD, INP, p.inp, p.inp_base + v * p.inp_size, 0);
        int64_t top = i * p.th * layer_.stride - layer_.ph, left = j * p.tw * layer_.stride - layer_.pw;
        if (layer_.ph || layer_.pw) {
            insn.y_pad_0 = std::max<int64_t>(0, -top);
            insn.x_pad_0 = std::max<int64_t>(0, -left);
            insn.y_pad_1 = std::max<int64_t>(0, top + p.hin - layer_.h);
            insn.x_pad_1 = std::max<int64_t>(0, left + p.win - layer_.w);
            insn.y_size -= insn.y_pad_0 + insn.y_pad_1;
            insn.x_size -= insn.x_pad_0 + insn.x_pad_1;
            top += insn.y_pad_0;
            left += insn.x_pad_0;
        }
        insn.dram_base = ((b * layer_.ci + k * p.tci) * layer_.h + top) * layer_.w + left;
        runtime_.transfer(insn);
    }

    void load_weights(int64_t v, int64_t c, int64_t k) {
        const Plan& p = plan_;
        int64_t from = (c * p.tco * layer_.ci + k * p.tci) * layer_.kh * layer_.kw;
        runtime_.transfer(rows(LOAD, WGT, p.wgt, p.wgt_base + v * p.wgt_size, from));
    }

    void load_bias(int64_t v, int64_t c) {
        const Plan& p = plan_;
        runtime_.transfer(rows(LOAD, ACC, p.bias, p.bias_base + v * p.tco, c * p.tco));
    }

    void store(int64_t v, int64_t b, int64_t i, int64_t c, int64_t j) {
        const Plan& p = plan_;
        int64_t to = ((b * p.tb * layer_.co + c * p.tco) * layer_.oh + i * p.th) * layer_.ow + j * p.tw;
        runtime_.transfer(rows(STORE, OUT, p.out, p.acc_base + v * p.acc_size, to));
    }

    const Layer& layer_;
    const Hardware& hardware_;
    const Plan& plan_;
    Widths widths_;
    Runtime runtime_;
    std::vector<Kernels> kernels_;
};

}  // namespace

Program emit(const Layer& layer, const Hardware& hardware, const Plan& plan, int64_t* uop_misses) {
    return Emitter(layer, hardware, plan).run(uop_misses);
}

}  // namespace vta
