/* SPDX-License-Identifier: Apache-2.0
 *
 * Machine mode: start, the way in and out of the program. Executed instructions are read early on the
 * way in, always after the same number of instructions.
 */
    .option arch, +zicsr
    .section .text.start, "ax"
    .globl _start
_start:
    csrr t0, mhartid
    bnez t0, park
    la sp, monitor_stack_top
    la t0, trap_entry
    csrw mtvec, t0
    li t0, -1                   /* user mode may touch all memory that is mapped */
    csrw pmpaddr0, t0
    li t0, 0x1f
    csrw pmpcfg0, t0
    csrw medeleg, zero
    csrw mie, zero
    li t0, 7                    /* cycle, time, instret */
    csrw mcounteren, t0
    csrw scounteren, t0
    li t0, 0x2200               /* floating point and vectors on, back to user mode */
    csrw mstatus, t0
    la a0, trap_frame
    csrw mscratch, a0
    la a1, _start
    call monitor_start
    la a0, trap_frame
    j leave
park:
    wfi
    j park

    .balign 4
trap_entry:
    csrrw a0, mscratch, a0
    sd t0, 5*8(a0)
    csrr t0, minstret
    sd t0, 34*8(a0)
    .irp n, 1,2,3,4,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd x\n, \n*8(a0)
    .endr
    csrr t0, mscratch
    sd t0, 10*8(a0)
    csrw mscratch, a0
    csrr t0, mepc
    sd t0, 32*8(a0)
    la sp, monitor_stack_top
    csrr t0, mcause
    csrr a2, mtval
    li t1, 8                    /* environment call from user mode */
    beq t0, t1, is_call
    li a1, 1
    li t1, 3                    /* breakpoint */
    beq t0, t1, go
    li a1, 2
    li t1, 2                    /* illegal instruction */
    beq t0, t1, go
    li a1, 3
    j go
is_call:
    csrr t0, mepc
    addi t0, t0, 4
    sd t0, 32*8(a0)
    li a1, 0
go:
    call monitor_trap
    la a0, trap_frame
leave:
    ld t0, 32*8(a0)
    csrw mepc, t0
    .irp n, 1,2,3,4,6,7,8,9,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ld x\n, \n*8(a0)
    .endr
    ld t0, 5*8(a0)
    ld a0, 10*8(a0)
    mret

    .section .bss
    .balign 16
    .globl trap_frame
trap_frame:
    .space 35*8
    .balign 16
    .space 65536
monitor_stack_top:
