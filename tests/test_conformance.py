# SPDX-License-Identifier: Apache-2.0
"""Every adapter that comes with simtune runs the conformance kit, those that are absent skip it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Machine
from simtune.records.store import RecordStore
from simtune.simulators.base import Capability, Simulator, get_simulator
from simtune.simulators.gem5_stats import parse_sections
from simtune.simulators.qemu_report import parse_report
from simtune.simulators.replay import ReplaySimulator, conditions_of
from simtune.simulators.spike import parse_histogram, parse_signature, parse_statistics
from simtune.simulators.valgrind import parse_events
from simtune.testing.simulators import SimulatorConformance


class TestQemuRiscv(SimulatorConformance):
    isa = "riscv64"

    def make(self) -> Simulator:
        return get_simulator("qemu")

    def parsers(self) -> tuple[Callable[[bytes], Any], ...]:
        return (parse_report,)


class TestQemuArm(TestQemuRiscv):
    isa = "aarch64"


class TestQemuX86(TestQemuRiscv):
    isa = "x86_64"


class TestCallgrind(SimulatorConformance):
    isa = "x86_64"

    def make(self) -> Simulator:
        return get_simulator("callgrind")

    def parsers(self) -> tuple[Callable[[bytes], Any], ...]:
        return (parse_events,)


class TestCachegrind(TestCallgrind):
    def make(self) -> Simulator:
        return get_simulator("cachegrind")


class _Recorded:
    """QEMU the first time, what was recorded of it ever after."""

    name = "replay"

    def __init__(self) -> None:
        self._qemu, self._store = get_simulator("qemu"), RecordStore(":memory:")
        self._lock = threading.Lock()

    def probe(self, machine: Machine | None = None) -> Capability:
        return self._qemu.probe(machine)

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        first = self._qemu.run(job, cancel)
        if first.status is Status.INFRASTRUCTURE or not job.executable.exists():
            return first
        with self._lock:
            self._store.put_simulation(conditions_of(job, "qemu", "1"), first)
        again = ReplaySimulator(self._store).run(job, cancel)
        assert (again.status, again.counters, again.output) == (first.status, first.counters, first.output)
        return again


class TestReplay(SimulatorConformance):
    isa = "riscv64"

    def make(self) -> Simulator:
        return _Recorded()


class TestQemuSystemRiscv(SimulatorConformance):
    isa = "riscv64"

    def make(self) -> Simulator:
        return get_simulator("qemu-system")


class TestQemuSystemArm(TestQemuSystemRiscv):
    isa = "aarch64"


class TestSpike(SimulatorConformance):
    """Random replacement may take a line that is needed still."""

    isa = "riscv64"
    line_edge = 8

    def make(self) -> Simulator:
        return get_simulator("spike")

    def parsers(self) -> tuple[Callable[[bytes], Any], ...]:
        return parse_histogram, parse_signature, parse_statistics


class TestSpikeVectors(TestSpike):
    machine_name = "spacemit-x60"


class TestGem5(SimulatorConformance):
    edge, line_edge = 2, 1

    def make(self) -> Simulator:
        return get_simulator("gem5")

    def parsers(self) -> tuple[Callable[[bytes], Any], ...]:
        return (parse_sections,)
