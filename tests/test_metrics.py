# SPDX-License-Identifier: Apache-2.0
"""The metrics against hand-worked examples and scipy, and their rules for ties, NaN and N = 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simtune import metrics
from simtune.metrics import METRICS, all_metrics, noise_ceiling, summarise

# Five candidates; the predictor puts the second fastest first, the fastest third.
TIMES = [1.0, 2.0, 3.0, 4.0, 5.0]
SCORES = [30.0, 10.0, 20.0, 50.0, 40.0]  # predicted order: times 2, 3, 1, 5, 4


def test_hand_worked_example() -> None:
    figures = all_metrics(TIMES, SCORES)
    assert figures["R_top1"] == 60  # third of five
    assert figures["E_top1"] == 100  # 2 instead of 1
    assert figures["E_top3"] == 100  # 3 % of five is one candidate
    assert metrics.e_top(TIMES, SCORES, 0.6) == 0  # the best of the first three
    # low half: 2, 3: in order. High half: 5, 4: 1/5 lost over floor(5/2) = 2.
    assert figures["Q_low"] == 0
    assert figures["Q_high"] == pytest.approx(100 / 2 * 1 / 5)
    # discordant pairs: (1,2), (1,3), (4,5) of ten
    assert figures["tau_b"] == pytest.approx((7 - 3) / 10)
    assert figures["pairwise"] == pytest.approx(70)
    assert figures["spearman"] == pytest.approx(1 - 6 * (4 + 1 + 1 + 1 + 1) / (5 * 24))
    assert figures["recall_top10"] == 0  # the first one is not the fastest
    assert metrics.top_recall(TIMES, SCORES, 0.4) == 50  # {2, 3} against {1, 2}
    discount = [1 / math.log2(rank + 1) for rank in range(1, 6)]
    gained = sum(d / t for d, t in zip(discount, [2, 3, 1, 5, 4], strict=True))
    ideal = sum(d / t for d, t in zip(discount, TIMES, strict=True))
    assert figures["ndcg"] == pytest.approx(gained / ideal)


def test_perfect_and_reversed() -> None:
    times = np.arange(1, 101.0)
    perfect, reversed_ = all_metrics(times, 7 * times), all_metrics(times, -times)
    assert perfect == {
        "R_top1": 1,
        "E_top1": 0,
        "E_top3": 0,
        "E_top1_resampled": 0,
        "Q_low": 0,
        "Q_high": 0,
        "tau_b": 1,
        "spearman": pytest.approx(1),
        "pairwise": 100,
        "recall_top10": 100,
        "ndcg": pytest.approx(1),
    }
    assert reversed_["R_top1"] == 100
    assert reversed_["E_top1"] == 9900
    assert reversed_["tau_b"] == -1
    assert reversed_["pairwise"] == 0
    assert reversed_["Q_high"] > reversed_["Q_low"] > 0  # 1/t of the fast half is lost to the last


def test_equal_scores_get_no_credit() -> None:
    figures = all_metrics([1.0, 2.0, 3.0, 4.0], [0.0] * 4)
    assert figures["R_top1"] == 100
    assert figures["E_top1"] == 300
    assert figures["pairwise"] == 50
    assert math.isnan(figures["tau_b"])
    assert math.isnan(figures["spearman"])


def test_equal_times_are_equally_right() -> None:
    figures = all_metrics([1.0, 1.0, 2.0], [2.0, 1.0, 3.0])
    assert figures["R_top1"] == pytest.approx(100 / 3)
    assert figures["E_top1"] == 0
    assert figures["pairwise"] == 100  # the tied pair says nothing
    assert math.isnan(all_metrics([1.0, 1.0], [1.0, 2.0])["pairwise"])


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_candidates_are_nan_and_left_out_of_means(number: int) -> None:
    assert all(math.isnan(v) for v in all_metrics([1.0] * number, [1.0] * number).values())
    summary = summarise({"tiny": ([1.0] * number, [1.0] * number), "good": (TIMES, TIMES)}, 20)
    assert summary.mean["tau_b"].value == 1
    assert summary.worst["tau_b"] == 1


def test_no_truth_is_left_out_and_no_score_is_last() -> None:
    times = [math.nan, 0.0, -1.0, math.inf, 1.0, 2.0, 3.0]
    scores = [0.0, 0.0, 0.0, 0.0, math.nan, 1.0, 2.0]
    figures = all_metrics(times, scores)
    assert figures["R_top1"] == 100  # the fastest has no score: third of three
    assert figures["E_top1"] == 100
    assert figures["tau_b"] == pytest.approx(-1 / 3)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        metrics.r_top1([1.0, 2.0], [1.0])


pairs = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 12), min_size=n, max_size=n),
        st.lists(st.integers(-6, 6), min_size=n, max_size=n),
    )
)


@settings(max_examples=200, deadline=None)
@given(pairs)
def test_correlations_agree_with_scipy(pair: tuple[list[int], list[int]]) -> None:
    times, scores = (np.array(side, float) for side in pair)
    tau, pairwise = metrics.order_agreement(times, scores)
    constant = len(set(times)) == 1 or len(set(scores)) == 1
    if constant:
        assert math.isnan(tau)
        assert math.isnan(metrics.spearman(times, scores))
    else:
        assert tau == pytest.approx(stats.kendalltau(times, scores).statistic)
        assert metrics.spearman(times, scores) == pytest.approx(stats.spearmanr(times, scores).statistic)
    decided = [
        0.5 if scores[i] == scores[j] else float((scores[i] < scores[j]) == (times[i] < times[j]))
        for i in range(len(times))
        for j in range(i)
        if times[i] != times[j]
    ]
    assert pairwise == pytest.approx(100 * np.mean(decided)) if decided else math.isnan(pairwise)


def test_resampling_against_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    times, scores = random.uniform(1, 2, 150), random.uniform(1, 2, 150)
    found = metrics.resampled_e_top1(times, scores, subsets=4000)
    losses = []
    for _ in range(4000):
        draw = random.choice(150, 60, replace=False)
        losses.append(100 * (times[draw][np.argmin(scores[draw])] / times[draw].min() - 1))
    assert found == pytest.approx(np.mean(losses), rel=0.1)
    assert metrics.resampled_e_top1(times, times) == 0
    assert math.isnan(metrics.resampled_e_top1(TIMES[:3], SCORES[:3]))  # halves of one candidate


def test_intervals_hold_the_value_and_shrink_with_more_candidates() -> None:
    random = np.random.default_rng(0)

    def group(number: int) -> tuple[np.ndarray, np.ndarray]:
        times = random.uniform(1, 10, number)
        return times, times * np.exp(0.3 * random.standard_normal(number))

    summary = summarise({"small": group(30), "large": group(300)}, resamples=100)
    small, large = (summary.workloads[name]["tau_b"] for name in ("small", "large"))
    for figure in (small, large, summary.mean["tau_b"]):
        assert figure.low < figure.value < figure.high
    assert large.high - large.low < small.high - small.low
    assert summary.worst["tau_b"] == min(small.value, large.value)


def test_the_bootstrap_is_reproducible() -> None:
    groups = {"a": (TIMES * 3, SCORES * 3)}
    assert summarise(groups, 30, seed=5) == summarise(groups, 30, seed=5)


def test_noise_ceiling_is_the_first_measurement_as_predictor_of_the_second() -> None:
    random = np.random.default_rng(1)
    first = random.uniform(1, 10, 80)
    second = first * np.exp(0.05 * random.standard_normal(80))
    ceiling = noise_ceiling({"a": (first, second)})
    assert ceiling.mean["tau_b"].value == pytest.approx(stats.kendalltau(first, second).statistic)
    assert ceiling.mean["E_top1"].value == metrics.e_top(second, first)


def test_every_metric_is_reported() -> None:
    assert list(all_metrics(TIMES, SCORES)) == list(METRICS)
    assert metrics.random_expectation(TIMES * 10)["pairwise"] == pytest.approx(50, abs=8)
