# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks conclude from figures: verdicts, shares, what limits a predictor."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from learning_helpers import planted_groups

from simtune.crossvalidate import evaluate
from simtune.dataset import Dataset
from simtune.metrics import METRICS, Interval, Summary

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def summary(**figures: tuple[float, float]) -> Summary:
    """A summary with (mean, worst) of some metrics; the others are perfect."""
    perfect = {
        name: (1.0 if name in ("tau_b", "spearman", "ndcg") else 100.0 if more else 0.0)
        for name, more in METRICS.items()
    }
    mean = {name: Interval(figures.get(name, (perfect[name], 0))[0], 0.0, 1.0) for name in METRICS}
    return Summary({}, mean, {name: figures.get(name, (0, perfect[name]))[1] for name in METRICS})


def test_goals_are_judged_by_the_model_they_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    goals = module("goals", monkeypatch)
    good, bad = summary(), summary(tau_b=(0.89, 0.84), E_top1_resampled=(2.9, 9.0), R_top1=(1.0, 2.1))
    ceiling = summary(E_top1_resampled=(2.5, 3.0))
    rows = goals.judge(goals.HOST, {"ensemble": bad, "pipeline": bad}, "ensemble", "pipeline", ceiling)
    verdicts = {(row["goal"].split(" at ")[0], row["trained"]): row["ok"] for row in rows}
    assert verdicts == {
        ("R_top1 mean", True): True,
        ("R_top1 worst", True): False,
        ("tau_b mean", True): False,
        ("tau_b worst", True): False,
        ("pairwise mean", True): True,
        ("E_top1_resampled mean", True): True,  # half a point above the ceiling is allowed
        ("tau_b mean", False): True,
        ("E_top1_resampled mean", False): True,
    }
    assert all(row["ok"] for row in goals.judge(goals.HOST, {"e": good, "p": good}, "e", "p", ceiling))
    assert goals.better_everywhere(good, bad) == []
    assert goals.better_everywhere(bad, good) == ["R_top1", "E_top1_resampled", "tau_b"]
    missing = goals.judge(goals.HOST, {}, "e", "p", None)
    assert not any(row["ok"] for row in missing)
    assert "not judged" in goals.text(missing)
    json.dumps(missing, allow_nan=False)


def test_what_limits_a_predictor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = module("limits", monkeypatch)
    data = Dataset(tuple(planted_groups(3)), "host", {})
    judged = evaluate(data, ["instructions"], resamples=3)
    goals = module("goals", monkeypatch)
    rows = goals.judge(goals.HOST, judged.summaries, "ensemble", "instructions", judged.ceiling)
    assert goals.text(rows).count("not judged") == 6
    json.dumps(rows, allow_nan=False)
    found = limits.limits(judged, "instructions")
    # Times are instructions, FMAs and misses: without the latter two, these are where errors come from.
    assert {"share.fp_fma", "l1d.misses"} & set(found["errors_go_with"])
    assert len(found["worst"]) == 8
    factors = [abs(math.log(row["factor"])) for row in found["worst"]]
    assert factors == sorted(factors, reverse=True)
    assert "correlation" in limits.text(found)
    json.dumps(found, allow_nan=False)


def test_search_figures_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    search = module("search", monkeypatch)

    def run(workload: str, ratio: float | None, measured: int) -> dict[str, Any]:
        arm = {"trials": 100, "measured": measured, "native_s": float(measured), "wall_s": 50.0}
        full = {"trials": 100, "measured": 100, "native_s": 100.0, "wall_s": 100.0}
        return {"workload": workload, "ratio": ratio, "simulated": arm, "native": full}

    found = search.summary([run("a", 1.0, 4), run("a", 1.02, 4), run("b", 0.98, 4), run("b", None, 4)])
    assert found["ratio"]["geometric_mean"] == pytest.approx((1.02 * 0.98) ** (1 / 3))
    assert found["ratio"]["worst"] == 1.02
    low, high = found["ratio"]["interval_95"]
    assert low <= found["ratio"]["geometric_mean"] <= high
    assert found["share_of_measurements"] == 0.04
    assert found["share_of_wall_seconds"] == 0.5
    assert [goal["ok"] for goal in found["goals"]] == [True, True]
    worse = search.summary([run("a", 1.05, 10)])
    assert [goal["ok"] for goal in worse["goals"]] == [False, False]
    assert search.summary([run("a", None, 4)])["goals"] == []


def test_the_benchmark_covers_the_kinds_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    predictors = module("predictors", monkeypatch)
    from simtune.tuning.workloads import parse

    kinds = [parse(name).kind for name in predictors.WORKLOADS]
    assert len(kinds) >= 8
    assert sum(kind.startswith("conv2d") for kind in kinds) >= 5
    assert {"matmul", "depthwise", "softmax"} <= set(kinds)
    assert len({parse(name).name for name in predictors.WORKLOADS}) == len(kinds)
    assert np.unique([parse(name).kind for name in predictors.QUICK]).size >= 3


def test_simulated_cluster_is_as_fast_as_its_slowest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = module("simulated_cluster", monkeypatch)

    def run(slots: int, driver_job: float, **more: Any) -> dict[str, Any]:
        costs = simulation.Costs(submit=0.0, job=driver_job, chunk=0.0, task=0.0, latency=0.0)
        count = 40 * slots
        return simulation.SimulatedCluster(costs, slots // 4, 4, [0.5] * count, [1.0] * count, **more).run()

    free = run(100, 0.0)
    assert free["busy_steady"] == pytest.approx(1.0)
    assert free["jobs_per_s"] == pytest.approx(200, rel=0.05)
    saturated = run(400, 0.002)  # 800 jobs a second would be needed, and 500 is what the driver can do
    assert saturated["jobs_per_s"] == pytest.approx(500, rel=0.05)
    assert saturated["driver_busy"] > 0.95
    dying = run(100, 0.0, lifetime=20.0, back=5.0)  # `run` asserts that every job ends exactly once
    assert dying["losses"] > 10
    assert dying["retries"] > 10
    assert 0.3 < dying["busy"] < 0.9
