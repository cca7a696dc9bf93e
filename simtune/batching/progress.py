# SPDX-License-Identifier: Apache-2.0
"""The numbers that every display of a batch shows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from simtune.batching.model import Finished, Observer
from simtune.execution.view import View
from simtune.jobs import Status
from simtune.records.model import Run

#: Rates are of so many seconds before now: long enough for remote tasks that last seconds.
_WINDOW_S = 30.0


class Progress(Observer):
    """Keeps count.

    Args:
        clock: seconds, for tests.

    Attributes:
        total: jobs found, those of equal content counted each.
        settled, duplicates, finished: of them, those recorded before, left out, ended in this sitting.
        failures: of the recorded and ended ones, by status.
        under_way: handed to the executor.
        view: the executor when last looked at.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.start = clock()
        self.run: Run | None = None
        self.total = self.settled = self.duplicates = self.finished = self.instructions = 0
        self.failures: Counter[str] = Counter()
        self.under_way = 0
        self.view = View()
        self._marks: deque[tuple[float, int, int]] = deque([(self.start, 0, 0)])

    def on_start(self, run: Run, jobs: int) -> None:
        self.run, self.total, self.start = run, jobs, self._clock()
        self._marks = deque([(self.start, 0, 0)])

    def on_settled(self, status: Status) -> None:
        self.settled += 1
        self._count(status)

    def on_duplicate(self) -> None:
        self.duplicates += 1

    def on_job(self, finished: Finished) -> None:
        self.finished += 1
        self._count(finished.trial.status)
        if not finished.cached:
            self.instructions += finished.instructions

    def on_view(self, view: View, under_way: int) -> None:
        self.view, self.under_way = view, under_way
        self._marks.append((self._clock(), self.finished, self.instructions))
        while len(self._marks) > 2 and self._marks[1][0] < self._clock() - _WINDOW_S:
            self._marks.popleft()

    def _count(self, status: Status) -> None:
        if status is not Status.OK:
            self.failures[str(status)] += 1

    @property
    def done(self) -> int:
        """Jobs of `total` that need nothing more."""
        return self.settled + self.duplicates + self.finished

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self.start

    @property
    def jobs_per_s(self) -> float:
        """Jobs that ended per second, of late."""
        return self._rate(1)

    @property
    def instructions_per_s(self) -> float:
        """Guest instructions simulated per second, of late, on all machines together."""
        return self._rate(2)

    @property
    def left_s(self) -> float | None:
        """Seconds to the end, if jobs go on to end as of late; None when none has ended yet."""
        rate = self.jobs_per_s
        return (self.total - self.done) / rate if rate > 0 else None

    def _rate(self, column: int) -> float:
        first, now = self._marks[0], (self._clock(), self.finished, self.instructions)
        return (now[column] - first[column]) / max(1e-3, now[0] - first[0])
