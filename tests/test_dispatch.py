# SPDX-License-Identifier: Apache-2.0
"""The dispatcher's rules one by one, and all of them under random events."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from dispatch_helpers import Cluster
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from simtune.execution.dispatch import Chunk, Dispatcher, Policy


def fleet(dispatcher: Dispatcher, *hosts: str, slots: int = 1) -> None:
    """Workers w0, w1, … on these hosts."""
    for number, host in enumerate(hosts):
        dispatcher.joined(f"w{number}", slots, host, 0.0)


def taught(seconds: float = 1.0, policy: Policy | None = None, kind: str = "") -> Dispatcher:
    """A dispatcher that has learnt that jobs of length 1 take so long."""
    dispatcher = Dispatcher(policy)
    dispatcher.joined("teacher", 1, "school", 0.0)
    dispatcher.add(-1, 1.0, 0.0, kind)
    [chunk] = dispatcher.assign(0.0)
    dispatcher.replied(chunk.number, {-1: seconds}, (), 0.0)
    dispatcher.left("teacher", 0.0)
    return dispatcher


def answer(dispatcher: Dispatcher, chunk: Chunk, now: float, seconds: float = 1.0) -> list[int]:
    """All jobs of the chunk went well."""
    return dispatcher.replied(chunk.number, dict.fromkeys(chunk.tickets, seconds), (), now).final


# Order and size of chunks -------------------------------------------------------------------------


def test_longest_first_then_earliest() -> None:
    dispatcher = Dispatcher(Policy(ahead=0))
    for ticket, length in enumerate([1.0, 5.0, 0.0, 5.0, 3.0]):
        dispatcher.add(ticket, length, 0.0)
    fleet(dispatcher, "a")
    order = []
    for now in range(5):
        [chunk] = dispatcher.assign(float(now))
        order += chunk.tickets
        answer(dispatcher, chunk, float(now), seconds=10.0)
    assert order == [1, 3, 4, 0, 2]


def test_one_job_a_chunk_and_none_ahead_until_lengths_are_known() -> None:
    dispatcher = Dispatcher()
    for ticket in range(100):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b", slots=2)
    assert [len(chunk.tickets) for chunk in dispatcher.assign(0.0)] == [1, 1, 1, 1]
    assert dispatcher.assign(0.0) == []


@pytest.mark.parametrize(("seconds", "jobs"), [(0.1, 30), (1.0, 3), (10.0, 1), (0.001, 100)])
def test_chunks_last_about_as_long_as_they_should(seconds: float, jobs: int) -> None:
    dispatcher = taught(seconds)
    for ticket in range(20_000):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a")
    assert [len(chunk.tickets) for chunk in dispatcher.assign(0.0)] == [jobs, jobs]


def test_length_is_learnt_per_unit_and_per_job() -> None:
    """0.5 s + 0.1 s per unit of length: 25 units take 3 s, and so do five jobs without any length."""
    dispatcher = Dispatcher()
    fleet(dispatcher, "a")
    for ticket, length in enumerate([1.0, 10.0, 20.0, 5.0]):
        dispatcher.add(-1 - ticket, length, 0.0)
        [chunk] = dispatcher.assign(0.0)
        answer(dispatcher, chunk, 0.0, seconds=0.5 + 0.1 * length)
    for ticket in range(1000):
        dispatcher.add(ticket, 0.0, 0.0)
    assert len(dispatcher.assign(0.0)[0].tickets) == 6
    assert dispatcher.progress(0.0).seconds_left == pytest.approx(500, rel=0.03)


def test_much_longer_jobs_are_not_taken_for_short_ones() -> None:
    """All jobs so far were of one length; one that is 100 times as long gets a chunk of its own."""
    dispatcher = taught(0.1)
    fleet(dispatcher, "a")
    for ticket in range(100):
        dispatcher.add(ticket, 100.0, 0.0)
    assert [len(chunk.tickets) for chunk in dispatcher.assign(0.0)] == [1, 1]


def test_chunks_shrink_towards_the_end_and_queue_nowhere() -> None:
    dispatcher = taught(0.1)
    for ticket in range(400):  # 40 s of work, 10 s per slot
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b", slots=2)
    under_way = dispatcher.assign(0.0)
    sizes, loads, now = [], [], 0.0
    while under_way:
        sizes.append(len(under_way[0].tickets))
        now += 0.1 * sizes[-1] / 4
        answer(dispatcher, under_way.pop(0), now, 0.1)
        under_way += dispatcher.assign(now)
        loads.append(max(Counter(chunk.worker for chunk in under_way).values(), default=0))
    assert sizes[0] == 30
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-4:] == [1, 1, 1, 1]
    assert loads[0] == 4
    assert max(loads[len(loads) // 2 :]) == 2


def test_chunks_grow_with_the_number_of_slots() -> None:
    """5 ms a chunk: from 200 slots, 8 jobs of 0.5 s keep the machinery busy for a quarter of the time;
    in the end half of it will do."""
    dispatcher = taught(0.5, Policy(task_s=0.005))
    for ticket in range(10_000):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b", slots=100)
    under_way = dispatcher.assign(0.0)
    sizes = [len(chunk.tickets) for chunk in under_way]
    while under_way:
        answer(dispatcher, under_way.pop(0), 0.0, 0.5)
        more = dispatcher.assign(0.0)
        under_way += more
        sizes += [len(chunk.tickets) for chunk in more]
    assert {*sizes[:300]} == {8}
    assert {*sizes[-50:-1]} == {4}


def test_no_worker_gets_more_than_its_depth() -> None:
    dispatcher = taught(1.0, Policy(ahead=0.5))
    for ticket in range(1000):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b", slots=4)
    chunks = dispatcher.assign(0.0)
    assert Counter(chunk.worker for chunk in chunks) == {"w0": 6, "w1": 6}
    assert dispatcher.assign(0.0) == []
    answer(dispatcher, chunks[0], 3.0)
    assert [chunk.worker for chunk in dispatcher.assign(3.0)] == [chunks[0].worker]


def test_idle_slots_of_all_workers_come_before_any_queue() -> None:
    dispatcher = taught(1.0)
    for ticket in range(1000):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b", "c", slots=2)
    assert Counter(chunk.worker for chunk in dispatcher.assign(0.0)[:6]) == {"w0": 2, "w1": 2, "w2": 2}


def test_kinds_share_the_slots() -> None:
    dispatcher = Dispatcher()
    for ticket in range(20):
        dispatcher.add(ticket, 1.0, 0.0, "build" if ticket < 16 else "simulate")
    fleet(dispatcher, "a", slots=8)
    kinds = Counter("build" if chunk.tickets[0] < 16 else "simulate" for chunk in dispatcher.assign(0.0))
    assert kinds == {"build": 4, "simulate": 4}


# Stragglers ---------------------------------------------------------------------------------------


def test_stragglers_run_twice_only_when_slots_are_idle_and_the_first_result_counts() -> None:
    dispatcher = taught(1.0)
    for ticket in range(3):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b")
    first, second = dispatcher.assign(0.0)
    assert dispatcher.assign(100.0) == []  # no slot is idle
    answer(dispatcher, second, 100.0)
    [third] = dispatcher.assign(100.0)  # something waits
    answer(dispatcher, third, 101.0)
    [double] = dispatcher.assign(101.0)
    assert (double.tickets, double.worker, double.double) == (first.tickets, second.worker, True)
    assert dispatcher.assign(200.0) == []  # never a third time
    settled = dispatcher.replied(double.number, {double.tickets[0]: 1.0}, (), 201.0)
    assert (settled.final, settled.stop) == ([*first.tickets], [first.number])
    assert answer(dispatcher, first, 202.0) == []
    assert dispatcher.progress(202.0).doubles == 1


def test_straggler_is_looked_at_when_it_is_due() -> None:
    dispatcher = taught(1.0, Policy(double_s=5.0))
    dispatcher.add(0, 1.0, 0.0)
    fleet(dispatcher, "a", "b")
    [chunk] = dispatcher.assign(0.0)
    wake = dispatcher.next_wake(0.0)
    assert wake == pytest.approx(6.0)
    assert dispatcher.assign(wake - 0.1) == []
    assert [double.tickets for double in dispatcher.assign(wake)] == [chunk.tickets]


def test_lost_double_is_no_loss_of_the_job() -> None:
    dispatcher = taught(1.0)
    dispatcher.add(0, 1.0, 0.0)
    fleet(dispatcher, "a", "b")
    [chunk] = dispatcher.assign(0.0)
    [double] = dispatcher.assign(100.0)
    settled = dispatcher.left(double.worker, 101.0)
    assert not settled.again
    assert not settled.lost
    assert answer(dispatcher, chunk, 102.0) == [0]


# Lost workers -------------------------------------------------------------------------------------


def test_jobs_of_a_lost_worker_run_on_another_host() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a", "a", "b")
    for ticket in range(3):
        dispatcher.add(ticket, 1.0, 0.0)
    chunks = {chunk.worker: chunk for chunk in dispatcher.assign(0.0)}
    answer(dispatcher, chunks["w1"], 0.5)
    settled = dispatcher.left("w0", 1.0)
    assert settled.again == [*chunks["w0"].tickets]
    assert dispatcher.assign(1.0) == []  # w1 is idle, but on the same host
    answer(dispatcher, chunks["w2"], 2.0)
    assert [(c.worker, c.tickets) for c in dispatcher.assign(2.0)] == [("w2", chunks["w0"].tickets)]


def test_other_worker_or_the_same_if_there_is_no_other_host() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a", "a")
    dispatcher.add(0, 1.0, 0.0)
    [chunk] = dispatcher.assign(0.0)
    dispatcher.left(chunk.worker, 1.0)
    [again] = dispatcher.assign(1.0)
    assert again.worker != chunk.worker
    dispatcher.left(again.worker, 2.0)
    assert dispatcher.assign(2.0) == []
    dispatcher.joined(again.worker, 1, "a", 3.0)  # the same name comes back
    [last] = dispatcher.assign(3.0)
    assert (last.worker, last.alone) == (again.worker, True)
    assert answer(dispatcher, last, 4.0) == [0]


@pytest.mark.parametrize(("workers", "slots"), [(1, 1), (1, 4), (2, 2), (8, 2), (4, 16)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_innocent_neighbours_survive_poison_jobs(workers: int, slots: int, seed: int) -> None:
    """Poison jobs end after three workers each; every other job has its result. The cluster of the
    test asserts that those on their last try are alone."""
    rng = random.Random(seed)
    poison = set(rng.sample(range(500), 5))
    cluster = Cluster(taught(0.1), lambda ticket: -0.05 if ticket in poison else rng.uniform(0.05, 0.2))
    for ticket in range(500):
        cluster.dispatcher.add(ticket, 1.0, 0.0)
    for number in range(workers):
        cluster.join(f"w{number}", slots, f"h{number % 3}")
    cluster.run()
    assert sorted(cluster.done) == sorted(set(range(500)) - poison)
    assert set(cluster.lost) == poison
    for culprit in poison:
        killed = [chunk for chunk in cluster.killers if culprit in chunk.tickets]
        assert 1 <= len(killed) <= 3
        assert killed[-1].alone
    for ticket, reason in cluster.lost.items():
        workers_named = [chunk.worker for chunk in cluster.killers if ticket in chunk.tickets]
        assert all(f"{worker} (h" in reason for worker in workers_named)
    assert not any(chunk.double and poison & {*chunk.tickets} for chunk in cluster.sent)


def test_poison_costs_little() -> None:
    """One poison job among 5,000 on 16 workers of 4 slots: less than a tenth of the cluster's time."""

    def makespan(poison: int) -> float:
        cluster = Cluster(taught(0.5), lambda ticket: -0.25 if ticket == poison else 0.5)
        for ticket in range(5000):
            cluster.dispatcher.add(ticket, 1.0, 0.0)
        for number in range(16):
            cluster.join(f"w{number}", 4, f"h{number}")
        cluster.run()
        assert len(cluster.done) + len(cluster.lost) == 5000
        return cluster.now

    assert makespan(poison=2500) < 1.1 * makespan(poison=-5)


