/* SPDX-License-Identifier: Apache-2.0
 *
 * Deterministic inputs, checks and checksums; simtune/build/inputs.py computes the same in numpy.
 */
#ifndef SIMTUNE_TENSORS_H
#define SIMTUNE_TENSORS_H

#include <stddef.h>

#include "image.h"

enum { N_PROJECTIONS = 8 };

struct comparison {
    uint64_t mismatches;
    uint64_t first_mismatch;
    double max_abs_error;
};

size_t element_bytes(const struct image_tensor *tensor);

/* Fills an input. `number` is the tensor's number in the image. `constant` gives every element the
 * value of element 0: a kernel that works on a re-packed operand then computes the same. */
void fill_input(void *data, const struct image_tensor *tensor, unsigned number, uint64_t seed, int constant);

/* |actual - expected| <= atol + rtol * |expected| for floats, equal for integers. NaN equals NaN. */
void compare(struct comparison *result, const void *actual, const void *expected,
             const struct image_tensor *tensor, double rtol, double atol);

/* FNV-1a over the bytes, chained through `hash`. */
uint64_t checksum(uint64_t hash, const void *data, size_t bytes);

/* Adds the tensor's norm and N_PROJECTIONS sums with pseudo-random signs: two outputs that differ
 * by rounding only have nearly equal projections. */
void project(double *norm2, double sums[N_PROJECTIONS], const void *data, const struct image_tensor *tensor);

#endif
