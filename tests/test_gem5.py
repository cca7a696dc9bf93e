# SPDX-License-Identifier: Apache-2.0
"""The gem5 adapter against recorded output of gem5 24, and its script against recorded systems.

gem5 itself takes hours to build and is not here: where it is, tests/test_conformance.py runs it.
"""

from __future__ import annotations

import configparser
import json
import lzma
import runpy
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.build.artifact import Artifact
from simtune.errors import ConfigurationError
from simtune.jobs import Limits, SimJob, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.measure.base import Program, Settings
from simtune.measure.parse import parse_target
from simtune.native import sources
from simtune.simulators.gem5 import (
    Gem5MinorSimulator,
    Gem5O3Simulator,
    Gem5Simulator,
    Gem5TimingSimulator,
)
from simtune.simulators.gem5_stats import core_of, map_section, parse_sections
from simtune.testing.programs import Programs

DATA = Path(__file__).parent / "data" / "gem5"
TRUTH = json.loads((DATA / "truth.json").read_text())
CASES = [(name, model) for name, truth in TRUTH.items() for model in truth["expected_from_section_1"]]


@cache
def recorded(name: str) -> bytes:
    return lzma.decompress((DATA / f"{name}.stats.txt.xz").read_bytes())


def check_classes(found: dict[str, float], truth: dict[str, Any], edge: int) -> None:
    """The identities that hold between gem5's classes and an independent count."""
    classes = truth["classes"]
    assert found["insn.load"] - classes["load"] - classes["fpload"] in (0, 1)
    assert found["insn.store"] == classes["store"] + classes["fpstore"]
    assert found["insn.int_mul"] + found["insn.int_div"] == classes["muldiv"]
    fp = sum(found[f"insn.fp_{kind}"] for kind in ("add", "mul", "fma", "div", "misc"))
    assert fp == classes["fp"]
    assert abs(found["insn.branch"] + found["insn.jump"] - classes["branch"]) <= 8
    assert abs(found["insn.int_alu"] - classes["int"]) <= edge
    assert sum(value for name, value in found.items() if name.startswith("insn.")) == found["instructions"]
    assert found["loads"] == found["insn.load"]
    assert found["stores"] == found["insn.store"]


@pytest.mark.parametrize(("name", "model"), CASES)
def test_recorded_statistics_give_the_truth(name: str, model: str) -> None:
    truth = TRUTH[name]
    expected = truth["expected_from_section_1"][model]
    sections = parse_sections(recorded(f"{name}.{model}"))
    assert len(sections) == expected["sections"]
    section = sections[1]
    found = map_section(section, 64)
    assert core_of(section) == "system.cpu"
    assert section["simTicks"] == expected["simTicks"]
    assert found["cycles"] == expected["numCycles"]
    assert found["instructions"] == expected["numInsts"] == truth["instructions"] + 15
    check_classes(found, truth, 15)
    misses = expected["l1d_demandMshrMisses"] or expected["l1d_demandMisses"]
    assert found["l1d.read_misses"] + found["l1d.write_misses"] == misses
    assert abs(misses - truth["l1d_misses"]) <= 1
    # O3 merges stores: lines that are overwritten as a whole are claimed, not fetched.
    claimed = section.get("system.l2.InvalidateReq.misses::total", 0)
    from_data = found["l2.read_misses"] + claimed - found["l1i.read_misses"]
    assert abs(from_data - truth["l2_misses_from_data"]) <= 1
    lines = sum(found[f"l1d.{kind}_{what}"] for kind in ("read", "write") for what in ("hits", "misses"))
    assert lines == expected["l1d_demandAccesses"]


