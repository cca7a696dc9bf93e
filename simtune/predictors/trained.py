# SPDX-License-Identifier: Apache-2.0
"""Predictors learned from native times: fitted per machine, used per workload.

A model predicts log(t / mean t of the workload) from log(feature / mean of the workload). The
absolute scale, which no ranking needs, is the cycle model's::

    seconds = exp(model) x mean cycle-model seconds of the window x scale

where `scale` is the geometric mean, over the training workloads, of mean time / mean cycle-model
time. The means of a new workload are unknown at first; a `Session` estimates them from a window of
the candidates seen so far. The first of them is TVM's default schedule, which `simtune.tune`
simulates before anything else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from simtune.counters import Counters
from simtune.dataset import Group
from simtune.errors import ConfigurationError
from simtune.features import COSTS, Array, Features, normalised, window_means
from simtune.inputs import CPU, AnyMachine, Inputs, common_inputs, inputs_of
from simtune.predictors.families import Design, Model, create

if TYPE_CHECKING:
    from simtune.predictors.session import Session

#: Column of the cycle model in `Features.costs`, whatever the machine.
CYCLES = COSTS.index("cycles")


@dataclass(frozen=True)
class Card:
    """What a trained predictor is, stored in the head of its file.

    Attributes:
        family: name in `simtune.predictors.families.FAMILIES`.
        machines: name to digest of the machines it was trained for.
        target: where its training times were measured.
        pipeline: cycles come from the pipeline scoreboard rather than from the analytical model.
        scale: mean time over mean cycle-model time, see the module.
        normalise: what features and times are relative to: "group", the mean of the workload, or
            "reference", TVM's default schedule, which is known from the first simulation on.
        low, high: (F,) range of the normalised features in training; inputs are clipped to it.
        workloads: name to number of candidates.
        optional: features that were asked for, see `simtune.features.OPTIONAL`.
        accelerator: kind of the machines, "" for CPUs; see `simtune.inputs`.
    """

    family: str
    machines: Mapping[str, str]
    target: str
    pipeline: bool
    scale: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    workloads: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    normalise: str = "group"
    optional: tuple[str, ...] = ()
    schema_version: int = CPU.schema_version
    features_version: int = CPU.version
    accelerator: str = ""


class TrainedPredictor:
    """A fitted model with what it needs to be used; see `train` and `simtune.predictors.load_predictor`.

    `predict` knows no workload: it takes the candidate for an average one, so that the answer is the
    cycle model's times `scale`. For what was learned, predict through `session`.
    """

    def __init__(self, card: Card, model: Model, allow_other_machine: bool = False) -> None:
        self.card, self.model = card, model
        self.allow_other_machine = allow_other_machine

    @property
    def name(self) -> str:
        return self.card.family

    @property
    def digest(self) -> str:
        """Hex digest of card and model; the same predictor gives the same one everywhere."""
        content = hashlib.sha256(json.dumps(asdict(self.card), sort_keys=True).encode())
        for name, array in sorted(self.model.state().items()):
            content.update(name.encode() + array.tobytes())
        return content.hexdigest()[:16]

    @property
    def inputs(self) -> Inputs:
        """What it was trained on."""
        return inputs_of(self.card.accelerator)

    @property
    def needs(self) -> tuple[str, ...]:
        """Optional models that a simulation must switch on for this predictor."""
        return (*self.card.optional, *(("pipeline",) if self.card.pipeline else ()))

    def check_machine(self, machine: AnyMachine) -> None:
        """Refuses a machine that the predictor was not trained for.

        Raises:
            ConfigurationError: unless `allow_other_machine` is set; for another kind of machine always.
        """
        known = self.card.machines
        if machine.accelerator == self.card.accelerator and (
            machine.name in known or machine.digest() in known.values() or self.allow_other_machine
        ):
            return
        raise ConfigurationError(
            f"the predictor was trained for {', '.join(known)}, not for {machine.name}",
            f"train one: simtune train --machine {machine.name}"
            + ("; or pass allow_other_machine" if machine.accelerator == self.card.accelerator else ""),
        )

    def features(self, counters: Sequence[Counters], machine: AnyMachine) -> Features:
        """Features as this predictor needs them.

        Raises:
            ConfigurationError: other machine, or the pipeline scoreboard or another model was off.
        """
        self.check_machine(machine)
        require_optional(counters, self.card.optional, self.inputs)
        features = self.inputs.extract(counters, machine, self.card.pipeline, self.card.optional)
        if self.card.pipeline and not features.pipeline.all():
            raise ConfigurationError(
                "the predictor was trained on pipeline_cycles, which were not counted",
                "simulate with --count pipeline, or train a predictor without them",
            )
        return features

    def window(self, wanted: str | None, default: str = "group") -> str:
        """The window to use; a predictor that is relative to the reference knows no other.

        Raises:
            ConfigurationError: another one is wanted.
        """
        if self.card.normalise == "group":
            return wanted or default
        if wanted not in (None, self.card.normalise):
            raise ConfigurationError(
                f"the predictor is relative to the {self.card.normalise}, not to window '{wanted}'",
                "train it with --normalise group, or leave the window out",
            )
        return self.card.normalise

    def relative(self, features: Features, window: str | None = None) -> tuple[Array, Array | None]:
        """log(t / mean t) of the candidates of one workload, and its standard deviation if known."""
        window = self.window(window)
        means, costs = (window_means(rows, window) for rows in (features.values, features.costs))
        return self.apply(features, means, costs[:, CYCLES])

    def apply(self, features: Features, means: Array, cycles: Array) -> tuple[Array, Array | None]:
        """The same, given the workload's means of the features (N, F) and of the cycles (N,)."""
        return self.model.predict(design(features, means, cycles, self.card.low, self.card.high))

    def seconds(self, counters: Sequence[Counters], machine: AnyMachine, window: str | None = None) -> Array:
        """Predicted seconds of the candidates of one workload, in the order they were simulated.

        Args:
            window: see `simtune.features.window_means`; by default the mean of all these candidates,
                or the first, as the predictor was trained.
        """
        window = self.window(window)
        if not counters:
            return np.zeros(0)
        features = self.features(counters, machine)
        base = window_means(features.base_s[:, None], window)[:, 0]
        result: Array = np.exp(self.relative(features, window)[0]) * base * self.card.scale
        return result

    def uncertainty(
        self, counters: Sequence[Counters], machine: AnyMachine, window: str | None = None
    ) -> Array | None:
        """Relative standard deviations of `seconds`; None for families that do not know theirs."""
        deviation = self.relative(self.features(counters, machine), window)[1] if counters else None
        return None if deviation is None else np.expm1(deviation)

    def session(self, workload: str = "", window: str | None = None) -> Session:
        """Predictions for one workload, which learn its means from the candidates they see."""
        from simtune.predictors.session import Session

        return Session(self, workload, self.window(window, "dynamic"))

    def predict(self, counters: Counters, machine: AnyMachine) -> float:
        """Seconds of a candidate about whose workload nothing is known; see the class."""
        return float(self.features([counters], machine).base_s[0]) * self.card.scale

    def explain(self, counters: Counters, machine: AnyMachine) -> dict[str, float]:
        """Cycles per part: the cycle model's, and what `scale` adds to them."""
        from simtune.predictors.session import explained

        return explained(self, self.predict(counters, machine), counters, machine)


