/* SPDX-License-Identifier: Apache-2.0
 *
 * TVM's runtime symbols for one kernel in one thread. Objects reach some of them through weak
 * variables that hold the function's address: the linker script binds those to the strong
 * variables below (without them a static link succeeds and the program dies at first use).
 */
#include "runtime.h"

#include <stdio.h>

struct block {
    size_t previous; /* offset of the block below, from the start of the arena */
    size_t freed;
};

enum { ALIGN = 64, NONE = -1 };

static char *arena;
static size_t arena_size;
static size_t top;       /* first free byte */
static size_t last = NONE; /* offset of the newest block */

void workspace_init(void *start, size_t size) {
    arena = start;
    arena_size = size;
    top = 0;
    last = NONE;
}

/* One header line before each block: kernels free in nearly reverse order, so a stack serves. The
 * same bytes are handed out again on every call, so a second call causes no page faults. */
void *TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t nbytes, int code, int bits) {
    (void)device_type, (void)device_id, (void)code, (void)bits;
    size_t need = ALIGN + ((nbytes ? nbytes : 1) + ALIGN - 1) / ALIGN * ALIGN;
    if (need > arena_size - top) {
        fprintf(stderr, "workspace of %llu bytes does not fit\n", (unsigned long long)nbytes);
        return NULL;
    }
    struct block *block = (struct block *)(arena + top);
    block->previous = last;
    block->freed = 0;
    last = top;
    top += need;
    return (char *)block + ALIGN;
}

int TVMBackendFreeWorkspace(int device_type, int device_id, void *ptr) {
    (void)device_type, (void)device_id;
    ((struct block *)((char *)ptr - ALIGN))->freed = 1;
    while (last != (size_t)NONE && ((struct block *)(arena + last))->freed) {
        top = last;
        last = ((struct block *)(arena + last))->previous;
    }
    return 0;
}

struct parallel_env {
    void *sync;
    int32_t num_task;
};

/* Tasks run one after the other: the simulated machine is one core. */
int TVMBackendParallelLaunch(int (*task)(int, void *, void *), void *data, int num_task) {
    struct parallel_env env = {NULL, num_task > 0 ? num_task : 1};
    for (int i = 0; i < env.num_task; ++i) {
        int status = task(i, &env, data);
        if (status != 0) return status;
    }
    return 0;
}

int TVMBackendParallelBarrier(int task_id, void *env) {
    (void)task_id, (void)env;
    return 0;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t n) {
    fprintf(stderr, "kernel raised %s: ", kind);
    for (int32_t i = 0; i < n; ++i) fputs(parts[i] ? parts[i] : "", stderr);
    fputc('\n', stderr);
}

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
    TVMFFIErrorSetRaisedFromCStrParts(kind, &message, 1);
}

void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = TVMBackendAllocWorkspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = TVMBackendFreeWorkspace;
int (*__TVMBackendParallelLaunch)(int (*)(int, void *, void *), void *, int) = TVMBackendParallelLaunch;
int (*__TVMBackendParallelBarrier)(int, void *) = TVMBackendParallelBarrier;
void (*__TVMFFIErrorSetRaisedFromCStrParts)(const char *, const char **, int32_t) =
    TVMFFIErrorSetRaisedFromCStrParts;
