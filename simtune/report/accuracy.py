# SPDX-License-Identifier: Apache-2.0
"""Figures of an evaluation of predictors: predicted against measured, rank curves, what features tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from simtune.crossvalidate import Evaluation
from simtune.dataset import Dataset
from simtune.features import Array, Features, window_means
from simtune.metrics import clean, ranked
from simtune.predictors.families import FAMILIES
from simtune.predictors.trained import CYCLES, TrainedPredictor, train
from simtune.report.style import BEST, DEFAULT, FAILED, MUTED, TRIAL, new_figure, number_axis, styled, to_png
from simtune.report.style import label as short

_COLOURS = (BEST, DEFAULT, FAILED, MUTED, TRIAL)
#: Trained models in the rank curves.
_CURVES = 6
_PANELS = 4  # in a row


def write_figures(
    evaluation: Evaluation, dataset: Dataset, folder: Path, optional: Sequence[str] = ()
) -> list[Path]:
    """Writes the figures as PNG; those of one model are of the one with the highest mean tau-b."""
    folder.mkdir(parents=True, exist_ok=True)
    name = best_model(evaluation)
    figures = {
        f"predicted-{name}.png": _scatter(evaluation, name),
        "rank-curves.png": _rank_curves(evaluation),
    }
    if name in FAMILIES:
        predictor = train(dataset.groups, name, target=dataset.target, optional=optional)
        figures[f"importance-{name}.png"] = _bars(importance(predictor, dataset), name)
    written = []
    for file, figure in figures.items():
        (folder / file).write_bytes(to_png(figure))
        written.append(folder / file)
    return written


def best_model(evaluation: Evaluation) -> str:
    """The model with the highest mean tau-b, a trained one where there is one."""

    def tau(name: str) -> float:
        value = evaluation.summaries[name].mean["tau_b"].value
        return -math.inf if math.isnan(value) else value

    trained = [name for name in evaluation.summaries if name in FAMILIES]
    return max(trained or list(evaluation.summaries), key=tau)


def importance(predictor: TrainedPredictor, dataset: Dataset, seed: int = 0) -> dict[str, float]:
    """How much worse a predictor gets without a feature, largest first.

    The increase of the standard error of log time, on its training data, when the feature, and the
    linear cost of the same name, is shuffled among the candidates of each workload.
    """
    random = np.random.default_rng(seed)
    inputs = predictor.inputs.columns
    total = dict.fromkeys(inputs, 0.0)
    weight = 0
    for group in dataset.groups:
        if len(group) < 2:
            continue
        features = predictor.features(group.counters, group.machine)
        means = window_means(features.values, "group")
        cycles = window_means(features.costs, "group")[:, CYCLES]
        truth = np.log(group.seconds / group.seconds.mean())
        usual = _error(predictor.apply(features, means, cycles)[0] - truth)
        for name, (column, cost) in inputs.items():
            order = random.permutation(len(group))
            values, costs = features.values.copy(), features.costs.copy()
            if column >= 0:
                values[:, column] = values[order, column]
            if cost >= 0:
                costs[:, cost] = costs[order, cost]
            shuffled = Features(values, costs, features.base_s, features.pipeline)
            error = _error(predictor.apply(shuffled, means, cycles)[0] - truth)
            total[name] += len(group) * (error - usual)
        weight += len(group)
    return dict(sorted(((n, v / max(1, weight)) for n, v in total.items()), key=lambda item: -item[1]))


def _error(difference: Array) -> float:
    return float(np.std(difference))


def _scatter(evaluation: Evaluation, name: str) -> Any:
    """One panel per workload: a point on the diagonal is predicted exactly."""
    columns = max(1, min(_PANELS, len(evaluation.groups)))
    rows = math.ceil(len(evaluation.groups) / columns)
    with styled():
        figure = new_figure(2.4 * rows + 0.3)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (label, group) in zip(axes, evaluation.groups.items(), strict=False):
            predicted = evaluation.scores[name][label]
            known = np.isfinite(predicted) & (predicted > 0)
            axis.scatter(group.seconds[known], predicted[known], s=7, color=BEST, alpha=0.6, linewidths=0)
            both = np.concatenate([group.seconds[known], predicted[known]])
            if both.size:
                axis.plot([both.min(), both.max()], [both.min(), both.max()], color=MUTED, linewidth=0.7)
                for side in (axis.xaxis, axis.yaxis):
                    number_axis(side, both.tolist(), "s", ticks=3)
            tau = evaluation.summaries[name].workloads[label]["tau_b"].value
            axis.set_title(f"{_title(label)}\ntau-b {tau:.3f}", fontsize=7)
            axis.tick_params(labelsize=6, which="both")
        for axis in axes[len(evaluation.groups) :]:
            axis.set_visible(False)
        figure.supxlabel("measured", fontsize=8)
        figure.supylabel(f"predicted, {name}", fontsize=8)
    return figure


def _title(label: str) -> str:
    """A workload's name in the width of a panel: conv2d:n1,c64,h14,…"""
    return short(label).replace("=", "")[:36]


