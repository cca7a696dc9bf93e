# SPDX-License-Identifier: Apache-2.0
"""The dispatcher: told what happened and when, it says what to do.

Nothing here sends, waits or looks at a clock. The same events at the same times give the same
decisions.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Mapping

from simtune.execution.dispatch.fleet import Fleet
from simtune.execution.dispatch.quarantine import Quarantine
from simtune.execution.dispatch.sizes import Sizes
from simtune.execution.dispatch.state import Flight, Ticket, Worker
from simtune.execution.dispatch.stragglers import Stragglers, predicted, remaining
from simtune.execution.dispatch.values import Chunk, Policy, Progress, Settled
from simtune.execution.dispatch.waiting import Kind


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
        self._quarantine = Quarantine(self._fleet, self.policy.suspects)
        self._stragglers = Stragglers(self._flights, self.policy.double_s)
        self._orders = itertools.count()
        self._counts: Counter[str] = Counter()
        self._sizes = Sizes(self.policy, self._fleet, self._kinds, self._flights, self._counts)

    # Who comes and goes

    def add(self, ticket: int, length: float, now: float, kind: str = "") -> None:
        """A job is to be run.

        Args:
            ticket: names it; never used twice.
            length: predicted, in a unit that all jobs of its kind share; 0 when unknown.
            now: the time.
            kind: jobs of which a worker can run either all or none.
        """
        if ticket in self._tickets:
            raise ValueError(f"ticket {ticket} is there already")
        if (of_kind := self._kinds.get(kind)) is None:
            of_kind = self._kinds[kind] = Kind(kind)
            self._fleet.serve(kind)
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
        """A worker is there, or has another number of slots; one that was restarted has `left` first."""
        if slots < 1:
            raise ValueError(f"worker {worker} has {slots} slots")
        self._fleet.join(worker, slots, host)
        self._judge(now)

    def left(self, worker: str, now: float, blame: bool = True) -> Settled:
        """A worker is gone, with all that it was sent.

        Args:
            worker: its name; unknown ones are ignored.
            now: the time.
            blame: its jobs may be the reason. False when it certainly was something else, such as
                the end of the scheduler: then they are tried again without counting it.
        """
        settled = Settled()
        gone = self._fleet.leave(worker)
        if gone is None:
            return settled
        self._quarantine.forget(gone)
        for kind in gone.refused:
            self._kinds[kind].refusals -= 1
        self._counts["deaths"] += bool(blame and gone.flights)
        for flight in list(gone.flights.values()):
            self._land(flight, now)
            for ticket in flight.tickets:
                if blame and ticket.live:
                    ticket.deaths += 1
                    ticket.mishaps += ((gone.name, gone.host, "was lost"),)
                self._retry(ticket, settled, now)
        self._judge(now)
        return settled

    # What the workers say

    def replied(
        self, chunk: int, seconds: Mapping[int, float], transient: Collection[int], now: float
    ) -> Settled:
        """A worker returned results.

        Args:
            chunk: which chunk it was; forgotten ones (late, stopped) are fine.
            seconds: how long each of its jobs took there, for all that have a result.
            transient: those whose result is a failure of the machine; a set if they are many.
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
        for number in numbers:
            if number in seconds and number not in transient and number in self._tickets:
                self._end(self._tickets[number], settled, now)
                settled.final.append(number)
        self._counts["done"] += len(settled.final)
        if flight is not None:
            flight.worker.done += len(settled.final)
            failures = [ticket for ticket in flight.tickets if ticket.live]
            for ticket in failures:
                self._fault(ticket, flight.worker, "had a transient failure")
                self._retry(ticket, settled, now, result=ticket.number in seconds)
            self._strike(flight.worker, len(failures), now)
        return settled

    def broken(self, chunk: int, reason: str, now: float) -> Settled:
        """A chunk came to nothing although its worker lives: an error in transit, an unreadable reply."""
        settled = Settled()
        if (flight := self._flights.get(chunk)) is not None:
            self._land(flight, now)
            for ticket in flight.tickets:
                if ticket.live:
                    self._fault(ticket, flight.worker, reason)
                    self._retry(ticket, settled, now)
            self._strike(flight.worker, 1, now)
        return settled

    def refused(self, chunk: int, reason: str, now: float) -> Settled:
        """The worker can run no job of this kind: it gets none any more, others take its jobs."""
        settled = Settled()
        if (flight := self._flights.get(chunk)) is not None:
            self._land(flight, now)
            if flight.kind.name not in flight.worker.refused:
                flight.kind.refusals += 1
                self._fleet.refuse(flight.worker, flight.kind.name, reason)
            for ticket in flight.tickets:
                self._retry(ticket, settled, now)
            self._judge(now)
        return settled

    def missing(self, chunk: int, now: float) -> None:
        """The chunk is sent to the same worker again, since it lacked something: it starts now."""
        if (flight := self._flights.get(chunk)) is not None and flight.started is not None:
            flight.started = now

    # What to do

    def assign(self, now: float) -> list[Chunk]:
        """What to send now."""
        sent: list[Chunk] = []
        self._fleet.unbench(now)
        self._quarantine.tend(
            self._kinds.values(),
            lambda worker, ticket, alone: sent.append(self._send(worker, [ticket], now, alone=alone)),
        )
        idlest = self._fleet.idlest()
        while self._fresh() and (worker := next(idlest, None)) is not None:
            chunk = self._chunk_for(worker, now)
            if chunk is not None:
                sent.append(chunk)
            elif worker.load >= 1.0:
                break  # the others are at least as busy
        idlest.close()
        if not self._fresh() and self._fleet.idle():
            for flight in self._stragglers.overdue(now):
                if not self._double(flight, sent, now):
                    self._stragglers.postpone(flight, now)
                    break
        return sent

    def unfit(self, now: float) -> list[tuple[int, str]]:
        """Ends the tickets that no worker can run, with the reason: all workers refused their kind,
        and for `Policy.unfit_s` no other one has come.
        """
        ended: list[tuple[int, str]] = []
        for kind in self._kinds.values():
            if kind.hopeless_since is None or now < kind.hopeless_since + self.policy.unfit_s:
                continue
            reasons = Counter(worker.refused[kind.name] for worker in self._fleet.workers.values())
            reason = "; ".join(f"{text} ({n} of them)" for text, n in reasons.items())
            for ticket in [t for t in self._tickets.values() if t.kind is kind and t.waiting]:
                self._end(ticket, Settled(), now)
                ended.append((ticket.number, f"all workers refused it: {reason}"))
        self._counts["lost"] += len(ended)
        return ended

    def next_wake(self, now: float) -> float | None:
        """When `assign` or `unfit` may have something to say although nothing happens until then."""
        unfit_s = self.policy.unfit_s
        times = [
            *(
                k.hopeless_since + unfit_s
                for k in self._kinds.values()
                if k.waiting and k.hopeless_since is not None
            ),
            self._fleet.next_unbench(),
            self._stragglers.next_look() if not self._fresh() and self._fleet.idle() else None,
        ]
        return max(now, min(known)) if (known := [time for time in times if time is not None]) else None

    @property
    def waiting(self) -> int:
        """Tickets that wait for a worker."""
        return sum(kind.waiting for kind in self._kinds.values())

    def progress(self, now: float) -> Progress:
        """A view of it all; takes longer the more workers and chunks there are."""
        left: float | None = None
        if self._fleet.slots and all(kind.lengths.known for kind in self._kinds.values()):
            left = sum(kind.seconds for kind in self._kinds.values())
            left += sum(remaining(flight, now) for flight in self._flights.values())
            left /= self._fleet.slots
        return Progress(
            workers=tuple(worker.state() for worker in self._fleet.workers.values()),
            waiting=self.waiting,
            under_way=len(self._tickets) - self.waiting,
            done=self._counts["done"],
            lost=self._counts["lost"],
            retries=self._counts["retries"],
            doubles=self._counts["doubles"],
            seconds_left=left,
            chunks=self._counts["chunks"],
        )

    # Chunks

    def _fresh(self) -> int:
        """Tickets that wait, without suspects."""
        return sum(kind.waiting - kind.suspects for kind in self._kinds.values())

    def _chunk_for(self, worker: Worker, now: float) -> Chunk | None:
        """A chunk of the kind that has the fewest under way, so that none starves."""
        if worker.load >= 1.0 + self.policy.ahead:
            return None
        for kind in sorted(self._kinds.values(), key=lambda kind: kind.under_way):
            if kind.name not in worker.refused and (worker.load < 1.0 or self._sizes.may_queue(kind)):
                tickets = kind.take(worker, self._fleet, self._sizes.seconds(), self._sizes.jobs())
                if tickets:
                    return self._send(worker, tickets, now)
        return None

    def _send(
        self, worker: Worker, tickets: list[Ticket], now: float, alone: bool = False, double: bool = False
    ) -> Chunk:
        number, kind = self._counts["chunks"], tickets[0].kind
        self._counts["chunks"] += 1
        flight = Flight(
            number=number,
            worker=worker,
            kind=kind,
            tickets=tickets,
            length=sum(ticket.length for ticket in tickets),
            sent=now,
            suspect=tickets[0].deaths > 0,
            alone=alone,
            started=now if worker.load < 1.0 else None,
        )
        for ticket in tickets:
            if ticket.waiting:
                kind.drop(ticket)
            ticket.flights.append(flight)
        self._flights[number] = worker.flights[number] = flight
        kind.under_way += 1
        self._fleet.offer(worker)
        if not flight.suspect:
            self._stragglers.watch(flight, now)
        return Chunk(number, worker.name, tuple([ticket.number for ticket in tickets]), alone, double)

    def _land(self, flight: Flight, now: float) -> None:
        """The chunk is under way no more; the next one of its worker starts, we suppose."""
        worker = flight.worker
        del self._flights[flight.number], worker.flights[flight.number]
        flight.kind.under_way -= 1
        for ticket in flight.tickets:
            ticket.flights.remove(flight)
        if flight.started is not None and len(worker.flights) >= worker.slots:
            follower = next((other for other in worker.flights.values() if other.started is None), None)
            if follower is not None:
                follower.started = now
        self._fleet.offer(worker)

    def _double(self, flight: Flight, sent: list[Chunk], now: float) -> bool:
        """Runs a straggler's jobs a second time on idle slots; whether there were enough of them."""
        for ticket in flight.tickets:
            if not ticket.live or ticket.deaths or len(ticket.flights) > 1:
                continue  # ended, may kill a second worker, or runs twice already
            idlest = self._fleet.idlest()
            for worker in idlest:
                if worker is not flight.worker and worker.can(flight.kind.name):
                    break
            else:
                worker = flight.worker
            idlest.close()
            if worker is flight.worker or worker.load >= 1.0:
                return False
            sent.append(self._send(worker, [ticket], now, double=True))
            self._counts["doubles"] += 1
        return True

    def _learn(
        self, flight: Flight, seconds: Mapping[int, float], transient: Collection[int], now: float
    ) -> None:
        lengths = flight.kind.lengths
        if flight.started is not None and (expected := predicted(flight)) > 0:
            lengths.observe((now - flight.started) / expected)
        for ticket in flight.tickets:
            if ticket.number in seconds and ticket.number not in transient:
                lengths.learn(ticket.length, seconds[ticket.number])
        lengths.fit()

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

    def _fault(self, ticket: Ticket, worker: Worker, what: str) -> None:
        ticket.faults += 1
        ticket.mishaps += ((worker.name, worker.host, what),)

    def _retry(self, ticket: Ticket, settled: Settled, now: float, result: bool = False) -> None:
        """A ticket comes back from a chunk with no good result, though perhaps with a bad one."""
        if not ticket.live or ticket.flights:
            return  # its double may still succeed
        retries = self.policy.retries
        if ticket.deaths <= retries and ticket.faults <= retries:
            # The last try decides about the job, so no other may be the reason for its end.
            ticket.kind.put(ticket, alone=ticket.deaths >= max(1, retries))
            settled.again.append(ticket.number)
            self._counts["retries"] += 1
            return
        self._end(ticket, settled, now)
        if result:
            settled.final.append(ticket.number)
            self._counts["done"] += 1
        else:
            story = "; ".join(f"{name} ({host}) {what}" for name, host, what in ticket.mishaps)
            settled.lost.append((ticket.number, f"given up after {len(ticket.mishaps)} tries: {story}"))
            self._counts["lost"] += 1

    def _strike(self, worker: Worker, failures: int, now: float) -> None:
        """Counts transient failures in a row, and benches the worker if there are too many."""
        policy = self.policy
        if not failures:
            worker.strikes = worker.benches = 0
            return
        worker.strikes += failures
        if worker.strikes >= policy.strikes and not worker.benched:
            worker.strikes = policy.strikes - 1  # afterwards the first one counts
            self._quarantine.forget(worker)
            self._fleet.bench(worker, now + min(policy.bench_max_s, policy.bench_s * 2.0**worker.benches))

    def _judge(self, now: float) -> None:
        """Looks which kinds nobody can run."""
        for kind in self._kinds.values():
            if not kind.refusals or kind.refusals < len(self._fleet.workers):
                kind.hopeless_since = None
            elif kind.hopeless_since is None:
                kind.hopeless_since = now
