# SPDX-License-Identifier: Apache-2.0
"""Counters of candidates as named features, and their normalisation within a workload.

A feature is a positive number whose logarithm is learned from: a count, or a rate such as misses
per instruction. Small constants (`_RATE_FLOOR` and others) keep zero counts finite, and differences
that are too small to matter small. A counter that was not counted makes its features NaN, never zero; after
normalisation NaN becomes "like the mean of the workload", which says nothing about the candidate.

Normalisation divides by the mean of the candidates of the same workload, as Pelke et al. do (DAC
2025, arXiv 2505.13357): in training over the whole group, for a new workload over a window of the
candidates seen so far, see `window_means`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtune.counters import CACHE_LEVELS, INSTRUCTION_CLASSES, PIPELINE_CAUSES, Counters
from simtune.errors import ConfigurationError
from simtune.machines.model import Machine
from simtune.predictors.analytical import static_parts

Array = NDArray[np.float64]

#: Raise it whenever the meaning or order of a feature changes: predictor files depend on it.
FEATURES_VERSION = 3

#: Counter of the pipeline scoreboard in the simulator, when it was on.
PIPELINE = "pipeline_cycles"

#: Features beside those of the simulator's own counters, by name, with the counter behind them.
OPTIONAL: Mapping[str, str] = {"mca": "mca_cycles"}

_PARTS = ("issue", "mispredicts", "l1i", "l1d", "l2", "l3", "write-backs")
_RESOURCES = {
    "load_port": ("load", "vec_load", "atomic"),
    "store_port": ("store", "vec_store", "atomic"),
    "fp_port": tuple(n for n in INSTRUCTION_CLASSES if n.startswith(("fp_", "vec_fp"))),
    "int_port": ("int_alu", "int_mul", "int_div", "branch", "jump"),
    "vec_port": tuple(n for n in INSTRUCTION_CLASSES if n.startswith("vec_") and "load" not in n),
}
_FP = [f"insn.{kind}" for kind in _RESOURCES["fp_port"]]
_MEMORY = ("dram_read_bytes", "dram_write_bytes")
_COUNT_FLOOR, _SHARE_FLOOR, _RATE_FLOOR, _LINE = 1.0, 1e-3, 1e-4, 64.0

#: Linear costs for models that add up costs: never normalised one by one, absent counts as nothing.
COSTS: tuple[str, ...] = (
    "cycles",
    "instructions",
    "loads",
    "stores",
    "branches",
    "branch_mispredicts",
    "int",
    "fp",
    "vector",
    "shuffle",
    *(f"{level}.misses" for level in CACHE_LEVELS),
    "l1d.writebacks",
    "lines",
)


@dataclass(frozen=True)
class Features:
    """Features of N candidates, in linear scale.

    Attributes:
        values: (N, len(FEATURES)), positive or NaN.
        costs: (N, len(COSTS)), not negative.
        base_s: (N,) seconds by the best cycle model there is: the counter `pipeline_cycles` where it
            was counted, the analytical predictor otherwise.
        pipeline: (N,) whether `base_s` is from `pipeline_cycles`.
    """

    values: Array
    costs: Array
    base_s: Array
    pipeline: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Features:
        """The features of some candidates."""
        return Features(self.values[rows], self.costs[rows], self.base_s[rows], self.pipeline[rows])

    @staticmethod
    def stack(parts: Sequence[Features]) -> Features:
        """The candidates of all parts, one after the other."""
        return Features(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.costs for part in parts]),
            np.concatenate([part.base_s for part in parts]),
            np.concatenate([part.pipeline for part in parts]),
        )


def extract(
    counters: Sequence[Counters],
    machine: Machine,
    use_pipeline: bool = True,
    optional: Collection[str] = (),
) -> Features:
    """Features of candidates that were simulated for `machine`.

    Args:
        use_pipeline: False takes the analytical cycles even where `pipeline_cycles` was counted.
        optional: names from `OPTIONAL`; features of the others are NaN, counted or not.

    Raises:
        ConfigurationError: a candidate has too few counters for any prediction.
    """
    columns = _Columns(counters, machine, use_pipeline, optional)
    if not np.all(np.isfinite(columns.cycles) & (columns.cycles > 0)):
        raise ConfigurationError("a simulation counted no cycles", "its counters are damaged: run it again")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.column_stack([function(columns) for function in FEATURE_FUNCTIONS.values()])
    return Features(
        np.where(np.isfinite(values) & (values > 0), values, np.nan),
        np.nan_to_num(np.column_stack([columns.cost(name) for name in COSTS])),
        columns.cycles / machine.clock_hz,
        columns.counted,
    )


class _Columns:
    """Columns of (N,) by name, computed once each from counters and machine."""

    def __init__(
        self,
        counters: Sequence[Counters],
        machine: Machine,
        use_pipeline: bool,
        optional: Collection[str],
    ) -> None:
        self._counters, self._machine = counters, machine
        absent = np.full(len(counters), np.nan)
        unwanted = [counter for name, counter in OPTIONAL.items() if name not in optional]
        self._known: dict[str, Array] = dict.fromkeys(unwanted, absent)
        self._parts = [static_parts(row, machine) for row in counters]
        pipeline = self.get(PIPELINE)
        self.counted = np.isfinite(pipeline) & (pipeline > 0) & use_pipeline
        self.analytical = np.array([sum(parts.values()) for parts in self._parts])
        self.cycles = np.where(self.counted, pipeline, self.analytical)

    def get(self, name: str) -> Array:
        """A counter; NaN where it was not counted."""
        if name not in self._known:
            self._known[name] = np.array([row.get(name, np.nan) for row in self._counters], float)
        return self._known[name]

    def sum(self, names: Sequence[str]) -> Array:
        """Sum over counters, NaN when none of them was counted."""
        stacked = np.stack([self.get(name) for name in names])
        absent = np.all(np.isnan(stacked), axis=0)
        return np.where(absent, np.nan, np.nansum(stacked, axis=0))

    def misses(self, level: str) -> Array:
        return self.sum([f"{level}.read_misses", f"{level}.write_misses"])

    def part(self, name: str) -> Array:
        """Cycles of a part of the analytical model; links go by the level that missed."""

        def cycles(parts: dict[str, float]) -> float:
            absent = 0.0 if name == "write-backs" else np.nan  # only named where they limit
            return next((v for part, v in parts.items() if part.partition("->")[0] == name), absent)

        return np.array([cycles(parts) for parts in self._parts])

    def resource(self, name: str, latency: bool = False) -> Array:
        """Cycles that the classes of a resource need: busy ports, or latencies in one chain."""
        total = np.full(len(self._counters), np.nan)
        for kind in _RESOURCES[name]:
            timing = self._machine.pipeline.classes[kind]
            cost = timing.latency if latency else timing.busy / max(1, len(timing.ports))
            share = self.get(f"insn.{kind}") * cost
            total = np.where(np.isnan(total), share, total + np.nan_to_num(share))
        return total

    def cost(self, name: str) -> Array:
        match name:
            case "cycles":
                return self.cycles
            case "int" | "fp" | "vector" | "shuffle":
                return self.sum([f"insn.{kind}" for kind in _COARSE[name]])
            case "lines":
                return self.sum(["dram_read_bytes", "dram_write_bytes"]) / self._machine.caches["l1d"].line
        level, _, what = name.partition(".")
        return self.misses(level) if what == "misses" else self.get(name)


_COARSE = {
    "int": ("int_alu", "int_mul", "int_div"),
    "fp": tuple(n for n in INSTRUCTION_CLASSES if n.startswith("fp_")),
    "vector": tuple(
        n for n in INSTRUCTION_CLASSES if n.startswith("vec_") and n not in ("vec_load", "vec_store")
    ),
    "shuffle": ("vec_shuffle",),
}

Function = Callable[[_Columns], Array]


def _functions() -> dict[str, Function]:
    """Every feature by name; the order is that of the columns."""
    table: dict[str, Function] = {
        "cycles": lambda c: c.cycles + _COUNT_FLOOR,
        # Beside the pipeline's cycles; without them it would be the same column twice.
        "analytical_cycles": lambda c: np.where(c.counted, c.analytical + _COUNT_FLOOR, np.nan),
        "cycles_per_instruction": lambda c: c.cycles / c.get("instructions") + _SHARE_FLOOR,
        "mca_cycles": _count("mca_cycles"),
        "mca_per_cycle": lambda c: c.get("mca_cycles") / c.cycles + _SHARE_FLOOR,
        "memory_bytes": lambda c: c.sum(_MEMORY) + _LINE,
        "bytes_per_load": _ratio("load_bytes", "loads"),
        "bytes_per_store": _ratio("store_bytes", "stores"),
        "instructions_per_block": _ratio("instructions", "blocks"),
        "fp_per_byte": lambda c: c.sum(_FP) / (c.sum(["load_bytes", "store_bytes"]) + 1) + _RATE_FLOOR,
        "instructions_per_memory_byte": lambda c: c.get("instructions") / (c.sum(_MEMORY) + _LINE),
        "cycles.fp_latency": lambda c: c.resource("fp_port", latency=True) / c.cycles + _SHARE_FLOOR,
        "rate.mispredicts": _rate("branch_mispredicts"),
        "rate.prefetches": _rate("prefetches"),
        "share.loads": _rate("loads", _SHARE_FLOOR),
        "share.stores": _rate("stores", _SHARE_FLOOR),
    }
    for name in ("instructions", "loads", "stores", "branches", "code_bytes", "blocks"):
        table[name] = _count(name)
    for part in _PARTS:
        table[f"cycles.{part}"] = _part(part)
    for cause in PIPELINE_CAUSES:
        table[f"pipeline.{cause}"] = _cause(cause)
    for resource in _RESOURCES:
        table[f"cycles.{resource}"] = _resource(resource)
    for kind in INSTRUCTION_CLASSES:
        table[f"share.{kind}"] = _rate(f"insn.{kind}", _SHARE_FLOOR)
    for level in CACHE_LEVELS:
        table[f"{level}.misses"] = _misses(level)
        if level != "l1i":
            table[f"{level}.write_misses"] = _rate(f"{level}.write_misses")
            table[f"{level}.writebacks"] = _rate(f"{level}.writebacks")
            table[f"{level}.bytes"] = _traffic(level)
    return table


def _count(name: str) -> Function:
    return lambda c: c.get(name) + _COUNT_FLOOR


def _rate(name: str, floor: float = _RATE_FLOOR) -> Function:
    return lambda c: c.get(name) / c.get("instructions") + floor


def _ratio(above: str, below: str) -> Function:
    return lambda c: c.get(above) / (c.get(below) + _COUNT_FLOOR) + _SHARE_FLOOR


def _part(name: str) -> Function:
    return lambda c: c.part(name) / c.cycles + _SHARE_FLOOR


def _cause(name: str) -> Function:
    return lambda c: np.where(c.counted, c.get(f"pipeline.{name}") / c.cycles + _SHARE_FLOOR, np.nan)


def _resource(name: str) -> Function:
    return lambda c: c.resource(name) / c.cycles + _SHARE_FLOOR


def _misses(level: str) -> Function:
    return lambda c: c.misses(level) / c.get("instructions") + _RATE_FLOOR


def _traffic(level: str) -> Function:
    return lambda c: (c.misses(level) + np.nan_to_num(c.get(f"{level}.writebacks"))) * _LINE + _LINE


FEATURE_FUNCTIONS = _functions()

#: Names of the columns of `Features.values`.
FEATURES: tuple[str, ...] = tuple(FEATURE_FUNCTIONS)


# Normalisation --------------------------------------------------------------------------------


def window_means(values: Array, window: str) -> Array:
    """What each row of a workload is divided by.

    Args:
        values: (N, F) in the order in which the candidates were simulated.
        window: "group": the mean of all N. "static:W": the mean of the first W, for every row.
            "dynamic": the running mean, the row itself included. "reference": the first row, TVM's
            default schedule, so that features are ratios to it.

    Returns:
        (N, F); NaN where a feature has no value in the window.
    """
    kind, _, size = window.partition(":")
    count = len(values)
    if kind == "static" and size.isdecimal() and int(size) > 0:
        count = int(size)
    elif kind == "reference" and not size:
        count = 1
    elif kind == "dynamic" and not size:
        known = np.isfinite(values)
        number = np.cumsum(known, axis=0)
        total = np.cumsum(np.where(known, values, 0.0), axis=0)
        running: Array = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
        return running
    elif window != "group":
        raise ConfigurationError(
            f"window '{window}' is unknown",
            "allowed: group, dynamic, static:W (such as static:32), reference",
        )
    head = values[:count]
    known = np.isfinite(head)
    number = known.sum(axis=0)
    total = np.where(known, head, 0.0).sum(axis=0)
    mean = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    whole: Array = np.broadcast_to(mean, values.shape)
    return whole


def normalised(values: Array, means: Array) -> Array:
    """log(value / mean of its workload); NaN, where either is not known, becomes 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs: Array = np.log(values / means)
    known: Array = np.where(np.isfinite(logs), logs, 0.0)
    return known
