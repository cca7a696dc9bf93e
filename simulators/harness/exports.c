/* SPDX-License-Identifier: Apache-2.0
 *
 * The C library functions that a kernel may call, under the name `simtune_NAME`; the linker script
 * binds NAME to it. A forwarding function is needed because several of them are indirect functions
 * in a static C library: their symbol is a resolver, not the code.
 */
#define _GNU_SOURCE
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(type, name, params, args) \
    __attribute__((used)) type simtune_##name params { return name args; }
#define UNARY(name) EXPORT(double, name, (double x), (x)) EXPORT(float, name##f, (float x), (x))
#define BINARY(name) \
    EXPORT(double, name, (double x, double y), (x, y)) EXPORT(float, name##f, (float x, float y), (x, y))

EXPORT(void *, memcpy, (void *to, const void *from, size_t n), (to, from, n))
EXPORT(void *, memmove, (void *to, const void *from, size_t n), (to, from, n))
EXPORT(void *, memset, (void *to, int value, size_t n), (to, value, n))
EXPORT(int, memcmp, (const void *a, const void *b, size_t n), (a, b, n))

UNARY(acos) UNARY(acosh) UNARY(asin) UNARY(asinh) UNARY(atan) UNARY(atanh) UNARY(cbrt) UNARY(ceil)
UNARY(cos) UNARY(cosh) UNARY(erf) UNARY(erfc) UNARY(exp) UNARY(exp2) UNARY(expm1) UNARY(fabs)
UNARY(floor) UNARY(lgamma) UNARY(log) UNARY(log10) UNARY(log1p) UNARY(log2) UNARY(nearbyint)
UNARY(rint) UNARY(round) UNARY(sin) UNARY(sinh) UNARY(sqrt) UNARY(tan) UNARY(tanh) UNARY(tgamma)
UNARY(trunc)
BINARY(atan2) BINARY(copysign) BINARY(fmax) BINARY(fmin) BINARY(fmod) BINARY(hypot)
BINARY(nextafter) BINARY(pow) BINARY(remainder)
EXPORT(double, fma, (double x, double y, double z), (x, y, z))
EXPORT(float, fmaf, (float x, float y, float z), (x, y, z))
EXPORT(double, ldexp, (double x, int e), (x, e))
EXPORT(float, ldexpf, (float x, int e), (x, e))
EXPORT(float, roundevenf, (float x), (x))
EXPORT(double, roundeven, (double x), (x))