def test_blameless_loss_does_not_count() -> None:
    dispatcher = Dispatcher()
    dispatcher.add(0, 1.0, 0.0)
    for now in range(10):
        dispatcher.joined(f"w{now}", 1, "a", now)
        [chunk] = dispatcher.assign(now)
        assert not chunk.alone
        assert dispatcher.left(chunk.worker, now, blame=False).again == [0]
    assert dispatcher.progress(10.0).waiting == 1


def test_chunks_are_short_while_workers_die_often() -> None:
    def longest(deadly: float) -> int:
        rng = random.Random(1)
        cluster = Cluster(taught(0.05), lambda _: -0.01 if rng.random() < deadly else 0.05)
        for ticket in range(8000):
            cluster.dispatcher.add(ticket, 1.0, 0.0)
        for number in range(8):
            cluster.join(f"w{number}", 1, f"h{number}")
        cluster.run()
        return max(len(chunk.tickets) for chunk in cluster.sent[50:])

    assert longest(0.0) == 60
    assert longest(0.02) <= 20


# Transient failures -------------------------------------------------------------------------------


def test_transient_failure_is_tried_elsewhere_and_the_last_one_counts() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a", "b", "c")
    dispatcher.add(0, 1.0, 0.0)
    workers = []
    for now in range(3):
        [chunk] = dispatcher.assign(now)
        assert not chunk.alone
        workers.append(chunk.worker)
        settled = dispatcher.replied(chunk.number, {0: 1.0}, [0], now)
        assert settled.again == ([0] if now < 2 else [])
        assert settled.final == ([] if now < 2 else [0])
    assert sorted(workers) == ["w0", "w1", "w2"]


