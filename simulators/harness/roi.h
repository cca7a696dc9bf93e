/* SPDX-License-Identifier: Apache-2.0
 *
 * Marks of the region of interest. They are no-operations on real hardware; simulators recognise
 * their exact bytes. Before the region, caches may be told to follow what warms them up.
 */
#ifndef SIMTUNE_ROI_H
#define SIMTUNE_ROI_H

#if defined(__riscv)
/* The argument registers are given up because gem5 gets an m5op in the place of a mark. */
#define ROI_BEGIN() __asm__ volatile("slti x0, x0, 0x511" ::: "memory", "a0", "a1")
#define ROI_END() __asm__ volatile("slti x0, x0, 0x512" ::: "memory", "a0", "a1")
#define ROI_WARM() __asm__ volatile("slti x0, x0, 0x513" ::: "memory")
#elif defined(__aarch64__)
#define ROI_BEGIN() __asm__ volatile("hint #0x51" ::: "memory", "x0", "x1")
#define ROI_END() __asm__ volatile("hint #0x52" ::: "memory", "x0", "x1")
#define ROI_WARM() __asm__ volatile("hint #0x53" ::: "memory")
#elif defined(__x86_64__)
/* nopl with a 32-bit displacement; the displacement is the mark. Beside it stands the request by which
 * callgrind toggles its collecting: rotations that add up to nothing, elsewhere a no-operation. */
static const unsigned long simtune_toggle[6] __attribute__((used)) = {0x43540002ul};
#define ROI_TOGGLE                                                                     \
    "lea %0, %%rax\n\txor %%edx, %%edx\n\trolq $3, %%rdi\n\trolq $13, %%rdi\n\t"        \
    "rolq $61, %%rdi\n\trolq $51, %%rdi\n\txchgq %%rbx, %%rbx\n\t"
#define ROI_ASM(code) __asm__ volatile(code : : "m"(simtune_toggle) : "rax", "rdx", "memory", "cc")
#define ROI_BEGIN() ROI_ASM(ROI_TOGGLE ".byte 0x0f,0x1f,0x84,0x00,0x01,0x00,0x51,0x51")
#define ROI_END() ROI_ASM(".byte 0x0f,0x1f,0x84,0x00,0x02,0x00,0x51,0x51\n\t" ROI_TOGGLE)
#define ROI_WARM() __asm__ volatile(".byte 0x0f,0x1f,0x84,0x00,0x03,0x00,0x51,0x51" ::: "memory")
#else
#error "no region marks for this instruction set"
#endif

#endif
