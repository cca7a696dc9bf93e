# SPDX-License-Identifier: Apache-2.0
"""Assembles bare programs and counts them in QEMU; shared by the tests of the QEMU plugin."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from simtune.counters import INSTRUCTION_CLASSES
from simtune.jobs import Limits, Outcome, SimJob
from simtune.machines.load import load_machine
from simtune.machines.model import Cache, Machine
from simtune.simulators.qemu import QemuSimulator

ASSEMBLERS = {
    "riscv64": ("riscv64-linux-gnu-gcc", "-march=rv64gcv_zba_zbb", "-mabi=lp64d"),
    "aarch64": ("aarch64-linux-gnu-gcc", "-march=armv8.2-a+dotprod"),
    "x86_64": ("x86_64-linux-gnu-gcc",),
}
BEGIN = {
    "riscv64": "slti x0, x0, 0x511",
    "aarch64": "hint #0x51",
    "x86_64": ".byte 0x0f,0x1f,0x84,0x00\n .long 0x51510001",
}
END = {
    "riscv64": "slti x0, x0, 0x512",
    "aarch64": "hint #0x52",
    "x86_64": ".byte 0x0f,0x1f,0x84,0x00\n .long 0x51510002",
}
EXIT = {
    "riscv64": "li a7, 94\n li a0, {code}\n ecall",
    "aarch64": "mov x8, #94\n mov x0, #{code}\n svc #0",
    "x86_64": "mov $231, %eax\n mov ${code}, %edi\n syscall",
}
MACHINES = {"riscv64": "sifive-u74", "aarch64": "cortex-a53", "x86_64": "x86-64-v3"}


def require(isa: str) -> None:
    """Skips the test where the instruction set's tools are missing."""
    capability = QemuSimulator().probe(load_machine(MACHINES[isa]))
    if not capability.available:
        pytest.skip(capability.reason)
    if shutil.which(ASSEMBLERS[isa][0]) is None:
        pytest.skip(f"{ASSEMBLERS[isa][0]} is not installed")


def machine(isa: str, vlen: int = 0, **levels: tuple[int, int, int]) -> Machine:
    """A machine of the instruction set; `levels` gives sets, ways and line of its caches."""
    base = load_machine(MACHINES[isa])
    caches = {
        name: Cache(sets * ways * line, ways, line, 3, 1.0) for name, (sets, ways, line) in levels.items()
    }
    return replace(
        base,
        isa=replace(base.isa, vlen=vlen),
        caches=caches or base.caches,
        qemu_cpu="" if isa != "aarch64" else "max",
    )


def assemble(folder: Path, isa: str, text: str) -> Path:
    """A static executable without any library."""
    require(isa)
    source, program = folder / "p.S", folder / "p.elf"
    source.write_text(text)
    command = [*ASSEMBLERS[isa], "-nostdlib", "-static", "-o", str(program), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return program


def program(isa: str, body: str, before: str = "", after: str = "", code: int = 0, data: str = "") -> str:
    """Source of a program whose region of interest is `body`; `buffer` is 64 KiB of aligned zeros."""
    return "\n".join(
        [
            *(".globl _start", "_start:", before, BEGIN[isa], body, END[isa], after),
            *(EXIT[isa].format(code=code), ".data", ".balign 4096", data),
            *(".bss", ".balign 4096", "buffer: .space 65536", ""),
        ]
    )


def simulate(
    executable: Path, target: Machine, count: tuple[str, ...] = (), limits: Limits | None = None
) -> Outcome:
    """Runs the executable; the caller checks the status."""
    return QemuSimulator().run(SimJob(executable, target, (), limits or Limits(wall_s=60), count))


def classes(outcome: Outcome) -> dict[str, int]:
    """Executed instructions by class, without the classes that did not occur."""
    assert outcome.ok, outcome.error
    assert outcome.counters is not None
    found = {name: int(outcome.counters[f"insn.{name}"]) for name in INSTRUCTION_CLASSES}
    assert sum(found.values()) == outcome.counters["instructions"]
    return {name: number for name, number in found.items() if number}


def counters(outcome: Outcome) -> dict[str, int]:
    """All counters of a run that went well."""
    assert outcome.ok, outcome.error
    assert outcome.counters is not None
    return {name: int(value) for name, value in outcome.counters.items()}
