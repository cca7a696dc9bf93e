# SPDX-License-Identifier: Apache-2.0
"""The page of a batch: how its jobs ended, how their times are distributed. There was no search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from simtune.report import style, tables
from simtune.report.data import Report, value_of
from simtune.report.style import BEST, TRIAL
from simtune.report.text import escape, quantity

_BINS = 40


def distribution(report: Report) -> Any:
    """Histograms of predicted times and of instructions, both on logarithmic axes."""
    if not report.is_batch or not report.valid:
        return None
    times = [value_of(trial) for trial in report.valid]
    instructions = [
        counters["instructions"] for counters in report.counters.values() if "instructions" in counters
    ]
    panels = [("predicted time (s)", "s", times), ("instructions", "", instructions)]
    shown = [(name, unit, values) for name, unit, values in panels if values]
    figure = style.new_figure(2.4)
    for plot, (name, unit, values) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True
    ):
        _histogram(plot, values, unit)
        plot.set_xlabel(style.label(name))
        plot.set_ylabel("jobs")
    return figure


def _histogram(plot: Any, values: Sequence[float], unit: str) -> None:
    low, high = min(values), max(values)
    if low > 0 and high > low:
        bins = np.geomspace(low, high, _BINS + 1)
    else:
        bins = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    plot.hist(values, bins=bins, color=TRIAL)
    plot.axvline(median(values), color=BEST, linewidth=1.2)
    style.number_axis(plot.xaxis, values, unit)
    plot.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    plot.grid(axis="x", visible=False)


def head(report: Report) -> str:
    """Fastest, middle and slowest."""
    values = [value_of(trial) for trial in report.valid]
    if not values:
        return "<div><strong>none</strong><span>no job has a result</span></div>\n"
    shown = {"fastest": min(values), "median": median(values), "slowest": max(values)}
    return "".join(
        f"<div><strong>{escape(quantity(value, 's'))}</strong><span>{name} job, predicted</span></div>\n"
        for name, value in shown.items()
    )


def times(figures: Mapping[str, Any]) -> str:
    """The section of the distribution."""
    if "distribution" not in figures:
        return ""
    drawn = style.to_svg(figures["distribution"], "distribution", "Jobs by predicted time and instructions")
    return f"<h2>Times</h2>\n<p>The line is the median.</p>\n<figure>{drawn}</figure>\n"


def fastest(report: Report) -> str:
    """The section of the fastest jobs."""
    if not report.valid:
        return ""
    rows = []
    for trial in report.top:
        counted = report.counters_of(trial)
        instructions = counted.get("instructions") if counted is not None else None
        cells = [
            str(trial.index),
            quantity(value_of(trial), "s", 4),
            quantity(instructions),
            quantity(trial.simulate_s, "s"),
            report.jobs.get(trial.index, ""),
        ]
        rows.append([escape(cell) for cell in cells])
    heads = ["trial*", "predicted time*", "instructions*", "simulated in*", "job"]
    return f"<h2>Fastest jobs</h2>\n{tables.table(heads, rows)}"
