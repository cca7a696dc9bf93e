# SPDX-License-Identifier: Apache-2.0
"""What the dispatcher knows about one job, one chunk under way, one worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simtune.execution.dispatch.values import WorkerState

if TYPE_CHECKING:
    from simtune.execution.dispatch.waiting import Group, Kind


@dataclass(eq=False, slots=True)
class Ticket:
    """One job between `add` and its end.

    Attributes:
        order: the earlier one goes first among equals.
        flights: chunks under way that hold it; none while it waits, two while it is doubled.
        deaths: workers lost while they may have been running it.
        faults: transient failures.
        mishaps: each of them as (worker, host, what happened).
        waiting: it is in a queue of its kind,
        group: namely this one, after a mishap.
        live: it has not ended.
    """

    number: int
    length: float
    kind: Kind
    order: int
    flights: list[Flight] = field(default_factory=list)
    deaths: int = 0
    faults: int = 0
    mishaps: tuple[tuple[str, str, str], ...] = ()
    waiting: bool = False
    group: Group | None = None
    live: bool = True


@dataclass(eq=False, slots=True)
class Flight:
    """A chunk under way.

    Attributes:
        length: of its jobs in total.
        sent: when.
        suspect: its job may have killed a worker,
        alone: and runs on an otherwise empty one now.
        started: when it began to run, as far as one can tell from what the worker has answered;
            None while it queues.
    """

    number: int
    worker: Worker
    kind: Kind
    tickets: list[Ticket]
    length: float
    sent: float
    suspect: bool
    alone: bool
    started: float | None


@dataclass(eq=False, slots=True)
class Worker:
    """One worker.

    Attributes:
        order: tells equals apart, in the order in which they joined.
        flights: chunks that were sent to it and not answered, in this order.
        closed: it runs none but suspects.
        refused: kinds of jobs that it cannot run, with the reason.
        done: jobs that ended with its results.
        strikes: transient failures in a row.
        benches: how often it was benched without a success in between.
        benched: it gets nothing at present.
        stamp: tells its valid entry in the heap of the fleet.
    """

    name: str
    host: str
    slots: int
    order: int
    flights: dict[int, Flight] = field(default_factory=dict)
    closed: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    done: int = 0
    strikes: int = 0
    benches: int = 0
    benched: bool = False
    stamp: int = 0

    @property
    def load(self) -> float:
        """Chunks per slot; below 1 a slot is idle."""
        return len(self.flights) / self.slots

    def state(self) -> WorkerState:
        """For a live view."""
        return WorkerState(
            name=self.name,
            host=self.host,
            slots=self.slots,
            running=min(len(self.flights), self.slots),
            queued=max(0, len(self.flights) - self.slots),
            done=self.done,
            benched=self.benched,
            refused=tuple(self.refused.values()),
        )

    def can(self, kind: str) -> bool:
        """Whether it may get jobs of this kind at present."""
        return not self.benched and kind not in self.refused
