# SPDX-License-Identifier: Apache-2.0
"""The look of the figures: colours, axes, and their output as SVG or PNG.

Figures are drawn in the colours of a light page. In the SVG each colour becomes a variable of the
page's style sheet, so that one drawing suits light and dark pages.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from simtune.report.text import clean, escape, quantity

# Blue, orange and purple of Okabe and Ito, darkened so that they can be read as text as well.
INK, MUTED, GRID, SURFACE = "#1c2126", "#59626d", "#e3e6ea", "#fefefe"
BEST, DEFAULT, TRIAL, FAILED = "#0068a8", "#c24e00", "#97a1ac", "#a0407a"

#: Colour to (variable in the style sheet, its value on dark pages).
COLOURS = {
    INK: ("--ink", "#e6e9ed"),
    MUTED: ("--muted", "#9ba5b1"),
    GRID: ("--grid", "#343b44"),
    SURFACE: ("--surface", "#16191d"),
    BEST: ("--best", "#5ab0ee"),
    DEFAULT: ("--default", "#f2914e"),
    TRIAL: ("--trial", "#77828e"),
    FAILED: ("--failed", "#dd8abb"),
}

#: Steps between ticks, in units of a power of ten; matplotlib would also take 1.5, 3, 6 and 8.
STEPS = (1, 2, 2.5, 5, 10)

WIDTH = 8.4  # inches; the column of the page is about 1.4 times as wide in CSS pixels

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # objective names are the user's, a "$" in them is a dollar
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",
}


@contextmanager
def styled() -> Iterator[None]:
    """Inside, matplotlib draws in this style; the caller's own settings come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(height: float) -> Any:
    return Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04))


def label(text: object) -> str:
    """Text for a figure: one line, of bearable length."""
    line = " ".join(clean(text).split())
    return line if len(line) <= 60 else line[:59] + "…"


def number_axis(
    axis: Any, values: Sequence[float], unit: str, *, ticks: int = 5, margin: float = 0.06
) -> None:
    """Scale, limits and ticks of an axis that shows these values.

    `ticks` is about how many there is room for; `margin` is kept free at both ends, as a share.

    Logarithmic wherever it can be: tuning is about factors. Negative values need a linear axis,
    and zeros a part around zero that is linear.
    """
    low, high = min(values), max(values)
    name = axis.axis_name
    scale, limits = getattr(axis.axes, f"set_{name}scale"), getattr(axis.axes, f"set_{name}lim")
    positive = [value for value in values if value > 0]
    if low < 0 or not positive:
        axis.set_major_locator(MaxNLocator(ticks, steps=STEPS))
    elif low == 0:
        start = min(positive)
        scale("symlog", linthresh=start, linscale=0.5)
        limits(-0.2 * start, high * 1.5)
        axis.set_major_locator(_ZeroLog(start))
    else:
        free = max((high / low) ** margin, 1.04)
        low, high = low / free, high * free
        scale("log")
        limits(low, high)
        decades = math.log10(high / low)
        if decades < 0.7:
            axis.set_major_locator(MaxNLocator(ticks, steps=STEPS))
        else:
            subs = (1, 2, 5) if decades < 0.4 * ticks else (1, 3) if decades < 0.7 * ticks else (1,)
            axis.set_major_locator(LogLocator(subs=subs, numticks=ticks + 2))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value, unit, 4)))


class _ZeroLog(LogLocator):
    """Decades of a symlog axis, and its zero."""

    def __init__(self, start: float) -> None:
        super().__init__(numticks=6)
        self.start = start

    def tick_values(self, vmin: float, vmax: float) -> Any:
        return [0.0, *super().tick_values(self.start, max(vmax, self.start * 1.01))]


def to_png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with styled():  # some settings, such as that of mathematics, count when text is laid out
        figure.savefig(buffer, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Any, name: str, description: str) -> str:
    """The figure as an element for an HTML page; `name` keeps its ids apart from other figures'."""
    buffer = io.StringIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The style element would hold for the whole page; the page's own sheet has the same rule.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id=")', rf"\g<1>{name}-", text)
    text = re.sub(r'((?:href="|url\()#)', rf"\g<1>{name}-", text)
    for colour, (variable, _) in COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1).strip()
