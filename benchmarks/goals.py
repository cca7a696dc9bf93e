# SPDX-License-Identifier: Apache-2.0
"""What predictors are meant to reach, on the x86 host and on gem5's two RISC-V cores, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from simtune.metrics import METRICS, Summary


@dataclass(frozen=True)
class Goal:
    """A bound on the mean or the worst workload of a metric.

    Attributes:
        trained: of the trained model, with the workload left out; else of the untrained one.
        over_ceiling: the bound is so much above the noise ceiling's figure.
    """

    metric: str
    of: str  # "mean" | "worst"
    bound: float
    trained: bool = True
    over_ceiling: bool = False


#: Trained figures leave one workload out over all operator types. Errors are in %.
HOST = (
    Goal("R_top1", "mean", 1.0),
    Goal("R_top1", "worst", 2.0),
    Goal("tau_b", "mean", 0.90),
    Goal("tau_b", "worst", 0.85),
    Goal("pairwise", "mean", 95.0),
    Goal("E_top1_resampled", "mean", 0.5, over_ceiling=True),
    Goal("tau_b", "mean", 0.88, trained=False),
    Goal("E_top1_resampled", "mean", 3.0, trained=False),
)

#: On gem5's labels, untrained. Of 60 candidates a rank of 1.7 % is perfect.
GEM5 = {
    "u74-like-minor": (
        Goal("tau_b", "mean", 0.93, trained=False),
        Goal("R_top1", "mean", 2.0, trained=False),
        Goal("R_top1", "worst", 5.0, trained=False),
    ),
    "boom-like-o3": (
        Goal("tau_b", "mean", 0.88, trained=False),
        Goal("R_top1", "mean", 2.0, trained=False),
        Goal("R_top1", "worst", 5.0, trained=False),
    ),
}
#: Median error of absolute cycles in %, untrained.
GEM5_CYCLES = 10.0


def better_everywhere(trained: Summary, untrained: Summary) -> list[str]:
    """Figures (means) in which a trained model is worse than the untrained one; empty when in none."""
    worse = []
    for metric, more in METRICS.items():
        new, old = trained.mean[metric].value, untrained.mean[metric].value
        if (new < old - 1e-12 if more else new > old + 1e-12) or math.isnan(new) != math.isnan(old):
            worse.append(metric)
    return worse


def judge(
    goals: tuple[Goal, ...],
    summaries: Mapping[str, Summary],
    trained: str,
    untrained: str,
    ceiling: Summary | None,
) -> list[dict[str, object]]:
    """One row per goal: what was wanted, what was reached, and whether that is enough."""
    rows: list[dict[str, object]] = []
    for goal in goals:
        model = trained if goal.trained else untrained
        bound = goal.bound
        if goal.over_ceiling:
            bound += ceiling.mean[goal.metric].value if ceiling else math.nan
        reached, low, high = math.nan, math.nan, math.nan
        if model in summaries:
            figure = summaries[model].mean[goal.metric]
            reached, low, high = figure.value, figure.low, figure.high
            if goal.of == "worst":
                reached, low, high = summaries[model].worst[goal.metric], math.nan, math.nan
        more = METRICS[goal.metric]
        known = not math.isnan(reached) and not math.isnan(bound)
        rows.append(
            {
                "goal": f"{goal.metric} {goal.of} {'at least' if more else 'at most'} {bound:.3g}"
                + (" (noise ceiling + 0.5)" if goal.over_ceiling else ""),
                "model": model,
                "trained": goal.trained,
                "bound": _known(bound),
                "reached": _known(reached),
                "interval": [_known(low), _known(high)],
                "ok": known and bool(reached >= bound if more else reached <= bound),
            }
        )
    return rows


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def text(rows: list[dict[str, object]]) -> str:
    """The rows for a terminal."""
    lines = []
    for row in rows:
        low, high = row["interval"]  # type: ignore[misc]
        interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        verdict = "reached" if row["ok"] else "missed "
        kind = "trained" if row["trained"] else "untrained"
        reached = "not judged" if row["reached"] is None else f"is {row['reached']:.3f}{interval}"
        lines.append(f"{verdict}  {kind}, {row['model']}: {row['goal']}; {reached}")
    return "\n".join(lines)
