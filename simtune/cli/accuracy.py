# SPDX-License-Identifier: Apache-2.0
"""An evaluation of predictors as tables for a terminal, and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from simtune.cli.output import count, make_table, print_out
from simtune.crossvalidate import Evaluation
from simtune.metrics import METRICS, Interval, Summary

#: What fits a terminal; `--json` has all.
SHOWN = ("R_top1", "E_top1", "E_top1_resampled", "E_top3", "tau_b", "pairwise")


def plain(summary: Summary) -> dict[str, Any]:
    """For JSON, where there is no NaN: null."""

    def interval(figure: Interval) -> list[float | None]:
        return [_known(figure.value), _known(figure.low), _known(figure.high)]

    def table(figures: Mapping[str, Interval]) -> dict[str, Any]:
        return {metric: interval(figure) for metric, figure in figures.items()}

    return {
        "mean": table(summary.mean),
        "worst": {metric: _known(value) for metric, value in summary.worst.items()},
        "workloads": {label: table(figures) for label, figures in summary.workloads.items()},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_tables(result: Evaluation) -> None:
    """All models over all workloads, then the workloads of the best model."""
    table = make_table(
        "model", *(f"{metric}*" for metric in SHOWN), title="mean [95 % interval] / worst workload"
    )
    rows = dict(result.summaries)
    if result.ceiling:
        rows["noise ceiling"] = result.ceiling
    for name, summary in rows.items():
        if name == "noise ceiling":
            table.add_section()
        cells = [cell(metric, summary.mean[metric], summary.worst[metric]) for metric in SHOWN]
        table.add_row(name, *cells)
    print_out(table)
    best = max(
        (name for name in result.summaries),
        key=lambda name: _order(result.summaries[name].mean["tau_b"].value),
    )
    print_out(workload_table(best, result))
    if result.ceiling:
        limit = result.ceiling.mean["tau_b"].value
        print_out(
            "No predictor can beat the noise ceiling: two measurements of the same candidates agree with "
            f"tau-b {limit:.3f}."
        )


def workload_table(model: str, result: Evaluation) -> Table:
    """The workloads of one model, each with its own ceiling."""
    title = f"workloads, model {model} (tau_b / that of a second measurement)"
    table = make_table("workload", "candidates*", *(f"{metric}*" for metric in SHOWN), title=title)
    for label, figures in result.summaries[model].workloads.items():
        cells = [cell(metric, figures[metric]) for metric in SHOWN]
        limit = result.ceiling.workloads.get(label) if result.ceiling else None
        if limit:
            cells[SHOWN.index("tau_b")] += f" / {_number('tau_b', limit['tau_b'].value)}"
        table.add_row(label, count(len(result.groups[label])), *cells)
    return table


def cell(metric: str, figure: Interval, worst: float | None = None) -> str:
    text = _number(metric, figure.value)
    if not math.isnan(figure.low):
        text += f" \\[{_number(metric, figure.low)}, {_number(metric, figure.high)}]"
    return text if worst is None else f"{text} / {_number(metric, worst)}"


def _number(metric: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    whole = metric in METRICS and metric not in ("tau_b", "spearman", "ndcg")  # in %
    return f"{value:.1f}" if whole else f"{value:.3f}"


def _order(value: float) -> float:
    return -math.inf if math.isnan(value) else value
