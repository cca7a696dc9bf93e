# SPDX-License-Identifier: Apache-2.0
"""The figures that compare the best schedule with TVM's default: mix, caches, cycles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simtune.counters import CACHE_LEVELS, INSTRUCTION_CLASSES, Counters
from simtune.report import style
from simtune.report.data import Report
from simtune.report.style import BEST, DEFAULT, GRID, SURFACE
from simtune.report.text import percent, quantity

#: Classes below this share of both schedules are drawn as one.
_LEAST_SHARE = 0.005

#: Name, colour, values by row (None: not counted), texts by row.
Series = tuple[str, str, Sequence[float | None], Sequence[str]]
Row = tuple[str, float | None, float | None]


def bars(plot: Any, rows: Sequence[str], series: Sequence[Series]) -> None:
    """Horizontal bars from zero, one per row and series, each with its value as text."""
    thick = 0.74 / len(series)
    for number, (_, colour, values, texts) in enumerate(series):
        for row, (value, text) in enumerate(zip(values, texts, strict=True)):
            if value is None:
                continue
            y = row + thick * (number - (len(series) - 1) / 2)
            plot.barh(y, value, height=thick * 0.88, color=colour)
            plot.annotate(text, (value, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
    plot.set_yticks(range(len(rows)), rows)
    plot.set_ylim(len(rows) - 0.5, -0.5)
    plot.grid(axis="y", visible=False)
    plot.spines["bottom"].set_visible(False)
    plot.xaxis.set_major_locator(MaxNLocator(6, steps=style.STEPS))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, digits=4)))
    largest = max((value for _, _, values, _ in series for value in values if value is not None), default=0)
    plot.set_xlim(0, 1.18 * largest or 1)  # room for the texts


def pair(report: Report) -> list[tuple[str, str, Counters]]:
    """Best and default, as far as they have counters: name, colour, counters."""
    best, default = report.counters_of(report.best), report.counters_of(report.reference)
    found = [("best", BEST, best), ("TVM's default", DEFAULT, default)]
    return [(name, colour, counted) for name, colour, counted in found if counted is not None]


def _key(figure: Any, entries: Sequence[tuple[str, str]]) -> None:
    handles = [Patch(color=colour, label=name) for name, colour in entries]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=2, borderpad=0.4, handlelength=1, handleheight=0.8,
        handletextpad=0.5, columnspacing=1.4,
    )  # fmt: skip


def mix(report: Report) -> Any:
    """Instructions by class."""
    sides = [(name, colour, _classes(counted)) for name, colour, counted in pair(report)]
    sides = [side for side in sides if side[2]]
    if not sides:
        return None
    totals = [sum(classes.values()) for _, _, classes in sides]

    def shares(name: str) -> list[float]:
        return [classes.get(name, 0) / total for (_, _, classes), total in zip(sides, totals, strict=True)]

    large = [name for name in INSTRUCTION_CLASSES if max(shares(name)) >= _LEAST_SHARE]
    large.sort(key=lambda name: -max(classes.get(name, 0) for _, _, classes in sides))
    series: list[Series] = []
    for (name, colour, classes), total in zip(sides, totals, strict=True):
        values = [classes.get(kind, 0) for kind in large]
        rest = total - sum(values)
        values.append(rest)
        series.append((name, colour, values, [f"{quantity(v)} ({percent(v, total)})" for v in values]))
    rows = [name.replace("_", " ") for name in large] + ["the rest"]
    if not any(values[-1] for _, _, values, _ in series):
        rows = rows[:-1]
        series = [(name, colour, values[:-1], texts[:-1]) for name, colour, values, texts in series]
    return _paired(rows, series, "instructions executed")


def _classes(counted: Counters) -> dict[str, float]:
    found = {name: counted.get(f"insn.{name}", 0.0) for name in INSTRUCTION_CLASSES}
    return found if any(value > 0 for value in found.values()) else {}


def cycles(report: Report) -> Any:
    """Predicted cycles by what they are spent on."""
    sides = [
        ("best", BEST, report.cycles.get("best")),
        ("TVM's default", DEFAULT, report.cycles.get("reference")),
    ]
    known = [(name, colour, parts) for name, colour, parts in sides if parts]
    rows = list(dict.fromkeys(part for _, _, parts in known for part in parts))
    rows = [row for row in rows if any(parts.get(row) for _, _, parts in known)]
    if not rows:
        return None
    series: list[Series] = []
    for name, colour, parts in known:
        total = sum(parts.values())
        values = [parts.get(row) for row in rows]
        texts = ["" if v is None else f"{quantity(v)} ({percent(v, total)})" for v in values]
        series.append((f"{name}: {quantity(total)} cycles", colour, values, texts))
    return _paired([_part(row) for row in rows], series, "predicted cycles")


def _part(name: str) -> str:
    above, arrow, below = name.partition("->")
    if arrow:
        return f"{above.upper()} misses, from {below.upper() if below != 'memory' else below}"
    known = {"issue": "issue, all in L1", "mispredicts": "branch mispredictions", "l1i": "L1I misses"}
    return known.get(name, name)


def _paired(rows: Sequence[str], series: Sequence[Series], unit: str) -> Any:
    figure = style.new_figure((0.22 + 0.13 * len(series)) * len(rows) * 0.82 + 0.75)
    plot = figure.subplots()
    bars(plot, rows, series)
    plot.set_xlabel(unit)
    _key(figure, [(name, colour) for name, colour, _, _ in series])
    return figure


def cache(report: Report) -> Any:
    """Misses, hit rates and traffic by level, as dots: their ranges span decades."""
    sides = pair(report)
    lines = {level: found.line for level, found in report.machine.caches.items()} if report.machine else {}
    panels: list[tuple[str, str, list[Row]]] = [
        ("misses (lines)", "", _rows(sides, lambda counted: _by_level(counted, "misses"))),
        ("hit rate", "%", _rows(sides, lambda counted: _by_level(counted, "hits"))),
        ("traffic (bytes)", "bytes", _rows(sides, lambda counted: _traffic(counted, lines))),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    most = max(len(rows) for _, _, rows in panels)
    figure = style.new_figure(0.42 * most + 1.0)
    plots = figure.subplots(1, len(panels), squeeze=False)[0]
    for plot, (title, unit, rows) in zip(plots, panels, strict=True):
        _dots(plot, rows, unit)
        plot.set_ylim(most - 0.5, -0.6)
        plot.set_title(title)
    _key(figure, [(name, colour) for name, colour, _ in sides])
    return figure


def _rows(sides: Sequence[tuple[str, str, Counters]], read: Any) -> list[Row]:
    """Label, value of the best, value of the default."""
    found = {name: read(counted) for name, _, counted in sides}
    best, default = found.get("best", {}), found.get("TVM's default", {})
    return [(label, best.get(label), default.get(label)) for label in {**best, **default}]


def _by_level(counted: Counters, what: str) -> dict[str, float]:
    found = {}
    for level in CACHE_LEVELS:
        misses, accesses = counted.misses(level), counted.accesses(level)
        if misses is None or not accesses:
            continue
        found[level.upper()] = misses if what == "misses" else 100 * (1 - misses / accesses)
    return found


def _traffic(counted: Counters, lines: dict[str, int]) -> dict[str, float]:
    """Bytes between neighbours: filled and written back; without line sizes only the two ends."""
    found = {}
    if "load_bytes" in counted and "store_bytes" in counted:
        found["core – L1D"] = counted["load_bytes"] + counted["store_bytes"]
    levels = [level for level in ("l1d", "l2", "l3") if level in lines]
    for level, below in zip(levels, levels[1:], strict=False):
        # Above L2, write misses are write-backs passing through: nothing is fetched for them.
        fills = counted.misses(level) if level == "l1d" else counted.get(f"{level}.read_misses")
        if fills is not None:
            moved = fills + counted.get(f"{level}.writebacks", 0)
            found[f"{level.upper()} – {below.upper()}"] = moved * lines[level]
    if "dram_read_bytes" in counted:
        last = f"{levels[-1].upper()} – " if levels else ""
        found[f"{last}memory"] = counted["dram_read_bytes"] + counted.get("dram_write_bytes", 0)
    return found


def _dots(plot: Any, rows: list[Row], unit: str) -> None:
    values = [value for _, *both in rows for value in both if value is not None]
    if unit == "%":
        low = min(values)
        span = max(100 - low, 0.01)
        plot.set_xlim(low - 0.18 * span, 100 + 0.18 * span)
        ticks = [tick for tick in MaxNLocator(4, steps=style.STEPS).tick_values(low, 100) if tick <= 100]
        plot.set_xticks(ticks, [f"{tick:.4g} %" for tick in ticks])
    else:
        style.number_axis(plot.xaxis, values, unit, ticks=3, margin=0.17)
    for y, (_, best, default) in enumerate(rows):
        if best is not None and default is not None:
            plot.plot([best, default], [y, y], color=GRID, linewidth=3, solid_capstyle="round", zorder=1)
        for value, colour, marker, size, above in (
            (default, DEFAULT, "D", 34, False),
            (best, BEST, "o", 46, True),
        ):
            if value is None:
                continue
            plot.scatter(
                [value],
                [y],
                s=size,
                marker=marker,
                color=colour,
                edgecolors=SURFACE,
                linewidths=0.7,
                zorder=3,
            )
            text = f"{value:.2f} %" if unit == "%" else quantity(value, unit)
            plot.annotate(
                text, (value, y), (0, 6 if above else -6), textcoords="offset points", color=colour,
                ha="center", va="bottom" if above else "top", fontsize=7,
            )  # fmt: skip
    plot.set_yticks(range(len(rows)), [label for label, _, _ in rows])
