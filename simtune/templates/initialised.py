# SPDX-License-Identifier: Apache-2.0
"""Validity-driven initialisation as published: Rieber, Reiber, Bringmann, Fröning (arXiv 2205.15568).

Three parts on top of annealing, each with its switch: pre-sampling with the compiler as oracle, a first
batch of valid and invalid points that are spread out, and annealing that is drawn to known-valid points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates.annealing import AnnealingOptions, AnnealingTuner
from simtune.templates.base import Result
from simtune.templates.encode import Array, Ints, coordinates, spread_out
from simtune.templates.presample import Presample, presample


@dataclass(frozen=True)
class InitialisedOptions(AnnealingOptions):
    """Options of annealing, and those of the initialisation.

    Attributes:
        presample: whether a valid point brings in its neighbours; otherwise the compiler is asked about
            random points.
        limit: points that the compiler is asked about.
        balanced: whether the first batch is half valid, half invalid and spread out; otherwise it is
            a random part of what the compiler was asked about.
        biased: whether known points are preferred or avoided in annealing.
        first: points in the first batch.
        reward, penalty: on the scores of known-valid and known-invalid points.
    """

    presample: bool = True
    limit: int = 1000
    balanced: bool = True
    biased: bool = True
    first: int = 50
    reward: float = 1.0
    penalty: float = -1e6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit < 1 or self.first < 1:
            raise ConfigurationError(f"limit {self.limit}, first {self.first}", "both from 1")


class InitialisedTuner(AnnealingTuner):
    """Annealing with validity-driven initialisation; needs an oracle."""

    name = "initialised"
    summary = "Annealing with validity-driven initialisation, as published; needs the compiler as oracle."
    options_type = InitialisedOptions
    options: InitialisedOptions

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        if self.oracle.given is None:
            raise ConfigurationError(
                f"'{self.name}' asks the compiler, but was given no oracle", "give create(...) an oracle="
            )
        self.presampled: Presample | None = None
        self._first: list[int] = []

    def propose(self, n: int) -> Iterator[int]:
        if self.presampled is None:
            self.presampled = presample(
                self.space, self.oracle, self.options.limit, self.rng, neighbours=self.options.presample
            )
            self._first = self._first_batch(self.presampled)
        while self._first:
            yield self._first.pop(0)
        yield from super().propose(n)

    def _due(self) -> bool:
        """The model learns from the first batch as soon as that is there, then after every plan."""
        if self._trained == 0:
            return len(self.results) >= min(self.options.first, self.options.plan) and any(
                result.ok for result in self.results.values()
            )
        done = len(self.results) - min(self.options.first, self.options.plan)
        return done >= self.options.plan * self._trained

    def _first_batch(self, found: Presample) -> list[int]:
        size = self.options.first
        asked = [*found.valid, *found.invalid]
        if not self.options.balanced:
            order = self.rng.permutation(len(asked))[:size]
            return [asked[place] for place in order.tolist()]
        # Where one kind has too few, the other makes up for it.
        good = min(len(found.valid), max(size // 2, size - len(found.invalid)))
        picked = self._spread(found.valid, good) + self._spread(found.invalid, size - good)
        return [picked[place] for place in self.rng.permutation(len(picked)).tolist()]

    def _spread(self, points: Sequence[int], count: int) -> list[int]:
        if not points or count < 1:
            return []
        rows = coordinates(self.space, list(points))
        return [points[place] for place in spread_out(rows, count, self.rng)]

    def bias(self, points: Ints) -> Array | None:
        if not self.options.biased:
            return None
        return np.array([self._known(point) for point in points.tolist()])

    def _known(self, point: int) -> float:
        result: Result | None = self.results.get(point)
        verdict = self.oracle.verdicts.get(point)
        if result is not None:
            return self.options.reward if result.ok else self.options.penalty
        if verdict is None:
            return 0.0
        return self.options.penalty if verdict else self.options.reward
