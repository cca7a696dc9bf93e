# SPDX-License-Identifier: Apache-2.0
"""What is measured, how, and what comes out; and what a place to measure on must offer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol, Self

from simtune.build.artifact import Artifact
from simtune.build.expectation import Expectation
from simtune.build.image import Plan
from simtune.errors import ConfigurationError
from simtune.jobs import Status


@dataclass(frozen=True)
class Settings:
    """How a candidate is timed. The defaults take about half a second for a kernel of a millisecond.

    Attributes:
        processes: processes per candidate, each with another address layout; the label is the median
            over them, because layout moves fast candidates by 10 to 60 %.
        max_processes: a candidate whose processes disagree gets more, up to so many.
        max_spread: they agree when the middle half of their times lies within this share of the median.
        repeat: timings per process, of CPU time where the place can tell it from wall time; the smallest
            is the process's time, since disturbance only adds.
        min_repeat_s: duration of one timing; the number of calls in it follows from that.
        warmup_s: calls before the first timing last at least so long (and are at least one).
        process_s: a slow candidate gets fewer repeats, at least two, to stay near this duration.
        cooldown_s: pause before each process.
        timeout_s: wall seconds after which a process is killed.
        memory_bytes: resident memory beyond which it is killed, where the place can tell.
        core: pinned to; the last usable one by default, since the first serves most interrupts.
    """

    processes: int = 3
    max_processes: int = 7
    max_spread: float = 0.05
    repeat: int = 5
    min_repeat_s: float = 0.02
    warmup_s: float = 0.005
    process_s: float = 1.0
    cooldown_s: float = 0.0
    timeout_s: float = 60.0
    memory_bytes: int | None = 2 << 30
    core: int | None = None

    def __post_init__(self) -> None:
        for name, low in (("processes", 1), ("repeat", 1), ("max_processes", self.processes)):
            if getattr(self, name) < low:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, but must be at least {low}")
        for name in ("max_spread", "min_repeat_s", "warmup_s", "process_s", "cooldown_s"):
            if not 0 <= getattr(self, name) < 3600:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, but must be from 0 to an hour")
        if not self.timeout_s > 0:
            raise ConfigurationError(f"timeout_s is {self.timeout_s}, but must be above 0")
        if self.core is not None and self.core < 0:
            raise ConfigurationError(f"core is {self.core}, but cores count from 0")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the conditions of a measurement."""
        return asdict(self)


@dataclass(frozen=True)
class Program:
    """One built candidate with what decides what it computes.

    Attributes:
        artifact, plan: as `simtune.build.artifact.load` and `Artifact.plan` give them.
        seed: of the inputs.
        constant: inputs are constant per tensor, for candidates on operands taken for re-packed.
        expected: the right output; without it nothing is checked.
    """

    artifact: Artifact
    plan: Plan
    seed: int = 0
    constant: bool = False
    expected: Expectation | None = None


@dataclass(frozen=True)
class Timing:
    """What measuring one candidate gave; a failure is data and has no times.

    Attributes:
        status: how it ended; times exist only when it is ok, hence never for a wrong answer.
        seconds: one time per process.
        median: the label, None without times.
        spread: (largest - smallest) / median.
        conditions: settings, calls per repeat, pinning, the state of the computer.
        notes: why these times may deserve less trust, such as a busy or throttled computer.
        error: reason and tail of the error stream.
        wall_s: that measuring took, pauses and start-up included.
    """

    status: Status
    seconds: tuple[float, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    @property
    def median(self) -> float | None:
        return median(self.seconds) if self.seconds else None

    @property
    def spread(self) -> float:
        return (max(self.seconds) - min(self.seconds)) / median(self.seconds) if self.seconds else 0.0


@dataclass(frozen=True)
class Probe:
    """Whether a target can be used, and what it is; `isa` is empty when the target cannot tell."""

    available: bool
    isa: str = ""
    description: str = ""
    reason: str = ""
    fix: str = ""


class Target(Protocol):
    """A place where candidates are timed, one at a time."""

    @property
    def name(self) -> str:
        """As the user wrote it, such as ``host`` or ``ssh:board``; names it in the records."""

    def probe(self) -> Probe:
        """Whether it answers, and its instruction set. Never raises."""

    def measure(self, program: Program, settings: Settings, cancel: threading.Event | None = None) -> Timing:
        """Times one candidate. Whatever the candidate does becomes a `Timing`, never an exception."""

    def close(self) -> None:
        """Leaves nothing behind; may be called more than once."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Closing:
    """The context manager that targets share."""

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def require(target: Target, isa: str) -> Probe:
    """Makes sure that a target answers and runs code of an instruction set.

    Raises:
        ConfigurationError: it does not.
    """
    probe = target.probe()
    if not probe.available:
        raise ConfigurationError(f"target {target.name} cannot be used: {probe.reason}", probe.fix)
    if probe.isa and probe.isa != isa:
        raise ConfigurationError(
            f"target {target.name} is {probe.isa}, the machine is {isa}",
            f"choose a machine that is {probe.isa}, or another target",
        )
    return probe
