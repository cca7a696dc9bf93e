# SPDX-License-Identifier: Apache-2.0
"""A cluster of any size as a discrete-event simulation around the real dispatcher.

Only the machinery is simulated: one driver and one scheduler, each doing one thing after the other at
a cost per job and per chunk that was measured, a network that takes its time, and workers whose slots
sleep. What goes where is decided by `simtune.execution.dispatch.Dispatcher`, told virtual times.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simtune.execution.dispatch import Chunk, Dispatcher, Policy, Settled


@dataclass(frozen=True)
class Costs:
    """What the machinery takes, in seconds.

    Attributes:
        submit: the driver's CPU to take one job on.
        job: the driver's CPU per job besides, for sending and for the result together.
        chunk: the driver's CPU per chunk, likewise.
        task: the scheduler's CPU per chunk.
        task_job: the scheduler's CPU per job, since longer messages take longer.
        slot: wall time that a slot needs per job beside the job itself.
        latency: of the network, each way between driver, scheduler and worker.
        detect: until the scheduler notices that a worker is gone.
    """

    submit: float
    job: float
    chunk: float
    task: float
    task_job: float = 0.0
    slot: float = 0.0
    latency: float = 0.0005
    detect: float = 1.0


class Station:
    """Does one thing at a time, of two threads in turns, in each in the order in which they come."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._threads: tuple[deque[tuple[float, Callable[[], None]]], ...] = (deque(), deque())
        self._last = 0
        self._at_work = False
        self.worked = 0.0

    def do(self, cost: float, then: Callable[[], None], thread: int = 0) -> None:
        """Something is to be done at this cost; `then` is called when it is."""
        self._threads[thread].append((cost, then))
        if not self._at_work:
            self._next()

    def _next(self) -> None:
        self._last = 1 - self._last if self._threads[1 - self._last] else self._last
        self._at_work = bool(self._threads[self._last])
        if self._at_work:
            cost, then = self._threads[self._last].popleft()
            self.worked += cost
            self._cluster.at(self._cluster.now + cost, lambda: self._done(then))

    def _done(self, then: Callable[[], None]) -> None:
        then()
        self._next()


@dataclass(eq=False)
class Machine:
    """A worker: chunks that wait, and those that run."""

    name: str
    host: str
    slots: int
    queued: deque[Chunk] = field(default_factory=deque)
    running: dict[int, float] = field(default_factory=dict)  # share of the time that is jobs' own


