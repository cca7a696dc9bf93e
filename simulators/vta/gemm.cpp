// SPDX-License-Identifier: Apache-2.0
#include "gemm.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vta {
namespace {

// One element: any batch and block, wrapping as the hardware does.
void portable(const GemmBuffers& g, int64_t dst, int64_t src, int64_t wgt) {
    const int16_t* weights = g.wgt + wgt * g.block * g.block;
    for (int b = 0; b < g.batch; b++) {
        const int16_t* input = g.inp + (src * g.batch + b) * g.block;
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

__attribute__((VNNI)) void avx512(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
    // The order of additions does not matter, so a micro-op's weights stay in registers where its
    // loops do not move them.
    for (size_t u = 0; u < count; u++)
        for (int64_t o = 0; o < insn.iter_out; o++) {
            int64_t dst = uops[u].dst + o * insn.dst_out, src = uops[u].src + o * insn.src_out,
                    wgt = uops[u].wgt + o * insn.wgt_out;
            if (insn.wgt_in == 0) {
                const int16_t* weights = g.wgt + wgt * 256;
                __m512i w[8];
                for (int p = 0; p < 8; p++) w[p] = _mm512_loadu_si512(weights + 32 * p);
                for (int64_t i = 0; i < insn.iter_in; i++, dst += insn.dst_in, src += insn.src_in) {
                    const int16_t* input = g.inp + src * 16;
                    int32_t* out = g.acc + dst * 16;
                    __m512i a = _mm512_loadu_si512(out), b = _mm512_setzero_si512();
                    for (int p = 0; p < 8; p += 2) {
                        a = _mm512_dpwssd_epi32(a, pair_of(input, p), w[p]);
                        b = _mm512_dpwssd_epi32(b, pair_of(input, p + 1), w[p + 1]);
                    }
                    _mm512_storeu_si512(out, _mm512_add_epi32(a, b));
                }
                continue;
            }
            for (int64_t i = 0; i < insn.iter_in; i++, dst += insn.dst_in, src += insn.src_in, wgt += insn.wgt_in) {
                const int16_t* weights = g.wgt + wgt * 256;
                const int16_t* input = g.inp + src * 16;
                int32_t* out = g.acc + dst * 16;
                __m512i a = _mm512_loadu_si512(out), b = _mm512_setzero_si512();
                for (int p = 0; p < 8; p += 2) {
                    a = _mm512_dpwssd_epi32(a, pair_of(input, p), _mm512_loadu_si512(weights + 32 * p));
                    b = _mm512_dpwssd_epi32(b, pair_of(input, p + 1), _mm512_loadu_si512(weights + 32 * p + 32));
                }
                _mm512_storeu_si512(out, _mm512_add_epi32(a, b));
            }
        }
}

__attribute__((target("avx2"))) void avx2(const GemmBuffers& g, const Insn& insn, const Uop* uops, size_t count) {
    for (size_t u = 0; u < count; u++)
        for (int64_t o = 0; o < insn.iter_out; o++)
            for (int64_t i = 0; i < insn.iter_in; i++) {
                const int64_t dst = uops[u].dst + o * insn.dst_out + i * insn.dst_in,
                              src = uops[u].src + o * insn.src_out + i * insn.src_in,
                              wgt = uops[u].wgt + o * insn.wgt_out + i * insn.wgt_in;
                const __m256i* weights = reinterpret_cast<const __m256i*>(g.wgt + wgt * 256);
                const int16_t* input = g.inp + src * 16;
                __m256i* out = reinterpret_cast<__m256i*>(g.acc + dst * 16);
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

}  // namespace vta
