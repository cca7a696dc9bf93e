# SPDX-License-Identifier: Apache-2.0
"""A cluster in virtual time that does what a dispatcher says."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable

from simtune.execution.dispatch import Chunk, Dispatcher, Settled


class Cluster:
    """Workers with slots that run chunks first come, first served.

    Args:
        dispatcher: decides.
        seconds: what a ticket takes; a negative number kills the worker after so long instead.
    """

    def __init__(self, dispatcher: Dispatcher, seconds: Callable[[int], float]) -> None:
        self.dispatcher = dispatcher
        self.now = 0.0
        self.done: list[int] = []
        self.lost: dict[int, str] = {}
        self.sent: list[Chunk] = []
        self.killers: list[Chunk] = []
        self.busy = 0.0  # seconds of slots
        self._seconds = seconds
        self._slots: dict[str, tuple[int, str]] = {}
        self._queued: dict[str, deque[Chunk]] = {}
        self._running: dict[str, dict[int, Chunk]] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def join(self, worker: str, slots: int, host: str) -> None:
        self._slots[worker] = (slots, host)
        self._queued[worker] = deque()
        self._running[worker] = {}
        self.dispatcher.joined(worker, slots, host, self.now)

    def kill(self, worker: str, back_after: float = 1.0) -> None:
        """The worker dies and comes back empty, under the same name."""
        slots, host = self._slots[worker]
        del self._queued[worker], self._running[worker]
        self.settle(self.dispatcher.left(worker, self.now))
        self.at(self.now + back_after, lambda: self.join(worker, slots, host))

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self) -> None:
        """Until nothing happens any more."""
        self._assign()
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
            self._assign()

    def settle(self, settled: Settled) -> None:
        self.done += settled.final
        self.lost.update(settled.lost)
        for number in settled.stop:
            for worker in self._running:
                if self._running[worker].pop(number, None):
                    self._start(worker)
                queue = self._queued[worker]
                self._queued[worker] = deque(chunk for chunk in queue if chunk.number != number)

    def _assign(self) -> None:
        for chunk in self.dispatcher.assign(self.now):
            self.sent.append(chunk)
            worker = chunk.worker
            here = [*self._queued[worker], *self._running[worker].values()]
            assert not any(other.alone for other in here), "a suspect has company"
            assert not chunk.alone or not here, "a suspect gets company"
            assert len(here) < self._slots[worker][0] * (1 + self.dispatcher.policy.ahead)
            self._queued[worker].append(chunk)
            self._start(worker)
        if (wake := self.dispatcher.next_wake(self.now)) is not None and self._events:
            self.at(wake + 1e-6, lambda: None) if wake < self._events[0][0] else None

    def _start(self, worker: str) -> None:
        running, queue = self._running[worker], self._queued[worker]
        while queue and len(running) < self._slots[worker][0]:
            chunk = queue.popleft()
            running[chunk.number] = chunk
            took = {ticket: self._seconds(ticket) for ticket in chunk.tickets}
            deadly = next((ticket for ticket in chunk.tickets if took[ticket] < 0), None)
            total = sum(map(abs, took.values()))
            self.busy += total
            if deadly is None:
                self.at(self.now + total, lambda chunk=chunk, took=took: self._reply(chunk, took))
            else:
                self.at(self.now + total, lambda chunk=chunk: self._die(chunk))

    def _reply(self, chunk: Chunk, took: dict[int, float]) -> None:
        if self._running.get(chunk.worker, {}).pop(chunk.number, None):
            self.settle(self.dispatcher.replied(chunk.number, took, (), self.now))
            self._start(chunk.worker)

    def _die(self, chunk: Chunk) -> None:
        if chunk.number in self._running.get(chunk.worker, {}):
            self.killers.append(chunk)
            self.kill(chunk.worker)
