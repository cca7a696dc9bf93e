# SPDX-License-Identifier: Apache-2.0
"""Why a candidate is predicted slow or fast: its features against those of another, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtune.counters import Counters
from simtune.features import FEATURES, Features, extract, window_means
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.trained import CYCLES, TrainedPredictor

PERMUTATIONS = 32


@dataclass(frozen=True)
class Cause:
    """What one feature or part contributes to the difference between two candidates.

    Attributes:
        value, other: of the candidate and of the one it is compared with.
        factor: by how much it multiplies the predicted time; all factors multiply to the ratio of
            the two predictions.
    """

    name: str
    value: float
    other: float
    factor: float


def learned_causes(
    predictor: TrainedPredictor,
    counters: Sequence[Counters],
    machine: Machine,
    row: int,
    other: int,
    seed: int = 0,
) -> list[Cause]:
    """Shapley values of the features, for candidates `row` and `other` of a workload's `counters`.

    Features are switched from the other candidate's to this one's in random orders, forwards and
    backwards, and the change of the prediction is credited to the one that was switched. That suits
    any model. A linear cost is switched together with the feature of its name. Largest effects first.
    """
    features = predictor.features(counters, machine)
    means = window_means(features.values, "group")[:1]
    cycles = window_means(features.costs, "group")[:1, CYCLES]
    order = np.random.default_rng(seed)
    inputs = predictor.inputs.columns
    names, columns = list(inputs), np.array(list(inputs.values()))
    width = len(names)
    total = np.zeros(width)
    paths = [order.permutation(width) for _ in range(PERMUTATIONS // 2)]
    for path in [*paths, *(path[::-1] for path in paths)]:
        switched = np.zeros((width + 1, width), bool)
        for step, place in enumerate(path):
            switched[step + 1 :, place] = True
        values, costs = (
            np.where(switched[:, _places(columns[:, side])], table[row], table[other])
            for side, table in enumerate((features.values, features.costs))
        )
        number = np.full(width + 1, other)
        mixed = Features(values, costs, features.base_s[number], features.pipeline[number])
        steps = np.broadcast_to(means, values.shape), np.broadcast_to(cycles, (width + 1,))
        total[path] += np.diff(predictor.apply(mixed, *steps)[0])
    effects = np.exp(total / (2 * len(paths)))
    causes = []
    for name, (feature, cost), effect in zip(names, columns.tolist(), effects, strict=True):
        table, column = (features.values, feature) if feature >= 0 else (features.costs, cost)
        mine, theirs = float(table[row, column]), float(table[other, column])
        if not (np.isnan(mine) and np.isnan(theirs)):
            causes.append(Cause(name, mine, theirs, float(effect)))
    return sorted(causes, key=lambda cause: -abs(np.log(cause.factor)))


def _places(columns: NDArray[np.int64]) -> list[int]:
    """For each column of a table, which input it belongs to."""
    return [int(np.flatnonzero(columns == column)[0]) for column in range(columns.max() + 1)]


def analytical_causes(counters: Counters, other: Counters, machine: Machine) -> list[Cause]:
    """The same for the analytical model, whose parts are cycles that add up.

    A part's factor is its share of the logarithm of the ratio, in proportion to its difference.
    """
    predictor = AnalyticalPredictor()
    return shares(predictor.explain(counters, machine), predictor.explain(other, machine))


def shares(mine: Mapping[str, float], theirs: Mapping[str, float]) -> list[Cause]:
    """Causes from parts that add up to a time, such as cycles. Largest effects first."""
    difference = sum(mine.values()) - sum(theirs.values())
    ratio = np.log(sum(mine.values()) / sum(theirs.values()))
    causes = []
    for name in dict.fromkeys([*mine, *theirs]):
        a, b = mine.get(name, 0.0), theirs.get(name, 0.0)
        share = (a - b) / difference if difference else 0.0
        causes.append(Cause(name, a, b, float(np.exp(share * ratio))))
    return sorted(causes, key=lambda cause: -abs(np.log(cause.factor)))


def counter_table(counters: Counters, other: Counters) -> list[tuple[str, float, float]]:
    """(counter, this candidate's, the other's), those that differ most in proportion first."""

    def distance(row: tuple[str, float, float]) -> float:
        scale = max(1.0, 1e-4 * max(counters.get("instructions", 0), other.get("instructions", 0)))
        return -abs(float(np.log((row[1] + scale) / (row[2] + scale))))

    rows = [(name, counters[name], other[name]) for name in counters if name in other]
    return sorted(rows, key=distance)


def features_of(counters: Sequence[Counters], machine: Machine) -> dict[str, list[float]]:
    """Feature name to its value for each candidate, for reports."""
    values = extract(counters, machine).values
    return {name: values[:, column].tolist() for column, name in enumerate(FEATURES)}
