# SPDX-License-Identifier: Apache-2.0
"""Small programs whose counts are known by hand, for each instruction set.

They are assembled without any library, so that every instruction of them is in this file.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from simtune.build.image import Plan, Role, Tensor
from simtune.build.link import linker
from simtune.build.toolchain import find
from simtune.errors import ToolMissingError
from simtune.native import sources

#: Iterations of the counted loop, and lines that the walk touches.
LOOPS, LINES = 1000, 64

_FLAGS = {
    "riscv64": ("-march=rv64gcv", "-mabi=lp64d"),
    "aarch64": (),
    "x86_64": (),
}


@dataclass(frozen=True)
class _Language:
    """Pieces of assembly; `{...}` is filled in."""

    begin: str
    end: str
    exit: str  # {code}
    step: str  # one integer instruction without effect on the rest
    loop: str  # {n}: 5 n + 1 instructions: n loads, n stores, n branches, the rest integer
    walk: str  # {n} lines: 4 n + 1 instructions, n of them loads
    start: str  # the address of `buffer` where loop and walk want it
    forever: str
    crash: str
    illegal: str
    write: str  # {n} bytes of `buffer` to standard output, again and again
    touch: str  # one write per page of `huge`


_X86_TOGGLE = """
 lea 9f(%rip), %rax
 xor %edx, %edx
 rolq $3, %rdi
 rolq $13, %rdi
 rolq $61, %rdi
 rolq $51, %rdi
 xchgq %rbx, %rbx
 .pushsection .rodata
 .balign 8
9: .quad 0x43540002, 0, 0, 0, 0, 0
 .popsection
