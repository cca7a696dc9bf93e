# SPDX-License-Identifier: Apache-2.0
"""How well predicted scores rank measured times: the metrics, their intervals and their ceiling.

All functions take one workload's `times` (measured, seconds) and `scores` (predicted, any unit),
both smaller-is-better and of shape (N,). R_top1, E_top1, Q_low and Q_high carry the names of Pelke
et al. (DAC 2025, arXiv 2505.13357); its formulas are not published, those used here are in the
functions below.

Rules for what the formulas leave open:

* a candidate whose time is not finite and positive has no truth and is left out;
* a candidate whose score is not finite (NaN, inf) is ranked behind all others;
* candidates with equal scores are ordered slowest first: a predictor that cannot tell them apart
  gets no credit for the order they came in;
* candidates with equal times are equally right, and a pair of them says nothing about the order;
* with fewer than two candidates left every metric is NaN, and means leave NaN out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

#: Metric to whether more is better, in the order of reports.
METRICS: Mapping[str, bool] = {
    "R_top1": False,
    "E_top1": False,
    "E_top3": False,
    "E_top1_resampled": False,
    "Q_low": False,
    "Q_high": False,
    "tau_b": True,
    "spearman": True,
    "pairwise": True,
    "recall_top10": True,
    "ndcg": True,
}

SUBSETS, SUBSET_SIZE = 200, 60
TOP_SHARE = 0.1


def clean(times: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays, without candidates that have no truth; scores that are no numbers become inf."""
    measured, predicted = np.asarray(times, float), np.asarray(scores, float)
    if measured.shape != predicted.shape or measured.ndim != 1:
        raise ValueError(f"times {measured.shape} and scores {predicted.shape} must be of one shape (N,)")
    known = np.isfinite(measured) & (measured > 0)
    predicted = np.where(np.isfinite(predicted), predicted, np.inf)
    return measured[known], predicted[known]


def ranked(times: Array, scores: Array) -> Array:
    """The times in predicted order, equal scores slowest first."""
    return times[np.lexsort((-times, scores))]


def r_top1(times: ArrayLike, scores: ArrayLike) -> float:
    """100 x (1-based predicted rank of the truly fastest) / N."""
    order = ranked(*clean(times, scores))
    return math.nan if order.size < 2 else float(100 * (1 + np.argmin(order)) / order.size)


def e_top(times: ArrayLike, scores: ArrayLike, share: float = 0.0) -> float:
    """Loss in % when the best of the first ceil(share x N), at least 1, predicted candidates is taken."""
    order = ranked(*clean(times, scores))
    if order.size < 2:
        return math.nan
    taken = max(1, math.ceil(share * order.size - 1e-9))
    return float(100 * (order[:taken].min() / order.min() - 1))


