# SPDX-License-Identifier: Apache-2.0
"""Every adapter that comes with simtune runs the conformance kit, those that are absent skip it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simtune.simulators.base import Simulator, get_simulator
from simtune.simulators.qemu_report import parse_report
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