def test_reply_without_result_is_tried_again_and_lost_in_the_end() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a")
    dispatcher.add(0, 1.0, 0.0)
    for now in range(2):
        [chunk] = dispatcher.assign(now)
        assert dispatcher.broken(chunk.number, "sent nonsense", now).again == [0]
    [chunk] = dispatcher.assign(2.0)
    [(ticket, reason)] = dispatcher.replied(chunk.number, {}, (), 2.0).lost
    assert ticket == 0
    assert "w0 (a) sent nonsense" in reason


def test_worker_with_many_transient_failures_rests_ever_longer() -> None:
    policy = Policy(strikes=3, bench_s=5.0, bench_max_s=15.0, retries=1000)
    dispatcher = Dispatcher(policy)
    fleet(dispatcher, "a")
    dispatcher.add(0, 1.0, 0.0)

    def failures(now: float) -> int:
        """How many there are until nothing is sent any more."""
        count = 0
        while chunks := dispatcher.assign(now):
            dispatcher.replied(chunks[0].number, {0: 1.0}, [0], now)
            count += 1
        return count

    now, pauses = 0.0, []
    assert failures(now) == 3
    for _ in range(4):
        wake = dispatcher.next_wake(now)
        pauses.append(wake - now)
        assert dispatcher.assign(wake - 0.1) == []
        now = wake
        assert dispatcher.progress(now - 0.1).workers[0].benched
        assert failures(now) == 1
    assert pauses == [5.0, 10.0, 15.0, 15.0]
    now = dispatcher.next_wake(now)
    [chunk] = dispatcher.assign(now)
    answer(dispatcher, chunk, now)
    dispatcher.add(1, 1.0, now)
    [chunk] = dispatcher.assign(now)
    dispatcher.replied(chunk.number, {1: 1.0}, [1], now)
    assert dispatcher.assign(now)[0].tickets == (1,)  # after a success, one failure is nothing


def test_benched_worker_leaves_its_work_to_others() -> None:
    dispatcher = taught(1.0, Policy(strikes=1))
    fleet(dispatcher, "a", "b")
    for ticket in range(4):
        dispatcher.add(ticket, 1.0, 0.0)
    chunks = {chunk.worker: chunk for chunk in dispatcher.assign(0.0)}
    bad = chunks["w0"]
    dispatcher.replied(bad.number, dict.fromkeys(bad.tickets, 1.0), bad.tickets, 1.0)
    assert dispatcher.assign(1.0) == []
    answer(dispatcher, chunks["w1"], 1.0)
    assert {chunk.worker for chunk in dispatcher.assign(1.0)} == {"w1"}


# Refusals -----------------------------------------------------------------------------------------


def test_refused_kind_goes_elsewhere_and_others_stay() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a", "b")
    dispatcher.add(0, 1.0, 0.0, "gem5")
    [chunk] = dispatcher.assign(0.0)
    assert dispatcher.refused(chunk.number, "no gem5 here", 0.0).again == [0]
    [again] = dispatcher.assign(0.0)
    assert again.worker != chunk.worker
    dispatcher.add(1, 1.0, 0.0, "gem5")
    dispatcher.add(2, 1.0, 0.0, "qemu")
    assert [(c.worker, c.tickets) for c in dispatcher.assign(0.0)] == [(chunk.worker, (2,))]
    assert dispatcher.unfit(1e9) == []


