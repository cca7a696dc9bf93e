# SPDX-License-Identifier: Apache-2.0
"""The workers as the dispatcher sees them: who is there, the least busy one first, who must rest."""

from __future__ import annotations

import heapq
from collections.abc import Generator

from simtune.execution.dispatch.state import Worker


class Fleet:
    """All workers, the least busy one at hand.

    Attributes:
        workers: by name, in the order in which they joined.
        epoch: grows whenever a worker comes, goes, or may be used for more or less than before.
    """

    def __init__(self) -> None:
        self.workers: dict[str, Worker] = {}
        self.epoch = 0
        self._slots = (0, 0)
        self._kinds: set[str] = set()
        self._order = 0
        self._free: list[tuple[float, int, int, Worker]] = []
        self._benches: list[tuple[float, int, Worker]] = []

    @property
    def slots(self) -> int:
        """Slots of all workers that may be used."""
        epoch, slots = self._slots
        if epoch != self.epoch:
            slots = sum(worker.slots for worker in self.workers.values() if self._useful(worker))
            self._slots = (self.epoch, slots)
        return slots

    def join(self, name: str, slots: int, host: str) -> None:
        """A worker comes, or one that is there changes its number of slots."""
        worker = self.workers.get(name)
        if worker is None:
            self._order += 1
            worker = self.workers[name] = Worker(name, host, slots, self._order)
        worker.slots = slots
        self.epoch += 1
        self.offer(worker)

    def leave(self, name: str) -> Worker | None:
        """A worker goes; None if there is none of this name."""
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.stamp += 1
            self.epoch += 1
        return worker

    def serve(self, kind: str) -> None:
        """There are jobs of this kind, too: also those that refused all others are asked."""
        self._kinds.add(kind)
        self.epoch += 1
        for worker in self.workers.values():
            self.offer(worker)

    def refuse(self, worker: Worker, kind: str, reason: str) -> None:
        """The worker cannot run this kind of jobs."""
        worker.refused[kind] = reason
        self.epoch += 1
        self.offer(worker)

    def bench(self, worker: Worker, until: float) -> None:
        """The worker gets nothing until then."""
        worker.benched = True
        worker.benches += 1
        self.epoch += 1
        self.offer(worker)
        heapq.heappush(self._benches, (until, worker.order, worker))

    def unbench(self, now: float) -> None:
        """Takes those back whose time is over."""
        while self._benches and self._benches[0][0] <= now:
            _, _, worker = heapq.heappop(self._benches)
            worker.benched = False
            self.epoch += 1
            self.offer(worker)

    def next_unbench(self) -> float | None:
        """When the first of them comes back."""
        return self._benches[0][0] if self._benches else None

    def offer(self, worker: Worker) -> None:
        """Ranks the worker anew, after any change of what it has to do or may do."""
        worker.stamp += 1
        if worker.closed or not self._useful(worker) or self.workers.get(worker.name) is not worker:
            return
        heapq.heappush(self._free, (worker.load, worker.order, worker.stamp, worker))
        if len(self._free) > 64 + 4 * len(self.workers):
            self._free = [entry for entry in self._free if entry[2] == entry[3].stamp]
            heapq.heapify(self._free)

    def idlest(self) -> Generator[Worker, None, None]:
        """Workers that may get something, the least busy first.

        Whoever is sent a chunk (and so is offered anew) may come again, the others not before the
        generator is closed.
        """
        aside: list[tuple[float, int, int, Worker]] = []
        try:
            while self._free:
                entry = heapq.heappop(self._free)
                if entry[2] == entry[3].stamp:
                    aside.append(entry)
                    yield entry[3]
                    if entry[2] != entry[3].stamp:
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

    def _useful(self, worker: Worker) -> bool:
        return not worker.benched and len(worker.refused) < max(1, len(self._kinds))
