# SPDX-License-Identifier: Apache-2.0
"""Judges predictors on workloads, or candidates, that they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from simtune.dataset import SPLITS, Dataset, Fold, Group
from simtune.errors import ConfigurationError, ToolMissingError
from simtune.features import PIPELINE, Array, window_means
from simtune.inputs import common_inputs
from simtune.metrics import Summary, noise_ceiling, summarise
from simtune.predictors.analytical import static_parts
from simtune.predictors.families import FAMILIES
from simtune.predictors.trained import train

Baseline = Callable[[Group], Array]


def _analytical(group: Group) -> Array:
    """The model without the scoreboard."""
    rows = [sum(static_parts(row, group.cpu).values()) for row in group.counters]
    return np.array(rows) / group.machine.clock_hz


def _counter(name: str) -> Baseline:
    return lambda group: np.array([row.get(name, np.nan) for row in group.counters], float)


def _cycles(name: str) -> Baseline:
    return lambda group: _counter(name)(group) / group.machine.clock_hz


def _cycle_model(group: Group) -> Array:
    """What models of an accelerator correct."""
    inputs = common_inputs([group.machine])
    return inputs.extract(group.counters, group.machine).base_s


#: Predictors that need no training; "pipeline" and "mca" where these models were on.
BASELINES: Mapping[str, Baseline] = {
    "instructions": _counter("instructions"),
    "analytical": _analytical,
    "pipeline": _cycles(PIPELINE),
    "mca": _cycles("mca_cycles"),
}

#: The same for accelerators.
ACCELERATOR_BASELINES: Mapping[str, Mapping[str, Baseline]] = {
    "vta": {
        "inp.bytes": _counter("vta.inp.bytes"),
        "bound.max": _cycles("vta.bound.max"),
        "bound.sum": _cycles("vta.bound.sum"),
        "bounds": _cycle_model,
    }
}


def baselines(dataset: Dataset) -> Mapping[str, Baseline]:
    """The predictors without training for the machines of a dataset."""
    return ACCELERATOR_BASELINES.get(dataset.inputs.accelerator, BASELINES)


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
    return [name for name in baselines(dataset) if counted.get(name, True)] + list(FAMILIES)


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
    jobs: int = 1,
    progress: Callable[[str], None] = lambda _model: None,
) -> Evaluation:
    """Trains and tests every model on every fold of a split.

    Args:
        models: names out of `baselines` and `FAMILIES`; by default all that work here.
        split: "leave-workload-out" or "within".
        window: how the test workload's features are normalised, see `features.window_means`; no
            label of a test candidate is ever used. By default by all its candidates, or by the
            reference if `normalise` says so.
        normalise, optional: see `predictors.trained.train`.
        resamples: of the bootstrap.
        jobs: models that are judged at once, each in a process of its own.

    Raises:
        ConfigurationError: an unknown model or split, or a split that the data does not allow.
    """
    if split not in SPLITS:
        raise ConfigurationError(f"split '{split}' is unknown", f"allowed: {', '.join(SPLITS)}")
    names = list(models) or default_models(dataset)
    known = [*baselines(dataset), *FAMILIES]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"model '{name}' is unknown", f"allowed: {', '.join(known)}")
    window_means(np.ones((1, 1)), window or "group")  # refuses an unknown one now
    groups = _labelled(dataset.groups)
    learned = [name for name in names if name in FAMILIES]
    if learned and split == "leave-workload-out" and len({group.key for group in dataset.groups}) < 2:
        raise ConfigurationError(
            "leaving a workload out needs measurements of two or more workloads",
            "collect more, or use --split within",
        )
    task = _Task(dataset, groups, split, window, normalise, tuple(optional), seed, resamples)
    found: dict[str, _Verdict | str] = {}
    if jobs > 1 and len(learned) > 1:
        # Not forked: the parent may have threads, of TVM or of a numerical library.
        with ProcessPoolExecutor(min(jobs, len(learned)), get_context("spawn")) as pool:
            waiting = {name: pool.submit(_alone, task, name) for name in names}
            for name, future in waiting.items():
                progress(name)
                found[name] = future.result()
    else:
        for name in names:
            progress(name)
            found[name] = _judge(task, name)
    judged = {name: verdict for name, verdict in found.items() if not isinstance(verdict, str)}
    return Evaluation(
        groups,
        {name: verdict.scores for name, verdict in judged.items()},
        {name: verdict.summary for name, verdict in judged.items()},
        ceiling(groups, resamples, seed),
        {name: verdict for name, verdict in found.items() if isinstance(verdict, str)},
    )


@dataclass(frozen=True)
class _Task:
    """What every model is judged on."""

    dataset: Dataset
    groups: Mapping[str, Group]
    split: str
    window: str | None
    normalise: str
    optional: tuple[str, ...]
    seed: int
    resamples: int


@dataclass(frozen=True)
class _Verdict:
    scores: Mapping[str, Array]
    summary: Summary


def _judge(task: _Task, name: str) -> _Verdict | str:
    """Scores and metrics of a model, or why there are none."""
    groups = task.groups
    if name not in FAMILIES:
        baseline = baselines(task.dataset)[name]
        scores = {label: baseline(group) for label, group in groups.items()}
    else:
        folds = list(SPLITS[task.split](task.dataset.groups))
        try:
            found = out_of_fold(
                task.dataset, folds, name, task.window, task.seed, task.normalise, task.optional
            )
        except ToolMissingError as error:
            return str(error)
        scores = dict(zip(groups, found, strict=True))
    pairs = {label: (groups[label].seconds, scores[label]) for label in groups}
    return _Verdict(scores, summarise(pairs, task.resamples, task.seed))


def _alone(task: _Task, name: str) -> _Verdict | str:
    """The same in a process of its own, on one core: the other cores have models of their own."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return _judge(task, name)


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
