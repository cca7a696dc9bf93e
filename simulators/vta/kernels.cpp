// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Two versions of a function, of which the loader takes the one that fits the processor.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FAST __attribute__((target_clones("default", "avx2")))
#else
#define FAST
#endif

namespace vta {
namespace {

int best_level();

std::atomic<int>& chosen_level() {
    static std::atomic<int> level{best_level()};
    return level;
}

int level() { return chosen_level().load(std::memory_order_relaxed); }

// Whether this processor multiplies bytes: inputs are then moved to 0..255, and weights carry what
// that adds to each output.
bool bytewise(int batch, int block) { return batch == 1 && block == 16 && level() == 2; }

// Whether weights are pairs of input channels, [8 pairs][16 outputs][2], as multiply-adds of pairs want them.
bool pairwise(int batch, int block) { return batch == 1 && block == 16 && level() == 1; }

typedef uint32_t Wide __attribute__((vector_size(32)));
typedef int16_t Narrow __attribute__((vector_size(16)));

// One row of inputs by [in][out] weights, wrapping as the hardware does.
void multiply(int32_t* out, const int16_t* input, const int16_t* weights, int block) {
    int first = 0;
    for (; first + 8 <= block; first += 8) {
        Wide sum;
        __builtin_memcpy(&sum, out + first, sizeof sum);
        for (int i = 0; i < block; i++) {
            Narrow row;
            __builtin_memcpy(&row, weights + size_t(i) * block + first, sizeof row);
            sum += __builtin_convertvector(row, Wide) * uint32_t(int32_t(input[i]));
        }
        __builtin_memcpy(out + first, &sum, sizeof sum);
    }
    for (; first < block; first++)
        for (int i = 0; i < block; i++)
            out[first] = int32_t(uint32_t(out[first]) + uint32_t(input[i] * weights[size_t(i) * block + first]));
}

void portable(const GemmBuffers& g, int64_t dst, int64_t src, int64_t wgt) {
    for (int b = 0; b < g.batch; b++)
        multiply(g.acc + (dst * g.batch + b) * g.block, reinterpret_cast<const int16_t*>(g.inp[src]) + b * g.block,
                 reinterpret_cast<const int16_t*>(g.wgt[wgt]), g.block);
}

template <typename Step>
void walk(const Insn& insn, const Uop* uops, size_t count, Step step) {
    for (size_t u = 0; u < count; u++)
        for (int64_t o = 0; o < insn.iter_out; o++)
            for (int64_t i = 0; i < insn.iter_in; i++)
                step(uops[u].dst + o * insn.dst_out + i * insn.dst_in, uops[u].src + o * insn.src_out + i * insn.src_in,
                     uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in);
}

#if defined(__x86_64__)

#define VNNI target("avx512f,avx512bw,avx512vl,avx512vnni")

__attribute__((VNNI, always_inline)) inline __m512i quad_of(const uint8_t* input, int quad) {
    int32_t four;
    __builtin_memcpy(&four, input + 4 * quad, 4);
    return _mm512_set1_epi32(four);
}

// The order of additions does not matter, so each case goes the way that keeps the pipeline busy.
// Packed weights: four vectors of [16 outputs][4 inputs] in bytes, then what to take off each output.
__attribute__((VNNI)) void avx512(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
    auto weights_of = [&](int64_t wgt) { return reinterpret_cast<const __m512i*>(g.wgt[wgt]); };
    if (insn.dst_out == 0 && insn.dst_in == 0) {  // all steps go to one accumulator, which stays in registers
        for (size_t u = 0; u < count; u++) {
            __m512i sum[4] = {_mm512_loadu_si512(g.acc + uops[u].dst * 16), _mm512_setzero_si512(),
                              _mm512_setzero_si512(), _mm512_setzero_si512()};
            for (int64_t o = 0; o < insn.iter_out; o++)
                for (int64_t i = 0; i < insn.iter_in; i++) {
                    const uint8_t* input = g.inp[uops[u].src + o * insn.src_out + i * insn.src_in];
                    const __m512i* w = weights_of(uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in);
                    sum[0] = _mm512_sub_epi32(sum[0], _mm512_loadu_si512(w + 4));
                    for (int q = 0; q < 4; q++)
                        sum[q] = _mm512_dpbusd_epi32(sum[q], quad_of(input, q), _mm512_loadu_si512(w + q));
                }
            const __m512i total = _mm512_add_epi32(_mm512_add_epi32(sum[0], sum[1]), _mm512_add_epi32(sum[2], sum[3]));
            _mm512_storeu_si512(g.acc + uops[u].dst * 16, total);
        }
        return;
    }
    // A loop that moves the accumulator and not the weights goes innermost: they stay in registers.
    const bool by_out = insn.wgt_out == 0 && insn.dst_out != 0;
    if (by_out || (insn.wgt_in == 0 && insn.dst_in != 0)) {
        const int64_t outer = by_out ? insn.iter_in : insn.iter_out, inner = by_out ? insn.iter_out : insn.iter_in;
        const int64_t dst_step = by_out ? insn.dst_out : insn.dst_in, dst_outer = by_out ? insn.dst_in : insn.dst_out;
        const int64_t src_step = by_out ? insn.src_out : insn.src_in, src_outer = by_out ? insn.src_in : insn.src_out;
        const int64_t wgt_outer = by_out ? insn.wgt_in : insn.wgt_out;
        for (size_t u = 0; u < count; u++)
            for (int64_t o = 0; o < outer; o++) {
                const __m512i* weights = weights_of(uops[u].wgt + o * wgt_outer);
                const uint8_t* const* inputs = g.inp + uops[u].src + o * src_outer;
                int32_t* out = g.acc + (uops[u].dst + o * dst_outer) * 16;
                __m512i w[5];
                for (int q = 0; q < 5; q++) w[q] = _mm512_loadu_si512(weights + q);
                for (int64_t i = 0; i < inner; i++, out += dst_step * 16, inputs += src_step) {
                    __m512i a = _mm512_sub_epi32(_mm512_loadu_si512(out), w[4]);
                    for (int q = 0; q < 4; q++) a = _mm512_dpbusd_epi32(a, quad_of(*inputs, q), w[q]);
                    _mm512_storeu_si512(out, a);
                }
            }
        return;
    }
    for (int64_t o = 0; o < insn.iter_out; o++)  // neighbouring micro-ops go to different accumulators
        for (int64_t i = 0; i < insn.iter_in; i++)
            for (size_t u = 0; u < count; u++) {
                int32_t* out = g.acc + (uops[u].dst + o * insn.dst_out + i * insn.dst_in) * 16;
                const uint8_t* input = g.inp[uops[u].src + o * insn.src_out + i * insn.src_in];
                const __m512i* w = weights_of(uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in);
                __m512i a = _mm512_sub_epi32(_mm512_loadu_si512(out), _mm512_loadu_si512(w + 4));
                for (int q = 0; q < 4; q++)
                    a = _mm512_dpbusd_epi32(a, quad_of(input, q), _mm512_loadu_si512(w + q));
                _mm512_storeu_si512(out, a);
            }
}

#define AVX2 target("avx2")

__attribute__((AVX2, always_inline)) inline void step(int32_t* out, const uint8_t* packed, const uint8_t* wgt) {
    const int16_t* input = reinterpret_cast<const int16_t*>(packed);
    const __m256i* weights = reinterpret_cast<const __m256i*>(wgt);
    __m256i* sums = reinterpret_cast<__m256i*>(out);
    __m256i a = _mm256_loadu_si256(sums), b = _mm256_loadu_si256(sums + 1);
    for (int p = 0; p < 8; p++) {
        int32_t both;
        __builtin_memcpy(&both, input + 2 * p, 4);
        const __m256i x = _mm256_set1_epi32(both);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(x, _mm256_loadu_si256(weights + 2 * p)));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(x, _mm256_loadu_si256(weights + 2 * p + 1)));
    }
    _mm256_storeu_si256(sums, a);
    _mm256_storeu_si256(sums + 1, b);
}

