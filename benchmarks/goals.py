# SPDX-License-Identifier: Apache-2.0
"""What predictors on the x86 host are meant to reach, and whether they do."""

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
                "ok": known and (reached >= bound if more else reached <= bound),
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
