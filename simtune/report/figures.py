# SPDX-License-Identifier: Apache-2.0
"""The figures over all trials: search progress, time against counters, failures, wall time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from simtune.counters import Counters, spec_of
from simtune.records.model import Trial
from simtune.report import style
from simtune.report.batch import distribution
from simtune.report.compare import bars, cache, cycles, mix
from simtune.report.data import Report, value_of
from simtune.report.space import space_map
from simtune.report.style import BEST, DEFAULT, FAILED, MUTED, SURFACE, TRIAL
from simtune.report.text import duration, percent, quantity

#: Above this many points a drawing is a picture inside the SVG: smaller, and as sharp as needed.
_RASTERIZE = 3000

#: In the name of an accelerator's counters that come from its timed run.
TIMED = ".t."


def draw(report: Report) -> dict[str, Any]:
    """All figures that this run has the data for, by name, in the order of the page."""
    drawings: dict[str, Callable[[Report], Any]] = {
        "progress": progress,
        "distribution": distribution,
        "map": space_map,
        "counters": counters,
        "mix": mix,
        "cache": cache,
        "cycles": cycles,
        "failures": failures,
        "time": wall_time,
    }
    with style.styled():
        drawn = {name: function(report) for name, function in drawings.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def progress(report: Report) -> Any:
    """Every trial and the best so far; below, failures at their place by status."""
    if not report.trials or report.is_batch:  # a batch's order means nothing
        return None
    valid = report.valid
    kinds = report.reasons
    strip = 0.19 * len(kinds) + 0.12 if kinds else 0.0
    main = 3.3 if valid or report.default_value is not None else 0.0
    figure = style.new_figure(main + strip + 0.5)
    heights = [height for height in (main, strip) if height]
    plots = figure.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    if main:
        _values(plots[0], report, valid)
    if kinds:
        _failure_strip(plots[-1], report, kinds)
    last = report.trials[-1].index
    first = report.trials[0].index
    plots[-1].set_xlim(first - 0.02 * (last - first) - 0.5, last + 0.02 * (last - first) + 0.5)
    plots[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    plots[-1].set_xlabel("trial")
    return figure


def _values(plot: Any, report: Report, valid: list[Trial]) -> None:
    index = np.array([trial.index for trial in valid], dtype=float)
    value = np.array([value_of(trial) for trial in valid])
    default = report.default_value
    shown = [*value, *([default] if default is not None else [])]
    style.number_axis(plot.yaxis, shown, report.unit)
    plot.set_ylabel(style.label(_with_unit(report)))
    plot.grid(axis="x", visible=False)
    marks: list[tuple[float, str, str]] = []
    if default is not None:
        plot.axhline(default, color=DEFAULT, linewidth=1.2, linestyle=(0, (5, 2.5)))
        marks.append((default, DEFAULT, f"TVM's default\n{quantity(default, report.unit)}"))
    if len(value):
        so_far = np.minimum.accumulate(value)
        better = np.concatenate([[True], value[1:] < so_far[:-1]])
        many = len(value) > _RASTERIZE
        plot.scatter(
            index[~better], value[~better], s=13, color=TRIAL, linewidths=0, alpha=0.85, rasterized=many
        )
        end = report.trials[-1].index
        plot.step([*index, end], [*so_far, so_far[-1]], where="post", color=BEST, linewidth=1.6)
        plot.scatter(
            index[better], value[better], s=24, color=BEST, edgecolors=SURFACE, linewidths=0.7, zorder=3
        )
        marks.append((so_far[-1], BEST, f"best so far\n{quantity(so_far[-1], report.unit)}"))
    _right_labels(plot, marks)


def _right_labels(plot: Any, marks: list[tuple[float, str, str]]) -> None:
    """Names the lines at their right ends, moved apart where they would overlap."""
    plot.set_ylim(*plot.get_ylim())  # from here on the scale stays
    place = plot.get_yaxis_transform().transform
    inverse = plot.transAxes.inverted().transform
    placed = sorted((float(inverse(place((1, value)))[1]), colour, text) for value, colour, text in marks)
    heights = [height for height, _, _ in placed]
    apart = 0.15
    if len(heights) == 2 and heights[1] - heights[0] < apart:
        middle = min(max(sum(heights) / 2, apart / 2 + 0.02), 0.98 - apart / 2)
        heights = [middle - apart / 2, middle + apart / 2]
    for height, (_, colour, text) in zip(heights, placed, strict=True):
        plot.text(1.012, height, text, transform=plot.transAxes, color=colour, va="center", linespacing=1.3)


def _failure_strip(plot: Any, report: Report, kinds: Mapping[str, list[int]]) -> None:
    for row, where in enumerate(kinds.values()):
        plot.scatter(
            where, [row] * len(where), marker="|", s=55, color=FAILED, linewidths=1.6,
            rasterized=len(where) > _RASTERIZE,
        )  # fmt: skip
    plot.set_yticks(
        range(len(kinds)), [f"{_reason(report, k)} ({len(w)})" for k, w in kinds.items()], color=FAILED
    )
    plot.set_ylim(len(kinds) - 0.4, -0.6)
    plot.grid(visible=False)
    plot.spines["left"].set_visible(False)


def counters(report: Report) -> Any:
    """Small multiples: the objective against counters, one point per candidate."""
    points = [
        (trial, report.counters[trial.index]) for trial in report.valid if trial.index in report.counters
    ]
    if not points:
        return None
    reference = report.counters_of(report.reference) if report.default_value is not None else None
    panels = []
    for name, unit, read in _telling(points) if report.is_template else _PANELS:
        pairs = [(read(found), value_of(trial), trial.index) for trial, found in points]
        known = [(x, y, index) for x, y, index in pairs if x is not None]
        if known and name != report.objective and len({x for x, _, _ in known}) > (len(points) > 1):
            panels.append((name, unit, known, read(reference) if reference is not None else None))
    if not panels:
        return None
    panels = panels[:6]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(2.3 * rows + 0.3)
    plots = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for plot in plots.flat[len(panels) :]:
        plot.set_visible(False)
    for plot, (name, unit, known, default) in zip(plots.flat, panels, strict=False):
        _panel(plot, report, name, unit, known, default)
    for row in plots:
        row[0].set_ylabel(style.label(_with_unit(report)))
    _legend(figure, report, reference is not None)
    return figure


def _telling(
    points: list[tuple[Trial, Counters]],
) -> list[tuple[str, str, Callable[[Counters], float | None]]]:
    """An accelerator's counters, those that follow the objective most closely first; no two alike."""
    values = np.array([value_of(trial) for trial, _ in points])
    ranked = []
    columns = {}
    for name in points[0][1]:
        if TIMED in name:  # parts of the answer
            continue
        counted = np.array([found.get(name, np.nan) for _, found in points])
        if np.isfinite(counted).all() and len(set(counted)) > 1 and len(set(values)) > 1:
            ranked.append((-abs(rank_correlation(counted, values)), name))
            columns[name] = counted
    chosen: list[str] = []
    for _, name in sorted(ranked):
        alike = any(abs(rank_correlation(columns[name], columns[other])) > 0.97 for other in chosen)
        if len(chosen) < 6 and not alike:
            chosen.append(name)
    units = {name: getattr(spec_of(name), "unit", "") for name in chosen}
    return [(name.partition(".")[2], units[name], _read(name)) for name in chosen]