@pytest.mark.parametrize(
    ("file", "name", "edge", "core"),
    [
        ("matmul_i8_m24_n24_k24.Timing.reset-only", "matmul_i8_m24_n24_k24", 13, "system.cpu"),
        ("conv_n1_c4_h8_o8_k3_s1_p1.MinorU74.switch", "conv_n1_c4_h8_o8_k3_s1_p1", 9, "system.cpu2"),
    ],
)
def test_reset_without_dump_and_switched_cores(file: str, name: str, edge: int, core: str) -> None:
    section = parse_sections(recorded(file))[0]
    found = map_section(section, 64)
    assert core_of(section) == core
    assert found["instructions"] == TRUTH[name]["instructions"] + edge
    check_classes(found, TRUTH[name], 15)


def test_a_section_in_which_nothing_ran_gives_nothing() -> None:
    assert map_section({}, 64) == {}
    assert map_section({"system.cpu.commitStats0.numInsts": 0.0}, 64) == {}


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_file_cut_anywhere_gives_its_whole_sections(data: st.DataObject) -> None:
    name, model = data.draw(st.sampled_from(CASES))
    whole = recorded(f"{name}.{model}")
    cut = data.draw(st.integers(0, len(whole)))
    sections = parse_sections(whole[:cut])
    known = parse_sections(whole)
    assert sections == known[: len(sections)]
    assert len(sections) == whole[:cut].count(b"End Simulation Statistics   ----------")
    for section in sections:
        map_section(section, 64)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_never_raise(data: st.DataObject) -> None:
    whole = recorded("matmul_i8_m24_n24_k24.Atomic")
    start = data.draw(st.integers(0, len(whole)))
    junk = data.draw(st.binary(max_size=200) | st.sampled_from([b" nan", b" inf", b"\n", b" -7 ", b"1e999"]))
    end = min(len(whole), start + data.draw(st.integers(0, 5000)))
    for section in parse_sections(whole[:start] + junk + whole[end:]):
        for levels in (("l1i", "l1d"), ("l1i", "l1d", "l2"), ("l1i", "l1d", "l2", "l3")):
            map_section(section, 64, levels=levels)


# The adapter, with a recording in the place of gem5 --------------------------------------------


