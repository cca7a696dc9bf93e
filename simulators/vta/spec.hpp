// SPDX-License-Identifier: Apache-2.0
// What the core is told: the hardware, its timing, a layer, a configuration; and how things fail.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace vta {

// How far a configuration came before it failed.
enum class Stage : int { ok = 0, instantiate, lower, run, check };

// Why it failed. The order is the one of simtune/vta/codes.py.
enum class Code : int {
    ok = 0,
    vt_div,        // a virtual thread does not divide its loop
    st_2d,         // the store needs more than two dimensions
    inp_pad,       // padding on the innermost block
    inp_2d,        // the input load needs more than two dimensions
    sram_inp,
    sram_wgt,
    sram_acc,
    uop_sig,       // a micro-op kernel captures more than one variable
    uop_dep,       // a micro-op writes what one of its two predecessors wrote
    uop_cnt,       // a micro-op kernel is larger than its buffer
    field_iter,    // loop extents of an instruction
    field_factor,  // index steps of an instruction
    field_size,    // extents of a transfer
    field_stride,
    field_pad,
    field_base,
    oob,           // an access outside of a buffer or a tensor
    deadlock,
    tokens,        // dependency tokens are left at the end
    timeout,       // more cycles than the host waits for
    hazard,        // an accumulator is used again before the pipeline has written it
    wrong,         // the answer differs from the reference
};

struct Failure : std::runtime_error {
    Failure(Stage stage, Code code, const std::string& what)
        : std::runtime_error(what), stage(stage), code(code) {}
    Stage stage;
    Code code;
};

enum Memory : int { UOP = 0, WGT = 1, INP = 2, ACC = 3, OUT = 4, ACC8 = 5 };

struct Hardware {
    int batch = 1, block = 16;
    int64_t uop_depth = 8192, inp_depth = 2048, wgt_depth = 1024, acc_depth = 2048;  // in elements
    int64_t uop_core_depth = 8192;  // of the core; the runtime goes by uop_depth
    bool hls_hazard = false;        // the core has no interlock for accumulators
    int64_t insn_limit = 2 << 20, uop_limit = 8 << 20;  // 32 MiB each, before it synchronises

    int64_t bytes(int memory) const {
        switch (memory) {
            case UOP: return 4;
            case WGT: return int64_t(block) * block;
            case ACC: return int64_t(batch) * block * 4;
            default: return int64_t(batch) * block;  // INP, OUT, ACC8
        }
    }
    int64_t depth(int memory) const {
        switch (memory) {
            case UOP: return uop_depth;
            case WGT: return wgt_depth;
            case INP: return inp_depth;
            default: return acc_depth;
        }
    }
};

struct Timing {
    int bus_bytes = 8, max_beats = 16;
    int fetch_beats = 16;   // of the fetch unit, which reads a burst before it hands anything on
    int beat_milli = 1000;  // thousandths of a cycle per beat
    int rd_ov = 5, wr_ov = 6, out_read = 1, lat = 0, outstanding = 1;
    bool shared_port = true, pad_overlap = false;
    int pad_cycles = 2;
    int gemm_ii = 1, gemm_ov = 8, alu_imm = 1, alu_tt = 2, alu_ov = 8, insn_ov = 2;
    int queue_depth = 512, token_max = 255;
    bool token_lost = true;  // a token beyond the maximum is lost; otherwise its sender waits
    int64_t cycle_limit = int64_t(1) << 31;
};

// A layer in units of blocks: n batches, ci and co channel blocks.
struct Layer {
    bool dense = false;
    int n = 1, h = 1, w = 1, ci = 1, co = 1, kh = 1, kw = 1, stride = 1, ph = 0, pw = 0, oh = 1, ow = 1;
    int shift = 8;
};

struct Config {
    int tile_b = 1, tile_h = 1, tile_w = 1, tile_ci = 1, tile_co = 1, oc_nthread = 1, h_nthread = 1;
};

}  // namespace vta
