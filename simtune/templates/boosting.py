# SPDX-License-Identifier: Apache-2.0
"""Small boosted trees in numpy: Newton steps on complete trees of a fixed depth.

Made for what a tuner has: up to some thousand rows, features of few distinct values, a fit every few
trials, and predictions for a whole space at once. The formulas and defaults are those of XGBoost, with
ranking by pairs, logistic and squared loss. `benchmarks/vta_validity.py` compares both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simtune.templates.encode import Array, Ints

Loss = Literal["rank", "logistic", "squared"]

_BINS = 32


@dataclass(frozen=True)
class Trees:
    """A fitted ensemble of complete trees, level by level.

    Attributes:
        features, thresholds: one row per tree, one column per inner node; rows go right where the
            feature is above the threshold.
        leaves: one row per tree.
        base: what all predictions start from.
    """

    depth: int
    features: Ints
    thresholds: Array
    leaves: Array
    base: float = 0.0

    def predict(self, rows: Array) -> Array:
        """One raw score per row: larger is better for ranking, log odds for the logistic loss."""
        total = np.full(len(rows), self.base)
        for start in range(0, len(rows), 4096):  # so that the work space stays in the cache
            part = rows[start : start + 4096]
            number = np.arange(len(part))[:, None]
            trees = np.arange(len(self.leaves))[None, :]
            node = np.zeros((len(part), len(self.leaves)), dtype=np.int64)
            for _ in range(self.depth):
                feature = self.features[trees, node]
                right = part[number, feature] > self.thresholds[trees, node]
                node = 2 * node + 1 + right
            total[start : start + 4096] += self.leaves[trees, node - (2**self.depth - 1)].sum(axis=1)
        return total


def fit(
    rows: Array,
    targets: Array,
    loss: Loss = "rank",
    *,
    depth: int = 3,
    rounds: int = 100,
    eta: float = 0.3,
    gamma: float = 1e-4,
    ridge: float = 1.0,
    least: float = 1.0,
    start: Array | None = None,
    stop: Callable[[Array], float] | None = None,
    patience: int = 20,
) -> Trees:
    """Fits trees.

    Args:
        rows: features, one row per sample.
        targets: for "rank" larger is better; for "logistic" 0 or 1.
        gamma, ridge, least: smallest gain of a split, L2 of leaves, smallest sum of second derivatives.
        start: scores to go on from, one per sample, such as those of another model; the trees then
            predict what is to be added to it.
        stop: a figure of the training scores that should grow; fitting ends when it has not for
            `patience` rounds.
    """
    bins, edges = _binned(rows)
    base = float(targets.mean()) if loss == "squared" and len(targets) and start is None else 0.0
    scores = np.full(len(rows), base) if start is None else start.copy()
    inner, outer = 2**depth - 1, 2**depth
    features = np.zeros((rounds, inner), dtype=np.int64)
    thresholds = np.full((rounds, inner), np.inf)
    leaves = np.zeros((rounds, outer))
    gradients = _GRADIENTS[loss](targets)
    best, since, used = -np.inf, 0, 0
    for number in range(rounds):
        slope, curve = gradients(scores)
        if not curve.any():
            break
        node = np.zeros(len(rows), dtype=np.int64)
        for level in range(depth):
            _split(
                bins, edges, slope, curve, node, level, features[number], thresholds[number],
                gamma, ridge, least,
            )  # fmt: skip
        leaf = node - inner
        weight = np.bincount(leaf, slope, outer) / (np.bincount(leaf, curve, outer) + ridge)
        leaves[number] = -eta * weight
        scores = scores + leaves[number][leaf]
        used = number + 1
        if stop is not None:
            figure = stop(scores)
            best, since = (figure, 0) if figure > best else (best, since + 1)
            if since >= patience:
                break
    return Trees(depth, features[:used], thresholds[:used], leaves[:used], base)


def _binned(rows: Array) -> tuple[Ints, list[Array]]:
    """Every feature as the number of its bin, and the upper edges of the bins but the last."""
    bins = np.zeros(rows.shape, dtype=np.int64)
    edges = []
    for column in range(rows.shape[1]):
        distinct = np.unique(rows[:, column])
        if len(distinct) > _BINS:
            distinct = np.unique(np.quantile(distinct, np.linspace(0, 1, _BINS), method="nearest"))
        middles = (distinct[1:] + distinct[:-1]) / 2
        bins[:, column] = np.searchsorted(middles, rows[:, column], side="left")
        edges.append(middles)
    return bins, edges


def _split(
    bins: Ints,
    edges: list[Array],
    slope: Array,
    curve: Array,
    node: Ints,
    level: int,
    features: NDArray[np.int64],
    thresholds: Array,
    gamma: float,
    ridge: float,
    least: float,
) -> None:
    """Splits all nodes of one level, and moves the rows into their children (`node` changes in place).

    A node that gains nothing by a split sends everything left.
    """
    first, width = 2**level - 1, 2**level
    samples, columns = bins.shape
    count = 1 + max(map(len, edges))
    place = (((node - first) * columns)[:, None] + np.arange(columns)) * count + bins
    shape = (width, columns, count)
    size = width * columns * count
    flat = place.ravel()
    slopes = np.bincount(flat, np.repeat(slope, columns), size).reshape(shape).cumsum(axis=2)
    curves = np.bincount(flat, np.repeat(curve, columns), size).reshape(shape).cumsum(axis=2)
    all_slope, all_curve = slopes[:, :, -1:], curves[:, :, -1:]
    right_slope, right_curve = all_slope - slopes, all_curve - curves
    gain = (
        slopes**2 / (curves + ridge)
        + right_slope**2 / (right_curve + ridge)
        - all_slope**2 / (all_curve + ridge)
    ) / 2
    gain[(curves < least) | (right_curve < least)] = -np.inf
    best = gain.reshape(width, -1).argmax(axis=1)
    worth = gain.reshape(width, -1)[np.arange(width), best] > gamma
    column, cut = best // count, best % count
    mine = node - first
    right = worth[mine] & (bins[np.arange(samples), column[mine]] > cut[mine])
    for number in np.flatnonzero(worth):
        features[first + number] = column[number]
        thresholds[first + number] = edges[column[number]][cut[number]]
    node[:] = 2 * node + 1 + right


def _rank_gradients(targets: Array) -> Callable[[Array], tuple[Array, Array]]:
    better, worse = np.nonzero(targets[:, None] > targets[None, :])
    size = len(targets)
    # One weight for all pairs, so that the sums stay in the range that `least` and `gamma` are meant for.
    weight = size / max(1, len(better))

    def gradients(scores: Array) -> tuple[Array, Array]:
        wrong = 1.0 / (1.0 + np.exp(np.clip(scores[better] - scores[worse], -50, 50)))
        bend = np.maximum(wrong * (1.0 - wrong), 1e-16)
        slope = weight * (np.bincount(worse, wrong, size) - np.bincount(better, wrong, size))
        curve = weight * 2.0 * (np.bincount(worse, bend, size) + np.bincount(better, bend, size))
        return slope.astype(np.float64), curve.astype(np.float64)

    return gradients


def _logistic_gradients(targets: Array) -> Callable[[Array], tuple[Array, Array]]:
    def gradients(scores: Array) -> tuple[Array, Array]:
        chance = 1.0 / (1.0 + np.exp(-np.clip(scores, -50, 50)))
        return chance - targets, np.maximum(chance * (1.0 - chance), 1e-16)

    return gradients


def _squared_gradients(targets: Array) -> Callable[[Array], tuple[Array, Array]]:
    return lambda scores: (scores - targets, np.ones(len(targets)))


_GRADIENTS: dict[str, Callable[[Array], Callable[[Array], tuple[Array, Array]]]] = {
    "rank": _rank_gradients,
    "logistic": _logistic_gradients,
    "squared": _squared_gradients,
}


def average_recall(targets: Array, top: int) -> Callable[[Array], float]:
    """AutoTVM's reason to stop: the share of the truly best k among the predicted best k, mean over k."""
    rank = np.empty(len(targets), dtype=np.int64)
    rank[np.argsort(-targets, kind="stable")] = np.arange(len(targets))
    top = min(top, len(targets))

    def figure(scores: Array) -> float:
        predicted = np.argsort(-scores, kind="stable")
        late = np.maximum(rank[predicted], np.arange(len(predicted)))
        within = np.bincount(late, minlength=len(predicted)).cumsum()[:top]
        return float((within / np.arange(1, top + 1)).mean()) if top else 0.0

    return figure
