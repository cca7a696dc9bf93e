/* SPDX-License-Identifier: Apache-2.0
 *
 * Exception level 1: start, the way in and out of the program at level 0. Level 1 runs behind the same
 * page tables, which map memory one to one where only it may go (aarch64.c).
 */
    .section .text.start, "ax"
    .globl _start
_start:
    ldr x0, =monitor_stack_top
    mov sp, x0
    ldr x0, =vectors
    msr vbar_el1, x0
    mov x0, #3 << 20            /* floating point and vectors on */
    msr cpacr_el1, x0
    mov x0, #3                  /* the program may read the counters */
    msr cntkctl_el1, x0
    isb
    ldr x0, =trap_frame
    ldr x1, =_start
    bl monitor_start
    ldr x0, =trap_frame
    b leave

    .balign 2048
vectors:
    .rept 8
    .balign 128
    b broken
    .endr
    .balign 128                 /* synchronous, from level 0 */
    b trap_entry
    .rept 7
    .balign 128
    b broken
    .endr

broken:                         /* the monitor itself failed */
    mrs x2, far_el1
    ldr x0, =trap_frame
    mrs x1, elr_el1
    str x1, [x0, #32*8]
    mov x1, #3
    bl monitor_trap
    b broken

trap_entry:
    msr tpidr_el1, x0
    ldr x0, =trap_frame
    .irp n, 2,4,6,8,10,12,14,16,18,20,22,24,26,28
    str x\n, [x0, #\n*8]
    .endr
    .irp n, 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,30
    str x\n, [x0, #\n*8]
    .endr
    mrs x1, tpidr_el1
    str x1, [x0]
    mrs x1, sp_el0
    str x1, [x0, #31*8]
    mrs x1, elr_el1
    str x1, [x0, #32*8]
    ldr x1, =monitor_stack_top
    mov sp, x1
    mrs x2, far_el1
    mrs x3, esr_el1
    lsr x3, x3, #26
    mov x1, #0
    cmp x3, #0x15               /* svc */
    b.eq 1f
    mov x1, #3
    cmp x3, #0x20               /* instruction and data aborts */
    b.hs 1f
    mov x1, #2
1:  bl monitor_trap
    ldr x0, =trap_frame
leave:
    ldr x1, [x0, #32*8]
    msr elr_el1, x1
    ldr x1, [x0, #31*8]
    msr sp_el0, x1
    msr spsr_el1, xzr           /* level 0, AArch64 */
    .irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    ldr x\n, [x0, #\n*8]
    .endr
    ldr x1, [x0, #8]
    ldr x0, [x0]
    eret

    .section .bss
    .balign 16
    .globl trap_frame
trap_frame:
    .space 35*8
    .balign 16
    .space 65536
monitor_stack_top:
