# SPDX-License-Identifier: Apache-2.0
"""Every job ends exactly once, whatever order workers, replies, losses and cancellations come in."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.execution import wire
from simtune.execution.courier import Courier, Moves, Order, Parcel
from simtune.execution.dispatch import Policy
from simtune.testing.jobs import FakeJob, FakeResult

WORKERS = [f"worker{number}" for number in range(4)]


class Chaos:
    """A courier whose workers answer as a seed will have it."""

    def __init__(self, seed: int, file: Path) -> None:
        self.random, self.file, self.now = random.Random(seed), file, 0.0
        self.steps: list[Callable[[], None]] = []
        policy = Policy(double_s=0.5, bench_s=0.5, unfit_s=1.0, chunk_s=self.random.choice([0.1, 1.0, 3.0]))
        self.courier = Courier(self.steps.append, policy)
        self.sent: dict[int, Parcel] = {}
        self.stale: list[Parcel] = []
        self.futures: list[Future[FakeResult]] = []
        self.ends: Counter[Future[FakeResult]] = Counter()

    def submit(self) -> None:
        for _ in range(self.random.randrange(1, 20)):
            future: Future[FakeResult] = Future()
            future.add_done_callback(lambda future: self.ends.update([future]))
            file = self.random.choice([None, self.file])
            job = FakeJob(len(self.futures), weight=self.random.choice([0, 1, 5]), file=file)
            self.futures.append(future)
            self.courier.add(Order.of(job, future), self.now)

    def join(self) -> None:
        host = self.random.choice(["one", "other"])
        self.courier.joined(self.random.choice(WORKERS), self.random.randrange(1, 4), host, self.now)

    def leave(self) -> None:
        self.lose(self.random.choice(WORKERS), self.random.random() < 0.6)

    def lose(self, worker: str, blame: bool) -> None:
        gone = [number for number, parcel in self.sent.items() if parcel.worker == worker]
        self.stop(self.courier.left(worker, self.now, blame))
        self.stop(gone)

    def cancel(self) -> None:
        chosen = self.random.sample(self.futures, min(5, len(self.futures)))
        self.stop(self.courier.drop([future for future in chosen if future.cancel()], self.now))

    def late_reply(self) -> None:
        if self.stale:
            self.answer(self.random.choice(self.stale))

    def reply(self) -> None:
        if self.sent:
            self.answer(self.sent.pop(self.random.choice(list(self.sent))))

    def answer(self, parcel: Parcel, sound: bool = False) -> None:
        payload = wire.encode_reply(self._reply(parcel, sound))
        if not sound and self.random.random() < 0.05:
            payload = payload[:-3]
        self.carry_out(self.courier.replied(parcel.number, payload, self.now))

    def carry_out(self, moves: Moves) -> None:
        self.sent.update({parcel.number: parcel for parcel in moves.send})
        self.stop(moves.stop)

    def stop(self, numbers: Collection[int]) -> None:
        self.stale += [self.sent.pop(number) for number in numbers if number in self.sent]

    def send(self) -> None:
        for parcel in self.courier.parcels(self.now):
            assert parcel.number not in self.sent
            self.sent[parcel.number] = parcel

    def settle(self) -> None:
        for step in self.steps:
            step()
        self.steps.clear()

    def _reply(self, parcel: Parcel, sound: bool) -> wire.Reply:
        luck = 1.0 if sound else self.random.random()
        if luck < 0.15:
            return [wire.Reply(refused="no"), wire.Reply(missing=["d"]), wire.Reply(trouble="full")][
                int(luck * 20)
            ]
        jobs = []
        for job in wire.decode_chunk(parcel.payload).jobs:
            luck = 1.0 if sound else self.random.random()
            result = FakeJob.encode_result(FakeResult(json.loads(bytes(job.data))["number"], "value"))
            if luck > 0.1:
                failed = luck < 0.15
                transient = 0.15 < luck < 0.25
                jobs.append(wire.JobReply(job.ticket, luck, None if failed else result, transient))
        return wire.Reply(jobs, leaving=0.15 < luck < 0.2)


@settings(max_examples=60, deadline=None, database=None)
@given(st.integers(0, 2**32))
def test_every_job_ends_exactly_once(seed: int) -> None:
    chaos = Chaos(seed, Path(__file__))
    events = [
        chaos.submit,
        chaos.join,
        chaos.leave,
        chaos.cancel,
        chaos.late_reply,
        chaos.reply,
        chaos.settle,
    ]
    for event in chaos.random.choices(events, [4, 3, 1, 1, 1, 8, 3], k=100):
        chaos.now += chaos.random.choice([0.0, 0.1, 2.0]) * chaos.random.random()
        event()
        chaos.send()
    for worker in list(chaos.courier.workers):
        chaos.lose(worker, blame=False)
    assert not chaos.sent
    for number in range(3):
        chaos.courier.joined(f"sound{number}", 2, f"host{number}", chaos.now)
    while len(chaos.courier):
        chaos.now += 0.3
        chaos.send()
        for number in list(chaos.sent):
            if number in chaos.sent:
                chaos.answer(chaos.sent.pop(number), sound=True)
        assert chaos.now < 1000, "some job never ends"
    chaos.settle()
    assert all(future.done() for future in chaos.futures)
    assert set(chaos.ends.values()) <= {1}
    assert len(chaos.ends) == len(chaos.futures)
    for number, future in enumerate(chaos.futures):
        if not future.cancelled() and future.exception() is None:
            assert future.result().number == number
    progress = chaos.courier.progress(chaos.now)
    assert (progress.waiting, progress.under_way) == (0, 0)
    assert not any(worker.running or worker.queued for worker in progress.workers)
