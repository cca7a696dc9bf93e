# SPDX-License-Identifier: Apache-2.0
"""Looking for valid points with the compiler, before anything is measured.

Valid points cluster, so that the neighbours of a valid one are asked for next. Every point is asked
for once: a frontier that expands points it has been at would walk in circles.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from simtune.templates.checks import Check, Oracle, Unseen
from simtune.templates.space import Space


@dataclass(frozen=True)
class Presample:
    """What pre-sampling found, in the order of asking.

    Attributes:
        valid, invalid: points.
        reason: why it ended: "enough valid", "limit", "exhausted", "costs more than it saves".
    """

    valid: tuple[int, ...]
    invalid: tuple[int, ...]
    reason: str

    @property
    def asked(self) -> int:
        return len(self.valid) + len(self.invalid)


@dataclass(frozen=True)
class Stopping:
    """When pre-sampling that pays attention to its cost ends.

    Without it, every measured point is valid with the chance that a random point has (the base rate),
    so that one valid point costs 1 / base measurements, all but one of them wasted. With it, one valid
    point costs 1 / yield questions, where yield is what the walk finds per question. It ends when the
    questions cost more than the waste they avoid, or when there are enough valid points.

    Attributes:
        enough: valid points that are wanted.
        cost: of one question to the compiler, relative to one measurement.
        least: questions before the rates are believed.
        window: recent questions that the yield is taken from.
    """

    enough: int = 25
    cost: float = 0.1
    least: int = 20
    window: int = 40


def presample(
    space: Space,
    oracle: Oracle | Check,
    limit: int,
    rng: np.random.Generator,
    *,
    neighbours: bool = True,
    stopping: Stopping | None = None,
) -> Presample:
    """Asks the compiler about up to `limit` points.

    Args:
        neighbours: a valid point brings all its unseen neighbours into the queue, an invalid one a
            random unseen point; False asks for random points only.
        stopping: by cost; None goes on to the limit, as published.
    """
    judge = oracle if isinstance(oracle, Oracle) else Oracle(space, oracle)
    queued: set[int] = set()
    fresh = Unseen(space, rng, lambda point: point in queued)
    queue: deque[tuple[int, bool]] = deque()
    valid: list[int] = []
    invalid: list[int] = []
    recent: deque[bool] = deque(maxlen=stopping.window if stopping else 1)
    drawn = drawn_valid = 0
    reason = "limit"

    def push_random() -> None:
        point = fresh.draw()
        if point is not None:
            queued.add(point)
            queue.append((point, True))

    push_random()
    while len(valid) + len(invalid) < min(limit, space.size):
        if not queue:
            push_random()
            if not queue:
                reason = "exhausted"
                break
        point, at_random = queue.popleft()
        good = judge.valid(point)
        (valid if good else invalid).append(point)
        recent.append(good)
        drawn += at_random
        drawn_valid += at_random and good
        if good and neighbours:
            for near in space.neighbours(point):
                if near not in queued:
                    queued.add(near)
                    queue.append((near, False))
        else:
            push_random()
        if stopping is not None:
            if len(valid) >= stopping.enough:
                reason = "enough valid"
                break
            # Half a success in one more try: a rate of a few tries is never zero or one.
            found, base = (sum(recent) + 0.5) / (len(recent) + 1), (drawn_valid + 0.5) / (drawn + 1)
            if len(valid) + len(invalid) >= stopping.least and _too_dear(stopping, found, base):
                reason = "costs more than it saves"
                break
    return Presample(tuple(valid), tuple(invalid), reason)


def _too_dear(stopping: Stopping, found: float, base: float) -> bool:
    """Whether a valid point costs more questions than wasted measurements."""
    return stopping.cost / found > 1.0 / base - 1.0
