# SPDX-License-Identifier: Apache-2.0
"""A layer on VTA as the task of a template-space search."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from simtune.tuning.template_task import Evaluated
from simtune.vta import Backend, features, load_layer, load_machine, space
from simtune.vta.build import build_core
from simtune.vta.estimate import estimate
from simtune.vta.learning import INPUTS, PREFIX
from simtune.vta.validity import check, check_all


class VtaTask:
    """See `simtune.tuning.template_task.Task`.

    Args:
        layer: name or form, with or without ``vta:``.
        machine: name, or path of a machine file.
        seed: of the operands.
    """

    simulator = INPUTS.timed_by

    def __init__(self, layer: str, machine: str, seed: int = 0) -> None:
        self.layer, self.target = load_layer(layer), load_machine(machine)
        self.name = f"vta:{self.layer.name}"
        self.space = space(self.layer, self.target)
        self.machine, self.machine_digest = self.target.name, self.target.digest()
        self.place, self.seed = machine, seed
        self.arguments: Sequence[Sequence[Any]] = [
            ["TENSOR", "int8", [self.layer.n, self.layer.ci, self.layer.h, self.layer.w]],
            ["TENSOR", "int8", [self.layer.co, self.layer.ci, self.layer.kh, self.layer.kw]],
            ["TENSOR", "int32", [self.layer.co]],
            ["LAYER", "", [self.layer.form]],
        ]
        self.settings: tuple[str, ...] = (f"seed {seed}", "check first")

    @cached_property
    def simulator_version(self) -> str:
        """Of the package, and of the very core that is loaded: a changed simulator is another one."""
        built = hashlib.sha256(build_core().read_bytes()).hexdigest()[:12]
        return f"{version('simtune')}+{built}"

    @cached_property
    def backend(self) -> Backend:
        return Backend(self.layer, self.target, check="first", seed=self.seed)

    def codes(self) -> list[str]:
        return check_all(self.layer, self.target)

    def check(self, config: Mapping[str, int]) -> str:
        return check(self.layer, self.target, config)

    def compile(self, config: Mapping[str, int]) -> str:
        return self.backend.compile(config).code

    def features(self, config: Mapping[str, int]) -> dict[str, float]:
        known = features(self.layer, self.target, config)
        rough = estimate(self.layer, self.target, config)
        return {**known, **{f"estimate.{name}": cycles for name, cycles in rough.items()}}

    def prior(self, config: Mapping[str, int]) -> float:
        return estimate(self.layer, self.target, config)["total"]

    def evaluate(self, configs: Sequence[Mapping[str, int]], jobs: int) -> list[Evaluated]:
        return [
            Evaluated(
                result.status,
                result.stage,
                result.code,
                result.message,
                result.seconds,
                {PREFIX + name: value for name, value in result.counters.items()},
                {} if result.cycles is None else {"cycles": str(result.cycles)},
                result.wall_s,
            )
            for result in self.backend.evaluate(configs, jobs)
        ]

    def command(self, config: Mapping[str, int]) -> str:
        knobs = ",".join(f"{name}={value}" for name, value in config.items())
        return f"simtune simulate {self.name} --machine {self.place} --config {knobs}"