def test_when_all_refuse_the_reasons_are_told_after_a_while() -> None:
    dispatcher = Dispatcher(Policy(unfit_s=10.0))
    fleet(dispatcher, "a", "b")
    for ticket in range(3):
        dispatcher.add(ticket, 1.0, 0.0)
    for chunk, reason in zip(dispatcher.assign(0.0), ["has simtune 7", "has no qemu"], strict=True):
        dispatcher.refused(chunk.number, reason, 1.0)
    assert dispatcher.assign(1.0) == []
    assert dispatcher.unfit(10.0) == []
    assert dispatcher.next_wake(1.0) == 11.0
    ended = dict(dispatcher.unfit(11.0))
    assert sorted(ended) == [0, 1, 2]
    assert all("has simtune 7" in reason and "has no qemu" in reason for reason in ended.values())
    assert dispatcher.next_wake(11.0) is None


def test_a_worker_that_may_be_fit_gives_hope() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a")
    dispatcher.add(0, 1.0, 0.0)
    [chunk] = dispatcher.assign(0.0)
    dispatcher.refused(chunk.number, "old", 0.0)
    dispatcher.joined("new", 1, "b", 5.0)
    assert dispatcher.unfit(1e9) == []
    assert [chunk.worker for chunk in dispatcher.assign(5.0)] == ["new"]
    dispatcher.left("w0", 6.0)
    dispatcher.joined("w0", 1, "a", 6.0)  # updated meanwhile
    dispatcher.add(1, 1.0, 6.0)
    assert [chunk.worker for chunk in dispatcher.assign(6.0)] == ["w0"]


# Ends ---------------------------------------------------------------------------------------------


def test_cancelled_tickets_end_and_their_chunks_stop() -> None:
    dispatcher = taught(1.0)
    for ticket in range(30):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a")
    running, queued = dispatcher.assign(0.0)
    assert dispatcher.cancel([*running.tickets, queued.tickets[0], 29, 12345], 0.0) == [running.number]
    assert answer(dispatcher, running, 1.0) == []
    left = set(range(30)) - {*running.tickets, queued.tickets[0], 29}
    assert answer(dispatcher, queued, 2.0) == [*queued.tickets[1:]]
    while chunks := dispatcher.assign(3.0):
        for chunk in chunks:
            left -= {*answer(dispatcher, chunk, 3.0)}
    assert left == {*queued.tickets[1:]}
    assert dispatcher.progress(3.0).waiting == 0


def test_late_result_of_a_worker_thought_dead_counts_if_it_is_the_first() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a", "b")
    for ticket in range(2):
        dispatcher.add(ticket, 1.0, 0.0)
    chunks = {chunk.worker: chunk for chunk in dispatcher.assign(0.0)}
    dispatcher.left("w0", 1.0)
    assert answer(dispatcher, chunks["w0"], 2.0) == [*chunks["w0"].tickets]
    assert answer(dispatcher, chunks["w0"], 2.0) == []
    assert answer(dispatcher, chunks["w1"], 3.0) == [*chunks["w1"].tickets]
    assert dispatcher.assign(3.0) == []


def test_late_result_stops_the_second_try() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a", "b")
    dispatcher.add(0, 1.0, 0.0)
    [first] = dispatcher.assign(0.0)
    dispatcher.left(first.worker, 1.0)
    [second] = dispatcher.assign(1.0)
    settled = dispatcher.replied(first.number, {0: 1.0}, (), 2.0)
    assert (settled.final, settled.stop) == ([0], [second.number])


def test_worker_that_rejoins_under_its_name_starts_empty() -> None:
    dispatcher = Dispatcher()
    fleet(dispatcher, "a")
    dispatcher.add(0, 1.0, 0.0)
    dispatcher.add(1, 1.0, 0.0)
    [chunk] = dispatcher.assign(0.0)
    dispatcher.left("w0", 1.0)
    dispatcher.joined("w0", 1, "a", 2.0)
    [again] = dispatcher.assign(2.0)
    assert again.number != chunk.number
    assert dispatcher.progress(2.0).workers[0].done == 0


