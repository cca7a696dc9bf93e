# SPDX-License-Identifier: Apache-2.0
"""The values of a batch: what is told while it runs, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from simtune.execution.view import View
from simtune.jobs import Status
from simtune.records.model import Run, Trial
from simtune.records.origins import Origin


@dataclass(frozen=True)
class Finished:
    """One job that ended in this sitting.

    Attributes:
        trial: as it is recorded.
        instructions: of the guest, 0 without counters.
        cached: its simulation was in the store already.
    """

    trial: Trial
    origin: Origin
    instructions: int = 0
    cached: bool = False


class Observer:
    """Is told of a batch as it goes; does nothing. All calls come from one thread."""

    def on_start(self, run: Run, jobs: int) -> None:
        """The run, and how many jobs were found; those of equal content are counted each."""

    def on_settled(self, status: Status) -> None:
        """A job that has its record from an earlier sitting."""

    def on_duplicate(self) -> None:
        """A job of the same content as one before it, which is not run."""

    def on_job(self, finished: Finished) -> None:
        """A job that ended."""

    def on_view(self, view: View, under_way: int) -> None:
        """About twice a second: what the executor does, and how many jobs are under way."""


@dataclass(frozen=True)
class Named:
    """A recorded job, for a listing."""

    trial: Trial
    origin: str


@dataclass
class Tally:
    """How many jobs ended how.

    Attributes:
        statuses: of all jobs, those of earlier sittings included.
        settled: had their record before.
        cached: the simulation was in the store.
        simulated: ran.
        duplicates: same content as another job, not among `statuses`.
        instructions: simulated.
    """

    statuses: Counter[Status] = field(default_factory=Counter)
    settled: int = 0
    cached: int = 0
    simulated: int = 0
    duplicates: int = 0
    instructions: int = 0

    @property
    def jobs(self) -> int:
        return self.statuses.total()

    @property
    def failures(self) -> int:
        return self.jobs - self.statuses[Status.OK]


@dataclass(frozen=True)
class BatchResult:
    """What came out.

    Attributes:
        run: id of the run in the store.
        name: of the batch.
        tally: how many jobs ended how.
        skipped: files in folders that were no jobs, by reason.
        wall_s: seconds of this sitting.
        fastest, slowest: by predicted time, of the whole run; of a small one, some are in both.
        failed: the first few failures, each with the command that repeats it.
        view: the executor at the end.
    """

    run: str
    name: str
    tally: Tally
    skipped: Mapping[str, int]
    wall_s: float
    fastest: tuple[Named, ...]
    slowest: tuple[Named, ...]
    failed: tuple[Named, ...]
    view: View

    @property
    def ok(self) -> bool:
        """Whether every job has a result."""
        return self.tally.failures == 0


@dataclass(frozen=True)
class Plan:
    """What a batch would do.

    Attributes:
        run: that it would take up; empty for a new one.
        jobs: distinct ones.
        settled: of them, those with a record, by status.
        due: of them, the first few that would run.
        due_count: how many would run.
        duplicates, skipped: as in `BatchResult`.
    """

    run: str
    jobs: int
    settled: Mapping[Status, int]
    due: tuple[Origin, ...]
    due_count: int
    duplicates: int
    skipped: Mapping[str, int]