// Neighbouring steps go to different accumulators wherever the instruction allows it.
__attribute__((AVX2)) void avx2(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
    if (insn.wgt_out == 0 && insn.dst_out != 0) {
        for (size_t u = 0; u < count; u++)
            for (int64_t i = 0; i < insn.iter_in; i++) {
                const uint8_t* weights = g.wgt[uops[u].wgt + i * insn.wgt_in];
                int32_t* out = g.acc + (uops[u].dst + i * insn.dst_in) * 16;
                const uint8_t* const* inputs = g.inp + uops[u].src + i * insn.src_in;
                for (int64_t o = 0; o < insn.iter_out; o++, out += insn.dst_out * 16, inputs += insn.src_out)
                    step(out, *inputs, weights);
            }
        return;
    }
    for (int64_t o = 0; o < insn.iter_out; o++)
        for (int64_t i = 0; i < insn.iter_in; i++)
            for (size_t u = 0; u < count; u++)
                step(g.acc + (uops[u].dst + o * insn.dst_out + i * insn.dst_in) * 16,
                     g.inp[uops[u].src + o * insn.src_out + i * insn.src_in],
                     g.wgt[uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in]);
}

int best_level() {
    const bool vnni = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
    return vnni ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
}

#else

int best_level() { return 0; }

#endif

}  // namespace

