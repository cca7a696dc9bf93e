# SPDX-License-Identifier: Apache-2.0
"""Judges predictors on workloads, or candidates, that they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simtune.dataset import SPLITS, Dataset, Fold, Group
from simtune.errors import ConfigurationError, ToolMissingError
from simtune.features import PIPELINE, Array
from simtune.metrics import Summary, noise_ceiling, summarise
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.families import FAMILIES
from simtune.predictors.trained import train

Baseline = Callable[[Group], Array]


def _analytical(group: Group) -> Array:
    predictor = AnalyticalPredictor()
    return np.array([predictor.predict(row, group.machine) for row in group.counters])


def _counter(name: str) -> Baseline:
    return lambda group: np.array([row.get(name, np.nan) for row in group.counters], float)


def _pipeline(group: Group) -> Array:
    return _counter(PIPELINE)(group) / group.machine.clock_hz


#: Predictors that need no training; "pipeline" and "mca" where these models were on.
BASELINES: Mapping[str, Baseline] = {
    "instructions": _counter("instructions"),
    "analytical": _analytical,
    "pipeline": _pipeline,
    "mca": lambda group: _counter("mca_cycles")(group) / group.machine.clock_hz,
}


@dataclass(frozen=True)
class Evaluation:
    """Every model's scores for every candidate, none of which it was trained on.

    Attributes:
        groups: label to group; labels are workload names, with the machine where there are several.
        scores: model to label to (N,) predicted seconds (instructions for that baseline).
        summaries: model to its metrics.
        ceiling: metrics of the first measurement as predictor of the second, None without repeats.
        unavailable: model to the reason why it was left out.
    """

    groups: Mapping[str, Group]
    scores: Mapping[str, Mapping[str, Array]]
    summaries: Mapping[str, Summary]
    ceiling: Summary | None
    unavailable: Mapping[str, str]


def default_models(dataset: Dataset) -> list[str]:
    """Baselines and all families; those on residuals too."""
    rows = [row for group in dataset.groups for row in group.counters]
    counted = {"pipeline": dataset.pipeline, "mca": all("mca_cycles" in row for row in rows)}
    baselines = [name for name in BASELINES if counted.get(name, True)]
    return baselines + list(FAMILIES)


def evaluate(
    dataset: Dataset,
    models: Sequence[str] = (),
    *,
    split: str = "leave-workload-out",
    window: str | None = None,
    normalise: str = "group",
    optional: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 200,
    progress: Callable[[str], None] = lambda _model: None,
) -> Evaluation:
    """Trains and tests every model on every fold of a split.

    Args:
        models: names out of `BASELINES` and `FAMILIES`; by default all that work here.
        split: "leave-workload-out" or "within".
        window: how the test workload's features are normalised, see `features.window_means`; no
            label of a test candidate is ever used. By default by all its candidates, or by the
            reference if `normalise` says so.
        normalise, optional: see `predictors.trained.train`.
        resamples: of the bootstrap.

    Raises:
        ConfigurationError: an unknown model or split, or a split that the data does not allow.
    """
    if split not in SPLITS:
        raise ConfigurationError(f"split '{split}' is unknown", f"allowed: {', '.join(SPLITS)}")
    names = list(models) or default_models(dataset)
    for name in names:
        if name not in BASELINES and name not in FAMILIES:
            raise ConfigurationError(
                f"model '{name}' is unknown", f"allowed: {', '.join([*BASELINES, *FAMILIES])}"
            )
    groups = _labelled(dataset.groups)
    learned = [name for name in names if name in FAMILIES]
    if learned and split == "leave-workload-out" and len({group.key for group in dataset.groups}) < 2:
        raise ConfigurationError(
            "leaving a workload out needs measurements of two or more workloads",
            "collect more, or use --split within",
        )
    scores: dict[str, dict[str, Array]] = {}
    unavailable = {}
    for name in names:
        progress(name)
        try:
            if name in BASELINES:
                scores[name] = {label: BASELINES[name](group) for label, group in groups.items()}
            else:
                folds = list(SPLITS[split](dataset.groups))
                found = out_of_fold(dataset, folds, name, window, seed, normalise, optional)
                scores[name] = dict(zip(groups, found, strict=True))
        except ToolMissingError as error:
            unavailable[name] = str(error)
    summaries = {
        name: summarise({label: (groups[label].seconds, rows[label]) for label in groups}, resamples, seed)
        for name, rows in scores.items()
    }
    return Evaluation(groups, scores, summaries, ceiling(groups, resamples, seed), unavailable)


def out_of_fold(
    dataset: Dataset,
    folds: Sequence[Fold],
    family: str,
    window: str | None = None,
    seed: int = 0,
    normalise: str = "group",
    optional: Sequence[str] = (),
) -> list[Array]:
    """Predicted seconds for every candidate, by a model whose training rows exclude it.

    Features of a test candidate are normalised by counters of all candidates of its workload.
    """
    groups = dataset.groups
    scores = [np.full(len(group), np.nan) for group in groups]
    for fold in folds:
        training = [group.take(rows) for group, rows in zip(groups, fold.train, strict=True) if len(rows)]
        predictor = train(
            training,
            family,
            target=dataset.target,
            seed=seed,
            pipeline=dataset.pipeline,
            normalise=normalise,
            optional=optional,
        )
        predictor.allow_other_machine = True  # the split decides what is tested on what
        for group, rows, own in zip(groups, fold.test, scores, strict=True):
            if len(rows):
                own[rows] = predictor.seconds(group.counters, group.machine, window)[rows]
    return scores


def ceiling(groups: Mapping[str, Group], resamples: int = 0, seed: int = 0) -> Summary | None:
    """The noise ceiling of the labels; over candidates that were measured twice."""
    pairs = {}
    for label, group in groups.items():
        both = np.isfinite(group.halves).all(axis=1)
        if both.sum() >= 2:
            pairs[label] = (group.halves[both, 0], group.halves[both, 1])
    return noise_ceiling(pairs, resamples, seed) if pairs else None


def _labelled(groups: Sequence[Group]) -> dict[str, Group]:
    """Groups by unique labels."""
    several = len({group.machine.name for group in groups}) > 1
    labelled: dict[str, Group] = {}
    for group in groups:
        label = f"{group.name} ({group.machine.name})" if several else group.name
        while label in labelled:
            label += "'"
        labelled[label] = group
    return labelled
