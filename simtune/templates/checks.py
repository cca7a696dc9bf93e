# SPDX-License-Identifier: Apache-2.0
"""What is known about the validity of points before they are measured: exact constraints and an oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates.space import Space

#: Says "" for a configuration that is allowed, otherwise the code of what is wrong with it.
Check = Callable[[Mapping[str, int]], str]

#: Spaces up to this size are gone through as a whole.
ENUMERABLE = 1 << 18


class Constraints:
    """Exact constraints: a function of the configuration, or one code per point of the space."""

    def __init__(self, space: Space, given: Check | Sequence[str] | None) -> None:
        self.space, self.given = space, given
        self._known: dict[int, bool] = {}
        if given is not None and not callable(given) and len(given) != space.size:
            raise ConfigurationError(
                f"{len(given)} constraint codes for the {space.size} points of '{space.name}'",
                "give one code per point, or a function of the configuration",
            )

    def allow(self, point: int) -> bool:
        """Whether nothing speaks against a point."""
        if self.given is None:
            return True
        if not callable(self.given):
            return not self.given[point]
        if point not in self._known:
            self._known[point] = not self.given(self.space.config(point))
        return self._known[point]

    def allowed(self) -> list[int]:
        """All points that are allowed, in ascending order; of enumerable spaces only."""
        return [point for point in range(self.space.size) if self.allow(point)]


class Oracle:
    """The compiler as a judge of points: asked once per point, and counted.

    Attributes:
        verdicts: code by point, "" for a valid one, in the order in which they were asked for.
        performed: how often the compiler really ran; verdicts of a saved state are not asked for again.
    """

    def __init__(self, space: Space, given: Check | None) -> None:
        self.space, self.given = space, given
        self.verdicts: dict[int, str] = {}
        self.stored: dict[int, str] = {}
        self.performed = 0

    @property
    def calls(self) -> int:
        """How many points were asked for."""
        return len(self.verdicts)

    def valid(self, point: int) -> bool:
        """Whether a point compiles.

        Raises:
            ConfigurationError: there is no oracle.
        """
        if point not in self.verdicts:
            if point in self.stored:
                self.verdicts[point] = self.stored[point]
            elif self.given is None:
                raise ConfigurationError(
                    "this tuner asks the compiler, but was given no oracle",
                    "give create(...) an oracle=, or switch off what asks it",
                )
            else:
                self.performed += 1
                self.verdicts[point] = str(self.given(self.space.config(point)))
        return not self.verdicts[point]


class Unseen:
    """Random points that were not drawn before, without listing a large space."""

    def __init__(self, space: Space, rng: np.random.Generator, excluded: Callable[[int], bool]) -> None:
        self.space, self.rng, self.excluded = space, rng, excluded
        self._order: list[int] | None = None

    def draw(self) -> int | None:
        """A point that is not excluded, or None when none is left (or can be found)."""
        if self.space.size > ENUMERABLE:
            for _ in range(20_000):
                point = int(self.rng.integers(self.space.size))
                if not self.excluded(point):
                    return point
            return None
        if self._order is None:
            self._order = [int(point) for point in self.rng.permutation(self.space.size)]
        # What is excluded once stays so: the order is gone through a single time.
        while self._order:
            point = self._order.pop()
            if not self.excluded(point):
                return point
        return None