class SimulatedCluster:
    """One batch of jobs on one cluster.

    Args:
        costs: of the machinery.
        workers, slots_each: how many there are.
        seconds: of each job.
        lengths: as predicted for the dispatcher, any unit.
        lifetime: mean seconds until a worker dies, as a Poisson process; 0 for never. Another one
            takes its place on the same host after `back`.
        back: seconds.
        seed: of the deaths.
        policy: of the dispatcher.
    """

    def __init__(
        self,
        costs: Costs,
        workers: int,
        slots_each: int,
        seconds: list[float],
        lengths: list[float],
        *,
        lifetime: float = 0.0,
        back: float = 15.0,
        seed: int = 0,
        policy: Policy | None = None,
    ) -> None:
        self.now = 0.0
        self._costs, self._seconds, self._lengths = costs, seconds, lengths
        self._lifetime, self._back = lifetime, back
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._dispatcher = Dispatcher(policy)
        self._dispatcher_cpu = 0.0
        self.driver, self.scheduler = Station(self), Station(self)
        self._machines: dict[str, Machine] = {}
        self._slots = workers * slots_each
        self._ended: dict[int, int] = {}
        self._waits_for: float | None = None
        # The integral of slots busy with jobs, and its value at some moments.
        self._rate = self._useful = self._since = 0.0
        self._warm: tuple[float, float] | None = None  # a tenth of the jobs have ended
        self._drained: tuple[float, float] | None = None  # none waits any more
        self._taken = False
        self._losses = 0
        for number in range(workers):
            self._join(f"w{number}", f"h{number}", slots_each)
        self._submit(0)

    def run(self) -> dict[str, Any]:
        """Runs until all jobs have ended; returns figures.

        Raises:
            AssertionError: a job ended twice, or never.
        """
        while len(self._ended) < len(self._seconds):
            assert self._events, "nothing happens any more, but jobs are left"
            self.now, _, then = heapq.heappop(self._events)
            then()
        assert set(self._ended.values()) == {1}
        state = self._dispatcher.progress(self.now)
        steady = None
        if self._warm is not None and self._drained is not None and self._drained[0] > self._warm[0]:
            (start, before), (end, after) = self._warm, self._drained
            steady = round((after - before) / (end - start) / self._slots, 4)
        return {
            "slots": self._slots,
            "jobs": len(self._seconds),
            "busy": round(sum(self._seconds) / (self._slots * self.now), 4),
            "busy_steady": steady,
            "wall_s": round(self.now, 2),
            "jobs_per_s": round(len(self._seconds) / self.now, 1),
            "driver_busy": round(self.driver.worked / self.now, 3),
            "scheduler_busy": round(self.scheduler.worked / self.now, 3),
            "jobs_per_chunk": round(len(self._seconds) / state.chunks, 1),
            "dispatcher_cpu_ms_per_job": round(1e3 * self._dispatcher_cpu / len(self._seconds), 4),
            "losses": self._losses,
            "retries": state.retries,
            "doubles": state.doubles,
            "lost": state.lost,
        }

    def at(self, when: float, then: Callable[[], None]) -> None:
        """Something happens then."""
        heapq.heappush(self._events, (when, next(self._order), then))

    # Driver

    def _submit(self, first: int, some: int = 20) -> None:
        """The user's thread submits some jobs, then the driver's does something, and so on."""
        last = min(first + some, len(self._seconds))

        def taken() -> None:
            for ticket in range(first, last):
                self._decide(lambda t=ticket: self._dispatcher.add(t, self._lengths[t], self.now))
            self._taken = last == len(self._seconds)
            self._assign()
            if not self._taken:
                self._submit(last)

        self.driver.do(self._costs.submit * (last - first), taken, thread=1)

    def _decide(self, call: Callable[[], Any]) -> Any:
        before = time.process_time()
        answer = call()
        self._dispatcher_cpu += time.process_time() - before
        return answer

    def _assign(self) -> None:
        for chunk in self._decide(lambda: self._dispatcher.assign(self.now)):
            self.driver.do(self._driver_half(chunk), lambda c=chunk: self._sent(c))
        if self._drained is None and self._taken and not self._dispatcher.waiting:
            self._drained = (self.now, self._useful_until_now())
        wake = self._dispatcher.next_wake(self.now)
        if wake is not None and (self._waits_for is None or wake < self._waits_for):
            self._waits_for = wake
            self.at(wake + 0.001, self._woken)

    def _woken(self) -> None:
        self._waits_for = None
        self._assign()

    def _settle(self, settled: Settled) -> None:
        for ticket in (*settled.final, *(ticket for ticket, _ in settled.lost)):
            self._ended[ticket] = self._ended.get(ticket, 0) + 1
        if self._warm is None and len(self._ended) >= len(self._seconds) / 10:
            self._warm = (self.now, self._useful_until_now())
        for number in settled.stop:
            self.at(self.now + 2 * self._costs.latency, lambda n=number: self._stop(n))

    def _driver_half(self, chunk: Chunk) -> float:
        return (self._costs.chunk + self._costs.job * len(chunk.tickets)) / 2

    # Scheduler and network

    def _scheduler_half(self, chunk: Chunk) -> float:
        return (self._costs.task + self._costs.task_job * len(chunk.tickets)) / 2

    def _via_scheduler(self, chunk: Chunk, then: Callable[[], None]) -> None:
        latency = self._costs.latency
        there = lambda: self.at(self.now + latency, then)  # noqa: E731
        self.at(self.now + latency, lambda: self.scheduler.do(self._scheduler_half(chunk), there))

    def _sent(self, chunk: Chunk) -> None:
        self._via_scheduler(chunk, lambda: self._arrived(chunk))

    def _replied(self, chunk: Chunk) -> None:
        took = {ticket: self._seconds[ticket] for ticket in chunk.tickets}

        def read() -> None:
            self._settle(self._decide(lambda: self._dispatcher.replied(chunk.number, took, (), self.now)))
            self._assign()

        self.driver.do(self._driver_half(chunk), read)

    # Workers

    def _join(self, name: str, host: str, slots: int) -> None:
        self._machines[name] = Machine(name, host, slots)
        self._decide(lambda: self._dispatcher.joined(name, slots, host, self.now))
        if self._lifetime:
            self.at(self.now + self._random.expovariate(1 / self._lifetime), lambda: self._die(name))
        if self.now:
            self._assign()

    def _die(self, name: str) -> None:
        machine = self._machines.pop(name)
        self._losses += 1
        for share in machine.running.values():
            self._change_rate(-share)
        origin, _, life = name.partition("+")
        successor = f"{origin}+{int(life or 0) + 1}"
        self.at(self.now + self._back, lambda: self._join(successor, machine.host, machine.slots))

        def noticed() -> None:
            self._settle(self._decide(lambda: self._dispatcher.left(name, self.now)))
            self._assign()

        self.at(self.now + self._costs.detect, noticed)

    def _arrived(self, chunk: Chunk) -> None:
        machine = self._machines.get(chunk.worker)
        if machine is not None:
            machine.queued.append(chunk)
            self._start(machine)

    def _start(self, machine: Machine) -> None:
        while machine.queued and len(machine.running) < machine.slots:
            chunk = machine.queued.popleft()
            own = sum(self._seconds[ticket] for ticket in chunk.tickets)
            whole = own + self._costs.slot * len(chunk.tickets)
            machine.running[chunk.number] = own / whole
            self._change_rate(own / whole)
            self.at(self.now + whole, lambda c=chunk: self._finished(c))

    def _finished(self, chunk: Chunk) -> None:
        machine = self._machines.get(chunk.worker)
        if machine is None or chunk.number not in machine.running:
            return
        self._change_rate(-machine.running.pop(chunk.number))
        self._via_scheduler(chunk, lambda: self._replied(chunk))
        self._start(machine)

    def _stop(self, number: int) -> None:
        for machine in self._machines.values():
            if number in machine.running:
                self._change_rate(-machine.running.pop(number))
                self._start(machine)
            elif any(chunk.number == number for chunk in machine.queued):
                machine.queued = deque(chunk for chunk in machine.queued if chunk.number != number)

    # Figures

    def _change_rate(self, change: float) -> None:
        self._useful, self._since = self._useful_until_now(), self.now
        self._rate += change

    def _useful_until_now(self) -> float:
        return self._useful + self._rate * (self.now - self._since)
