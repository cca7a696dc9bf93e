# SPDX-License-Identifier: Apache-2.0
"""Counts of hand-counted loops: what the QEMU plugin says must be what the assembly says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from qemu_helpers import assemble, classes, counters, machine, program, simulate

from simtune.simulators.qemu import build_plugin
from simtune.simulators.qemu_report import configuration, parse_report

RISCV = """
    li t0, 100              # 1 int_alu
    lla t1, buffer           # 2 int_alu
1:  ld t2, 0(t1)            # load
    lw t3, 8(t1)            # load
    fld fa0, 16(t1)         # load
    flw fa1, 24(t1)         # load
    lbu t4, 1(t1)           # load
    sd t2, 32(t1)           # store
    fsw fa1, 44(t1)         # store
    mul t2, t2, t3          # int_mul
    divu t2, t2, t0         # int_div
    sh2add t3, t3, t1       # int_alu (Zba)
    andn t3, t3, t0         # int_alu (Zbb)
    clz t4, t3              # int_alu (Zbb)
    fadd.s fa2, fa1, fa1    # fp_add
    fmul.d fa3, fa0, fa0    # fp_mul
    fmadd.s fa2, fa1, fa1, fa2   # fp_fma
    fdiv.s fa2, fa2, fa1    # fp_div
    fsqrt.d fa3, fa3        # fp_div
    fcvt.w.s t2, fa1, rtz   # fp_misc
    fmax.s fa1, fa1, fa2    # fp_misc
    amoadd.d t2, t3, (t1)   # atomic
    fence                   # other
    beqz x0, 2f             # branch, taken
    nop
2:  addi t0, t0, -1         # int_alu
    bnez t0, 1b             # branch
    j 3f                    # 1 jump
3:
"""
RISCV_CLASSES = {
    "int_alu": 403, "int_mul": 100, "int_div": 100, "load": 500, "store": 200, "atomic": 100,
    "branch": 200, "jump": 1, "fp_add": 100, "fp_mul": 100, "fp_fma": 100, "fp_div": 200,
    "fp_misc": 200, "other": 100,
}  # fmt: skip

A64 = """
    mov x0, #100                    // 1 int_alu
    adrp x1, buffer                 // 1 int_alu
    add x1, x1, :lo12:buffer        // 1 int_alu
