/* SPDX-License-Identifier: Apache-2.0
 *
 * Marks of the region of interest. They are no-operations on real hardware; simulators recognise
 * their exact bytes. Before the region, caches may be told to follow what warms them up.
 */
#ifndef SIMTUNE_ROI_H
#define SIMTUNE_ROI_H

#if defined(__riscv)
#define ROI_BEGIN() __asm__ volatile("slti x0, x0, 0x511" ::: "memory")
#define ROI_END() __asm__ volatile("slti x0, x0, 0x512" ::: "memory")
#define ROI_WARM() __asm__ volatile("slti x0, x0, 0x513" ::: "memory")
#elif defined(__aarch64__)
#define ROI_BEGIN() __asm__ volatile("hint #0x51" ::: "memory")
#define ROI_END() __asm__ volatile("hint #0x52" ::: "memory")
#define ROI_WARM() __asm__ volatile("hint #0x53" ::: "memory")
#elif defined(__x86_64__)
/* nopl with a 32-bit displacement; the displacement is the mark */
#define ROI_BEGIN() __asm__ volatile(".byte 0x0f,0x1f,0x84,0x00,0x01,0x00,0x51,0x51" ::: "memory")
#define ROI_END() __asm__ volatile(".byte 0x0f,0x1f,0x84,0x00,0x02,0x00,0x51,0x51" ::: "memory")
#define ROI_WARM() __asm__ volatile(".byte 0x0f,0x1f,0x84,0x00,0x03,0x00,0x51,0x51" ::: "memory")
#else
#error "no region marks for this instruction set"
#endif

#endif