def test_progress() -> None:
    dispatcher = taught(2.0)
    for ticket in range(100):
        dispatcher.add(ticket, 1.0, 0.0)
    fleet(dispatcher, "a", "b", slots=2)
    chunks = dispatcher.assign(0.0)
    view = dispatcher.progress(0.0)
    assert [(w.name, w.host, w.slots, w.running, w.queued) for w in view.workers] == [
        ("w0", "a", 2, 2, 2),
        ("w1", "b", 2, 2, 2),
    ]
    assert view.waiting + view.under_way == 100
    assert view.under_way == sum(len(chunk.tickets) for chunk in chunks)
    assert view.seconds_left == pytest.approx(50.0)
    answer(dispatcher, chunks[0], 1.0, 2.0)
    assert dispatcher.progress(1.0).done == 1 + len(chunks[0].tickets)


def test_wrong_use_is_told() -> None:
    dispatcher = Dispatcher()
    dispatcher.add(0, 1.0, 0.0)
    with pytest.raises(ValueError, match="ticket 0"):
        dispatcher.add(0, 1.0, 0.0)
    with pytest.raises(ValueError, match="0 slots"):
        dispatcher.joined("w", 0, "a", 0.0)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_nonsense_from_a_worker_teaches_nothing(seconds: float) -> None:
    dispatcher = taught(1.0)
    fleet(dispatcher, "a")
    for ticket in range(100):
        dispatcher.add(ticket, 1.0, 0.0)
    first, _ = dispatcher.assign(0.0)
    assert answer(dispatcher, first, 1.0, seconds) == [*first.tickets]
    assert len(dispatcher.assign(1.0)[0].tickets) == 3


# Anything may happen ------------------------------------------------------------------------------


