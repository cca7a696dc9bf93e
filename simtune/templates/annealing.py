# SPDX-License-Identifier: Apache-2.0
"""Simulated annealing guided by a rank model of boosted trees: AutoTVM's scheme and defaults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates import boosting
from simtune.templates.base import Options, Tuner, scores
from simtune.templates.checks import ENUMERABLE, Unseen
from simtune.templates.encode import Array, Ints, coordinates, feature_rows, indices, values


class Model(Protocol):
    """What annealing walks on."""

    def predict(self, rows: Array) -> Array:
        """One score per row, larger is better."""
        ...


@dataclass(frozen=True)
class AnnealingOptions(Options):
    """The defaults of AutoTVM's tuner with a cost model.

    Attributes:
        plan: points that one annealing plans; the model learns again after so many trials.
        chains, iterations, patience: walks at once, steps of each, and steps without a better plan
            after which annealing ends.
        temperature: at the start; it falls to zero linearly.
        random: the share of each plan, at its end, that is drawn at random instead.
        learn_from: "knobs", or "features" for knobs and compile-time features.
        depth, eta, gamma, rounds: of the boosted trees.
    """

    plan: int = 64
    chains: int = 128
    iterations: int = 500
    patience: int = 50
    temperature: float = 1.0
    random: float = 0.05
    learn_from: str = "knobs"
    depth: int = 3
    eta: float = 0.3
    gamma: float = 1e-4
    rounds: int = 300

    def __post_init__(self) -> None:
        if min(self.plan, self.chains, self.iterations, self.patience, self.depth, self.rounds) < 1:
            raise ConfigurationError(f"annealing with {self}", "all counts from 1")
        if not 0 <= self.random <= 1 or self.temperature < 0 or self.eta <= 0:
            raise ConfigurationError(
                f"annealing with {self}", "random 0 to 1, temperature from 0, eta above 0"
            )
        if self.learn_from not in ("knobs", "features"):
            raise ConfigurationError(f"learn_from is '{self.learn_from}'", "one of knobs, features")


class AnnealingTuner(Tuner):
    """Plans batches where a rank model expects good points; failures train it with the score 0."""

    name = "annealing"
    summary = "AutoTVM's scheme: annealing on a rank model of boosted trees, from a random start."
    options_type = AnnealingOptions
    options: AnnealingOptions

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        if self.options.learn_from == "features" and self.features is None:
            raise ConfigurationError(
                f"'{self.name}' is to learn from features, but was given none",
                "give create(...) features=, or use learn_from='knobs'",
            )
        self._random = Unseen(self.space, self.rng, lambda point: not self.open(point))
        self._plan: list[int] = []
        self._planned = 0
        self._trained = 0
        self._walkers: Ints | None = None
        self._rows: dict[int, list[float]] = {}
        self._names: list[str] | None = None

    def propose(self, n: int) -> Iterator[int]:
        while True:
            if self._due():
                self._trained += 1
                self._replan()
            while self._plan and not self.open(self._plan[0]):
                self._plan.pop(0)
            # AutoTVM draws the last part of every plan at random, so that the model meets news.
            if len(self._plan) <= int(self.options.random * self._planned):
                if self._plan:
                    self._plan.pop(0)
                point = self._random.draw()
                if point is None:
                    return
                yield point
            else:
                yield self._plan.pop(0)

    def _due(self) -> bool:
        found = len(self.results)
        return found >= self.options.plan * (self._trained + 1) and any(
            result.ok for result in self.results.values()
        )

    def _replan(self) -> None:
        results = list(self.results.values())
        model = self.train(self.rows([result.index for result in results]), scores(results))
        self._plan = self.anneal(model, self.options.plan)
        self._planned = len(self._plan)

    def train(self, rows: Array, targets: Array) -> Model:
        """The rank model; a subclass may put in another one."""
        return boosting.fit(
            rows,
            targets,
            "rank",
            depth=self.options.depth,
            rounds=self.options.rounds,
            eta=self.options.eta,
            gamma=self.options.gamma,
            stop=boosting.average_recall(targets, self.options.plan),
        )

    def rows(self, points: Sequence[int]) -> Array:
        """What the model sees of points."""
        if self.options.learn_from == "knobs" or self.features is None:
            return values(self.space, points)
        missing = [point for point in points if point not in self._rows]
        if missing:
            found = [self.features(self.space.config(point)) for point in missing]
            self._names = self._names or sorted(set().union(*found))
            for point, row in zip(missing, feature_rows(found, self._names).tolist(), strict=True):
                self._rows[point] = row
        return np.hstack([values(self.space, points), np.array([self._rows[point] for point in points])])

    def bias(self, points: Ints) -> Array | None:
        """What is added to the model's scores during annealing; nothing here."""
        return None

    # Annealing --------------------------------------------------------------------------------

    def anneal(self, model: Model, count: int) -> list[int]:
        """The best open points that the walks came by, best first."""
        options, space = self.options, self.space
        known = _Scores(self, model)
        extents = np.array(space.extents)
        free = np.flatnonzero(extents > 1)
        if not len(free):
            return [0]
        if self._walkers is None:
            start = self.rng.integers(space.size, size=options.chains)
            self._walkers = coordinates(space, start)
        rows = self._walkers.copy()
        at = indices(space, rows)
        score = known(at)
        heap = _Top(count, self.open)
        heap.offer(at, score)
        changed = 0
        for step in range(options.iterations):
            temperature = options.temperature * (1.0 - step / options.iterations)
            proposed = rows.copy()
            knob = free[self.rng.integers(len(free), size=len(rows))]
            line = np.arange(len(rows))
            move = 1 + (self.rng.random(len(rows)) * (extents[knob] - 1)).astype(np.int64)
            proposed[line, knob] = (proposed[line, knob] + move) % extents[knob]
            new_at = indices(space, proposed)
            new_score = known(new_at)
            chance = np.exp(np.minimum((new_score - score) / (temperature + 1e-5), 0.0))
            taken = self.rng.random(len(rows)) < chance
            rows[taken], at, score = (
                proposed[taken],
                np.where(taken, new_at, at),
                np.where(taken, new_score, score),
            )
            if heap.offer(new_at, new_score):
                changed = step
            if step - changed >= options.patience:
                break
        self._walkers = rows
        return heap.points()


