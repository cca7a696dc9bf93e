# SPDX-License-Identifier: Apache-2.0
"""The models behind the tuners: boosted trees and the Gaussian process."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from simtune.templates import boosting
from simtune.templates.gaussian import Gaussian, Scale, expected_improvement

RNG = np.random.default_rng(7)
ROWS = RNG.integers(0, 6, size=(400, 5)).astype(float)
TRUTH = -np.abs(ROWS[:, 0] - 3) - 0.5 * ROWS[:, 1] * (ROWS[:, 2] > 2)


def test_ranking_learns_an_order_that_a_line_cannot() -> None:
    model = boosting.fit(ROWS[:200], TRUTH[:200], "rank")
    assert kendalltau(model.predict(ROWS[200:]), TRUTH[200:]).statistic > 0.85


def test_ranking_is_as_good_as_that_of_xgboost() -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost-cpu is an extra: pip install 'simtune[xgb]'")
    noisy = TRUTH + RNG.normal(0, 0.5, len(TRUTH))
    parameters = {"max_depth": 3, "gamma": 1e-4, "eta": 0.3, "objective": "rank:pairwise", "nthread": 1}
    theirs = xgboost.train(parameters, xgboost.DMatrix(ROWS[:200], noisy[:200]), 100)
    ours = boosting.fit(ROWS[:200], noisy[:200], "rank", rounds=100)
    their_tau = kendalltau(theirs.predict(xgboost.DMatrix(ROWS[200:])), TRUTH[200:]).statistic
    our_tau = kendalltau(ours.predict(ROWS[200:]), TRUTH[200:]).statistic
    assert our_tau > their_tau - 0.03


def test_squared_loss_equals_that_of_xgboost_in_its_predictions() -> None:
    xgboost = pytest.importorskip("xgboost", reason="xgboost-cpu is an extra: pip install 'simtune[xgb]'")
    parameters = {
        "max_depth": 3, "gamma": 1e-4, "eta": 0.3, "objective": "reg:squarederror", "nthread": 1,
        "tree_method": "exact", "base_score": float(TRUTH.mean()),
    }  # fmt: skip
    theirs = xgboost.train(parameters, xgboost.DMatrix(ROWS, TRUTH), 20).predict(xgboost.DMatrix(ROWS))
    ours = boosting.fit(ROWS, TRUTH, "squared", rounds=20).predict(ROWS)
    assert np.abs(ours - theirs).max() < 1e-3


def test_logistic_loss_gives_chances() -> None:
    labels = (ROWS[:, 0] * ROWS[:, 1] < 6).astype(float)
    model = boosting.fit(ROWS[:200], labels[:200], "logistic", rounds=60, least=0.1)
    chance = 1 / (1 + np.exp(-model.predict(ROWS[200:])))
    assert ((chance > 0.5) == (labels[200:] > 0.5)).mean() > 0.93


def test_nothing_to_learn_gives_a_model_that_says_nothing() -> None:
    same = boosting.fit(ROWS[:10], np.zeros(10), "rank")
    assert len(set(same.predict(ROWS).tolist())) == 1
    assert boosting.fit(ROWS[:1], np.ones(1), "squared").predict(ROWS[:3]) == pytest.approx([1, 1, 1])


def test_average_recall_is_one_for_the_true_order_and_small_for_the_reverse() -> None:
    figure = boosting.average_recall(TRUTH + 1e-6 * np.arange(len(TRUTH)), 20)
    assert figure(TRUTH + 1e-6 * np.arange(len(TRUTH))) == 1.0
    assert figure(-TRUTH) < 0.1


def test_gaussian_process_interpolates_and_is_unsure_far_away() -> None:
    rows = np.linspace(-2, 2, 15)[:, None]
    model = Gaussian(rows, np.sin(2 * rows[:, 0]))
    mean, deviation = model.predict(np.array([[0.1], [1.3], [9.0]]))
    assert mean[:2] == pytest.approx(np.sin([0.2, 2.6]), abs=0.05)
    assert deviation[2] > 5 * deviation[:2].max()
    mean, deviation = model.predict(rows)
    assert np.abs(mean - np.sin(2 * rows[:, 0])).max() < 0.02


def test_believing_a_mean_is_the_same_as_learning_it() -> None:
    rng = np.random.default_rng(1)
    known, others = rng.normal(size=(12, 3)), rng.normal(size=(30, 3))
    values = known @ [1.0, -2.0, 0.5] + np.sin(3 * known[:, 0])
    process = Gaussian(known, values)
    belief = process.posterior(others)
    mean = belief.mean.copy()
    for place in (4, 9):
        belief.believe(place)
    again = Gaussian(
        np.vstack([known, others[[4, 9]]]), np.append(values, mean[[4, 9]]), process.hyper
    ).predict(others)
    # The targets' scale changes a little with two more of them, and the deviation with it.
    scale = values.std() / np.append(values, mean[[4, 9]]).std()
    assert again[1] * scale == pytest.approx(belief.deviation, rel=1e-3, abs=1e-5)
    assert (belief.mean == mean).all()


def test_expected_improvement_agrees_with_a_million_draws() -> None:
    mean, deviation, best = np.array([1.0, 0.2]), np.array([0.5, 0.1]), 0.8
    draws = np.random.default_rng(0).normal(mean, deviation, size=(1_000_000, 2))
    expected = np.maximum(best - draws, 0).mean(axis=0)
    assert expected_improvement(mean, deviation, best) == pytest.approx(expected, rel=0.02)


def test_scaling_copes_with_constant_columns() -> None:
    rows = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert Scale.of(rows)(rows).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