namespace {
const char* const kLevels[] = {"portable", "avx2", "avx512vnni"};
}

const char* gemm_kind() { return kLevels[level()]; }

bool use_gemm(const std::string& kind) {
    for (int wanted = 0; wanted <= best_level(); wanted++)
        if (kind == kLevels[wanted]) {
            chosen_level() = wanted;
            return true;
        }
    return false;
}

void gemm(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
#if defined(__x86_64__)
    if (g.batch == 1 && g.block == 16 && level() > 0) {
        (level() == 2 ? avx512 : avx2)(g, insn, uops, count);
        return;
    }
#endif
    walk(insn, uops, count, [&](int64_t dst, int64_t src, int64_t wgt) { portable(g, dst, src, wgt); });
}

int64_t packed_input(int batch, int block) { return int64_t(batch) * block * (bytewise(batch, block) ? 1 : 2); }

int64_t packed_weight(int batch, int block) {
    return bytewise(batch, block) ? 5 * 64 : int64_t(block) * block * 2;
}

FAST void pack_inputs(const int8_t* from, int64_t elements, int batch, int block, uint8_t* to) {
    const int64_t count = elements * batch * block;
    if (bytewise(batch, block)) {
        for (int64_t i = 0; i < count; i++) to[i] = uint8_t(from[i] ^ 0x80);  // adds 128
    } else {
        int16_t* wide = reinterpret_cast<int16_t*>(to);
        for (int64_t i = 0; i < count; i++) wide[i] = from[i];
    }
}

void pack_weights(const int8_t* from, int64_t elements, int batch, int block, uint8_t* to) {
    const int64_t step = packed_weight(batch, block);
    for (int64_t e = 0; e < elements; e++, from += block * block, to += step) {
        if (bytewise(batch, block)) {
            int32_t added[16] = {};
            for (int o = 0; o < 16; o++)
                for (int i = 0; i < 16; i++) {
                    to[(i / 4 * 16 + o) * 4 + i % 4] = uint8_t(from[o * 16 + i]);
                    added[o] += 128 * from[o * 16 + i];
                }
            __builtin_memcpy(to + 256, added, 64);
        } else {
            int16_t* wide = reinterpret_cast<int16_t*>(to);
            for (int o = 0; o < block; o++)
                for (int i = 0; i < block; i++)
                    wide[pairwise(batch, block) ? (i / 2 * block + o) * 2 + i % 2 : i * block + o] = from[o * block + i];
        }
    }
}

FAST void alu_pair(int operation, int32_t* dst, const int32_t* src, int64_t lanes) {
    switch (operation) {
        case ALU_MIN:
            for (int64_t l = 0; l < lanes; l++) dst[l] = std::min(dst[l], src[l]);
            break;
        case ALU_MAX:
            for (int64_t l = 0; l < lanes; l++) dst[l] = std::max(dst[l], src[l]);
            break;
        case ALU_ADD:
            for (int64_t l = 0; l < lanes; l++) dst[l] = int32_t(uint32_t(dst[l]) + uint32_t(src[l]));
            break;
        case ALU_SHR:
            for (int64_t l = 0; l < lanes; l++)
                dst[l] = src[l] >= 0 ? dst[l] >> (src[l] & 31) : int32_t(uint32_t(dst[l]) << (-src[l] & 31));
            break;
        default:
            for (int64_t l = 0; l < lanes; l++) dst[l] = int32_t(uint32_t(dst[l]) * uint32_t(src[l]));
    }
}

FAST void alu_imm(int operation, int32_t* dst, int32_t imm, int64_t lanes) {
    switch (operation) {
        case ALU_MIN:
            for (int64_t l = 0; l < lanes; l++) dst[l] = std::min(dst[l], imm);
            break;
        case ALU_MAX:
            for (int64_t l = 0; l < lanes; l++) dst[l] = std::max(dst[l], imm);
            break;
        case ALU_ADD:
            for (int64_t l = 0; l < lanes; l++) dst[l] = int32_t(uint32_t(dst[l]) + uint32_t(imm));
            break;
        case ALU_SHR:
            if (imm >= 0)
                for (int64_t l = 0; l < lanes; l++) dst[l] >>= imm & 31;
            else
                for (int64_t l = 0; l < lanes; l++) dst[l] = int32_t(uint32_t(dst[l]) << (-imm & 31));
            break;
        default:
            for (int64_t l = 0; l < lanes; l++) dst[l] = int32_t(uint32_t(dst[l]) * uint32_t(imm));
    }
}

FAST void narrow(const int32_t* from, int64_t count, int8_t* to) {
    for (int64_t i = 0; i < count; i++) to[i] = int8_t(from[i]);
}

}  // namespace vta
