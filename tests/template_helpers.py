# SPDX-License-Identifier: Apache-2.0
"""A toy target with a template space: tiles of a loop nest, clustered validity, a planted optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2

from simtune.jobs import Status
from simtune.templates import Knob, Result, Space
from simtune.tuning.template_task import Evaluated

POWERS = (1, 2, 4, 8, 16, 32, 64)
SPACE = Space(
    "toy",
    (Knob("x", POWERS), Knob("y", POWERS), Knob("z", (1, 2, 4, 8)), Knob("threads", (1, 2))),
)
BEST = {"x": 8, "y": 16, "z": 2, "threads": 2}


def check(config: Mapping[str, int]) -> str:
    """Capacity and divisibility, as of an accelerator: about a fifth of the points is valid."""
    if config["threads"] * config["x"] * config["y"] * config["z"] > 512:
        return "CAPACITY"
    if config["z"] > 1 and config["y"] < 8:
        return "SHAPE"
    if config["threads"] == 2 and config["x"] == 64:
        return "DIVIDE"
    if config["x"] * config["y"] < 16:
        return "SMALL"
    return ""


def cost(config: Mapping[str, int]) -> float:
    """Smooth in the logarithms of the knobs, smallest at `BEST`."""
    distance = sum(abs(log2(config[name]) - log2(BEST[name])) for name in BEST)
    return 100.0 * (1.0 + 0.3 * distance + 0.05 * (log2(config["x"]) % 3))


def features(config: Mapping[str, int]) -> dict[str, float]:
    return {"area": config["x"] * config["y"], "bytes": config["threads"] * config["z"] * config["x"] * 16.0}


def prior(config: Mapping[str, int]) -> float:
    """Right about the direction only."""
    return 50.0 + 3.0 * abs(log2(config["x"] * config["y"]) - 7)


VALID = [point for point in range(SPACE.size) if not check(SPACE.config(point))]
OPTIMUM = min(VALID, key=lambda point: cost(SPACE.config(point)))


def answer(point: int) -> Result:
    config = SPACE.config(point)
    code = check(config)
    return Result(point, None, "lower", code) if code else Result(point, cost(config))


class ToyTask:
    """The toy as a task; counts what is really evaluated."""

    name, machine, machine_digest = "toy:layer", "toy-machine", "d1"
    simulator, simulator_version = "toy-sim", "1"
    space = SPACE
    arguments: Sequence[Sequence[object]] = (("TENSOR", "int8", [64, 64]),)
    settings: tuple[str, ...] = ("seed 0",)

    def __init__(self, name: str = "toy:layer", break_after: int | None = None) -> None:
        self.name = name
        self.evaluated: list[int] = []
        self.compiled = 0
        self.break_after = break_after

    def codes(self) -> list[str]:
        return [check(SPACE.config(point)) for point in range(SPACE.size)]

    def compile(self, config: Mapping[str, int]) -> str:
        self.compiled += 1
        return check(config)

    def features(self, config: Mapping[str, int]) -> dict[str, float]:
        return features(config)

    def prior(self, config: Mapping[str, int]) -> float:
        return prior(config)

    def evaluate(self, configs: Sequence[Mapping[str, int]], jobs: int) -> list[Evaluated]:
        if self.break_after is not None and len(self.evaluated) + len(configs) > self.break_after:
            raise KeyboardInterrupt
        self.evaluated += [SPACE.index(config) for config in configs]
        found = []
        for config in configs:
            code = check(config)
            if code:
                found.append(Evaluated(Status.INVALID, "lower", code, "does not fit"))
            else:
                counters = {"vta.gemm.uops": float(config["x"] * config["y"])}
                found.append(Evaluated(Status.OK, "", "", "", cost(config) * 1e-6, counters, {}, 0.01))
        return found

    def command(self, config: Mapping[str, int]) -> str:
        return "true"