@pytest.fixture
def gem5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called gem5 that answers from recordings."""
    program = tmp_path / "gem5.opt"
    script = Path(__file__).parent / "recorded_gem5.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("SIMTUNE_GEM5", str(program))
    return program


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    return Programs("riscv64", tmp_path).loop()


def test_probe_reads_version_and_instruction_sets(gem5: Path) -> None:
    capability = Gem5Simulator().probe()
    assert capability.available
    assert capability.version.startswith("24.0.0.1+")
    assert capability.isas == ("riscv64",)
    assert "cycles" not in capability.counters
    assert "cycles" in Gem5O3Simulator().probe().counters
    arm = Gem5Simulator().probe(load_machine("cortex-a72"))
    assert not arm.available
    assert "aarch64" in arm.reason


def test_absent_gem5_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIMTUNE_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SIMTUNE_GEM5", raising=False)
    capability = Gem5Simulator().probe()
    assert not capability.available
    assert "not installed" in capability.reason
    assert "SIMTUNE_GEM5" in capability.fix
    monkeypatch.setenv("SIMTUNE_GEM5", "/nowhere/gem5.opt")
    assert "/nowhere/gem5.opt" in Gem5Simulator().probe().reason


def test_configuration_file_names_a_simulator(
    gem5: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SIMTUNE_GEM5")
    config = tmp_path / "config.toml"
    monkeypatch.setenv("SIMTUNE_CONFIG", str(config))
    config.write_text(f'[simulators]\ngem5 = "{gem5}"\n')
    assert Gem5Simulator().probe().path == str(gem5)
    for bad in ("[simulators]\ngem5 = 3\n", "simulators = 1\n", "no toml"):
        config.write_text(bad)
        capability = Gem5Simulator().probe()
        assert not capability.available
        assert str(config) in capability.reason


@pytest.mark.parametrize("adapter", [Gem5Simulator, Gem5TimingSimulator, Gem5MinorSimulator])
def test_a_recorded_run_gives_counters(
    gem5: Path, loop: Path, tmp_path: Path, adapter: type[Gem5Simulator]
) -> None:
    scratch = tmp_path / "scratch"
    job = SimJob(loop, load_machine("sifive-u74"), count=("branch",), scratch=scratch)
    outcome = adapter().run(job)
    assert outcome.ok, outcome.error
    assert outcome.counters is not None
    assert set(outcome.counters) <= adapter().probe(job.machine).counters
    edge = 9 if adapter is Gem5MinorSimulator else 15
    assert outcome.counters["instructions"] == TRUTH["conv_n1_c4_h8_o8_k3_s1_p1"]["instructions"] + edge
    assert ("cycles" in outcome.counters) == (adapter is not Gem5Simulator)
    assert outcome.counters.simulator.startswith(f"{adapter.name} 24.0.0.1")
    assert outcome.counters.replacement == "lru"
    assert outcome.output["checksum"] == "1234abcd"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "status", "text"),
    [
        ("wrong", Status.WRONG_OUTPUT, "not the expected"),
        ("never", Status.INVALID, "never entered"),
        ("open", Status.CRASHED, "ended inside"),
        ("panic", Status.CRASHED, "Page table fault"),
        ("api", Status.INFRASTRUCTURE, "does not understand"),
        ("cut", Status.INFRASTRUCTURE, "no whole statistics"),
        ("silent", Status.INFRASTRUCTURE, "without saying how"),
    ],
)
def test_endings(gem5: Path, loop: Path, mode: str, status: Status, text: str) -> None:
    outcome = Gem5Simulator().run(SimJob(loop, load_machine("sifive-u74"), (mode,), Limits(wall_s=20)))
    assert outcome.status is status
    assert text in outcome.error


def test_models_that_gem5_cannot_count_are_refused(gem5: Path, loop: Path) -> None:
    outcome = Gem5Simulator().run(SimJob(loop, load_machine("sifive-u74"), count=("blocks",)))
    assert outcome.status is Status.INVALID


def test_cycles_serve_as_measured_time(gem5: Path, tmp_path: Path, u74: Machine) -> None:
    """A target for labels: recorded cycles of MinorCPU over the clock of the machine."""
    elf, plan = Programs("riscv64", tmp_path).kernel()
    artifact = Artifact((elf.with_name("kernel.o"),), "riscv64", ("main",), "digest")
    with parse_target("sim:gem5-minor/sifive-u74") as target:
        assert target.probe().available
        timing = target.measure(Program(artifact, plan), Settings())
    assert timing.ok, timing.error
    cycles = parse_sections(recorded("conv_n1_c4_h8_o8_k3_s1_p1.MinorU74.switch"))[0]["system.cpu2.numCycles"]
    assert timing.median == cycles / u74.clock_hz
    with parse_target("sim:gem5/sifive-u74") as target:
        assert "counts no cycles" in target.probe().reason
    with pytest.raises(ConfigurationError, match="is no target"):
        parse_target("sim:gem5-minor")


# The script, without gem5: every parameter that it sets exists in the systems gem5 24 recorded ---


class _Recorder:
    """Stands for any object of gem5's Python interface: remembers what was set on it."""

    def __init__(self, kind: str, *args: Any, **given: Any) -> None:
        self.__dict__["kind"], self.__dict__["args"] = kind, args
        self.__dict__["given"] = dict(given)

    def __setattr__(self, name: str, value: Any) -> None:
        self.given[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self.given:
            return self.given[name]
        return _Recorder(f"{self.kind}.{name}")

    def __getitem__(self, index: int) -> Any:
        return _Recorder(f"{self.kind}[{index}]") if "given" not in self.__dict__ else self.__dict__["args"]

    def __call__(self, *args: Any, **given: Any) -> Any:
        return _Recorder(f"{self.kind}()", *args, **given)


class _Objects(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Recorder(name) if name == "SEWorkload" else lambda *a, **k: _Recorder(name, *a, **k)


def parameters(file: str) -> dict[str, set[str]]:
    """Names of the parameters of each type of object in a recorded system."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(lzma.decompress((DATA / f"{file}.config.ini.xz").read_bytes()).decode())
    known: dict[str, set[str]] = {}
    for section in parser.sections():
        values = dict(parser.items(section))
        children = set(values.get("children", "").split())
        known.setdefault(values["type"], set()).update(values.keys() | children)
    return known


def objects_in(item: Any, seen: dict[int, _Recorder]) -> Iterator[_Recorder]:
    if isinstance(item, list):
        for one in item:
            yield from objects_in(one, seen)
    elif isinstance(item, _Recorder) and id(item) not in seen:
        seen[id(item)] = item
        yield item
        for value in item.given.values():
            yield from objects_in(value, seen)


@pytest.mark.parametrize(
    ("adapter", "file", "recorded_type"),
    [
        (Gem5Simulator, "Atomic", "BaseAtomicSimpleCPU"),
        (Gem5TimingSimulator, "Timing", "BaseTimingSimpleCPU"),
        (Gem5MinorSimulator, "MinorU74.switch", "BaseMinorCPU"),
        (Gem5O3Simulator, "O3", "BaseO3CPU"),
    ],
)
def test_script_sets_parameters_that_exist(
    adapter: type[Gem5Simulator],
    file: str,
    recorded_type: str,
    loop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    causes = iter(["workbegin", "workend", "exiting"])

    def simulate() -> Any:
        cause = next(causes)
        return types.SimpleNamespace(getCause=lambda: cause, getCode=lambda: 3)

    switched: list[Any] = []
    stats: list[str] = []
    m5 = types.ModuleType("m5")
    m5.objects = _Objects("m5.objects")  # type: ignore[attr-defined]
    m5.simulate, m5.instantiate = simulate, lambda: None  # type: ignore[attr-defined]
    m5.switchCpus = lambda system, pairs: switched.append(pairs)  # type: ignore[attr-defined]
    m5.stats = types.SimpleNamespace(  # type: ignore[attr-defined]
        reset=lambda: stats.append("reset"), dump=lambda: stats.append("dump")
    )
    m5.options = types.SimpleNamespace(outdir=str(tmp_path))  # type: ignore[attr-defined]
    made: list[_Recorder] = []
    root = lambda **given: made.append(_Recorder("Root", **given)) or made[-1]  # noqa: E731
    m5.objects.Root = root  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "m5", m5)
    monkeypatch.setitem(sys.modules, "m5.objects", m5.objects)
    job = SimJob(loop, load_machine("sifive-u74"), ("--seed", "0"))
    job_file = tmp_path / "job.json"
    job_file.write_text(json.dumps(adapter().description(job, loop, tmp_path)))
    monkeypatch.setattr(sys, "argv", ["system.py", str(job_file)])
    runpy.run_path(str(sources() / "gem5" / "system.py"), run_name="__m5_main__")

    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {"regions": 1, "open": False, "cause": "exiting", "code": 3}
    assert stats == ["reset", "dump"]
    assert len(switched) == (adapter is not Gem5Simulator)
    names = {f"Riscv{adapter.model}": recorded_type, "RiscvAtomicSimpleCPU": "BaseAtomicSimpleCPU"}
    known = parameters(f"conv_n1_c4_h8_o8_k3_s1_p1.{file}")
    # Their interfaces: what is called or connected, not set in the description.
    allowed = {"cpu2", "cpu_side", "mem_side", "l2", "l2bus", "system", "port", "range", "given"}
    seen: set[str] = set()
    for item in objects_in(made[0], {}):
        kind = names.get(item.kind, item.kind)
        kind = {"L2XBar": "CoherentXBar", "SystemXBar": "CoherentXBar"}.get(kind, kind)
        if kind in known:
            seen.add(kind)
            unknown = set(item.given) - known[kind] - allowed
            assert not unknown, f"{item.kind} has no {unknown}"
    assert {"System", "Cache", "Process", "MemCtrl", recorded_type} <= seen
