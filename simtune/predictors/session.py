# SPDX-License-Identifier: Apache-2.0
"""A trained predictor at work on one workload, whose means it learns from what it sees."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from simtune.counters import Counters
from simtune.features import Array, Features, window_means
from simtune.inputs import AnyMachine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor, static_parts
from simtune.predictors.trained import CYCLES, TrainedPredictor


def explained(
    predictor: TrainedPredictor, predicted_s: float, counters: Counters, machine: AnyMachine
) -> dict[str, float]:
    """The parts of the cycle model, and "learned" for what the prediction differs from their sum."""
    if not isinstance(machine, Machine):
        base_s = float(predictor.features([counters], machine).base_s[0])
        parts = {predictor.inputs.cycle_model: base_s * machine.clock_hz}
    elif predictor.card.pipeline:  # by the scoreboard's causes
        parts = AnalyticalPredictor().explain(counters, machine)
    else:
        parts = static_parts(counters, machine)
    return parts | {"learned": predicted_s * machine.clock_hz - sum(parts.values())}


class Session:
    """A predictor for the candidates of one workload; satisfies the `Predictor` protocol.

    Args:
        window: "dynamic": means over all candidates seen so far, the present one included;
            "static:W": over the first W; "reference": over the first alone.

    With a dynamic window a prediction depends on what came before. Give candidates that are
    simulated at once to `predict_batch`, and the order in which they finish does not matter.
    """

    def __init__(self, predictor: TrainedPredictor, workload: str = "", window: str = "dynamic") -> None:
        window_means(np.ones((1, 1)), window)  # refuses an unknown one now
        kind, _, size = window.partition(":")
        self._limit = {"reference": 1, "static": int(size or 0)}.get(kind)
        self._predictor, self.workload = predictor, workload
        self._seen = 0
        self._totals: dict[str, Array] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._predictor.name

    def predict(self, counters: Counters, machine: AnyMachine) -> float:
        """Seconds."""
        return float(self.predict_batch([counters], machine)[0])

    def predict_batch(self, counters: Sequence[Counters], machine: AnyMachine) -> Array:
        """Seconds (N,) of candidates that were simulated together; all of them enter the window."""
        if not counters:
            return np.zeros(0)
        features = self._predictor.features(counters, machine)
        with self._lock:
            self._observe(features)
            totals = dict(self._totals)
        means = np.broadcast_to(_mean(totals, "values"), features.values.shape)
        cycles = np.broadcast_to(_mean(totals, "cycles"), (len(features),))
        relative, _ = self._predictor.apply(features, means, cycles)
        result: Array = np.exp(relative) * _mean(totals, "base_s") * self._predictor.card.scale
        return result

    def observe(self, counters: Sequence[Counters], machine: AnyMachine) -> None:
        """Adds candidates to the window without a prediction: stored ones, when a run goes on."""
        if counters:
            features = self._predictor.features(counters, machine)
            with self._lock:
                self._observe(features)

    def explain(self, counters: Counters, machine: AnyMachine) -> dict[str, float]:
        """Cycles per part, with what was learned as a part of its own."""
        return explained(self._predictor, self.predict(counters, machine), counters, machine)

    def _observe(self, features: Features) -> None:
        free = len(features) if self._limit is None else max(0, self._limit - self._seen)
        added = features.take(slice(0, free))
        self._seen += len(added)
        columns = {"values": added.values, "cycles": added.costs[:, CYCLES], "base_s": added.base_s}
        for name, column in columns.items():
            known = np.isfinite(column)
            sums = np.stack([np.where(known, column, 0).sum(axis=0), known.sum(axis=0)])
            self._totals[name] = self._totals.get(name, np.zeros_like(sums)) + sums


def _mean(totals: Mapping[str, Array], name: str) -> Array:
    total, number = totals[name]
    mean: Array = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return mean
