# SPDX-License-Identifier: Apache-2.0
"""The map of a template space: every point as a cell, with what was tried in it."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patches import Patch

from simtune.report import style
from simtune.report.data import Report, value_of
from simtune.report.style import FAILED, GRID, INK, MUTED, SURFACE
from simtune.report.text import quantity

#: A map of more cells than this would show nothing.
_LARGEST = 60_000

#: Fills of invalid points by reason, most frequent first; distinct in print as well.
_FILLS = ("#e9d3de", "#d9dde2", "#eaddc9", "#f3efc8", "#dcd3ea", "#d5e3d0")


def space_map(report: Report) -> Any:
    """All points of the space on two axes, each of which counts through several knobs.

    The knobs are dealt out to the axes so that both get about as long; the first knob of an axis
    changes slowest. Blue cells are valid points, pale ones invalid by reason, dots are trials.
    """
    knobs = [(name, values) for name, values in report.knobs]
    size = prod(len(values) for _, values in knobs)
    if not knobs or size > _LARGEST or not report.configs:
        return None
    rows, columns = _axes([(name, len(values)) for name, values in knobs])
    high, wide = _length(rows, knobs), _length(columns, knobs)
    figure = style.new_figure(min(6.6, max(3.2, 6.4 * high / max(wide, 1)) + 0.9))
    plot = figure.subplots()
    shown = _cells(report, knobs, rows, columns, high, wide)
    handles = []
    if shown is not None:
        image, names = shown
        plot.imshow(image, interpolation="nearest", aspect="auto", extent=(0, wide, high, 0))
        handles = [Patch(color=colour, label=f"{name} ({number:,})") for name, colour, number in names]
    places = {
        index: (_place(config, rows, knobs) + 0.5, _place(config, columns, knobs) + 0.5)
        for index, config in report.configs.items()
    }
    failed = [places[t.index] for t in report.trials if not t.ok and t.index in places]
    if failed:
        plot.scatter(
            [x for _, x in failed], [y for y, _ in failed], marker="x", s=16, color=FAILED, linewidths=1.1
        )
        handles.append(_mark("x", FAILED, f"failed trial ({len(failed)})"))
    valid = [t for t in report.valid if t.index in places]
    if valid:
        costs = np.array([value_of(trial) for trial in valid])
        low, top = costs.min(), max(costs.max(), costs.min() * 1.0001)
        norm = LogNorm(low, top) if low > 0 else None
        dots = plot.scatter(
            [places[t.index][1] for t in valid],
            [places[t.index][0] for t in valid],
            c=costs,
            norm=norm,
            cmap=LinearSegmentedColormap.from_list("cost", [INK, MUTED, SURFACE]),
            s=20,
            edgecolors=INK,
            linewidths=0.6,
        )
        bar = figure.colorbar(dots, ax=plot, shrink=0.6, pad=0.01)
        bar.set_label(style.label(report.value_name))
        style.number_axis(bar.ax.yaxis, costs.tolist(), report.unit, ticks=4, margin=0)
        bar.ax.set_ylim(low, top)
        bar.ax.grid(visible=False)
        handles.append(_mark("o", MUTED, f"trial ({len(valid)})"))
        best = min(valid, key=value_of)
        y, x = places[best.index]
        plot.scatter([x], [y], marker="*", s=130, color="#e8a300", edgecolors=INK, linewidths=0.7, zorder=4)
        handles.append(_mark("*", "#e8a300", f"best, {quantity(value_of(best), report.unit)}"))
    plot.set_xlim(0, wide)
    plot.set_ylim(high, 0)
    plot.grid(visible=False)
    _ticks(plot.xaxis, columns, knobs)
    _ticks(plot.yaxis, rows, knobs)
    figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=7, borderpad=0.3)
    return figure


def _axes(knobs: list[tuple[str, int]]) -> tuple[list[int], list[int]]:
    """Numbers of the knobs on each axis, slowest first; larger knobs first, to the shorter axis."""
    rows: list[int] = []
    columns: list[int] = []
    high = wide = 1
    for number in sorted(range(len(knobs)), key=lambda n: (-knobs[n][1], n)):
        if knobs[number][1] == 1:
            continue
        if wide <= high:
            columns.append(number)
            wide *= knobs[number][1]
        else:
            rows.append(number)
            high *= knobs[number][1]
    # Few values vary slowest: large blocks side by side, with the fine structure inside.
    return sorted(rows, key=lambda n: knobs[n][1]), sorted(columns, key=lambda n: knobs[n][1])


def _length(axis: list[int], knobs: list[tuple[str, tuple[int, ...]]]) -> int:
    return prod(len(knobs[number][1]) for number in axis)


def _place(config: Any, axis: list[int], knobs: list[tuple[str, tuple[int, ...]]]) -> int:
    place = 0
    for number in axis:
        name, values = knobs[number]
        place = place * len(values) + values.index(config[name])
    return place


def _cells(
    report: Report,
    knobs: list[tuple[str, tuple[int, ...]]],
    rows: list[int],
    columns: list[int],
    high: int,
    wide: int,
) -> tuple[Any, list[tuple[str, str, int]]] | None:
    """The coloured cells, and what the colours mean."""
    extents = tuple(len(values) for _, values in knobs)
    if len(report.codes) != prod(extents):
        return None
    numbers: dict[str, int] = {}
    for code in report.codes:
        numbers[code] = numbers.get(code, 0) + 1
    invalid = sorted((code for code in numbers if code), key=lambda code: (-numbers[code], code))
    colours = {"": "#9cc7e6"}
    for place, code in enumerate(invalid):
        colours[code] = _FILLS[place] if place < len(_FILLS) else GRID
    cells = np.array(report.codes, dtype=object).reshape(extents)
    single = [number for number in range(len(knobs)) if number not in rows and number not in columns]
    cells = cells.transpose(*single, *rows, *columns).reshape(high, wide)
    rgb = {code: [int(colour[i : i + 2], 16) for i in (1, 3, 5)] for code, colour in colours.items()}
    image = np.array([[rgb[code] for code in line] for line in cells], dtype=np.uint8)
    shown = [(code or "valid", colours[code], numbers[code]) for code in ["", *invalid] if code in numbers]
    return image, shown


def _ticks(axis: Any, chosen: list[int], knobs: list[tuple[str, tuple[int, ...]]]) -> None:
    """Values of the slowest knobs as ticks, as many as there is room for; the others are named."""
    if not chosen:
        axis.set_ticks([])
        return
    total = _length(chosen, knobs)
    depth, groups = 0, 1
    while depth < len(chosen) and groups * len(knobs[chosen[depth]][1]) <= 16:
        groups *= len(knobs[chosen[depth]][1])
        depth += 1
    labels = []
    for group in range(groups):
        texts, rest = [], group
        for number in reversed(chosen[:depth]):
            values = knobs[number][1]
            texts.append(str(values[rest % len(values)]))
            rest //= len(values)
        labels.append("·".join(reversed(texts)))
    step = total / groups
    axis.set_ticks([step * (group + 0.5) for group in range(groups)], labels)
    for group in range(1, groups):
        line = axis.axes.axvline if axis.axis_name == "x" else axis.axes.axhline
        line(step * group, color=SURFACE, linewidth=0.8)
    outer = "·".join(knobs[number][0] for number in chosen[:depth])
    inner = ", then ".join(knobs[number][0] for number in chosen[depth:])
    axis.set_label_text(outer + (f"; within: {inner}" if inner else ""))


def _mark(marker: str, colour: str, text: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color=colour, markersize=6, linestyle="", label=text)
