// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one GEMM instruction on widened operands.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.hpp"

namespace vta {

// Operands of a batch x block core. Inputs are [batch][block]; weights are kept as pairs of input
// channels, [block/2][block outputs][2], so that a multiply-add of pairs needs no shuffling.
struct GemmBuffers {
    const int16_t* inp;
    const int16_t* wgt;
    int32_t* acc;
    int batch, block;
};

// acc[dst] += inp[src] * wgt for every step of the instruction. Indices are in bounds.
void gemm(const GemmBuffers& buffers, const Insn& insn, const Uop* uops, size_t count);

// What this processor runs: "avx512vnni", "avx2" or "portable".
const char* gemm_kind();

}  // namespace vta
