/* SPDX-License-Identifier: Apache-2.0
 *
 * The image: a table that the linker puts at a fixed address of every executable. It says which
 * kernels to call, in which order, on which tensors. simtune/build/image.py writes it.
 * All fields are little-endian and naturally aligned.
 */
#ifndef SIMTUNE_IMAGE_H
#define SIMTUNE_IMAGE_H

#include <stdint.h>

#define IMAGE_MAGIC 0x31304547414d4953ull /* "SIMAGE01" */
#define IMAGE_MAX_DIMS 8

enum tensor_role { ROLE_INPUT = 0, ROLE_OUTPUT = 1, ROLE_TEMPORARY = 2 };
enum dtype_code { DTYPE_INT = 0, DTYPE_UINT = 1, DTYPE_FLOAT = 2, DTYPE_BFLOAT = 4, DTYPE_BOOL = 6 };

struct image_tensor {
    uint32_t role;
    uint8_t code; /* enum dtype_code, as in DLPack */
    uint8_t bits;
    uint16_t ndim;
    uint64_t offset;   /* bytes from the start of the tensor area, a multiple of 64 */
    uint64_t elements; /* product of the shape */
    int64_t shape[IMAGE_MAX_DIMS];
};

struct image_step {
    uint64_t entry;     /* address of a kernel with TVM's packed calling convention */
    uint32_t first_arg; /* index into the argument table */
    uint32_t n_args;
};

struct image {
    uint64_t magic;
    uint32_t n_tensors;
    uint32_t n_steps;
    uint32_t n_args;      /* length of the argument table, tensor numbers */
    uint32_t reserved;
    uint64_t area_bytes;  /* size of the tensor area */
    /* then: image_tensor[n_tensors], image_step[n_steps], uint32_t args[n_args] */
};

#endif
