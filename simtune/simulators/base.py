# SPDX-License-Identifier: Apache-2.0
"""What a simulator adapter is, and how one is found by name.

An adapter turns a `SimJob` into an `Outcome`. Adapters outside simtune register a class or a
function without arguments under the entry-point group ``simtune.simulators``.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from simtune.errors import ConfigurationError
from simtune.jobs import Outcome, SimJob
from simtune.machines.model import Machine
from simtune.plugins import Plugins

ENTRY_POINT_GROUP = "simtune.simulators"

_SIMULATORS = Plugins(
    "simulator",
    ENTRY_POINT_GROUP,
    {
        "qemu": "simtune.simulators.qemu:QemuSimulator",
        "qemu-system": "simtune.simulators.qemu_system:QemuSystemSimulator",
        "native": "simtune.simulators.native:NativeSimulator",
        "cachegrind": "simtune.simulators.valgrind:CachegrindSimulator",
        "callgrind": "simtune.simulators.valgrind:CallgrindSimulator",
        "gem5": "simtune.simulators.gem5:Gem5Simulator",
        "gem5-timing": "simtune.simulators.gem5:Gem5TimingSimulator",
        "gem5-minor": "simtune.simulators.gem5:Gem5MinorSimulator",
        "gem5-o3": "simtune.simulators.gem5:Gem5O3Simulator",
        "spike": "simtune.simulators.spike:SpikeSimulator",
        "replay": "simtune.simulators.replay:ReplaySimulator",
    },
)


@dataclass(frozen=True)
class Capability:
    """What an adapter can do here.

    Attributes:
        available: whether `run` can work; with a machine given to `probe`, for that machine.
        version: of the simulator, empty when not found.
        path: of the simulator's program, empty when not found.
        isas: instruction sets that work here.
        counters: names from `simtune.counters.SCHEMA` that it can give.
        reason: why it is not available, empty otherwise.
        fix: a command or an action that makes it available.
    """

    available: bool
    version: str = ""
    path: str = ""
    isas: tuple[str, ...] = ()
    counters: frozenset[str] = frozenset()
    reason: str = ""
    fix: str = ""


@runtime_checkable
class Simulator(Protocol):
    """One simulator. Instances are used by several threads at once."""

    @property
    def name(self) -> str:
        """Short name, such as ``"qemu"``."""

    def probe(self, machine: Machine | None = None) -> Capability:
        """Says what works here: in general, or for one machine. Never raises."""

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Runs one job. Whatever the executable does becomes an `Outcome`, never an exception.

        Args:
            job: what to run.
            cancel: once set, the job is killed.
        """


def models_to_count(simulator: Simulator, count: Sequence[str] | None) -> tuple[str, ...]:
    """Optional models of a simulator that a run switches on: `count`, or the simulator's default ones."""
    return tuple(getattr(simulator, "default_models", ()) if count is None else count)


def simulator_names() -> tuple[str, ...]:
    """Names that `get_simulator` knows, sorted."""
    return _SIMULATORS.names()


def get_simulator(name: str) -> Simulator:
    """Makes the adapter of that name.

    Raises:
        ConfigurationError: no such adapter, or it cannot be loaded.
    """
    factory = _SIMULATORS.load(name)
    try:
        simulator = factory()
    except ConfigurationError:
        raise  # it says itself what is wrong
    except Exception as error:
        raise _SIMULATORS.broken(name, error) from error
    if not isinstance(simulator, Simulator):
        raise ConfigurationError(f"simulator '{name}' lacks name, probe() or run()")
    return simulator
