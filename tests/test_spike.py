# SPDX-License-Identifier: Apache-2.0
"""Spike against QEMU on real kernels, and its reports; the former where Spike is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simtune.build.artifact import load
from simtune.build.link import linker
from simtune.jobs import SimJob, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.simulators.spike import (
    REPLACEMENT,
    SpikeSimulator,
    isa_string,
    parse_histogram,
    parse_signature,
    parse_statistics,
)
from simtune.testing.programs import Programs

U74 = load_machine("sifive-u74")
#: What both count, whatever replaces lines.
EXACT = ("instructions", "loads", "stores", "load_bytes", "store_bytes", "branches")


@pytest.mark.parametrize("name", ["sifive-u74", "spacemit-x60", "sifive-x280"])
@pytest.mark.parametrize("workload", ["conv2d:c=4,h=8,o=8", "matmul_int8:m=16,n=16,k=16"])
def test_instructions_and_classes_equal_those_of_qemu(
    name: str, workload: str, qemu: Any, build_default: Callable[[str, Machine], Path], tmp_path: Path
) -> None:
    """Scalar code, and vectors of 256 and 512 bits."""
    machine, spike = load_machine(name), SpikeSimulator()
    if reason := spike.probe(machine).reason:
        pytest.skip(reason)
    artifact = load(build_default(workload, machine), tmp_path)
    program = linker(artifact.isa).link(artifact.objects, artifact.plan(), tmp_path / "candidate.elf")
    job = SimJob(program, machine, ("--seed", "3"))
    theirs, mine = qemu.run(job), spike.run(job)
    assert theirs.ok, theirs.error
    assert mine.ok, mine.error
    assert mine.output["checksum"] == theirs.output["checksum"]
    names = [n for n in theirs.counters if n in EXACT or n.startswith("insn.")]
    differ = {n: (mine.counters[n], theirs.counters[n]) for n in names if n in mine.counters}
    assert {n: pair for n, pair in differ.items() if pair[0] != pair[1]} == {}
    assert "instructions" in differ
    assert mine.counters.replacement == REPLACEMENT


def test_vectors_of_any_length() -> None:
    for vlen in (128, 512, 1024):
        machine = replace(U74, isa=replace(U74.isa, vlen=vlen))
        assert f"_zvl{vlen}b" in isa_string(machine)
        assert isa_string(machine).startswith("rv64gcv")
    assert isa_string(U74).startswith("rv64gc_")


def test_optional_models_and_whole_programs_are_refused(tmp_path: Path) -> None:
    spike = SpikeSimulator()
    if reason := spike.probe().reason:
        pytest.skip(reason)
    program = Programs("riscv64", tmp_path).loop()
    for job in (SimJob(program, U74, count=("branch",)), SimJob(program, U74, region="all")):
        assert spike.run(job).status is Status.INVALID


def test_absent_spike_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIMTUNE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SIMTUNE_SPIKE", raising=False)
    capability = SpikeSimulator().probe()
    assert not capability.available
    assert "SIMTUNE_SPIKE" in capability.fix
    assert SpikeSimulator(Path("/bin/true")).probe().reason


# Reports, as Spike writes them ----------------------------------------------------------------


def test_signature() -> None:
    assert parse_signature(b"0000000000000002\n00000000000013bf\n") == (2, 5055)
    for damaged in (b"", b"00\n", b"xyz\n01\n", b"\xff\xfe\n"):
        assert parse_signature(damaged) == (0, 0)


def test_statistics() -> None:
    text = b"D$ Bytes Read:            800\nD$ Read Misses:           7\nL2$ Writebacks:           3\n"
    found = parse_statistics(b"seconds.0 1\n" + text + b"D$ Write Mis")
    assert found["D$ Read Misses"] == 7
    assert found["L2$ Writebacks"] == 3
    assert "D$ Write Mis" not in found


def test_histogram_leaves_out_the_monitor() -> None:
    text = b"hello 5\nPC Histogram size:4\n10150 12\n80000104 99\n2000000 7\n0 "
    assert parse_histogram(text) == {0x10150: 12, 0x2000000: 7}
