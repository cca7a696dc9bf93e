# SPDX-License-Identifier: Apache-2.0
"""Which job goes to which worker, and what happens when something fails: decisions only.

Nothing here sends, waits or looks at a clock: whoever drives the `Dispatcher` tells it what happened
and when, and carries out what it says. The same events at the same times give the same decisions.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from simtune.execution.fleet import Fleet, Worker
from simtune.execution.waiting import Kind, Ticket


@dataclass(frozen=True)
class Policy:
    """How the dispatcher decides. Times are seconds.

    Attributes:
        chunk_s: a chunk lasts about so long on its worker.
        chunk_min_s: towards the end chunks shrink, but not below this.
        chunk_jobs: most jobs of a chunk, however short they are.
        task_s: what one chunk costs the busiest part of the machinery (the driver, the scheduler);
            with many slots chunks grow so that it stays at most half busy with them.
        ahead: chunks that wait on a worker per slot, besides the one that runs there.
        retries: a job whose worker was lost is tried so often elsewhere; likewise after transient
            failures.
        double_s: a chunk is no straggler unless it is later than predicted by this much.
        strikes: after so many transient failures in a row a worker is benched,
        bench_s: at first for so long, twice as long each further time,
        bench_max_s: but no longer than this.
        unfit_s: how long to wait for another worker when all there are refused a kind of jobs.
    """

    chunk_s: float = 3.0
    chunk_min_s: float = 0.1
    chunk_jobs: int = 100
    task_s: float = 0.001
    ahead: float = 1.0
    retries: int = 2
    double_s: float = 2.0
    strikes: int = 3
    bench_s: float = 5.0
    bench_max_s: float = 300.0
    unfit_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """What to send to a worker.

    Attributes:
        number: names the chunk in replies; never used twice.
        tickets: the jobs, to be run in this order.
        alone: the worker runs nothing else meanwhile, because the job may kill it.
        double: all of it runs elsewhere, too.
    """

    number: int
    worker: str
    tickets: tuple[int, ...]
    alone: bool = False
    double: bool = False


@dataclass
class Settled:
    """What follows from an event.

    Attributes:
        final: tickets that end with the result that just came.
        lost: tickets that end without any result, and why.
        again: tickets that are tried once more.
        stop: chunks that are superfluous now, to be told to stop; their replies are welcome no more.
    """

    final: list[int] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class WorkerState:
    """One worker, for a live view: chunks running and queued, jobs done."""

    name: str
    host: str
    slots: int
    running: int
    queued: int
    done: int
    benched: bool
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """Where all is, for a live view.

    Attributes:
        waiting, under_way, done, lost: tickets; the last two have ended.
        retries: how often a ticket was tried again.
        doubles: how many tickets ran twice at a time.
        seconds_left: predicted, if the workers stay; None as long as nothing is known.
    """

    workers: tuple[WorkerState, ...]
    waiting: int
    under_way: int
    done: int
    lost: int
    retries: int
    doubles: int
    seconds_left: float | None


@dataclass(eq=False, slots=True)
class Flight:
    """A chunk under way: when it was sent, when it (probably) began to run, its length in total."""

    number: int
    worker: Worker
    kind: Kind
    tickets: list[Ticket]
    alone: bool
    sent: float
    started: float | None
    length: float


class Dispatcher:
    """Gives tickets to workers in chunks until every ticket has ended exactly once.

    The first result of a ticket counts; later ones, of doubles or of workers thought dead, are
    dropped. After every call but `progress` and `next_wake`, `assign` may have something to send.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._fleet = Fleet()
        self._kinds: dict[str, Kind] = {}
        self._tickets: dict[int, Ticket] = {}
        self._flights: dict[int, Flight] = {}
        self._numbers = itertools.count()
        self._orders = itertools.count()
        self._closed: dict[str, Worker] = {}  # those on which a job is to run alone, or does
        #: (when to look, chunk): chunks that may be stragglers by then. Entries of chunks that have
        #: ended are dropped when they come up.
        self._watch: list[tuple[float, int]] = []
        self._counts: Counter[str] = Counter()

    # What comes and goes

    def add(self, ticket: int, length: float, now: float, kind: str = "") -> None:
        """A job of this predicted length (0: unknown) and kind is to be run; tickets are unique."""
        if ticket in self._tickets:
            raise ValueError(f"ticket {ticket} was added twice")
        if (of_kind := self._kinds.get(kind)) is None:
            of_kind = self._kinds[kind] = Kind(kind)
            self._fleet.serve(kind)
            self._judge(now)
        self._tickets[ticket] = added = Ticket(ticket, length, of_kind, next(self._orders))
        of_kind.put(added)

    def cancel(self, tickets: Collection[int], now: float) -> list[int]:
        """These tickets end without result; returns the chunks to be told to stop."""
        settled = Settled()
        for number in tickets:
            if (ticket := self._tickets.get(number)) is not None:
                self._end(ticket, settled, now)
        return settled.stop

    def joined(self, worker: str, slots: int, host: str, now: float) -> None:
        """A worker is there. If it is known, its number of slots changes; a restarted one `left` first."""
        self._fleet.join(worker, slots, host)
        self._judge(now)

    def left(self, worker: str, now: float, blame: bool = True) -> Settled:
        """A worker is gone, with all that it was sent.

        Args:
            worker: its name; unknown ones are ignored.
            now: the time.
            blame: its jobs may be the reason. False when it certainly was something else, such as
                the end of the scheduler: then the jobs are tried again without counting it.
        """
        settled = Settled()
        gone = self._fleet.leave(worker)
        if gone is None:
            return settled
        self._open(gone)
        for kind in gone.refused:
            self._kinds[kind].refusals -= 1
        for flight in list(gone.flights.values()):
            self._land(flight, now)
            for ticket in flight.tickets:
                if blame and ticket.live:
                    ticket.deaths += 1
                    ticket.mishaps += ((gone.name, gone.host, "was lost"),)
                self._retry(ticket, settled, False, now)
        self._judge(now)
        return settled

    # What the workers say

    def replied(
        self, chunk: int, seconds: Mapping[int, float], transient: Collection[int], now: float
    ) -> Settled:
        """A worker returned results.

        Args:
            chunk: which chunk it was; unknown ones (late, stopped) are fine.
            seconds: how long each of its jobs took there, for all that have a result.
            transient: those whose result is a failure of the machine.
            now: the time.
        """
        settled = Settled()
        flight = self._flights.get(chunk)
        if flight is None:
            numbers: Collection[int] = seconds.keys()
        else:
            numbers = [ticket.number for ticket in flight.tickets]
            self._land(flight, now)
            self._learn(flight, seconds, transient, now)
        done = 0
        for number in numbers:
            if number in seconds and number not in transient and number in self._tickets:
                self._end(self._tickets[number], settled, now)
                settled.final.append(number)
                done += 1
        self._counts["done"] += done
        if flight is not None:
            flight.worker.done += done
            failures = [ticket for ticket in flight.tickets if ticket.live]
            for ticket in failures:
                result = ticket.number in seconds
                self._fault(ticket, flight.worker, "had a transient failure", settled, result, now)
            self._strike(flight.worker, len(failures), now)
        return settled

    def broken(self, chunk: int, reason: str, now: float) -> Settled:
        """A chunk came to nothing although its worker lives: an error in transit, an unreadable reply."""
        settled = Settled()
        if (flight := self._flights.get(chunk)) is not None:
            self._land(flight, now)
            for ticket in flight.tickets:
                if ticket.live:
                    self._fault(ticket, flight.worker, reason, settled, False, now)
            self._strike(flight.worker, 1, now)
        return settled

    def refused(self, chunk: int, reason: str, now: float) -> Settled:
        """The worker can run no job of this kind: it gets none any more, others take its jobs."""
        if (flight := self._flights.get(chunk)) is None:
            return Settled()
        worker, kind = flight.worker, flight.kind
        self._land(flight, now)
        if kind.name not in worker.refused:
            kind.refusals += 1
            self._fleet.refuse(worker, kind.name, reason)
        if worker.held is not None and worker.held.kind is kind:
            self._open(worker)
        settled = Settled()
        for ticket in flight.tickets:
            self._retry(ticket, settled, False, now)
        self._judge(now)
        return settled

    def missing(self, chunk: int, now: float) -> None:
        """The chunk is sent to the same worker again, since it lacked something: it starts now."""
        if (flight := self._flights.get(chunk)) is not None and flight.started is not None:
            flight.started = now

    # What to do

    def assign(self, now: float) -> list[Chunk]:
        """What to send now."""
        fleet = self._fleet
        fleet.unbench(now)
        sent = self._assign_alone(now)
        waiting = self._waiting()
        if waiting:
            idlest = fleet.idlest()
            for worker in idlest:
                if worker.load >= 1.0 + self.policy.ahead:
                    break
                flight = self._chunk_for(worker, now)
                if flight is not None:
                    sent.append(flight)
                    if not self._waiting():
                        break
                elif worker.load >= 1.0:
                    break  # all others are at least as busy
            idlest.close()
        if not self._waiting():
            sent += self._double(now)
        return sent

    def unfit(self, now: float) -> list[tuple[int, str]]:
        """Ends the tickets that no worker can run, and says why: all workers refused their kind, and
        for `Policy.unfit_s` no other one has come."""
        ended: list[tuple[int, str]] = []
        for kind in self._kinds.values():
            since = kind.hopeless_since
            if since is None or not kind.waiting or now < since + self.policy.unfit_s:
                continue
            reasons = Counter(w.refused[kind.name] for w in self._fleet.workers.values())
            reason = "no worker can run it: " + "; ".join(f"{r} ({n} workers)" for r, n in reasons.items())
            for ticket in [t for t in self._tickets.values() if t.kind is kind and not t.flights]:
                self._end(ticket, Settled(), now)
                ended.append((ticket.number, reason))
                self._counts["lost"] += 1
        return ended

    def next_wake(self, now: float) -> float | None:
        """When `assign` or `unfit` may have something to say although nothing happened until then."""
        times = [k.hopeless_since + self.policy.unfit_s for k in self._kinds.values()
                 if k.waiting and k.hopeless_since is not None]  # fmt: skip
        if (bench := self._fleet.next_unbench()) is not None:
            times.append(bench)
        while self._watch and self._watch[0][1] not in self._flights:
            heapq.heappop(self._watch)
        if self._watch and not self._waiting() and self._fleet.idle():
            times.append(self._watch[0][0])
        return max(now, min(times)) if times else None

    def progress(self, now: float) -> Progress:
        """A view of it all; takes longer the more workers and chunks there are."""
        workers = tuple(
            WorkerState(
                name=w.name,
                host=w.host,
                slots=w.slots,
                running=min(len(w.flights), w.slots),
                queued=max(0, len(w.flights) - w.slots),
                done=w.done,
                benched=not w.usable,
                refused=tuple(w.refused.values()),
            )
            for w in self._fleet.workers.values()
        )
        waiting = self._waiting()
        left: float | None = None
        if self._fleet.slots and all(k.lengths.known for k in self._kinds.values()):
            left = sum(k.seconds for k in self._kinds.values())
            for flight in self._flights.values():
                ran = now - flight.started if flight.started is not None else 0.0
                left += max(0.0, self._predicted(flight) - ran)
            left /= self._fleet.slots
        return Progress(
            workers=workers,
            waiting=waiting,
            under_way=len(self._tickets) - waiting,
            done=self._counts["done"],
            lost=self._counts["lost"],
            retries=self._counts["retries"],
            doubles=self._counts["doubles"],
            seconds_left=left,
        )

    # Chunks

    def _waiting(self) -> int:
        return sum(kind.waiting for kind in self._kinds.values())

    def _chunk_for(self, worker: Worker, now: float) -> Chunk | None:
        """A chunk of the kind that has the fewest under way, so that none starves."""
        kinds = [k for k in self._kinds.values() if k.waiting and k.name not in worker.refused]
        for kind in sorted(kinds, key=lambda k: k.under_way) if len(kinds) > 1 else kinds:
            if worker.load < 1.0:
                if (suspect := kind.suspect(worker, self._fleet)) is not None:
                    return self._send(worker, kind, [suspect], now)
            elif not self._queues(kind):
                continue
            if tickets := kind.take(worker, self._fleet, self._target(), self.policy.chunk_jobs):
                return self._send(worker, kind, tickets, now)
        return None

    def _target(self) -> float:
        """Seconds of the next chunk: an even share of half of what waits (factoring: Hummel,
        Schonberg and Flynn, 1992), within what the machinery can stand."""
        policy, slots = self.policy, max(1, self._fleet.slots)
        share = sum(kind.seconds for kind in self._kinds.values()) / (2 * slots)
        busy = policy.task_s * slots
        return min(max(policy.chunk_s, 2 * busy), max(policy.chunk_min_s, busy, share))

    def _queues(self, kind: Kind) -> bool:
        """Whether chunks may queue on busy workers: not as long as nothing is known about the lengths,
        nor near the end, where whoever is idle first should get them."""
        lengths = kind.lengths
        if not lengths.known:
            return False
        each = max(self.policy.chunk_s, kind.seconds / max(1, kind.waiting))
        return kind.seconds > each * self._fleet.slots

    def _send(
        self,
        worker: Worker,
        kind: Kind,
        tickets: list[Ticket],
        now: float,
        alone: bool = False,
        double: bool = False,
    ) -> Chunk:
        number = next(self._numbers)
        length = sum(ticket.length for ticket in tickets)
        flight = Flight(number, worker, kind, tickets, alone, now, None, length)
        if worker.load < 1.0:
            flight.started = now
        self._flights[number] = worker.flights[number] = flight
        kind.under_way += 1
        for ticket in tickets:
            ticket.flights.append(flight)
        self._fleet.offer(worker)
        if not alone:
            self._watch_at(self._due(flight, now), number)
        return Chunk(number, worker.name, tuple(t.number for t in tickets), alone, double)

    def _land(self, flight: Flight, now: float) -> None:
        """The chunk is under way no more; the next one of its worker starts, we suppose."""
        worker = flight.worker
        del self._flights[flight.number]
        worker.flights.pop(flight.number, None)
        flight.kind.under_way -= 1
        for ticket in flight.tickets:
            ticket.flights.remove(flight)
        if flight.started is not None and len(worker.flights) >= worker.slots:
            follower = next((f for f in worker.flights.values() if f.started is None), None)
            if follower is not None:
                follower.started = now
        if flight.alone:
            self._open(worker)
        elif self._fleet.workers.get(worker.name) is worker:
            self._fleet.offer(worker)

    def _learn(
        self, flight: Flight, seconds: Mapping[int, float], transient: Collection[int], now: float
    ) -> None:
        lengths = flight.kind.lengths
        predicted = self._predicted(flight)
        if flight.started is not None and predicted > 0:
            lengths.observe((now - flight.started) / predicted)
        for ticket in flight.tickets:
            if ticket.number in seconds and ticket.number not in transient:
                lengths.learn(ticket.length, seconds[ticket.number])
        lengths.fit()

    def _predicted(self, flight: Flight) -> float:
        return flight.kind.lengths.seconds(len(flight.tickets), flight.length)

    # Jobs that run alone

    def _assign_alone(self, now: float) -> list[Chunk]:
        """Closes workers for suspects, a quarter of all at most, and uses those that are empty."""
        fleet = self._fleet
        for kind in self._kinds.values():
            while (suspect := kind.quarantined()) and len(self._closed) < max(1, len(fleet.workers) // 4):
                ticket, places = suspect
                fit = (
                    w
                    for w in fleet.workers.values()
                    if w.usable and not w.closed and kind.name not in w.refused and places.allows(w, fleet)
                )
                worker = min(fit, key=lambda w: (len(w.flights), w.slots, w.order), default=None)
                if worker is None:
                    break
                kind.isolate()
                worker.closed, worker.held = True, ticket
                self._closed[worker.name] = worker
                fleet.offer(worker)
        sent = []
        for worker in list(self._closed.values()):
            ticket_held = worker.held
            if ticket_held is None or worker.flights:
                continue
            if not ticket_held.live:
                self._open(worker)
                continue
            worker.held = None
            ticket_held.kind.drop(ticket_held)
            sent.append(self._send(worker, ticket_held.kind, [ticket_held], now, alone=True))
        return sent

    def _open(self, worker: Worker) -> None:
        """The worker is used as any other again, or is gone; what it was closed for waits on."""
        if self._closed.pop(worker.name, None) is not worker:
            return
        if worker.held is not None and worker.held.live:
            worker.held.kind.unisolate(worker.held)
        worker.closed, worker.held = False, None
        if self._fleet.workers.get(worker.name) is worker:
            self._fleet.offer(worker)

    # Stragglers

    def _watch_at(self, when: float, chunk: int) -> None:
        heapq.heappush(self._watch, (when, chunk))
        if len(self._watch) > 64 + 4 * len(self._flights):
            self._watch = [entry for entry in self._watch if entry[1] in self._flights]
            heapq.heapify(self._watch)

    def _due(self, flight: Flight, now: float) -> float:
        """When the chunk is a straggler, if it is still under way then."""
        lengths = flight.kind.lengths
        if not lengths.known:
            return now + self.policy.double_s
        predicted = self._predicted(flight)
        # One that queues starts when the one before it, of about the same length, is done.
        start = flight.started if flight.started is not None else flight.sent + predicted
        return start + max(predicted + self.policy.double_s, predicted * lengths.tardy)

    def _double(self, now: float) -> list[Chunk]:
        """Stragglers run a second time on slots that are idle since nothing else waits."""
        sent: list[Chunk] = []
        while self._watch and self._watch[0][0] <= now and self._fleet.idle():
            _, number = heapq.heappop(self._watch)
            if (flight := self._flights.get(number)) is None:
                continue
            due = self._due(flight, now)
            if due > now:
                self._watch_at(due, number)
                continue
            # A job that may have killed a worker is never given a second one to kill.
            for ticket in flight.tickets:
                if ticket.live and not ticket.deaths and len(ticket.flights) == 1:
                    chunk = self._double_of(ticket, flight, now)
                    if chunk is None:
                        self._watch_at(now + self.policy.double_s, number)
                        break
                    sent.append(chunk)
        return sent

    def _double_of(self, ticket: Ticket, flight: Flight, now: float) -> Chunk | None:
        idlest = self._fleet.idlest()
        try:
            for worker in idlest:
                if worker.load >= 1.0:
                    return None
                if worker is not flight.worker and flight.kind.name not in worker.refused:
                    self._counts["doubles"] += 1
                    return self._send(worker, flight.kind, [ticket], now, double=True)
            return None
        finally:
            idlest.close()

    # Ends and retries

    def _end(self, ticket: Ticket, settled: Settled, now: float) -> None:
        """The ticket has ended; chunks of which nothing else is wanted are forgotten."""
        del self._tickets[ticket.number]
        ticket.live = False
        if ticket.waiting:
            ticket.kind.drop(ticket)
        for flight in list(ticket.flights):
            if not any(other.live for other in flight.tickets):
                self._land(flight, now)
                settled.stop.append(flight.number)

    def _fault(
        self, ticket: Ticket, worker: Worker, what: str, settled: Settled, result: bool, now: float
    ) -> None:
        ticket.faults += 1
        ticket.mishaps += ((worker.name, worker.host, what),)
        self._retry(ticket, settled, result, now)

    def _retry(self, ticket: Ticket, settled: Settled, result: bool, now: float) -> None:
        """A ticket comes back from a chunk without a good result, or with that of a transient failure."""
        if not ticket.live or ticket.flights:
            return  # its double may still succeed
        retries = self.policy.retries
        if ticket.deaths > retries or ticket.faults > retries:
            self._end(ticket, settled, now)
            if result:
                settled.final.append(ticket.number)
                self._counts["done"] += 1
            else:
                story = "; ".join(f"{name} ({host}) {what}" for name, host, what in ticket.mishaps)
                settled.lost.append((ticket.number, f"given up after {len(ticket.mishaps)} tries: {story}"))
                self._counts["lost"] += 1
            return
        # The last try decides about the job, so nobody else may be the reason for its end.
        ticket.kind.put(ticket, alone=ticket.deaths >= max(1, retries))
        settled.again.append(ticket.number)
        self._counts["retries"] += 1

    def _strike(self, worker: Worker, failures: int, now: float) -> None:
        """Counts transient failures in a row, and benches the worker if there are too many."""
        policy = self.policy
        if not failures:
            worker.strikes = worker.benches = 0
            return
        worker.strikes += failures
        if worker.strikes >= policy.strikes and worker.usable:
            worker.strikes = policy.strikes - 1  # the next one counts at once
            pause = min(policy.bench_max_s, policy.bench_s * 2.0**worker.benches)
            self._open(worker)
            self._fleet.bench(worker, now + pause)

    def _judge(self, now: float) -> None:
        """Looks which kinds nobody can run."""
        for kind in self._kinds.values():
            if kind.refusals and kind.refusals == len(self._fleet.workers):
                kind.hopeless_since = now if kind.hopeless_since is None else kind.hopeless_since
            else:
                kind.hopeless_since = None