def _rank_curves(evaluation: Evaluation) -> Any:
    """Loss of the best of the first k % predictions, mean over workloads; few models keep it legible."""
    smallest = max((len(group) for group in evaluation.groups.values()), default=100)
    shares = np.geomspace(1 / smallest, 1, 200)
    with styled():
        figure = new_figure(3.4)
        axis = figure.subplots()
        curves = {name: _curve(evaluation, scores, shares) for name, scores in evaluation.scores.items()}
        ranked_names = sorted(curves, key=lambda name: float(curves[name].mean()))
        baselines = [name for name in ranked_names if name not in FAMILIES]
        shown = {*[name for name in ranked_names if name in FAMILIES][:_CURVES], *baselines}
        for number, name in enumerate(name for name in ranked_names if name in shown):
            style = "--" if name in baselines else "-"
            colour = _COLOURS[number % len(_COLOURS)]
            label = f"{name} (untrained)" if name in baselines else name
            axis.step(
                100 * shares, curves[name], style, where="post", color=colour, label=label, linewidth=1.2
            )
        ceiling = _ceiling_curve(evaluation, shares)
        if ceiling is not None:
            axis.step(
                100 * shares, ceiling, ":", where="post", color=MUTED, label="noise ceiling", linewidth=1.6
            )
        axis.axvline(3, color=MUTED, linewidth=0.7)
        axis.set_xlim(100 * shares[0], 100)
        axis.set(xscale="log", xlabel="share of candidates that are measured, %")
        axis.set_ylabel("loss against the fastest, %")
        axis.set_yscale("symlog", linthresh=1)
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            side.set_minor_formatter(NullFormatter())
        axis.legend(fontsize=7, ncols=2)
    return figure


def _curve(evaluation: Evaluation, scores: Mapping[str, Array], shares: Array) -> Array:
    losses = [_loss(group.seconds, scores[label], shares) for label, group in evaluation.groups.items()]
    return np.asarray(np.mean(losses, axis=0)) if losses else np.zeros_like(shares)


def _ceiling_curve(evaluation: Evaluation, shares: Array) -> Array | None:
    """The same for a first measurement as predictor of a second; None where nothing was measured twice."""
    losses = []
    for group in evaluation.groups.values():
        both = np.isfinite(group.halves).all(axis=1)
        if both.sum() > 1:
            losses.append(_loss(group.halves[both, 1], group.halves[both, 0], shares))
    return np.asarray(np.mean(losses, axis=0)) if losses else None


def _loss(times: Array, scores: Array, shares: Array) -> Array:
    order = ranked(*clean(times, scores))
    if not order.size:
        return np.zeros_like(shares)
    best = 100 * (np.minimum.accumulate(order) / order.min() - 1)
    taken = np.maximum(1, np.floor(shares * order.size + 1e-9)).astype(int)
    return np.asarray(best[taken - 1])


def _bars(values: Mapping[str, float], name: str, top: int = 20) -> Any:
    shown = [(feature, value) for feature, value in values.items() if value > 0][:top]
    with styled():
        figure = new_figure(0.4 + 0.17 * max(1, len(shown)))
        axis = figure.subplots()
        axis.barh([feature for feature, _ in shown], [value for _, value in shown], color=BEST)
        axis.invert_yaxis()
        axis.set_xlabel(f"increase of the error of log time when shuffled, {name}")
        axis.tick_params(labelsize=7)
    return figure
