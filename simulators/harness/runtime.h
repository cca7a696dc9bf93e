/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of TVM's C runtime interface that compiled kernels call, and the arena behind it.
 */
#ifndef SIMTUNE_RUNTIME_H
#define SIMTUNE_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t device_type, device_id;
} DLDevice;

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} DLTensor;

typedef struct {
    int32_t type_index, zero;
    union {
        int64_t i64;
        void *ptr;
    } v;
} TVMFFIAny;

enum { FFI_NONE = 0, FFI_TENSOR = 7 };

typedef int32_t (*kernel_fn)(void *self, const TVMFFIAny *args, int32_t n_args, TVMFFIAny *result);

/* Workspace comes from [start, start + size); returns to empty when every block is freed. */
void workspace_init(void *start, size_t size);

#endif
