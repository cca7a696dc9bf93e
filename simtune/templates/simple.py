# SPDX-License-Identifier: Apache-2.0
"""Tuners without a model: random, grid, genetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates.base import Options, Result, Tuner, scores
from simtune.templates.checks import Unseen


class RandomTuner(Tuner):
    """Every point with the same chance, none twice."""

    name = "random"
    summary = "Uniformly random points, none twice."

    def propose(self, n: int) -> Iterable[int]:
        return ()  # what `ask` fills up with is random


class GridTuner(Tuner):
    """All points in their order."""

    name = "grid"
    summary = "All points in the order of counting."
    next = 0

    def propose(self, n: int) -> Iterator[int]:
        while self.next < self.space.size:
            self.next += 1
            yield self.next - 1


@dataclass(frozen=True)
class GeneticOptions(Options):
    """The defaults of AutoTVM's genetic tuner.

    Attributes:
        population: points per generation.
        elite: how many of the best live on as parents.
        mutation: the chance of each knob of a child to be drawn anew.
    """

    population: int = 100
    elite: int = 3
    mutation: float = 0.1

    def __post_init__(self) -> None:
        if self.population < 2 or self.elite < 0 or not 0 <= self.mutation <= 1:
            raise ConfigurationError(
                f"genetic search with {self}", "population from 2, elite from 0, mutation 0 to 1"
            )


class GeneticTuner(Tuner):
    """Generations of points: parents drawn by their scores, crossed at one knob, then mutated.

    A failure has the score 0, a success the reciprocal of its value relative to the best.
    """

    name = "genetic"
    summary = "Generations of crossed and mutated points."
    options_type = GeneticOptions
    options: GeneticOptions

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._random = Unseen(self.space, self.rng, lambda point: not self.open(point))
        self._waiting: list[int] = []
        self._generation: list[Result] = []
        self._elite: list[Result] = []

    def propose(self, n: int) -> Iterator[int]:
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            # With answers outstanding, or too few to cross, the generation goes on with random points.
            if self._generation and len(self._generation) >= self.options.population:
                self._breed()
            else:
                point = self._random.draw()
                if point is None:
                    return
                yield point

    def learn(self, results: Sequence[Result]) -> None:
        self._generation += results

    def _breed(self) -> None:
        parents = self._generation + self._elite
        fitness = scores(parents)
        order = np.argsort(-fitness, kind="stable")
        self._elite = [parents[place] for place in order[: self.options.elite]]
        self._generation = []
        chances = (fitness + 1e-8) / (fitness + 1e-8).sum()
        rows = [self.space.coordinates(result.index) for result in parents]
        for _ in range(self.options.population):
            first, second = self.rng.choice(len(rows), size=2, replace=False, p=chances)
            cut = int(self.rng.integers(len(self.space.knobs)))
            child = list(rows[first][:cut] + rows[second][cut:])
            for knob, extent in enumerate(self.space.extents):
                if self.rng.random() < self.options.mutation:
                    child[knob] = int(self.rng.integers(extent))
            self._waiting.append(self._open_near(child))

    def _open_near(self, child: list[int]) -> int:
        """The child, or a mutation of it that was not tried yet."""
        for _ in range(200):
            point = self.space.at(tuple(child))
            if self.open(point) and point not in self._waiting:
                return point
            knob = int(self.rng.integers(len(child)))
            child[knob] = int(self.rng.integers(self.space.extents[knob]))
        return self.space.at(tuple(child))
