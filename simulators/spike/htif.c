/* SPDX-License-Identifier: Apache-2.0
 *
 * The host behind Spike's host-target interface: an address written to `tohost` asks for a system call,
 * an odd number ends the simulation. Spike dumps what lies between the two signature symbols.
 */
#include "monitor.h"

enum { OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, HERE = -100, CREATE = 01101 };

__attribute__((section(".tohost"), aligned(64))) volatile uint64_t tohost;
__attribute__((section(".tohost"), aligned(64))) volatile uint64_t fromhost;
/* What stopped the run, and after how many instructions. */
__attribute__((section(".signature"))) volatile uint64_t signature[2];

static int64_t call(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    static volatile uint64_t block[8] __attribute__((aligned(64)));
    block[0] = number, block[1] = a, block[2] = b, block[3] = c, block[4] = d, block[5] = e;
    __asm__ volatile("fence" : : : "memory");
    tohost = (uint64_t)block;
    while (!fromhost) {
    }
    fromhost = 0;
    __asm__ volatile("fence" : : : "memory");
    return (int64_t)block[0];
}

void host_init(void) {}

int64_t host_open(const char *path, int write)
{
    uint64_t length = 1;
    while (path[length - 1])
        length++;
    return call(OPENAT, (uint64_t)HERE, (uint64_t)path, length, write ? CREATE : 0, 0644);
}

int64_t host_read(int64_t file, void *to, uint64_t bytes)
{
    return call(READ, (uint64_t)file, (uint64_t)to, bytes, 0, 0);
}

int64_t host_write(int64_t file, const void *from, uint64_t bytes)
{
    return call(WRITE, (uint64_t)file, (uint64_t)from, bytes, 0, 0);
}

void host_close(int64_t file) { call(CLOSE, (uint64_t)file, 0, 0, 0, 0); }

void host_mark(int stop, uint64_t instructions)
{
    signature[0] = (uint64_t)stop;
    signature[1] = instructions;
}

void host_exit(int code)
{
    for (;;)
        tohost = (uint64_t)code << 1 | 1;
}
