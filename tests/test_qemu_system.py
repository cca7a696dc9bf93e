# SPDX-License-Identifier: Apache-2.0
"""QEMU's system mode counts what its user mode counts."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.build.artifact import load
from simtune.build.link import linker
from simtune.errors import InputFileError
from simtune.jobs import SimJob, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.simulators import bare
from simtune.simulators.marks import isa_of, program_headers
from simtune.simulators.qemu_system import QemuSystemSimulator
from simtune.testing.programs import Programs

#: What depends on where QEMU ends a translated block, which the two modes decide differently.
BY_BLOCK = {"blocks", "issue_cycles", "l1i.read_hits"}


def executable(build: Callable[[str, Machine], Path], workload: str, machine: Machine, folder: Path) -> Path:
    """TVM's default schedule of a workload, linked."""
    path = build(workload, machine)
    artifact = load(path, folder)
    return linker(artifact.isa).link(artifact.objects, artifact.plan(), folder / "candidate.elf")


@pytest.mark.parametrize("name", ["sifive-u74", "spacemit-x60", "cortex-a72"])
@pytest.mark.parametrize("workload", ["conv2d:c=8,h=14,o=8", "softmax:m=8,n=100"])
def test_counts_equal_those_of_user_mode(
    name: str, workload: str, qemu: Any, build_default: Callable[[str, Machine], Path], tmp_path: Path
) -> None:
    machine = load_machine(name)
    system = QemuSystemSimulator()
    if reason := system.probe(machine).reason:
        pytest.skip(reason)
    program = executable(build_default, workload, machine, tmp_path)
    job = SimJob(program, machine, ("--seed", "3"), count=("branch", "prefetch"))
    user, bare_metal = qemu.run(job), system.run(job)
    assert user.ok, user.error
    assert bare_metal.ok, bare_metal.error
    differ = {n for n in user.counters if user.counters[n] != bare_metal.counters[n]}
    assert set(bare_metal.counters) == set(user.counters)
    assert differ <= BY_BLOCK
    for counter in differ:
        assert bare_metal.counters[counter] == pytest.approx(user.counters[counter], rel=5e-3), counter
    assert bare_metal.output["checksum"] == user.output["checksum"]
    assert bare_metal.counters.simulator.startswith("qemu-system ")


def test_probe_says_what_is_missing(tmp_path: Path) -> None:
    absent = QemuSystemSimulator(path=tmp_path).probe()
    assert not absent.available
    assert "qemu-system" in absent.reason
    assert "apt-get" in absent.fix
    x86 = QemuSystemSimulator().probe(load_machine("x86-64-v3"))
    assert not x86.available
    assert "monitor" in x86.reason


def test_without_cross_compilers_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The monitor is compiled at first use."""
    if not QemuSystemSimulator().probe().available:
        pytest.skip("qemu-system is not installed")
    for isa in ("RISCV64", "AARCH64"):
        monkeypatch.setenv(f"SIMTUNE_CC_{isa}", "no-such-compiler")
    capability = QemuSystemSimulator().probe()
    assert not capability.available
    assert "no-such-compiler" in capability.reason
    assert "apt-get" in capability.fix


def test_whole_programs_are_refused(tmp_path: Path) -> None:
    programs = Programs("riscv64", tmp_path)
    job = SimJob(programs.loop(), load_machine("sifive-u74"), region="all")
    outcome = QemuSystemSimulator().run(job)
    assert outcome.status in (Status.INVALID, Status.INFRASTRUCTURE)


# The joined file ------------------------------------------------------------------------------


@cache
def parts() -> tuple[bytes, bytes]:
    """A program and the monitor."""
    with tempfile.TemporaryDirectory() as folder:
        program = Programs("riscv64", Path(folder)).loop().read_bytes()
    return program, bare.monitor("riscv64", "semihosting").read_bytes()


def test_joined_file_has_monitor_boot_block_and_program() -> None:
    program, monitor = parts()
    joined = bare.join(program, monitor, ["--seed", "7"])
    headers = list(program_headers(joined))
    assert isa_of(joined) == "riscv64"
    assert headers[0][3] == 0x80000000
    offset = next(h[2] for h in headers if h[3] == 0x80C00000)
    assert joined[offset : offset + 8] == (0x315441424D4D4953).to_bytes(8, "little")
    assert b"program\0--seed\x007\0" in joined
    for _, flags, place, address, _, size, *_ in program_headers(program):
        if size and flags & 1:
            copied = next(h for h in headers if h[3] == 0x81000000 + address)
            assert joined[copied[2] : copied[2] + size] == program[place : place + size]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_executables_are_refused_or_joined(data: st.DataObject) -> None:
    program, monitor = parts()
    damaged = bytearray(program[: data.draw(st.integers(0, len(program)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, min(len(damaged), 400) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputFileError):
        bare.join(bytes(damaged), monitor, [])


def test_programs_that_lie_too_high_are_refused() -> None:
    program, monitor = bytearray(parts()[0]), parts()[1]
    table = struct.unpack_from("<Q", program, 32)[0]
    for index, header in enumerate(program_headers(bytes(program))):
        if header[0] == 1:
            struct.pack_into("<Q", program, table + 56 * index + 16, 1 << 33)
    with pytest.raises(InputFileError, match="cannot map"):
        bare.join(bytes(program), monitor, [])