class Anything(RuleBasedStateMachine):
    """Workers come and go, answers come in any order or not at all, tickets are given up."""

    policy = Policy(chunk_s=3.0, strikes=2, bench_s=5.0, unfit_s=10.0, double_s=1.0)

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.twins = [Dispatcher(self.policy), Dispatcher(self.policy)]
        self.next_ticket = 0
        self.next_worker = 0
        self.live: set[int] = set()
        self.ended: set[int] = set()
        self.workers: dict[str, int] = {}
        self.chunks: dict[int, Chunk] = {}  # under way, as far as the dispatcher knows
        self.ghosts: list[Chunk] = []  # of workers thought dead, or stopped

    def both(self, call):
        """Equal events have equal effects."""
        first, second = (call(twin) for twin in self.twins)
        assert first == second
        return first

    def end(self, tickets) -> None:
        for ticket in tickets:
            assert ticket in self.live, f"ticket {ticket} ended twice"
            self.live.remove(ticket)
            self.ended.add(ticket)

    def settle(self, settled) -> None:
        self.end(settled.final)
        self.end(ticket for ticket, _ in settled.lost)
        assert {*settled.again} <= self.live
        self.stop(settled.stop)

    def stop(self, numbers) -> None:
        for number in numbers:
            self.ghosts.append(self.chunks.pop(number))

    def assign(self) -> None:
        for chunk in self.both(lambda d: d.assign(self.now)):
            assert chunk.number not in self.chunks
            assert {*chunk.tickets} <= self.live
            here = [c for c in self.chunks.values() if c.worker == chunk.worker]
            assert len(here) < self.workers[chunk.worker] * (1 + self.policy.ahead)
            assert not any(c.alone for c in here)
            assert not (chunk.alone and here)
            self.chunks[chunk.number] = chunk

    @rule(lengths=st.lists(st.sampled_from([0.0, 1.0, 2.0, 50.0]), min_size=1, max_size=30),
          kind=st.sampled_from("ab"), unit=st.sampled_from([0.01, 1.0]))  # fmt: skip
    def add(self, lengths, kind, unit) -> None:
        for length in lengths:
            ticket, self.next_ticket = self.next_ticket, self.next_ticket + 1
            self.both(lambda d, t=ticket, n=length * unit: d.add(t, n, self.now, kind))
            self.live.add(ticket)
        self.assign()

    @rule(slots=st.integers(1, 3), host=st.sampled_from("xyz"))
    def join(self, slots, host) -> None:
        name, self.next_worker = f"w{self.next_worker % 5}", self.next_worker + 1
        if name not in self.workers:
            self.workers[name] = slots
            self.both(lambda d: d.joined(name, slots, host, self.now))
            self.assign()

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), blame=st.booleans())
    def leave(self, data, blame) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        del self.workers[name]
        gone = [chunk for chunk in self.chunks.values() if chunk.worker == name]
        for chunk in gone:
            del self.chunks[chunk.number]
        self.ghosts += gone
        self.settle(self.both(lambda d: d.left(name, self.now, blame)))
        self.assign()

    @precondition(lambda self: self.chunks)
    @rule(
        data=st.data(), how=st.sampled_from(["ok", "ok", "ok", "transient", "partial", "broken", "refused"])
    )
    def reply(self, data, how) -> None:
        chunk = self.chunks.pop(data.draw(st.sampled_from(sorted(self.chunks))))
        seconds = dict.fromkeys(chunk.tickets, data.draw(st.sampled_from([0.1, 1.0, 20.0])))
        number, now = chunk.number, self.now
        if how == "ok":
            self.settle(self.both(lambda d: d.replied(number, seconds, (), now)))
        elif how == "transient":
            self.settle(self.both(lambda d: d.replied(number, seconds, {*chunk.tickets[::2]}, now)))
        elif how == "partial":
            del seconds[chunk.tickets[0]]
            self.settle(self.both(lambda d: d.replied(number, seconds, (), now)))
        elif how == "broken":
            self.settle(self.both(lambda d: d.broken(number, "sent nonsense", now)))
        else:
            self.settle(self.both(lambda d: d.refused(number, "old", now)))
        self.assign()

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def late(self, data) -> None:
        chunk = data.draw(st.sampled_from(self.ghosts))
        seconds = dict.fromkeys(chunk.tickets, 1.0)
        self.settle(self.both(lambda d: d.replied(chunk.number, seconds, (), self.now)))
        self.both(lambda d: d.missing(chunk.number, self.now))
        self.assign()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def give_up(self, data) -> None:
        tickets = data.draw(st.lists(st.sampled_from(sorted(self.live)), unique=True, max_size=5))
        self.end(tickets)
        self.stop(self.both(lambda d: d.cancel(tickets, self.now)))
        self.assign()

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 100.0]))
    def wait(self, seconds) -> None:
        self.now += seconds
        wake = self.both(lambda d: d.next_wake(self.now))
        assert wake is None or wake >= self.now
        self.end(ticket for ticket, _ in self.both(lambda d: d.unfit(self.now)))
        self.assign()

    @invariant()
    def adds_up(self) -> None:
        view = self.both(lambda d: d.progress(self.now))
        assert view.waiting + view.under_way == len(self.live)
        assert view.under_way == len({t for c in self.chunks.values() for t in c.tickets} & self.live)
        for worker in view.workers:
            here = sum(chunk.worker == worker.name for chunk in self.chunks.values())
            assert worker.running + worker.queued == here

    def teardown(self) -> None:
        """With one good worker that stays, and others that refuse or fail everything, all ends."""
        good = "good"
        self.workers[good] = 2
        self.both(lambda d: d.joined(good, 2, "x", self.now))
        self.assign()
        for _ in range(20_000):
            if not self.live:
                break
            if not self.chunks:
                wake = self.both(lambda d: d.next_wake(self.now))
                assert wake is not None, f"{len(self.live)} tickets wait for nothing"
                self.now = max(wake, self.now)
                self.assign()
                continue
            chunk = self.chunks.pop(min(self.chunks))
            self.now += 0.1
            if chunk.worker == good:
                seconds = dict.fromkeys(chunk.tickets, 0.1)
                self.settle(self.both(lambda d, c=chunk, s=seconds: d.replied(c.number, s, (), self.now)))
            else:
                self.settle(self.both(lambda d, c=chunk: d.broken(c.number, "fails", self.now)))
            self.assign()
        assert not self.live
        assert self.ended == set(range(self.next_ticket))


Anything.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnything = Anything.TestCase
