/* SPDX-License-Identifier: Apache-2.0 */
#include "tensors.h"

#include <math.h>
#include <string.h>

size_t element_bytes(const struct image_tensor *tensor) { return (tensor->bits + 7u) / 8u; }

/* 24 well-mixed bits for element `i` of the stream `key`. */
static inline uint32_t mix(uint64_t i, uint64_t key) {
    uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ull ^ key;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93ull;
    return (uint32_t)(x >> 40);
}

/* Fractions with a full mantissa, never small integers: an emulator may take a slow path until the
 * first inexact result. Range [-0.5, 0.5). */
static inline float fraction(uint32_t bits) { return (float)bits * 0x1p-24f - 0.5f; }

static inline uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Rounds toward zero: exact and the same everywhere; |value| < 65504 and normal or zero. */
static uint16_t to_half(float value) {
    uint32_t bits = float_bits(value), sign = bits >> 16 & 0x8000u;
    int32_t exponent = (int32_t)(bits >> 23 & 0xff) - 127 + 15;
    if (exponent <= 0) return (uint16_t)sign;
    return (uint16_t)(sign | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff));
}

static float from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
    if (exponent == 0) return bits_float(sign | float_bits((float)mantissa * 0x1p-24f));
    if (exponent == 31) return bits_float(sign | 0x7f800000u | mantissa << 13);
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* Integers: bytes take their whole range; wider ones stay small and not negative, since they may
 * serve as indices. */
static inline int64_t integer(uint32_t bits, const struct image_tensor *tensor) {
    if (tensor->code == DTYPE_BOOL || tensor->bits == 1) return bits & 1;
    if (tensor->bits == 8) return tensor->code == DTYPE_INT ? (int64_t)(bits & 0xff) - 128 : (int64_t)(bits & 0xff);
    return bits & (tensor->bits == 16 ? 0xff : tensor->bits == 32 ? 7 : 3);
}

void fill_input(void *data, const struct image_tensor *tensor, unsigned number, uint64_t seed, int constant) {
    uint64_t key = (seed * 1000003u + number + 1) * 0xC2B2AE3D27D4EB4Full;
    uint64_t n = tensor->elements, step = constant ? 0 : 1;
    int real = tensor->code == DTYPE_FLOAT || tensor->code == DTYPE_BFLOAT;
#define FILL(type, expression)                        \
    for (uint64_t i = 0; i < n; ++i) {                \
        uint32_t bits = mix(i * step, key);           \
        ((type *)data)[i] = (type)(expression);       \
    }
    if (real && tensor->bits == 32) FILL(float, fraction(bits))
    else if (real && tensor->bits == 64) FILL(double, fraction(bits))
    else if (tensor->code == DTYPE_BFLOAT) FILL(uint16_t, float_bits(fraction(bits)) >> 16)
    else if (real) FILL(uint16_t, to_half(fraction(bits)))
    else if (tensor->bits <= 8) FILL(int8_t, integer(bits, tensor))
    else if (tensor->bits == 16) FILL(int16_t, integer(bits, tensor))
    else if (tensor->bits == 32) FILL(int32_t, integer(bits, tensor))
    else FILL(int64_t, integer(bits, tensor))
#undef FILL
}

static double element(const void *data, const struct image_tensor *tensor, uint64_t i) {
    int is_signed = tensor->code == DTYPE_INT;
    if (tensor->code == DTYPE_BFLOAT) return bits_float((uint32_t)((const uint16_t *)data)[i] << 16);
    if (tensor->code == DTYPE_FLOAT) {
        if (tensor->bits == 32) return ((const float *)data)[i];
        if (tensor->bits == 64) return ((const double *)data)[i];
        return from_half(((const uint16_t *)data)[i]);
    }
    switch (tensor->bits) {
    case 16: return is_signed ? (double)((const int16_t *)data)[i] : (double)((const uint16_t *)data)[i];
    case 32: return is_signed ? (double)((const int32_t *)data)[i] : (double)((const uint32_t *)data)[i];
    case 64: return is_signed ? (double)((const int64_t *)data)[i] : (double)((const uint64_t *)data)[i];
    default: return is_signed ? ((const int8_t *)data)[i] : ((const uint8_t *)data)[i];
    }
}

void compare(struct comparison *result, const void *actual, const void *expected,
             const struct image_tensor *tensor, double rtol, double atol) {
    int real = tensor->code == DTYPE_FLOAT || tensor->code == DTYPE_BFLOAT;
    /* Integers are compared by their bytes; a double would lose the low bits of wide ones. */
    if (!real && memcmp(actual, expected, tensor->elements * element_bytes(tensor)) == 0) return;
    for (uint64_t i = 0; i < tensor->elements; ++i) {
        double a = element(actual, tensor, i), b = element(expected, tensor, i), error = fabs(a - b);
        size_t bytes = element_bytes(tensor);
        int equal = real ? error <= atol + rtol * fabs(b) || a == b || (a != a && b != b)
                         : memcmp((const char *)actual + i * bytes, (const char *)expected + i * bytes, bytes) == 0;
        if (error > result->max_abs_error) result->max_abs_error = error;
        if (!equal && result->mismatches++ == 0) result->first_mismatch = i;
    }
}

uint64_t checksum(uint64_t hash, const void *data, size_t bytes) {
    /* Eight bytes a step: the result is only compared with itself. */
    const unsigned char *p = data;
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = (hash ^ word) * 0x100000001B3ull;
    }
    for (; bytes; ++p, --bytes) hash = (hash ^ *p) * 0x100000001B3ull;
    return hash;
}

void project(double *norm2, double sums[N_PROJECTIONS], const void *data, const struct image_tensor *tensor) {
    for (uint64_t i = 0; i < tensor->elements; ++i) {
        double value = element(data, tensor, i);
        uint32_t signs = mix(i, 0x5bd1e995);
        *norm2 += value * value;
        for (int k = 0; k < N_PROJECTIONS; ++k) sums[k] += signs >> k & 1 ? value : -value;
    }
}
