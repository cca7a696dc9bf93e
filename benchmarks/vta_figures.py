# SPDX-License-Identifier: Apache-2.0
"""Figures of the VTA benchmarks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, NullLocator

from simtune.report.style import BEST, DEFAULT, FAILED, INK, MUTED, TRIAL, new_figure, styled, to_png

#: Cases whose progress is drawn, with colour and dash.
CURVES = {
    "random": (TRIAL, ":"),
    "annealing": (DEFAULT, "-"),
    "initialised": (FAILED, "-"),
    "compiler": (MUTED, "--"),
    "validity, features": (INK, "--"),
    "validity": (BEST, "-"),
}


def validity_figures(layers: list[dict[str, Any]], cases: tuple[str, ...], folder: Path) -> list[Path]:
    """Trials by tuner and layer, and the progress of the main tuners."""
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        figures = {
            "vta-trials.png": _trials(layers, cases),
            "vta-progress.png": _progress(layers),
            "vta-invalid.png": _invalid(layers, cases),
        }
    written = []
    for name, figure in figures.items():
        (folder / name).write_bytes(to_png(figure))
        written.append(folder / name)
    return written


def _plain(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _panels(layers: list[dict[str, Any]], height: float, columns: int) -> tuple[Any, list[Any]]:
    rows = math.ceil(len(layers) / columns)
    figure = new_figure(height * rows + 0.4)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).ravel())
    for axis in axes[len(layers) :]:
        axis.set_visible(False)
    return figure, axes


def _trials(layers: list[dict[str, Any]], cases: tuple[str, ...]) -> Any:
    """Median and quartiles of the trials to within 1 %; one panel per layer."""
    figure, axes = _panels(layers, 0.17 * len(cases) + 0.5, 2)
    for number, (axis, layer) in enumerate(zip(axes, layers, strict=False)):
        for row, case in enumerate(cases):
            low, middle, high = np.percentile([run["trials"] for run in layer["runs"][case]], [25, 50, 75])
            colour = CURVES[case][0] if case in CURVES else TRIAL
            axis.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round")
            axis.scatter([middle], [row], s=22, color=colour, zorder=3)
            axis.annotate(
                f"{middle:g}", (high, row), (5, 0), textcoords="offset points", va="center", fontsize=6.5
            )
        axis.set_title(f"{layer['layer']}: {layer['valid']:,} of {layer['space']:,} valid", fontsize=8)
        axis.set_xscale("log")
        axis.set_ylim(len(cases) - 0.5, -0.5)
        axis.set_yticks(range(len(cases)), cases if number % 2 == 0 else [""] * len(cases), fontsize=7)
        axis.set_xlim(0.8, 4000)
        _plain(axis.xaxis)
    figure.supxlabel("trials to within 1 % of the best: median and quartiles", fontsize=8)
    return figure


def _progress(layers: list[dict[str, Any]]) -> Any:
    """Median best so far over the best of all, by trial, with its quartiles."""
    figure, axes = _panels(layers, 1.8, min(3, len(layers)))
    for axis, layer in zip(axes, layers, strict=False):
        shown = [case for case in CURVES if case in layer["runs"]]
        length = max(len(run["curve"]) for case in shown for run in layer["runs"][case])
        for case in shown:
            colour, dash = CURVES[case]
            curves = [run["curve"] for run in layer["runs"][case]]
            # A run that ended has found it: its line goes on where it ended.
            grid = np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in curves])
            low, middle, high = np.percentile(np.minimum(grid, 1e3), [25, 50, 75], axis=0)
            place = np.arange(1, length + 1)
            axis.step(place, middle, dash, where="post", color=colour, linewidth=1.3, label=case)
            axis.fill_between(place, low, high, step="post", color=colour, alpha=0.12, linewidth=0)
        axis.set_title(layer["layer"], fontsize=8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(0.98, 5)
        axis.set_yticks([1, 1.2, 1.5, 2, 3, 5])
        axis.set_xticks([1, 3, 10, 30, 100, 300, 1000])
        _plain(axis.xaxis)
        _plain(axis.yaxis)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=6, fontsize=7)
    figure.supxlabel("trial", fontsize=8)
    figure.supylabel("best so far / best", fontsize=8)
    return figure


def _invalid(layers: list[dict[str, Any]], cases: tuple[str, ...]) -> Any:
    """Trials that were invalid, and valid ones, on the way to 1 %; medians summed over layers."""
    figure = new_figure(0.2 * len(cases) + 0.6)
    axis = figure.subplots()
    for row, case in enumerate(cases):
        bad = sum(float(np.median([run["invalid"] for run in layer["runs"][case]])) for layer in layers)
        all_ = sum(float(np.median([run["trials"] for run in layer["runs"][case]])) for layer in layers)
        axis.barh(row, all_ - bad, color=BEST, height=0.7, label="valid" if not row else None)
        axis.barh(row, bad, left=all_ - bad, color=FAILED, height=0.7, label="invalid" if not row else None)
        axis.annotate(
            f"{all_:g}, {bad:g} invalid",
            (all_, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axis.set_yticks(range(len(cases)), cases, fontsize=7)
    axis.set_ylim(len(cases) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlim(0, axis.get_xlim()[1] * 1.12)
    axis.set_xlabel(f"median trials to within 1 %, summed over {len(layers)} layers")
    figure.legend(loc="outside upper left", ncols=2, fontsize=7)
    return figure


def predictor_figures(document: dict[str, Any], points: dict[str, Any], folder: Path) -> list[Path]:
    """Rank quality by model and kind of features, and predicted against simulated cycles."""
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        figures = {"vta-ranks.png": _ranks(document), "vta-predicted.png": _predicted(points)}
    for name, figure in figures.items():
        (folder / name).write_bytes(to_png(figure))
    return [folder / name for name in figures]


def _ranks(document: dict[str, Any]) -> Any:
    """One row per model and kind of features: tau-b of each layer, and the mean."""
    rows = [
        (kind, model, row) for kind, models in document["results"].items() for model, row in models.items()
    ]
    figure = new_figure(0.2 * len(rows) + 0.6)
    axis = figure.subplots()
    for place, (_, _, row) in enumerate(rows):
        axis.scatter(list(row["layers"].values()), [place] * len(row["layers"]), s=14, color=TRIAL, alpha=0.8)
        axis.scatter([row["tau_b_mean"]], [place], s=40, color=BEST, zorder=3)
        axis.annotate(
            f"{row['tau_b_mean']:.3f}", (1.0, place), (6, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=7, color=BEST,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), [f"{kind}: {model}" for kind, model, _ in rows], fontsize=7)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("tau-b on the layer left out; blue: mean")
    return figure


def _predicted(points: dict[str, Any]) -> Any:
    """Predicted against simulated cycles, one panel per layer that was left out."""
    names = list(points)
    columns = 4
    rows = math.ceil(len(names) / columns)
    figure = new_figure(1.9 * rows + 0.4)
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, names, strict=False):
        truth, predicted = (np.asarray(values, dtype=float) for values in points[name])
        axis.scatter(truth, predicted, s=5, color=BEST, alpha=0.5, linewidths=0)
        both = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
        axis.plot(both, both, color=MUTED, linewidth=0.7)
        axis.set_xscale("log")
        axis.set_yscale("log")
        for side in (axis.xaxis, axis.yaxis):
            side.set_minor_locator(NullLocator())
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g}"))
        axis.tick_params(labelsize=6)
        axis.set_title(name, fontsize=7)
    figure.supxlabel("simulated, million cycles", fontsize=8)
    figure.supylabel("predicted", fontsize=8)
    return figure
