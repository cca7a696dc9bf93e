# SPDX-License-Identifier: Apache-2.0
"""simtune's conformance kit on this adapter."""

from simtune_example import ExampleSimulator, parse_report

from simtune.simulators.base import get_simulator
from simtune.testing.simulators import SimulatorConformance


class TestExample(SimulatorConformance):
    isa = "riscv64"

    def make(self):
        return ExampleSimulator()

    def parsers(self):
        return (parse_report,)


def test_entry_point() -> None:
    assert isinstance(get_simulator("example"), ExampleSimulator)
