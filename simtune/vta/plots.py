# SPDX-License-Identifier: Apache-2.0
"""Figures of VTA: the map of a layer's space, and the schedule of one program."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from simtune.report import style
from simtune.report.style import INK, MUTED, SURFACE
from simtune.templates.space import Space
from simtune.vta.backend import Timeline

#: Colour of each code on the map; what the compiler refuses by shape is pale, by size darker.
_CODE_COLOURS = {
    "": "#0068a8",
    "VT_DIV": "#e3e6ea",
    "ST_2D": "#f1dcc6",
    "INP_PAD": "#e9d3de",
    "INP_2D": "#d7c9e6",
    "SRAM_INP": "#9fbf9a",
    "SRAM_WGT": "#7da87c",
    "SRAM_ACC": "#5d8f63",
    "UOP_SIG": "#d9b44a",
    "UOP_DEP": "#c24e00",
    "UOP_CNT": "#8c3a00",
}
_OTHER = "#59626d"

#: Axis of each knob, slowest first; tiles vary fastest, so that neighbours of a tile lie side by side.
_ROWS = ("h_nthread", "tile_ci", "tile_b", "tile_h")
_COLUMNS = ("oc_nthread", "tile_co", "tile_w")


def space_map(space: Space, codes: list[str], title: str) -> Any:
    """Every point of a space as one cell, coloured by why it fails."""
    with style.styled():
        names = [knob.name for knob in space.knobs]
        rows = [name for name in _ROWS if name in names]
        columns = [name for name in _COLUMNS if name in names]
        extents = {knob.name: len(knob.values) for knob in space.knobs}
        height, width = prod(extents[n] for n in rows), prod(extents[n] for n in columns)
        present = [code for code in _CODE_COLOURS if code in codes]
        present += sorted(set(codes) - set(present))
        number = {code: index for index, code in enumerate(present)}
        grid = np.array([number[code] for code in codes]).reshape([extents[n] for n in names])
        image = grid.transpose([names.index(n) for n in (*rows, *columns)]).reshape(height, width)
        figure = style.new_figure(float(np.clip(0.13 * height, 2.2, 7.5)) + 1.0)
        plot = figure.subplots()
        colours = ListedColormap([_CODE_COLOURS.get(code, _OTHER) for code in present])
        plot.imshow(
            image, cmap=colours, vmin=-0.5, vmax=len(present) - 0.5, aspect="auto", interpolation="none"
        )
        plot.grid(visible=False)
        _nested_ticks(plot, "y", space, rows, height)
        _nested_ticks(plot, "x", space, columns, width)
        plot.set_title(title, pad=28)
        handles = [
            Patch(color=_CODE_COLOURS.get(code, _OTHER), label=f"{code or 'valid'} ({codes.count(code):,})")
            for code in present
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=6)
        return figure


def _nested_ticks(plot: Any, axis: str, space: Space, names: list[str], total: int) -> None:
    """Ticks for the values of the innermost knob, bands and lines for those around it."""
    values = {knob.name: knob.values for knob in space.knobs}
    inner = values[names[-1]]
    labels = [str(inner[i % len(inner)]) for i in range(total)]
    every = max(1, total // 64)
    ticks = range(0, total, every)
    setter = getattr(plot, f"set_{axis}ticks")
    setter(list(ticks), [labels[i] for i in ticks], fontsize=6)
    outer = [name for name in names[:-1] if len(values[name]) > 1]
    block = total // len(values[outer[0]]) if outer else total
    line = plot.axhline if axis == "y" else plot.axvline
    for place in range(len(inner), total, len(inner)):
        strong = place % block == 0
        line(place - 0.5, color=INK if strong else SURFACE, linewidth=1.0 if strong else 0.8)
    text = " > ".join(name for name in names if len(values[name]) > 1 or name == names[-1])
    getattr(plot, f"set_{axis}label")(f"{text}  (the last one is on the ticks)")
    _bands(plot, axis, values, outer, total)


def _bands(plot: Any, axis: str, values: dict[str, tuple[int, ...]], outer: list[str], total: int) -> None:
    """The values of the outer knobs, written along the far side."""
    if not outer:
        return
    groups = prod(len(values[name]) for name in outer)
    size = total / groups
    if groups > 40:
        return
    for group in range(groups):
        rest, parts = group, []
        for name in reversed(outer):
            rest, digit = divmod(rest, len(values[name]))
            parts.append(f"{name}={values[name][digit]}")
        text = "\n".join(reversed(parts))
        middle = (group + 0.5) * size - 0.5
        if axis == "y":
            plot.annotate(
                text,
                (1.005, middle),
                xycoords=("axes fraction", "data"),
                fontsize=6,
                va="center",
                color=MUTED,
            )
        else:
            plot.annotate(
                text,
                (middle, 1.01),
                xycoords=("data", "axes fraction"),
                fontsize=6,
                ha="center",
                va="bottom",
                color=MUTED,
            )


#: What an instruction does, with its colour in the schedule.
_WORK = {
    "load inputs": "#5ab0ee",
    "load weights": "#0068a8",
    "load bias, micro-ops": "#7b9f35",
    "GEMM": "#c24e00",
    "reset": "#f2b98c",
    "ALU": "#a0407a",
    "store": "#1c2126",
    "waits for a token": "#e3e6ea",
}
_LANES = {"load": 2, "compute": 1, "store": 0}
#: Kind of work, lane, start, end.
_Bar = tuple[str, int, int, int]
#: Where a panel would have more bars, it shows shares in this many slices of its time.
_MOST_BARS = 900
_SLICES = 300
#: Cycles around the first tiles that the lower panel shows, as a share of the program, at most.
_DETAIL = 0.35


def gantt(lines: list[str], timeline: Timeline, title: str) -> Any:
    """The schedule of a program: what load, compute and store do when, whole and enlarged."""
    with style.styled():
        bars = _bars(lines, timeline)
        detail = _first_tiles(lines, timeline)
        panels = 2 if detail < _DETAIL * timeline.cycles else 1
        figure = style.new_figure(2.0 * panels + 0.7)
        plots = figure.subplots(panels, squeeze=False)[:, 0]
        _draw(plots[0], bars, 0, timeline.cycles)
        plots[0].set_title(title)
        if len(bars) > _MOST_BARS:
            plots[0].set_title(f"{title}; heights are shares of time")
        if panels == 2:
            _draw(plots[1], bars, 0, detail)
            plots[1].set_title("the first tiles, enlarged")
        plots[-1].set_xlabel("cycle")
        kinds = [kind for kind in _WORK if any(kind == bar[0] for bar in bars)]
        handles = [Patch(color=_WORK[kind], label=kind) for kind in kinds]
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return figure


def _bars(lines: list[str], timeline: Timeline) -> list[_Bar]:
    """Everything that takes time, waits included."""
    bars: list[_Bar] = []
    for line, (issue, start, end, _) in zip(lines, timeline.spans.tolist(), strict=True):
        name = line.split(" ", 1)[0]
        if name == "finish":
            continue
        base, _, memory = name.partition(".")
        module = "store" if base == "store" else "load" if memory in ("inp", "wgt") else "compute"
        lane = _LANES[module]
        if start > issue:
            bars.append(("waits for a token", lane, issue, start))
        if " x=0" in line:
            continue
        kind = {
            "load.inp": "load inputs",
            "load.wgt": "load weights",
            "gemm": "GEMM",
            "gemm.reset": "reset",
        }.get(name)
        if kind is None:
            kind = {"load": "load bias, micro-ops", "alu": "ALU", "store": "store"}[base]
        bars.append((kind, lane, start, end))
    return bars


def _first_tiles(lines: list[str], timeline: Timeline) -> int:
    """The end of the second round of stores, or of the first one."""
    ends: list[int] = []
    previous = False
    for line, span in zip(lines, timeline.spans.tolist(), strict=True):
        store = line.startswith("store") and " x=0" not in line
        if store and not previous:
            ends.append(span[2])
        elif store:
            ends[-1] = span[2]
        if store or not line.startswith(("store", "load.uop", "load.inp")):
            previous = store
    return ends[min(1, len(ends) - 1)] if ends else timeline.cycles


def _draw(plot: Any, bars: list[_Bar], low: int, high: int) -> None:
    shown = [bar for bar in bars if bar[2] < high and bar[3] > low]
    (_draw_shares if len(shown) > _MOST_BARS else _draw_bars)(plot, shown, low, high)
    plot.set_xlim(low, high)
    plot.set_ylim(-0.55, 2.55)
    plot.set_yticks(list(_LANES.values()), list(_LANES), color=INK)
    plot.grid(axis="y", visible=False)
    plot.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _draw_bars(plot: Any, bars: list[_Bar], low: int, high: int) -> None:
    for kind, colour in _WORK.items():
        boxes = [
            [(start, lane - 0.36), (end, lane - 0.36), (end, lane + 0.36), (start, lane + 0.36)]
            for what, lane, start, end in bars
            if what == kind
        ]
        if boxes:
            plot.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors=SURFACE, linewidths=0.25))


def _draw_shares(plot: Any, bars: list[_Bar], low: int, high: int) -> None:
    """Too many bars to see one: what each module spends its time on, in slices of the time."""
    edges = np.linspace(low, high, _SLICES + 1)
    for lane in _LANES.values():
        base = np.full(_SLICES, lane - 0.36)
        for kind, colour in _WORK.items():
            spans = np.array([(start, end) for what, at, start, end in bars if what == kind and at == lane])
            if not len(spans):
                continue
            spans = spans[np.argsort(spans[:, 0])]
            total = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
            times = spans.ravel()
            sums = np.stack([total[:-1], total[1:]], axis=1).ravel()
            share = np.diff(np.interp(edges, times, sums)) / np.diff(edges)
            top = base + 0.72 * share
            plot.stairs(top, edges, baseline=base, fill=True, color=colour, linewidth=0)
            base = top
