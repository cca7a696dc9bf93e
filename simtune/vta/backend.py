# SPDX-License-Identifier: Apache-2.0
"""One layer on one machine: configurations in, verdicts, cycles and counters out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from simtune.errors import ConfigurationError
from simtune.jobs import Status
from simtune.vta.codes import CODES, STAGES, status_of
from simtune.vta.core import Program, core, natives
from simtune.vta.counters import VtaCounters
from simtune.vta.hwspec import VtaMachine
from simtune.vta.layers import Layer
from simtune.vta.reference import data
from simtune.vta.tileplan import all_rows, as_rows, space

CHECKS = ("first", "always", "never")
_NO_COUNTERS = VtaCounters({})
_NO_DATA = np.zeros(0, dtype=np.int8)


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a configuration; nothing was run."""

    ok: bool
    stage: str = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Result:
    """How one configuration ended.

    Attributes:
        stage: how far it came: "instantiate", "lower", "run" or "check"; empty for a success.
        code: why it failed, a key of `simtune.vta.codes.REASONS`; empty for a success.
        cycles, seconds: None unless it works.
        counters: empty unless it works; its `features()` may train a predictor.
        wall_s: what the evaluation took.
    """

    status: Status
    stage: str = ""
    code: str = ""
    message: str = ""
    cycles: int | None = None
    seconds: float | None = None
    counters: Mapping[str, float] = _NO_COUNTERS
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


@dataclass(frozen=True, eq=False)
class Timeline:
    """When each instruction left its queue, began and ended; rows of (issue, start, end, bus wait)."""

    cycles: int
    spans: np.ndarray


class Backend:
    """Compiles, checks and times configurations of a layer. Equal arguments give equal results.

    Args:
        check: "first" compares a configuration's output with the reference the first time it is
            evaluated (its time does not depend on data), "always" every time, "never" not at all.
        seed: of operands and of the order in which the functional simulator picks modules.
    """

    def __init__(self, layer: Layer, machine: VtaMachine, *, check: str = "first", seed: int = 0) -> None:
        if check not in CHECKS:
            raise ConfigurationError(f"check is '{check}'; allowed: {', '.join(CHECKS)}")
        self.layer = layer
        self.machine = machine
        self.space = space(layer, machine)
        self.check = check
        self.seed = seed
        self._checked: set[int] = set()
        self._natives = natives(layer, machine)

    def compile(self, config: Mapping[str, int]) -> Compiled:
        """Asks the compiler only: what fails later, when code is made, counts as compiled."""
        self.space.index(config)
        native = self._natives
        found = core().compile(native.hardware, native.layer, as_rows([config]), False)
        code = CODES[found["code"][0]]
        return Compiled(not code, STAGES[found["stage"][0]], code, found["messages"][0])

    def emit_all(self) -> list[str]:
        """The code of every point, found by making its code; runs nothing. The slow twin of `check_all`."""
        native = self._natives
        found = core().compile(native.hardware, native.layer, all_rows(self.layer, self.machine), True)
        return [CODES[code] for code in found["code"]]

    def evaluate(self, configs: Sequence[Mapping[str, int]], jobs: int = 1) -> list[Result]:
        """Compiles, runs, checks and times configurations, `jobs` at a time; results in their order."""
        if not configs:
            return []
        start = time.perf_counter()
        points = [self.space.index(config) for config in configs]
        flags = self._flags(points)
        native = self._natives
        tensors, expected = self._operands if flags.any() else (core().Tensors(), _NO_DATA)
        # Seeds go by point, so that a configuration's run does not depend on its batch.
        found = core().evaluate(
            native.hardware,
            native.timing,
            native.layer,
            as_rows(configs),
            flags,
            tensors,
            expected,
            np.array(points, dtype=np.uint64) + np.uint64(self.seed << 32),
            max(1, jobs),
        )
        rest = (time.perf_counter() - start - float(found["seconds"].sum()) / max(1, jobs)) / len(configs)
        results = self._results(found, max(0.0, rest))
        for point, flag, result in zip(points, flags, results, strict=True):
            if flag and result.ok:
                self._checked.add(point)
        return results

    def program(self, config: Mapping[str, int]) -> Program:
        """The instruction stream of a configuration.

        Raises:
            ConfigurationError: it is not valid; says why.
        """
        self.space.index(config)
        native = self._natives
        (stage, code, message), arrays = core().emit(native.hardware, native.layer, as_rows([config]))
        if code:
            raise ConfigurationError(
                f"{self.layer.name}: it fails in {STAGES[stage]} with {CODES[code]}: {message}",
                f"'simtune vta space {self.layer.name}' shows which ones work",
            )
        return Program(*arrays)

    def timeline(self, program: Program) -> Timeline:
        """The timed run of a program, instruction by instruction."""
        native = self._natives
        (_, code, message), cycles, _, spans = core().run_tsim(
            native.hardware, native.timing, *program.arrays, True
        )
        if code:
            raise ConfigurationError(f"{self.layer.name}: {CODES[code]}: {message}")
        return Timeline(cycles, spans)

    @cached_property
    def _operands(self) -> tuple[Any, np.ndarray]:
        """Operands as the core packs them, and the right answer."""
        known = data(self.layer, self.machine, self.seed)
        hardware = self._natives.hardware
        return core().pack(hardware, known.inp, known.wgt, known.bias, known.expected.size), known.expected

    def _flags(self, points: Sequence[int]) -> np.ndarray:
        if self.check == "never":
            return np.zeros(len(points), dtype=np.uint8)
        if self.check == "always":
            return np.ones(len(points), dtype=np.uint8)
        return np.array([point not in self._checked for point in points], dtype=np.uint8)

    def _results(self, found: Mapping[str, np.ndarray], rest: float) -> list[Result]:
        names = counter_names()
        results = []
        rows = zip(
            found["stage"].tolist(),
            found["code"].tolist(),
            found["messages"],
            found["cycles"].tolist(),
            found["seconds"].tolist(),
            strict=True,
        )
        for number, (stage, code, message, cycles, seconds) in enumerate(rows):
            if code:
                name = CODES[code]
                results.append(Result(status_of(name), STAGES[stage], name, message, wall_s=seconds + rest))
                continue
            counters = VtaCounters(dict(zip(names, found["counters"][number].tolist(), strict=True)))
            results.append(
                Result(
                    Status.OK,
                    cycles=cycles,
                    seconds=self.machine.seconds(cycles),
                    counters=counters,
                    wall_s=seconds + rest,
                )
            )
        return results


def counter_names() -> list[str]:
    """Counters in the order in which the core gives them."""
    names: list[str] = core().counter_names()
    return names
