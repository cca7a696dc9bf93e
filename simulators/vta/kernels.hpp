// SPDX-License-Identifier: Apache-2.0
// The arithmetic of the functional simulator, on packed operands.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.hpp"

namespace vta {

// Memory does not change under a program, so an entry of the input and weight buffers is the place of
// its element there, and a load copies no data. Elements are packed as the arithmetic wants them.
struct GemmBuffers {
    const uint8_t* const* inp;
    const uint8_t* const* wgt;
    int32_t* acc;
    int batch, block;
};

// acc[dst] += inp[src] * wgt for every step of the instruction. Indices are in bounds.
void gemm(const GemmBuffers& buffers, const Insn& insn, const Uop* uops, size_t count);

// Bytes of a packed element.
int64_t packed_input(int batch, int block);
int64_t packed_weight(int batch, int block);

// Packs elements once per layer: inputs from [batch][block], weights from [out][in].
void pack_inputs(const int8_t* from, int64_t elements, int batch, int block, uint8_t* to);
void pack_weights(const int8_t* from, int64_t elements, int batch, int block, uint8_t* to);

// One accumulator element of `lanes`: dst = operation(dst, src), and with the same number for all lanes.
void alu_pair(int operation, int32_t* dst, const int32_t* src, int64_t lanes);
void alu_imm(int operation, int32_t* dst, int32_t imm, int64_t lanes);

// Keeps the low 8 bits, as the output buffer does.
void narrow(const int32_t* from, int64_t count, int8_t* to);

// What this processor runs: "avx512vnni", "avx2" or "portable".
const char* gemm_kind();
// Takes another way, for tests; false when this processor cannot. Not while a simulation is under way.
bool use_gemm(const std::string& kind);

}  // namespace vta
