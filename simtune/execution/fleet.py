# SPDX-License-Identifier: Apache-2.0
"""The workers as the dispatcher sees them: who is there, how busy, who must not be used."""

from __future__ import annotations

import heapq
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simtune.execution.dispatch import Flight
    from simtune.execution.waiting import Ticket


@dataclass(eq=False, slots=True)
class Worker:
    """One worker.

    Attributes:
        order: tells equals apart, in the order in which they joined.
        flights: chunks that were sent to it and not answered, in this order.
        closed: it gets no chunks, because a job is to run alone here,
        held: this one, as long as the worker is not empty.
        refused: kinds of jobs that it cannot run, with the reason.
        strikes: transient failures in a row.
        benches: how often it was benched without a success in between.
        benched_until: it gets nothing before.
        stamp: tells its valid entry in the heap of the fleet.
    """

    name: str
    host: str
    slots: int
    order: int
    flights: dict[int, Flight] = field(default_factory=dict)
    closed: bool = False
    held: Ticket | None = None
    refused: dict[str, str] = field(default_factory=dict)
    strikes: int = 0
    benches: int = 0
    benched_until: float | None = None
    done: int = 0
    stamp: int = 0

    @property
    def load(self) -> float:
        """Chunks per slot; below 1 a slot is idle."""
        return len(self.flights) / self.slots

    @property
    def usable(self) -> bool:
        return self.benched_until is None


class Fleet:
    """All workers, the least busy one at hand.

    Attributes:
        slots: of all workers.
        epoch: grows whenever a worker comes, goes, or may be used for more or less than before.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.slots = 0
        self.epoch = 0
        self._kinds: set[str] = set()
        self._order = 0
        self._free: list[tuple[float, int, int, Worker]] = []
        self._benches: list[tuple[float, int, Worker]] = []

    def join(self, name: str, slots: int, host: str) -> None:
        """A worker comes, or one that is there changes its number of slots."""
        worker = self.workers.get(name)
        if worker is None:
            self._order += 1
            worker = self.workers[name] = Worker(name, host, slots, self._order)
        else:
            self.slots -= worker.slots
            worker.slots = slots
        self.slots += slots
        self.epoch += 1
        self.offer(worker)

    def leave(self, name: str) -> Worker | None:
        worker = self.workers.pop(name, None)
        if worker is not None:
            self.slots -= worker.slots
            worker.stamp += 1
            self.epoch += 1
        return worker

    def serve(self, kind: str) -> None:
        """There are jobs of this kind, too: also those who refused all others are asked."""
        if kind not in self._kinds:
            self._kinds.add(kind)
            for worker in self.workers.values():
                self.offer(worker)

    def refuse(self, worker: Worker, kind: str, reason: str) -> None:
        worker.refused[kind] = reason
        self.epoch += 1
        self.offer(worker)

    def bench(self, worker: Worker, until: float) -> None:
        """The worker gets nothing until then."""
        worker.benched_until = until
        worker.benches += 1
        worker.stamp += 1
        self.epoch += 1
        heapq.heappush(self._benches, (until, worker.order, worker))

    def unbench(self, now: float) -> None:
        """Takes those back whose time is over."""
        while self._benches and self._benches[0][0] <= now:
            _, _, worker = heapq.heappop(self._benches)
            if self.workers.get(worker.name) is worker:
                worker.benched_until = None
                self.epoch += 1
                self.offer(worker)

    def next_unbench(self) -> float | None:
        return self._benches[0][0] if self._benches else None

    def offer(self, worker: Worker) -> None:
        """Ranks the worker anew, after any change of what it has to do or may do."""
        worker.stamp += 1
        if worker.usable and not worker.closed and len(worker.refused) < max(1, len(self._kinds)):
            heapq.heappush(self._free, (worker.load, worker.order, worker.stamp, worker))
            if len(self._free) > 64 + 4 * len(self.workers):
                self._free = [entry for entry in self._free if entry[2] == entry[3].stamp]
                heapq.heapify(self._free)

    def idlest(self) -> Generator[Worker]:
        """Workers that may get something, the least busy first.

        Whoever is sent a chunk (and so was offered anew) may come again; the others not, until the
        iterator is closed.
        """
        aside: list[tuple[float, int, int, Worker]] = []
        try:
            while self._free:
                entry = heapq.heappop(self._free)
                worker = entry[3]
                if entry[2] != worker.stamp:
                    continue
                aside.append(entry)
                yield worker
                if worker.stamp != entry[2]:
                    aside.pop()
        finally:
            for entry in aside:
                if entry[2] == entry[3].stamp:
                    heapq.heappush(self._free, entry)

    def idle(self) -> bool:
        """Whether some slot has nothing to do."""
        while self._free and self._free[0][2] != self._free[0][3].stamp:
            heapq.heappop(self._free)
        return bool(self._free) and self._free[0][0] < 1.0