def design(
    features: Features, means: Array, cycles: Array, low: Sequence[float], high: Sequence[float]
) -> Design:
    """What a model sees: normalised by the given means, clipped to the training range."""
    logs = np.clip(normalised(features.values, means), low, high)
    own = features.costs[:, CYCLES]
    return Design(logs, features.costs / cycles[:, None], np.zeros(len(logs), np.int64), np.log(own / cycles))


def train(
    groups: Sequence[Group],
    family: str,
    *,
    target: str = "",
    seed: int = 0,
    pipeline: bool | None = None,
    normalise: str = "group",
    optional: Sequence[str] = (),
) -> TrainedPredictor:
    """Fits a model family to groups of candidates with native times.

    Args:
        groups: of one machine, or of several for a pooled model. Groups with fewer than two usable
            candidates teach nothing about order and are left out.
        pipeline: whether to build on `pipeline_cycles`; by default when all candidates have them.
        normalise: see `Card`; with "reference", groups without one are left out, too.
        optional: features beside the usual ones, see `simtune.features.OPTIONAL`.

    Raises:
        ConfigurationError: an unknown family, or nothing to learn from.
    """
    if normalise not in ("group", "reference"):
        raise ConfigurationError(f"normalise is '{normalise}'", "allowed: group, reference")
    inputs = common_inputs(group.machine for group in groups)
    relative = normalise == "reference"
    if relative and inputs.accelerator:
        raise ConfigurationError(
            f"{inputs.accelerator.upper()} has no default schedule that times could be relative to",
            "leave --normalise out",
        )
    usable = [g for g in map(_usable, groups) if len(g) >= 2 and (g.has_reference or not relative)]
    if not usable:
        what = " and TVM's default schedule" if relative else ""
        raise ConfigurationError(
            f"there is no workload with two or more measured candidates{what} to learn from", inputs.hint
        )
    for group in usable:
        require_optional(group.counters, optional, inputs)
    tables = [inputs.extract(group.counters, group.machine, True, optional) for group in usable]
    counted = all(table.pipeline.all() for table in tables)
    pipeline = counted if pipeline is None else pipeline
    if pipeline and not counted:
        raise ConfigurationError("some candidates have no pipeline_cycles", "train without them")
    if not pipeline:
        tables = [inputs.extract(group.counters, group.machine, False, optional) for group in usable]
    fitted = fit(tables, [group.seconds for group in usable], family, seed, normalise)
    card = Card(
        family=family,
        machines={group.machine.name: group.machine.digest() for group in usable},
        target=target,
        pipeline=pipeline,
        scale=fitted.scale,
        low=fitted.low,
        high=fitted.high,
        workloads=_sizes(usable),
        seed=seed,
        normalise=normalise,
        optional=tuple(sorted(set(optional))),
        schema_version=inputs.schema_version,
        features_version=inputs.version,
        accelerator=inputs.accelerator,
    )
    return TrainedPredictor(card, fitted.model)


