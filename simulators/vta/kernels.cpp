// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

#include <algorithm>

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

// One element: any batch and block, wrapping as the hardware does.
void portable(const GemmBuffers& g, int64_t dst, int64_t src, int64_t wgt) {
    const int16_t* weights = g.wgt[wgt];
    for (int b = 0; b < g.batch; b++) {
        const int16_t* input = g.inp[src] + b * g.block;
        int32_t* out = g.acc + (dst * g.batch + b) * g.block;
        for (int pair = 0; pair < g.block / 2; pair++) {
            const int16_t* row = weights + size_t(pair) * g.block * 2;
            const int32_t x = input[2 * pair], y = input[2 * pair + 1];
            for (int o = 0; o < g.block; o++)
                out[o] = int32_t(uint32_t(out[o]) + uint32_t(x * row[2 * o] + y * row[2 * o + 1]));
        }
    }
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

__attribute__((VNNI, always_inline)) inline __m512i pair_of(const int16_t* input, int pair) {
    int32_t both;
    __builtin_memcpy(&both, input + 2 * pair, 4);
    return _mm512_set1_epi32(both);
}

// acc += input * weights, in two chains of additions.
__attribute__((VNNI, always_inline)) inline void step(int32_t* out, const int16_t* input, const __m512i* w) {
    __m512i a = _mm512_loadu_si512(out), b = _mm512_setzero_si512();
    for (int p = 0; p < 8; p += 2) {
        a = _mm512_dpwssd_epi32(a, pair_of(input, p), _mm512_loadu_si512(w + p));
        b = _mm512_dpwssd_epi32(b, pair_of(input, p + 1), _mm512_loadu_si512(w + p + 1));
    }
    _mm512_storeu_si512(out, _mm512_add_epi32(a, b));
}

// The order of additions does not matter, so each case goes the way that keeps the pipeline busy.
__attribute__((VNNI)) void avx512(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
    auto weights_of = [&](int64_t wgt) { return reinterpret_cast<const __m512i*>(g.wgt[wgt]); };
    if (insn.dst_out == 0 && insn.dst_in == 0) {  // all steps go to one accumulator, which stays in registers
        for (size_t u = 0; u < count; u++) {
            __m512i sum[4] = {_mm512_loadu_si512(g.acc + uops[u].dst * 16), _mm512_setzero_si512(),
                              _mm512_setzero_si512(), _mm512_setzero_si512()};
            for (int64_t o = 0; o < insn.iter_out; o++)
                for (int64_t i = 0; i < insn.iter_in; i++) {
                    const int16_t* input = g.inp[uops[u].src + o * insn.src_out + i * insn.src_in];
                    const __m512i* w = weights_of(uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in);
                    for (int p = 0; p < 8; p++)
                        sum[p % 4] = _mm512_dpwssd_epi32(sum[p % 4], pair_of(input, p), _mm512_loadu_si512(w + p));
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
                const int16_t* const* inputs = g.inp + uops[u].src + o * src_outer;
                int32_t* out = g.acc + (uops[u].dst + o * dst_outer) * 16;
                __m512i w[8];
                for (int p = 0; p < 8; p++) w[p] = _mm512_loadu_si512(weights + p);
                for (int64_t i = 0; i < inner; i++, out += dst_step * 16, inputs += src_step) {
                    const int16_t* input = *inputs;
                    __m512i a = _mm512_loadu_si512(out), b = _mm512_setzero_si512();
                    for (int p = 0; p < 8; p += 2) {
                        a = _mm512_dpwssd_epi32(a, pair_of(input, p), w[p]);
                        b = _mm512_dpwssd_epi32(b, pair_of(input, p + 1), w[p + 1]);
                    }
                    _mm512_storeu_si512(out, _mm512_add_epi32(a, b));
                }
            }
        return;
    }
    for (int64_t o = 0; o < insn.iter_out; o++)  // neighbouring micro-ops go to different accumulators
        for (int64_t i = 0; i < insn.iter_in; i++)
            for (size_t u = 0; u < count; u++)
                step(g.acc + (uops[u].dst + o * insn.dst_out + i * insn.dst_in) * 16,
                     g.inp[uops[u].src + o * insn.src_out + i * insn.src_in],
                     weights_of(uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in));
}

__attribute__((target("avx2"))) void avx2(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
    auto steps = [&](int64_t o, int64_t i, size_t u) __attribute__((target("avx2"))) {
        const int16_t* input = g.inp[uops[u].src + o * insn.src_out + i * insn.src_in];
        const __m256i* weights =
            reinterpret_cast<const __m256i*>(g.wgt[uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in]);
        __m256i* out = reinterpret_cast<__m256i*>(g.acc + (uops[u].dst + o * insn.dst_out + i * insn.dst_in) * 16);
        __m256i a = _mm256_loadu_si256(out), b = _mm256_loadu_si256(out + 1);
        for (int p = 0; p < 8; p++) {
            int32_t both;
            __builtin_memcpy(&both, input + 2 * p, 4);
            const __m256i x = _mm256_set1_epi32(both);
            a = _mm256_add_epi32(a, _mm256_madd_epi16(x, _mm256_loadu_si256(weights + 2 * p)));
            b = _mm256_add_epi32(b, _mm256_madd_epi16(x, _mm256_loadu_si256(weights + 2 * p + 1)));
        }
        _mm256_storeu_si256(out, a);
        _mm256_storeu_si256(out + 1, b);
    };
    if (insn.wgt_out == 0 && insn.dst_out != 0) {
        for (size_t u = 0; u < count; u++)
            for (int64_t i = 0; i < insn.iter_in; i++)
                for (int64_t o = 0; o < insn.iter_out; o++) steps(o, i, u);
    } else {
        for (int64_t o = 0; o < insn.iter_out; o++)
            for (int64_t i = 0; i < insn.iter_in; i++)
                for (size_t u = 0; u < count; u++) steps(o, i, u);
    }
}

int level() {
    static const int found = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                                     __builtin_cpu_supports("avx512vl")
                                 ? 2
                             : __builtin_cpu_supports("avx2") ? 1
                                                              : 0;
    return found;
}

#else

int level() { return 0; }

#endif

}  // namespace

const char* gemm_kind() {
    static const char* const names[] = {"portable", "avx2", "avx512vnni"};
    return names[level()];
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

FAST void widen_inputs(const int8_t* from, int64_t count, int16_t* to) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i];
}

// [out][in] to [in / 2][out][2]
void widen_weights(const int8_t* from, int64_t elements, int block, int16_t* to) {
    for (int64_t e = 0; e < elements; e++, from += block * block, to += block * block)
        for (int o = 0; o < block; o++)
            for (int i = 0; i < block; i++) to[(i / 2 * block + o) * 2 + i % 2] = from[o * block + i];
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