def _read(name: str) -> Callable[[Counters], float | None]:
    return lambda found: found.get(name)


def _misses(level: str) -> Callable[[Counters], float | None]:
    return lambda found: found.misses(level)


def _dram(found: Counters) -> float | None:
    if "dram_read_bytes" not in found:
        return None
    return found["dram_read_bytes"] + found.get("dram_write_bytes", 0)


def _touched(found: Counters) -> float | None:
    if "load_bytes" not in found or "store_bytes" not in found:
        return None
    return found["load_bytes"] + found["store_bytes"]


#: What run time may follow, the most telling first: name, unit, and how to read it.
_PANELS: tuple[tuple[str, str, Callable[[Counters], float | None]], ...] = (
    ("instructions", "", _read("instructions")),
    ("issue_cycles", "", _read("issue_cycles")),
    ("L1D misses (lines)", "", _misses("l1d")),
    ("L2 misses (lines)", "", _misses("l2")),
    ("dram_bytes", "bytes", _dram),
    ("bytes accessed", "bytes", _touched),
    ("L3 misses (lines)", "", _misses("l3")),
    ("branch_mispredicts", "", _read("branch_mispredicts")),
)


def _panel(
    plot: Any,
    report: Report,
    name: str,
    unit: str,
    known: list[tuple[float, float, int]],
    default: float | None,
) -> None:
    x, y = np.array([k[0] for k in known]), np.array([k[1] for k in known])
    many = len(known) > _RASTERIZE
    plot.scatter(x, y, s=13, color=TRIAL, linewidths=0, alpha=0.75, rasterized=many)
    xs, ys = list(x), list(y)
    if default is not None and report.default_value is not None:
        plot.scatter(
            [default],
            [report.default_value],
            s=34,
            marker="D",
            color=DEFAULT,
            edgecolors=SURFACE,
            linewidths=0.7,
        )
        xs.append(default)
        ys.append(report.default_value)
    best = [(a, b) for a, b, index in known if report.best is not None and index == report.best.index]
    if best:
        plot.scatter(*zip(*best, strict=True), s=46, color=BEST, edgecolors=SURFACE, linewidths=0.7, zorder=3)
    style.number_axis(plot.xaxis, xs, unit, ticks=3)
    style.number_axis(plot.yaxis, ys, report.unit)
    plot.set_title(_words(name))
    plot.tick_params(labelleft=True)
    if len(known) >= 8 and len(set(y)) > 1:
        plot.set_title(f"rank corr. {rank_correlation(x, y):.2f}", loc="right", color=MUTED, fontsize=7.5)


