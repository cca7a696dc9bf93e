# SPDX-License-Identifier: Apache-2.0
"""What a template-space search needs to know of its target: the space, its rules, and how to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from simtune.jobs import Status
from simtune.templates.space import Space

#: Failures before anything runs: cheap to find again, so they are no simulations.
BEFORE_RUNNING = ("instantiate", "lower")


@dataclass(frozen=True)
class Evaluated:
    """What became of one configuration.

    Attributes:
        status, stage, code, message: as in `simtune.jobs.Outcome`; the code is short, such as SRAM_ACC.
        seconds: on the target; None for a failure.
        counters: names as in `simtune.counters`, with the target's prefix.
        output: what else is worth keeping, as text.
        wall_s: of the evaluation.
    """

    status: Status
    stage: str = ""
    code: str = ""
    message: str = ""
    seconds: float | None = None
    counters: Mapping[str, float] = field(default_factory=dict)
    output: Mapping[str, str] = field(default_factory=dict)
    wall_s: float = 0.0


class Task(Protocol):
    """One layer on one machine, whose template space can be searched.

    Attributes:
        name: of the workload, such as ``vta:resnet18.c2``.
        machine, machine_digest: what it runs on, by name and by content.
        simulator: what evaluates.
        arguments: parameters of the workload, as in `simtune.records.Workload`.
        settings: what else results depend on, such as seeds; part of their key.
    """

    name: str
    space: Space
    machine: str
    machine_digest: str
    simulator: str
    arguments: Sequence[Sequence[Any]]
    settings: tuple[str, ...]

    @property
    def simulator_version(self) -> str:
        """Of what evaluates: results of other versions are not reused."""
        ...

    def codes(self) -> Sequence[str]:
        """The exact constraints: "" or a code for every point of the space."""
        ...

    def compile(self, config: Mapping[str, int]) -> str:
        """The compiler as oracle: "" for a configuration that compiles, or a code."""
        ...

    def features(self, config: Mapping[str, int]) -> Mapping[str, float]:
        """Compile-time features, of invalid configurations as well; nothing derived from cycles."""
        ...

    def prior(self, config: Mapping[str, int]) -> float:
        """A rough cost of a valid configuration, without running it."""
        ...

    def evaluate(self, configs: Sequence[Mapping[str, int]], jobs: int) -> list[Evaluated]:
        """Compiles and runs configurations, several at once; never raises for a bad one."""
        ...

    def command(self, config: Mapping[str, int]) -> str:
        """A shell command that evaluates a configuration again."""
        ...
