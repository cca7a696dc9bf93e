// SPDX-License-Identifier: Apache-2.0
// The arithmetic of the functional simulator, on operands that are widened to 16 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.hpp"

namespace vta {

// Buffers of a batch x block core. Memory does not change under a program, so an entry of the input and
// weight buffers is the place of its element there, and a load copies no data. Inputs are
// [batch][block]; weights are kept as pairs of input channels, [block/2][block outputs][2], so that a
// multiply-add of pairs needs no shuffling.
struct GemmBuffers {
    const int16_t* const* inp;
    const int16_t* const* wgt;
    int32_t* acc;
    int batch, block;
};

// acc[dst] += inp[src] * wgt for every step of the instruction. Indices are in bounds.
void gemm(const GemmBuffers& buffers, const Insn& insn, const Uop* uops, size_t count);

// Widens operands once per layer: the simulator then copies whole elements.
void widen_inputs(const int8_t* from, int64_t count, int16_t* to);
void widen_weights(const int8_t* from, int64_t elements, int block, int16_t* to);

// One accumulator element of `lanes`: dst = operation(dst, src), and with the same number for all lanes.
void alu_pair(int operation, int32_t* dst, const int32_t* src, int64_t lanes);
void alu_imm(int operation, int32_t* dst, int32_t imm, int64_t lanes);

// Keeps the low 8 bits, as the output buffer does.
void narrow(const int32_t* from, int64_t count, int8_t* to);

// What this processor runs: "avx512vnni", "avx2" or "portable".
const char* gemm_kind();

}  // namespace vta