1:  ldr x2, [x1]                    // load
    ldp w3, w4, [x1, #8]            // load
    ldr s0, [x1, x0, lsl #2]        // load
    ldr q1, [x1, #16]               // vec_load
    ld1 {v2.4s, v3.4s}, [x1]        // vec_load
    ldp q4, q5, [x1]                // vec_load
    str x2, [x1, #64]!              // store
    stp d0, d1, [x1], #-64          // store
    st1 {v2.4s}, [x1]               // vec_store
    madd x2, x3, x4, x2             // int_mul
    udiv x2, x2, x0                 // int_div
    csel x2, x3, x4, eq             // int_alu
    ubfx x2, x2, #3, #5             // int_alu
    fadd s0, s0, s0                 // fp_add
    fmul d1, d1, d1                 // fp_mul
    fmadd s0, s0, s0, s0            // fp_fma
    fdiv s0, s0, s0                 // fp_div
    fcvtzs w5, s0                   // fp_misc
    fcmp s0, s0                     // fp_misc
    add v0.4s, v1.4s, v2.4s         // vec_alu
    eor v0.16b, v0.16b, v1.16b      // vec_alu
    mla v0.4s, v1.4s, v2.4s         // vec_mul
    sdot v0.4s, v1.16b, v2.16b      // vec_mul
    smlal v0.4s, v1.4h, v2.4h       // vec_mul
    fadd v0.4s, v1.4s, v2.4s        // vec_fp_add
    fmul v0.4s, v1.4s, v2.s[1]      // vec_fp_mul
    fmla v0.4s, v1.4s, v2.4s        // vec_fp_fma
    fmla v0.4s, v1.4s, v2.s[2]      // vec_fp_fma
    fdiv v0.4s, v1.4s, v2.4s        // vec_fp_div
    fmax v0.4s, v1.4s, v2.4s        // vec_misc
    scvtf v0.4s, v1.4s              // vec_misc
    movi v0.4s, #0                  // vec_misc
    zip1 v0.4s, v1.4s, v2.4s        // vec_shuffle
    dup v0.4s, v1.s[0]              // vec_shuffle
    tbl v0.16b, {v1.16b}, v2.16b    // vec_shuffle
    nop                             // other
    cbz xzr, 2f                     // branch
    nop
2:  subs x0, x0, #1                 // int_alu
    b.ne 1b                         // branch
"""
A64_CLASSES = {
    "int_alu": 303, "int_mul": 100, "int_div": 100, "load": 300, "store": 200, "branch": 200,
    "fp_add": 100, "fp_mul": 100, "fp_fma": 100, "fp_div": 100, "fp_misc": 200, "vec_alu": 200,
    "vec_mul": 300, "vec_fp_add": 100, "vec_fp_mul": 100, "vec_fp_fma": 200, "vec_fp_div": 100,
    "vec_misc": 300, "vec_shuffle": 300, "vec_load": 300, "vec_store": 100, "other": 100,
}  # fmt: skip

X86 = """
    mov $100, %ecx                          # 1 int_alu
    lea buffer(%rip), %rdi                  # 1 int_alu
1:  mov (%rdi), %rax                        # load
    movss 4(%rdi), %xmm0                    # load
    movzbl 8(%rdi), %edx                    # load
    vmovups (%rdi), %ymm1                   # vec_load
    vbroadcastss 32(%rdi), %ymm2            # vec_load
    mov %rax, 64(%rdi)                      # store
    movsd %xmm0, 72(%rdi)                   # store
    vmovups %ymm1, 96(%rdi)                 # vec_store
    add 16(%rdi), %rdx                      # int_alu, loads
    addl $1, 20(%rdi)                       # int_alu, loads and stores
    push %rdx                               # store
    pop %rdx                                # load
    call 3f                                 # jump, stores
    imul %rdx, %rax                         # int_mul
    andn %rax, %rdx, %rsi                   # int_alu (BMI)
    or $1, %esi                             # int_alu
    mov $7, %eax                            # int_alu
    xor %edx, %edx                          # int_alu
    div %esi                                # int_div
    addss %xmm0, %xmm0                      # fp_add
    vmulsd %xmm0, %xmm1, %xmm3              # fp_mul
    vfmadd231ss 4(%rdi), %xmm0, %xmm1       # fp_fma, loads
    divss %xmm0, %xmm0                      # fp_div
    cvttss2si %xmm0, %eax                   # fp_misc
    ucomiss %xmm0, %xmm1                    # fp_misc
    vpaddd %ymm1, %ymm2, %ymm3              # vec_alu
    vxorps %ymm3, %ymm3, %ymm3              # vec_alu
    vpmulld %ymm1, %ymm2, %ymm3             # vec_mul
    vpmaddwd %ymm1, %ymm2, %ymm3            # vec_mul
    vaddps (%rdi), %ymm2, %ymm3             # vec_fp_add, loads
    mulps %xmm1, %xmm2                      # vec_fp_mul
    vfmadd231ps %ymm1, %ymm2, %ymm3         # vec_fp_fma
    vfmadd132ps (%rdi), %ymm2, %ymm3        # vec_fp_fma, loads
    vdivps %ymm1, %ymm2, %ymm3              # vec_fp_div
    vmaxps %ymm1, %ymm2, %ymm3              # vec_misc
    vcvtdq2ps %ymm1, %ymm3                  # vec_misc
    vpmovsxbd (%rdi), %ymm3                 # vec_misc, loads
    vshufps $1, %ymm1, %ymm2, %ymm3         # vec_shuffle
    vperm2f128 $1, %ymm1, %ymm2, %ymm3      # vec_shuffle
    lock addl $1, (%rdi)                    # atomic, loads and stores
    nop                                     # other
    dec %ecx                                # int_alu
    jnz 1b                                  # branch
    jmp 4f                                  # 1 jump
3:  ret                                     # jump, loads
4:
"""
X86_CLASSES = {
    "int_alu": 702, "int_mul": 100, "int_div": 100, "load": 400, "store": 300, "atomic": 100,
    "branch": 100, "jump": 201, "fp_add": 100, "fp_mul": 100, "fp_fma": 100, "fp_div": 100,
    "fp_misc": 200, "vec_alu": 200, "vec_mul": 200, "vec_fp_add": 100, "vec_fp_mul": 100,
    "vec_fp_fma": 200, "vec_fp_div": 100, "vec_misc": 300, "vec_shuffle": 200, "vec_load": 200,
    "vec_store": 100, "other": 100,
}  # fmt: skip

#: loads, stores, load bytes, store bytes; in hundreds
LOOPS = {
    "riscv64": (RISCV, RISCV_CLASSES, 6, 3, 8 + 4 + 8 + 4 + 1 + 8, 8 + 4 + 8),
    "aarch64": (A64, A64_CLASSES, 6, 3, 8 + 8 + 4 + 16 + 32 + 32, 8 + 16 + 16),
    "x86_64": (X86, X86_CLASSES, 14, 7, 8+4+1+32+4+8+4+8+4+32+32+8+4+8, 8+8+32+4+8+8+4),
}  # fmt: skip


@pytest.mark.parametrize("isa", LOOPS)
def test_classes_and_accesses_of_a_hand_counted_loop(isa: str, tmp_path: Path) -> None:
    body, expected, loads, stores, load_bytes, store_bytes = LOOPS[isa]
    outcome = simulate(assemble(tmp_path, isa, program(isa, body)), machine(isa))
    assert classes(outcome) == expected
    found = counters(outcome)
    assert (found["loads"], found["stores"]) == (100 * loads, 100 * stores)
    assert (found["load_bytes"], found["store_bytes"]) == (100 * load_bytes, 100 * store_bytes)
    assert found["branches"] == expected["branch"]


@pytest.mark.parametrize("isa", LOOPS)
def test_every_derived_address_is_the_one_qemu_reports(isa: str, tmp_path: Path) -> None:
    """The plugin's own check, over its decoders and its address arithmetic."""
    executable = assemble(tmp_path, isa, program(isa, LOOPS[isa][0]))
    (tmp_path / "config").write_text(configuration(machine(isa), verify=True))
    plugin = f"{build_plugin(1)},config={tmp_path}/config,out={tmp_path}/report"
    cpu = {"riscv64": ["-cpu", "rv64,v=true,vlen=128,elen=64,vext_spec=v1.0"]}.get(isa, [])
    done = subprocess.run(
        [f"qemu-{isa}", *cpu, "-plugin", plugin, str(executable)], capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert b"off by" not in done.stderr
    report = parse_report((tmp_path / "report").read_bytes())
    more = 100 * 12 if isa == "x86_64" else 0  # QEMU 7.2 reads 16 bytes for a scalar FMA
    assert report.extra["verify.reported_bytes"] == report.extra["verify.static_bytes"] + more


RVV = """
    li a0, 2000             # int_alu
    li t0, 10               # int_alu
    lla t1, buffer           # 2 int_alu
    lla t2, mask             # 2 int_alu
    li t3, 24               # int_alu
    vsetvli t4, a0, e8, m8, ta, ma  # vec_config
    vlm.v v0, (t2)          # vec_load
1:  vsetvli t4, a0, e32, {lmul}, ta, ma   # vec_config
    vle32.v v8, (t1)        # vec_load
    vfmacc.vv v16, v8, v8   # vec_fp_fma
    vfadd.vf v16, v8, fa0   # vec_fp_add
    vadd.vv v16, v8, v8     # vec_alu
    vmul.vx v16, v8, t0     # vec_mul
    vrgather.vv v24, v16, v8     # vec_shuffle
    vse32.v v16, (t1)       # vec_store
    vlse32.v v8, (t1), t3   # vec_load, strided
    vle32.v v8, (t1), v0.t  # vec_load, masked
    addi t0, t0, -1         # int_alu
    bnez t0, 1b             # branch
"""


@pytest.mark.parametrize("vlen", [128, 256, 512])
@pytest.mark.parametrize("lmul", [1, 4, 8])
def test_rvv_counts_instructions_and_element_bytes(vlen: int, lmul: int, tmp_path: Path) -> None:
    body = RVV.replace("{lmul}", f"m{lmul}")
    source = program("riscv64", body, data="mask: .fill 64, 1, 0x55")
    outcome = simulate(assemble(tmp_path, "riscv64", source), machine("riscv64", vlen))
    found = counters(outcome)
    assert classes(outcome) == {
        "int_alu": 17, "branch": 10, "vec_config": 11, "vec_load": 31, "vec_store": 10,
        "vec_fp_fma": 10, "vec_fp_add": 10, "vec_alu": 10, "vec_mul": 10, "vec_shuffle": 10,
    }  # fmt: skip
    elements = vlen // 32 * lmul
    masked = elements // 2  # 0x55: every other element
    assert found["loads"] == 31
    assert found["stores"] == 10
    assert found["load_bytes"] == vlen // 8 + 10 * 4 * (2 * elements + masked)
    assert found["store_bytes"] == 10 * 4 * elements
    # One access per line and instruction: unit stride, and 24 bytes apart
    unit = -(-elements * 4 // 64)
    lines = {(start + byte) // 64 for start in range(0, elements * 24, 24) for byte in (0, 3)}
    reads = found["l1d.read_hits"] + found["l1d.read_misses"]
    # an element that crosses a line makes its second line an access of its own
    crossings = sum(start // 64 != (start + 3) // 64 for start in range(0, elements * 24, 24))
    assert crossings == 0
    assert reads == -(-vlen // 8 // 64) + 10 * (2 * unit + len(lines))
    assert found["l1d.write_hits"] + found["l1d.write_misses"] == 10 * unit


def test_rvv_issue_cost_grows_with_lmul(tmp_path: Path) -> None:
    cycles = {}
    for lmul in (1, 4):
        body = RVV.replace("{lmul}", f"m{lmul}")
        source = program("riscv64", body, data="mask: .fill 64, 1, 0x55")
        outcome = simulate(assemble(tmp_path, "riscv64", source), machine("riscv64", 256))
        assert outcome.counters is not None
        cycles[lmul] = outcome.counters["issue_cycles"]
    assert cycles[4] > 2 * cycles[1]


@pytest.mark.parametrize("before_page", range(1, 12))
def test_x86_instruction_across_a_page_is_counted_once(before_page: int, tmp_path: Path) -> None:
    """QEMU takes such an instruction back out of its block, and used to be believed when it still
    listed it. The instruction is tried with each number of its bytes on the first page."""
    body = f"""
        mov $100, %ecx
        jmp 1f
        .balign 4096
        .fill {4096 - before_page - 5}, 1, 0x90
    1:  mov %ecx, %eax              # 2 bytes
        lea (%rax), %rdx            # 3 bytes
        movl $0x11223344, -0x400(%rsp, %rax)   # 11 bytes, across the page unless all fit
        dec %ecx
        jnz 1b
    """
    found = counters(simulate(assemble(tmp_path, "x86_64", program("x86_64", body)), machine("x86_64")))
    assert found["instructions"] == 2 + 5 * 100
    assert found["stores"] == 100
    assert found["branches"] == 100
