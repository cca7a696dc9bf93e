# SPDX-License-Identifier: Apache-2.0
"""What limits a predictor: its worst candidates, and the features that its errors go with."""

from __future__ import annotations

from typing import Any

import numpy as np

from simtune.crossvalidate import Evaluation
from simtune.features import FEATURES, OPTIONAL, extract, normalised, window_means

_WORST, _FEATURES = 8, 8


def limits(judged: Evaluation, model: str) -> dict[str, Any]:
    """Spread of log(measured / predicted) inside each workload, outliers, correlations of the error.

    Only the order and the ratios inside a workload count, so the errors of a workload have their median
    taken away. A correlation is a hint where to look, no cause.
    """
    spread: dict[str, float] = {}
    rows: list[tuple[float, str, str]] = []
    errors, inputs = [], []
    for label, group in judged.groups.items():
        predicted = judged.scores[model][label]
        known = np.isfinite(predicted) & (predicted > 0) & (group.seconds > 0)
        if known.sum() < 3:
            continue
        counters = [row for row, good in zip(group.counters, known, strict=True) if good]
        error = np.log(group.seconds[known] / predicted[known])
        error -= np.median(error)
        spread[label] = float(np.std(error))
        trials = [trial for trial, good in zip(group.trials, known, strict=True) if good]
        rows += [(float(e), label, trial) for e, trial in zip(error, trials, strict=True)]
        optional = [name for name, counter in OPTIONAL.items() if all(counter in row for row in counters)]
        values = extract(counters, group.machine, optional=optional).values
        errors.append(error)
        inputs.append(normalised(values, window_means(values, "group")))
    if not errors:
        return {}
    error, logs = np.concatenate(errors), np.concatenate(inputs)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [float(np.corrcoef(error, column)[0, 1]) for column in logs.T]
    ranked = sorted(
        ((name, r) for name, r in zip(FEATURES, found, strict=True) if np.isfinite(r)),
        key=lambda x: -abs(x[1]),
    )
    worst = sorted(rows, key=lambda row: -abs(row[0]))[:_WORST]
    return {
        "model": model,
        "sd_of_log_error": spread,
        "sd_overall": float(np.std(error)),
        "worst": [
            {"factor": float(np.exp(e)), "workload": label, "trial": trial} for e, label, trial in worst
        ],
        "errors_go_with": dict(ranked[:_FEATURES]),
    }


def text(found: dict[str, Any]) -> str:
    """For a terminal."""
    if not found:
        return "nothing to say about what limits it"
    worst = "\n".join(
        f"  {row['trial']} of {row['workload']}: measured {row['factor']:.2f} times its prediction"
        for row in found["worst"]
    )
    features = ", ".join(f"{name} {r:+.2f}" for name, r in found["errors_go_with"].items())
    return (
        f"{found['model']}: standard deviation of log(measured / predicted) inside workloads "
        f"{found['sd_overall']:.3f}; worst candidates (simtune explain tells more):\n{worst}\n"
        f"  errors go with (correlation): {features}"
    )