"""

_LANGUAGES = {
    "riscv64": _Language(
        begin="slti x0, x0, 0x511",
        end="slti x0, x0, 0x512",
        exit="li a7, 93\n li a0, {code}\n ecall",
        step="addi t5, t5, 1",
        loop="li t0, {n}\n1: ld t1, 0(t2)\n add t3, t3, t1\n sd t3, 0(t2)\n addi t0, t0, -1\n bnez t0, 1b",
        walk="li t0, {n}\n1: ld t1, 0(t2)\n addi t2, t2, 64\n addi t0, t0, -1\n bnez t0, 1b",
        start="lla t2, buffer",
        forever="1: j 1b",
        crash="sd t0, 0(x0)",
        illegal=".long 0",
        write="1: li a7, 64\n li a0, 1\n lla a1, buffer\n li a2, {n}\n ecall\n j 1b",
        touch="lla t2, huge\n li t0, {n}\n li t3, 4096\n1: sd t0, 0(t2)\n add t2, t2, t3\n"
        " addi t0, t0, -1\n bnez t0, 1b",
    ),
    "aarch64": _Language(
        begin="hint #0x51",
        end="hint #0x52",
        exit="mov x8, #93\n mov x0, #{code}\n svc #0",
        step="add x14, x14, #1",
        loop="mov x9, #{n}\n1: ldr x10, [x11]\n add x12, x12, x10\n str x12, [x11]\n"
        " subs x9, x9, #1\n b.ne 1b",
        walk="mov x9, #{n}\n1: ldr x10, [x11]\n add x11, x11, #64\n subs x9, x9, #1\n b.ne 1b",
        start="adrp x11, buffer\n add x11, x11, :lo12:buffer",
        forever="1: b 1b",
        crash="mov x1, #0\n str x0, [x1]",
        illegal=".long 0",
        write="1: mov x8, #64\n mov x0, #1\n adrp x1, buffer\n add x1, x1, :lo12:buffer\n"
        " mov x2, #{n}\n svc #0\n b 1b",
        touch="adrp x11, huge\n add x11, x11, :lo12:huge\n ldr x9, ={n}\n1: str x9, [x11]\n"
        " add x11, x11, #1, lsl #12\n subs x9, x9, #1\n b.ne 1b",
    ),
    "x86_64": _Language(
        begin=f"{_X86_TOGGLE} .byte 0x0f,0x1f,0x84,0x00\n .long 0x51510001",
        end=f" .byte 0x0f,0x1f,0x84,0x00\n .long 0x51510002\n {_X86_TOGGLE}",
        exit="mov $60, %eax\n mov ${code}, %edi\n syscall",
        step="lea 1(%r15), %r15",
        loop="mov ${n}, %ecx\n1: mov (%rsi), %r8\n add %r8, %r9\n mov %r9, (%rsi)\n dec %ecx\n jnz 1b",
        walk="mov ${n}, %ecx\n1: mov (%rsi), %r8\n add $64, %rsi\n dec %ecx\n jnz 1b",
        start="lea buffer(%rip), %rsi",
        forever="1: jmp 1b",
        crash="xor %eax, %eax\n mov %rax, (%rax)",
        illegal="ud2",
        write="1: mov $1, %eax\n mov $1, %edi\n lea buffer(%rip), %rsi\n mov ${n}, %edx\n syscall\n jmp 1b",
        touch="lea huge(%rip), %rsi\n mov ${n}, %ecx\n1: mov %rcx, (%rsi)\n add $4096, %rsi\n"
        " dec %ecx\n jnz 1b",
    ),
}

_KERNEL = """
#include "runtime.h"
int32_t __tvm_ffi_main(void *self, const TVMFFIAny *args, int32_t n, TVMFFIAny *result)
{
    const float *a = ((DLTensor *)args[0].v.ptr)->data, *b = ((DLTensor *)args[1].v.ptr)->data;
    float *c = ((DLTensor *)args[2].v.ptr)->data;
    (void)self, (void)n, (void)result;
    for (int i = 0; i < %d; i++)
        c[i] = a[i] * 2.0f + b[i];
    return 0;
}
"""
ELEMENTS = 512


class Programs:
    """Assembles programs of one instruction set into a folder, each once.

    Raises:
        ToolMissingError: the cross compiler is missing.
    """

    def __init__(self, isa: str, folder: Path) -> None:
        self.isa, self.folder = isa, folder
        self._language = _LANGUAGES[isa]
        self._cc = find(isa).cc

    def loop(self, outside: int = 0, code: int = 0) -> Path:
        """`LOOPS` rounds of load, add, store, decrement, branch; `outside` more instructions around."""
        around = "\n".join([self._language.step] * outside)
        body = self._language.loop.format(n=LOOPS)
        return self._program(f"loop-{outside}-{code}", body, around, around, code)

    def walk(self, times: int = 1) -> Path:
        """A load from each of `LINES` lines that nothing touched before, `times` times over."""
        once = f"{self._language.start}\n{self._language.walk.format(n=LINES)}"
        return self._program(f"walk-{times}", "\n".join([once] * times))

    def ending(self, kind: str) -> Path:
        """A program that goes wrong inside its region: "forever", "crash", or "illegal"."""
        return self._program(kind, getattr(self._language, kind))

    def unmarked(self) -> Path:
        """A program without a region."""
        return self._program("unmarked", self._language.step, marked=False)

    def flood(self) -> Path:
        """Writes to standard output without end, before its region."""
        return self._program("flood", self._language.step, self._language.write.format(n=32768))

    def hungry(self, bytes_wanted: int) -> Path:
        """Touches so much memory before its region."""
        touch = self._language.touch.format(n=bytes_wanted // 4096)
        huge = f".bss\n.balign 4096\nhuge: .space {bytes_wanted}"
        return self._program(f"hungry-{bytes_wanted}", self._language.step, touch, data=huge)

    def chatty(self) -> Path:
        """Prints bytes that are no text after its region, and ends well."""
        once = self._language.write.format(n=4096).rsplit("\n", 1)[0]  # without the jump back
        data = ".data\n.balign 4096\n" + "\n".join(f".byte {(n * 151 + 128) % 256}" for n in range(512))
        return self._program("chatty", self._language.step, after=once, data=data)

    def kernel(self) -> tuple[Path, Plan]:
        """A kernel with TVM's calling convention in simtune's harness: c = 2 a + b."""
        source, object_file = self.folder / "kernel.c", self.folder / "kernel.o"
        executable = self.folder / "kernel.elf"
        floats = [Tensor("float32", (ELEMENTS,), role) for role in (Role.INPUT, Role.INPUT, Role.OUTPUT)]
        plan = Plan.single(floats)
        if not executable.exists():
            source.write_text(_KERNEL % ELEMENTS)
            header = f"-I{sources() / 'harness'}"
            self._compile("-O2", "-c", header, "-o", str(object_file), str(source))
            linker(self.isa).link([object_file], plan, executable)
        return executable, plan

    def _program(
        self,
        name: str,
        body: str,
        before: str = "",
        after: str = "",
        code: int = 0,
        data: str = "",
        marked: bool = True,
    ) -> Path:
        program = self.folder / f"{name}.elf"
        if not program.exists():
            begin, end = (self._language.begin, self._language.end) if marked else ("", "")
            text = [
                *(".globl _start", "_start:", self._language.start, before, begin, body, end, after),
                *(self._language.exit.format(code=code), ".ltorg" if self.isa == "aarch64" else "", data),
                *(".bss", ".balign 4096", "buffer: .space 65536", ""),
            ]
            source = program.with_suffix(".S")
            source.write_text("\n".join(text))
            self._compile("-nostdlib", "-static", "-o", str(program), str(source))
        return program

    def _compile(self, *arguments: str) -> None:
        command = [self._cc, *_FLAGS[self.isa], *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise ToolMissingError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}", "see its message")
