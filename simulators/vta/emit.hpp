// SPDX-License-Identifier: Apache-2.0
// From a configuration to a tile plan (lowering), and from the plan to an instruction stream.
#pragma once

#include <string>

#include "runtime.hpp"

namespace vta {

struct Axis {
    int64_t extent, stride;
};

// A 2-D transfer: rows of consecutive elements.
struct Rows {
    int64_t y = 1, x = 1, stride = 1;
};

// Folds dimensions (outermost first) to rows; false when more than two remain.
bool fold(const Axis* axes, int count, Rows& rows);

// Everything about a configuration that is fixed before code is made.
struct Plan {
    int64_t tb, th, tw, tci, tco;          // inner tiles; tb is 1 for a convolution
    int64_t b0, i0, j0, c0, k0;            // how many tiles
    int64_t nt_c, nt_h, nt;                // virtual threads
    int64_t hin, win;                      // input rows and columns of a tile
    int64_t inp_size, wgt_size, acc_size;  // elements per virtual thread
    int64_t inp_base, wgt_base, acc_base, bias_base;
    Rows inp, wgt, bias, out;
};

// Throws Failure with stage lower.
Plan lower(const Layer& layer, const Hardware& hardware, const Config& config);

// Throws Failure with stage run.
Program emit(const Layer& layer, const Hardware& hardware, const Plan& plan, int64_t* uop_misses = nullptr);

}  // namespace vta