def rank_correlation(x: Any, y: Any) -> float:
    """Spearman's coefficient, ties at their mean rank."""

    def ranks(values: Any) -> Any:
        _, inverse, number = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(number) - (number - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def _legend(figure: Any, report: Report, default: bool) -> None:
    from matplotlib.lines import Line2D

    kinds = [("o", TRIAL, 4, "candidate"), ("o", BEST, 6.5, "best")]
    if default:
        kinds.append(("D", DEFAULT, 5.5, "TVM's default"))
    handles = [
        Line2D([], [], marker=m, color=c, markersize=s, linestyle="", label=text) for m, c, s, text in kinds
    ]
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=3,
        handletextpad=0.1,
        borderpad=0.4,
        columnspacing=1.2,
    )


def failures(report: Report) -> Any:
    """How many candidates failed, by status."""
    kinds = {_reason(report, kind): len(where) for kind, where in report.reasons.items()}
    if not kinds:
        return None
    figure = style.new_figure(0.28 * len(kinds) + 0.45)
    plot = figure.subplots()
    numbers = list(kinds.values())
    texts = [f"{number} ({percent(number, len(report.trials))})" for number in numbers]
    bars(plot, list(kinds), [("", FAILED, numbers, texts)])
    plot.set_xlabel("candidates")
    plot.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return figure


def wall_time(report: Report) -> Any:
    """Where the time went: on the wall clock, and summed over workers."""
    run = "compile and simulate" if report.is_template else "link and simulate"
    names = {"search": "search", "build": "build", "run": run}
    wall = [(text, report.timings[name]) for name, text in names.items() if name in report.timings]
    stages = ("simulate",) if report.is_template else ("build", "link", "simulate")
    summed = [(stage, report.total(stage)) for stage in stages]
    if not any(seconds for _, seconds in summed):
        summed = []
    parts = [
        (f"wall clock, {duration(sum(s for _, s in wall))} in all", wall, MUTED),
        ("summed over all trials; several run at once", summed, TRIAL),
    ]
    parts = [part for part in parts if part[1]]
    if not parts:
        return None
    sizes = [len(rows) for _, rows, _ in parts]
    figure = style.new_figure(0.26 * sum(sizes) + 0.35 * len(parts) + 0.35)
    plots = figure.subplots(len(parts), squeeze=False, sharex=True, height_ratios=sizes)[:, 0]
    for plot, (title, rows, colour) in zip(plots, parts, strict=True):
        total = sum(seconds for _, seconds in rows)
        texts = [f"{quantity(seconds, 's')} ({percent(seconds, total)})" for _, seconds in rows]
        bars(plot, [name for name, _ in rows], [("", colour, [s for _, s in rows], texts)])
        plot.set_title(title)
    plots[-1].set_xlabel("seconds")
    plots[-1].set_xlim(0, 1.18 * max(seconds for _, rows, _ in parts for _, seconds in rows) or 1)
    return figure


def _with_unit(report: Report) -> str:
    """The name for an axis; ticks carry the symbol of units that have one."""
    unit = report.unit
    return f"{report.value_name} ({unit})" if unit and unit not in report.objective else report.value_name


def _reason(report: Report, kind: str) -> str:
    return style.label(kind) if report.is_template else _words(kind)


def _words(name: str) -> str:
    return str(name).replace("_", " ").replace("dram", "DRAM")