@dataclass(frozen=True)
class Fitted:
    """A model with what its inputs and outputs are relative to; see `Card`."""

    model: Model
    scale: float
    low: tuple[float, ...]
    high: tuple[float, ...]

    def relative(self, features: Features, window: str = "group") -> Array:
        """log(t / mean t) of the candidates of one workload."""
        means, costs = (window_means(rows, window) for rows in (features.values, features.costs))
        return self.model.mean(design(features, means, costs[:, CYCLES], self.low, self.high))


def fit(
    tables: Sequence[Features], seconds: Sequence[Array], family: str, seed: int = 0, normalise: str = "group"
) -> Fitted:
    """Fits a model family to features and positive times (N,), one pair per workload.

    Raises:
        ConfigurationError: an unknown family.
    """
    model = create(family, seed)
    means = np.concatenate([window_means(table.values, normalise) for table in tables])
    cycles = np.concatenate([window_means(table.costs, normalise)[:, CYCLES] for table in tables])
    scales = [window_means(times[:, None], normalise)[:, 0] for times in seconds]
    bases = [window_means(table.base_s[:, None], normalise)[0, 0] for table in tables]
    ratios = [np.log(scale[0] / base) for scale, base in zip(scales, bases, strict=True)]
    target_logs = np.log(np.concatenate(seconds) / np.concatenate(scales))
    stacked = Features.stack(tables)
    logs = normalised(stacked.values, means)
    low, high = tuple(logs.min(axis=0).tolist()), tuple(logs.max(axis=0).tolist())
    seen = design(stacked, means, cycles, low, high)
    numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    model.fit(Design(seen.logs, seen.costs, numbers, seen.cycles), target_logs)
    return Fitted(model, float(np.exp(np.mean(ratios))), low, high)


def require_optional(counters: Sequence[Counters], optional: Sequence[str], inputs: Inputs = CPU) -> None:
    """Makes sure that what optional features are made of was counted.

    Raises:
        ConfigurationError: an unknown name, or a candidate without the counter.
    """
    for name in optional:
        if name not in inputs.optional:
            kind = f" for {inputs.accelerator.upper()}" if inputs.accelerator else ""
            allowed = ", ".join(inputs.optional) or "none"
            raise ConfigurationError(f"features '{name}' are unknown{kind}", f"allowed: {allowed}")
        counter = inputs.optional[name]
        absent = sum(counter not in row for row in counters)
        if absent:
            raise ConfigurationError(
                f"{absent} of {len(counters)} candidates lack {counter}, which features '{name}' need",
                f"simulate them with --features {name}: simtune collect, or simtune resimulate",
            )


def _usable(group: Group) -> Group:
    return group.take(np.flatnonzero(np.isfinite(group.seconds) & (group.seconds > 0)))


def _sizes(groups: Sequence[Group]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group.name] = sizes.get(group.name, 0) + len(group)
    return sizes