class _Scores:
    """Scores of points, each computed once per model; of a small space all at once."""

    def __init__(self, tuner: AnnealingTuner, model: Model) -> None:
        self.tuner, self.model = tuner, model
        self.whole: Array | None = None
        if tuner.space.size <= ENUMERABLE and tuner.options.learn_from == "knobs":
            everything = np.arange(tuner.space.size)
            self.whole = self._score(everything)
        self.cache: dict[int, float] = {}

    def __call__(self, points: Ints) -> Array:
        if self.whole is not None:
            found: Array = self.whole[points]
            return found
        missing = np.unique([point for point in points.tolist() if point not in self.cache]).astype(np.int64)
        if len(missing):
            self.cache.update(zip(missing.tolist(), self._score(missing).tolist(), strict=True))
        return np.array([self.cache[point] for point in points.tolist()])

    def _score(self, points: Ints) -> Array:
        score = self.model.predict(self.tuner.rows(points.tolist()))
        bias = self.tuner.bias(points)
        return score if bias is None else score + bias


class _Top:
    """The best open points that were offered."""

    def __init__(self, count: int, open_: object) -> None:
        self.count, self.open = count, open_
        self.seen: set[int] = set()
        self.kept: list[tuple[float, int]] = []
        self.least = -np.inf

    def offer(self, points: Ints, scores: Array) -> bool:
        """Whether the best changed."""
        changed = False
        for place in np.flatnonzero(scores > self.least).tolist():
            point = int(points[place])
            if point in self.seen:
                continue
            self.seen.add(point)
            if self.open(point):  # type: ignore[operator]
                self.kept.append((-float(scores[place]), point))
                changed = True
        if changed and len(self.kept) >= self.count:
            self.kept = sorted(self.kept)[: self.count]
            if len(self.kept) == self.count:
                self.least = -self.kept[-1][0]
        return changed

    def points(self) -> list[int]:
        return [point for _, point in sorted(self.kept)[: self.count]]
