# SPDX-License-Identifier: Apache-2.0
"""The conformance kit for simulator adapters: one pytest class that each adapter runs.

A third party's test file::

    from simtune.testing.simulators import SimulatorConformance
    from my_package import MySimulator

    class TestMySimulator(SimulatorConformance):
        isa = "riscv64"

        def make(self):
            return MySimulator()

pytest is needed. Where the simulator is absent, the tests are skipped with the reason that `probe()`
gives. `docs/howto/bring-your-own-simulator.md` says what each test wants.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from simtune.build.inputs import inputs
from simtune.counters import SCHEMA
from simtune.errors import ToolMissingError
from simtune.jobs import Limits, Outcome, SimJob, Status
from simtune.machines.load import load_machine
from simtune.machines.model import ISAS, Machine
from simtune.simulators.base import Capability, Simulator
from simtune.testing.programs import LINES, LOOPS, Programs

_MACHINES = {"riscv64": "sifive-u74", "aarch64": "cortex-a72", "x86_64": "x86-64-v3"}

#: What the counted loop executes, by hand; an adapter is held to those it gives.
_LOOP = {
    "instructions": 5 * LOOPS + 1,
    "loads": LOOPS,
    "stores": LOOPS,
    "branches": LOOPS,
    "load_bytes": 8 * LOOPS,
    "store_bytes": 8 * LOOPS,
    "insn.load": LOOPS,
    "insn.store": LOOPS,
    "insn.branch": LOOPS,
    "insn.int_alu": 2 * LOOPS + 1,
    "insn.fp_add": 0,
    "insn.vec_load": 0,
}
#: By instruction set; the programs are assembled once.
_assembled: dict[str, Programs] = {}


class SimulatorConformance:
    """Subclass it, say in `make` how the adapter is made, and let pytest collect the subclass.

    Attributes:
        isa: instruction set to test with; the first one that works when empty.
        machine_name: machine to test with; by default one of that instruction set.
        edge: how many instructions, loads or stores the counts may be off because of what begins and
            ends the region.
        line_edge: the same for lines that miss.
        deterministic: False for a simulator that gives other counts each time.
        loose: counters that are not held to the hand-made table, with the reason.
    """

    isa: ClassVar[str] = ""
    machine_name: ClassVar[str] = ""
    edge: ClassVar[int] = 0
    line_edge: ClassVar[int] = 0
    deterministic: ClassVar[bool] = True
    loose: ClassVar[Mapping[str, str]] = {}

    def make(self) -> Simulator:
        """The adapter under test."""
        raise NotImplementedError("a conformance class says in make() how its adapter is made")

    def parsers(self) -> tuple[Callable[[bytes], Any], ...]:
        """Functions that read what the simulator writes, from bytes: none may ever raise."""
        return ()

    # Fixtures ---------------------------------------------------------------------------------

    @pytest.fixture
    def simulator(self) -> Simulator:
        return self.make()

    @pytest.fixture
    def capability(self, simulator: Simulator) -> Capability:
        capability = simulator.probe()
        if not capability.available:
            pytest.skip(f"{simulator.name}: {capability.reason}")
        return capability

    @pytest.fixture
    def machine(self, simulator: Simulator, capability: Capability) -> Machine:
        isa = self.isa or next(isa for isa in ISAS if isa in capability.isas)
        machine = load_machine(self.machine_name or _MACHINES[isa])
        known = simulator.probe(machine)
        if not known.available:
            pytest.skip(f"{simulator.name}: {known.reason}")
        return machine

    @pytest.fixture
    def programs(self, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Programs:
        isa = machine.isa.name
        try:
            if isa not in _assembled:
                _assembled[isa] = Programs(isa, tmp_path_factory.mktemp("programs"))
            return _assembled[isa]
        except ToolMissingError as error:
            pytest.skip(error.what)

    @pytest.fixture
    def run(self, simulator: Simulator, machine: Machine, tmp_path: Path) -> Callable[..., Outcome]:
        """Runs a program in a scratch folder, which must be empty again afterwards."""

        def run(
            executable: Path,
            *arguments: str,
            limits: Limits | None = None,
            cancel: threading.Event | None = None,
        ) -> Outcome:
            scratch = tmp_path / "scratch"
            bounds = limits or Limits(wall_s=60, cpu_s=60)
            outcome = simulator.run(SimJob(executable, machine, arguments, bounds, scratch=scratch), cancel)
            assert not scratch.exists() or list(scratch.iterdir()) == [], "scratch files stayed behind"
            return outcome

        return run

    # What it says about itself ----------------------------------------------------------------

    def test_probe_tells_what_it_can_do(self, simulator: Simulator, capability: Capability) -> None:
        assert isinstance(simulator, Simulator)
        assert re.fullmatch(r"[a-z0-9][a-z0-9_.:-]*", simulator.name)
        assert capability.version
        assert capability.isas
        assert set(capability.isas) <= set(ISAS)
        assert capability.counters <= set(SCHEMA)
        assert "instructions" in capability.counters
        assert not capability.reason

    def test_probe_refuses_what_it_cannot_run(self, simulator: Simulator, capability: Capability) -> None:
        for isa in ISAS:
            one = simulator.probe(load_machine(_MACHINES[isa]))
            assert one.available == (isa in capability.isas), isa
            assert one.available or (one.reason and one.fix), f"says no to {isa} without a reason"

    # Counts -----------------------------------------------------------------------------------

    def test_hand_counted_loop(
        self, run: Callable[..., Outcome], programs: Programs, capability: Capability
    ) -> None:
        outcome = run(programs.loop())
        assert outcome.ok, outcome.error
        assert outcome.counters is not None
        assert set(outcome.counters) <= set(capability.counters), "gives counters that probe() does not name"
        for name, wanted in _LOOP.items():
            if name in outcome.counters and name not in self.loose:
                assert abs(outcome.counters[name] - wanted) <= self.edge, name
        assert outcome.counters["instructions"] > 0
        assert outcome.counters.simulator.startswith(outcome.counters.simulator.split()[0])
        assert outcome.command
        assert outcome.wall_s > 0

    def test_what_lies_outside_the_region_is_not_counted(
        self, run: Callable[..., Outcome], programs: Programs
    ) -> None:
        plain, padded = run(programs.loop()), run(programs.loop(outside=900))
        assert plain.counters is not None, plain.error
        assert padded.counters is not None, padded.error
        for name in ("instructions", "loads", "stores", "branches"):
            if name in plain.counters:
                assert abs(padded.counters[name] - plain.counters[name]) <= self.edge, name

    def test_lines_that_miss(self, run: Callable[..., Outcome], programs: Programs) -> None:
        once, twice = run(programs.walk()), run(programs.walk(2))
        assert once.counters is not None, once.error
        assert twice.counters is not None, twice.error
        if once.counters.misses("l1d") is None:
            pytest.skip("the simulator has no L1 data cache")
        for outcome in (once, twice):
            misses = outcome.counters.misses("l1d") if outcome.counters else None
            assert misses is not None
            assert abs(misses - LINES) <= self.line_edge
        accesses = twice.counters.accesses("l1d")
        assert accesses is not None
        assert abs(accesses - 2 * LINES) <= max(self.edge, self.line_edge)

    def test_same_counts_every_time_also_in_parallel(
        self, simulator: Simulator, machine: Machine, programs: Programs, tmp_path: Path
    ) -> None:
        """Serial and four at once share one scratch folder, as the jobs of a batch do."""
        executable, _ = programs.kernel()
        job = SimJob(executable, machine, limits=Limits(wall_s=120), scratch=tmp_path / "scratch")
        first = simulator.run(job)
        assert first.ok, first.error
        assert first.counters is not None
        with ThreadPoolExecutor(4) as pool:
            others = list(pool.map(lambda _: simulator.run(job), range(4)))
        for other in others:
            assert other.ok, other.error
            assert other.output["checksum"] == first.output["checksum"]
            if self.deterministic:
                assert other.counters == first.counters
        assert list((tmp_path / "scratch").iterdir()) == []

    # Answers ----------------------------------------------------------------------------------

    def test_answers_are_checked(
        self, run: Callable[..., Outcome], programs: Programs, tmp_path: Path
    ) -> None:
        executable, plan = programs.kernel()
        a, b = list(inputs(plan).values())
        right = (a * np.float32(2) + b).astype(np.float32)
        wrong = right.copy()
        wrong[7] += 1
        for name, values in (("right", right), ("wrong", wrong)):
            (tmp_path / name).write_bytes(values.tobytes())
        outcome = run(executable, "--expect", str(tmp_path / "right"), "--rtol", "1e-5")
        assert outcome.ok, outcome.error
        assert outcome.output["mismatches"] == "0"
        outcome = run(executable, "--expect", str(tmp_path / "wrong"), "--rtol", "1e-5")
        assert outcome.status is Status.WRONG_OUTPUT
        assert outcome.stage == "check"
        assert outcome.output["mismatches"] == "1"

    # Failures ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("code", "status"),
        [(3, Status.WRONG_OUTPUT), (4, Status.INVALID), (5, Status.CRASHED), (7, Status.CRASHED)],
    )
    def test_exit_codes(
        self, run: Callable[..., Outcome], programs: Programs, code: int, status: Status
    ) -> None:
        outcome = run(programs.loop(code=code))
        assert outcome.status is status, outcome.error
        assert outcome.error
        assert (outcome.counters is not None) == (status is Status.WRONG_OUTPUT)

    @pytest.mark.parametrize("kind", ["crash", "illegal"])
    def test_crashes(self, run: Callable[..., Outcome], programs: Programs, kind: str) -> None:
        outcome = run(programs.ending(kind))
        assert outcome.status is Status.CRASHED, outcome.error
        assert outcome.error
        assert outcome.counters is None

    def test_no_region(self, run: Callable[..., Outcome], programs: Programs) -> None:
        outcome = run(programs.unmarked())
        assert outcome.status is Status.INVALID, outcome.error
        assert outcome.counters is None

    @pytest.mark.parametrize(
        "limits",
        [Limits(wall_s=0.5), Limits(wall_s=30, cpu_s=1), Limits(wall_s=1.5, instructions=100_000)],
        ids=["wall", "cpu", "instructions"],
    )
    def test_an_endless_region_is_cut(
        self, run: Callable[..., Outcome], programs: Programs, limits: Limits
    ) -> None:
        outcome = run(programs.ending("forever"), limits=limits)
        assert outcome.status is Status.TIMEOUT, outcome.error
        assert outcome.counters is None
        assert outcome.wall_s < 20

    def test_an_instruction_limit_is_exact_enough(
        self, run: Callable[..., Outcome], programs: Programs
    ) -> None:
        above, below = (Limits(wall_s=60, instructions=5 * LOOPS + 1 + d) for d in (self.edge, -500))
        assert run(programs.loop(), limits=above).ok
        assert run(programs.loop(), limits=below).status is Status.TIMEOUT

    def test_memory_is_bounded(self, run: Callable[..., Outcome], programs: Programs) -> None:
        outcome = run(programs.hungry(900 << 20), limits=Limits(wall_s=60, memory_bytes=450 << 20))
        assert outcome.status is Status.OUT_OF_MEMORY, outcome.error

    def test_a_flood_of_output_is_cut(self, run: Callable[..., Outcome], programs: Programs) -> None:
        outcome = run(programs.flood(), limits=Limits(wall_s=60, output_bytes=1 << 18))
        assert outcome.status is Status.CRASHED, outcome.error
        assert outcome.wall_s < 50

    def test_cancelling(self, run: Callable[..., Outcome], programs: Programs) -> None:
        cancel = threading.Event()
        timer = threading.Timer(0.3, cancel.set)
        timer.start()
        outcome = run(programs.ending("forever"), limits=Limits(wall_s=60), cancel=cancel)
        timer.join()
        assert outcome.status is Status.INFRASTRUCTURE, outcome.error
        assert outcome.wall_s < 20

    @pytest.mark.parametrize(
        "content", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\xff" * 200, b"#!/bin/true\n"]
    )
    def test_unusable_executables_are_data(
        self, run: Callable[..., Outcome], programs: Programs, tmp_path: Path, content: bytes
    ) -> None:
        bad = tmp_path / "bad"
        bad.write_bytes(content)
        bad.chmod(0o755)
        outcome = run(bad)
        assert not outcome.ok
        assert outcome.error
        assert outcome.counters is None

    def test_a_missing_executable_is_data(self, run: Callable[..., Outcome], programs: Programs) -> None:
        outcome = run(programs.folder / "nowhere.elf")
        assert not outcome.ok
        assert outcome.error

    def test_output_that_is_no_text(self, run: Callable[..., Outcome], programs: Programs) -> None:
        outcome = run(programs.chatty())
        assert outcome.ok, outcome.error
        assert all(isinstance(text, str) for pair in outcome.output.items() for text in pair)

    def test_parsers_never_raise(self) -> None:
        from hypothesis import given, settings
        from hypothesis import strategies as st

        parsers = self.parsers()

        @given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
        @settings(max_examples=60, deadline=None, database=None)
        def check(data: bytes) -> None:
            for parse in parsers:
                parse(data)

        check()