def resampled_e_top1(
    times: ArrayLike, scores: ArrayLike, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 0
) -> float:
    """Mean E_top1 over random subsets, since one top pick per workload is a noisy statistic.

    A group of fewer than 2 x `size` candidates is sampled by halves, so that subsets differ.
    """
    order = ranked(*clean(times, scores))
    size = min(size, order.size // 2)
    if size < 2:
        return math.nan
    keys = np.random.default_rng(seed).random((subsets, order.size))
    draws = np.argpartition(keys, size, axis=1)[:, :size]  # positions in predicted order
    return float(100 * np.mean(order[draws.min(axis=1)] / order[draws].min(axis=1) - 1))


def quality(times: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Q_low and Q_high: disorder of the predicted-fast and the predicted-slow half, 0 is perfect.

    Q = 100 / floor(N/2) x sum of max(0, t[i] - t[i+1]) / t[i] over neighbours in predicted order,
    both of which are in the half: the first floor(N/2) candidates and the last floor(N/2).
    """
    order = ranked(*clean(times, scores))
    half = order.size // 2
    if half < 1:
        return math.nan, math.nan
    low, high = (
        float(100 / half * np.sum(np.maximum(0, part[:-1] - part[1:]) / part[:-1]))
        for part in (order[:half], order[order.size - half :])
    )
    return low, high


def order_agreement(times: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Kendall's tau-b, and pairwise accuracy in %.

    The accuracy is over pairs with different times; a pair with equal scores counts one half.
    tau-b is NaN when all times or all scores are equal.
    """
    measured, predicted = clean(times, scores)
    if measured.size < 2:
        return math.nan, math.nan
    truth = np.sign(measured[:, None] - measured)  # of every ordered pair: each pair counts twice
    with np.errstate(invalid="ignore"):  # inf - inf: equal
        guess = np.nan_to_num(np.sign(predicted[:, None] - predicted), nan=0.0)
    decided, untied = np.count_nonzero(truth), np.count_nonzero(guess)
    agreement = float(np.vdot(truth, guess))
    tau = agreement / math.sqrt(decided * untied) if decided and untied else math.nan
    return tau, 50 * (1 + agreement / decided) if decided else math.nan


def spearman(times: ArrayLike, scores: ArrayLike) -> float:
    """Correlation of the ranks, equal values sharing their mean rank; NaN when one side is constant."""
    from scipy.stats import rankdata

    measured, predicted = clean(times, scores)
    if measured.size < 2:
        return math.nan
    a, b = rankdata(measured), rankdata(predicted)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def top_recall(times: ArrayLike, scores: ArrayLike, share: float = TOP_SHARE) -> float:
    """Share in % of the k = ceil(share x N) first predictions that are among the k truly fastest."""
    order = ranked(*clean(times, scores))
    if order.size < 2:
        return math.nan
    k = max(1, math.ceil(share * order.size - 1e-9))
    return float(100 * np.mean(order[:k] <= np.sort(order)[k - 1]))


def ndcg(times: ArrayLike, scores: ArrayLike) -> float:
    """Discounted cumulative gain over the ideal one; gain = fastest time / time, discount 1/log2(1+rank)."""
    order = ranked(*clean(times, scores))
    if order.size < 2:
        return math.nan
    gains, discount = order.min() / order, 1 / np.log2(np.arange(2, order.size + 2))
    return float(gains @ discount / (np.sort(gains)[::-1] @ discount))


def all_metrics(times: ArrayLike, scores: ArrayLike, subsets: int = SUBSETS) -> dict[str, float]:
    """Every metric of `METRICS` for one workload; E_top3 takes the first 3 %."""
    low, high = quality(times, scores)
    tau, pairwise = order_agreement(times, scores)
    return {
        "R_top1": r_top1(times, scores),
        "E_top1": e_top(times, scores),
        "E_top3": e_top(times, scores, 0.03),
        "E_top1_resampled": resampled_e_top1(times, scores, subsets),
        "Q_low": low,
        "Q_high": high,
        "tau_b": tau,
        "spearman": spearman(times, scores),
        "pairwise": pairwise,
        "recall_top10": top_recall(times, scores),
        "ndcg": ndcg(times, scores),
    }


def random_expectation(times: ArrayLike, draws: int = 50, seed: int = 0) -> dict[str, float]:
    """Mean of the metrics of a predictor that knows nothing."""
    measured = clean(times, np.zeros(np.size(times)))[0]
    random = np.random.default_rng(seed)
    rows = [all_metrics(measured, random.random(measured.size), 10) for _ in range(draws)]
    return {name: _mean([row[name] for row in rows]) for name in METRICS}


# Over workloads -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval; NaN where the samples do not allow one."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Summary:
    """Metrics per workload, their mean, and the worst workload's; metric name to figure."""

    workloads: Mapping[str, Mapping[str, Interval]]
    mean: Mapping[str, Interval]
    worst: Mapping[str, float]


def summarise(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]], resamples: int = 200, seed: int = 0
) -> Summary:
    """Metrics of all workloads with intervals.

    A workload's interval resamples its candidates (N with replacement). The mean's interval also
    resamples the workloads, since an unseen workload is what the mean is asked about; with few
    workloads it is wide, and honestly so. `E_top1_resampled` uses 20 subsets inside a resample.

    Args:
        groups: workload to (times, scores).
        resamples: of the bootstrap; 0 gives no intervals.
    """
    random = np.random.default_rng(seed)
    workloads: dict[str, dict[str, Interval]] = {}
    replicates: list[dict[str, Array]] = []
    for name, (times, scores) in groups.items():
        figures = all_metrics(times, scores)
        measured, predicted = clean(times, scores)
        rows = []
        for _ in range(resamples if measured.size > 1 else 0):
            draw = random.integers(measured.size, size=measured.size)
            rows.append(all_metrics(measured[draw], predicted[draw], subsets=20))
        columns = {metric: np.array([row[metric] for row in rows]) for metric in METRICS}
        replicates.append(columns)
        workloads[name] = {metric: _interval(figures[metric], columns[metric]) for metric in METRICS}
    mean, worst = {}, {}
    drawn = random.integers(max(1, len(groups)), size=(resamples, len(groups)))
    for metric, more_is_better in METRICS.items():
        values = [figures[metric].value for figures in workloads.values()]
        known = [value for value in values if not math.isnan(value)]
        pools = [columns[metric] for columns in replicates]
        means = [
            _mean([float(random.choice(pools[group])) for group in row if pools[group].size]) for row in drawn
        ]
        mean[metric] = _interval(_mean(values), np.array(means))
        worst[metric] = (min if more_is_better else max)(known, default=math.nan)
    return Summary(workloads, mean, worst)


def _interval(value: float, replicates: Array) -> Interval:
    known = replicates[~np.isnan(replicates)]
    if known.size < 2:
        return Interval(value)
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def noise_ceiling(
    pairs: Mapping[str, tuple[ArrayLike, ArrayLike]], resamples: int = 0, seed: int = 0
) -> Summary:
    """The metrics of a first measurement as predictor of a second: no predictor can be better.

    Args:
        pairs: workload to (first times, second times) of the same candidates.
    """
    return summarise({name: (second, first) for name, (first, second) in pairs.items()}, resamples, seed)
