# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait for a worker: the longest first, and those that had bad luck apart from the rest."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from simtune.execution.fleet import Fleet, Worker
from simtune.execution.lengths import Lengths

if TYPE_CHECKING:
    from simtune.execution.dispatch import Flight


class Ticket:
    """One job between `add` and its end.

    Attributes:
        flights: chunks under way that hold it; none while it waits, two while it is doubled.
        deaths: workers lost while they may have been running it.
        faults: transient failures.
        mishaps: each of them as (worker, host, what happened).
        waiting: some queue holds it.
        live: it has not ended; queues that still hold an ended one drop it when they come to it.
    """

    __slots__ = (
        *("number", "length", "kind", "order", "flights"),
        *("deaths", "faults", "mishaps", "waiting", "live"),
    )

    def __init__(self, number: int, length: float, kind: Kind, order: int) -> None:
        self.number = number
        self.length = length
        self.kind = kind
        self.order = order
        self.flights: list[Flight] = []
        self.deaths = 0
        self.faults = 0
        self.mishaps: tuple[tuple[str, str, str], ...] = ()
        self.waiting = False
        self.live = True


class Group:
    """Tickets that had mishaps on the same workers, and where they may be tried again."""

    def __init__(self, kind: Kind, mishaps: tuple[tuple[str, str, str], ...]) -> None:
        self.tickets: deque[Ticket] = deque()
        self._kind = kind
        self._names = frozenset(name for name, _, _ in mishaps)
        self._hosts = frozenset(host for _, host, _ in mishaps)
        self._epoch = -1
        self._allowed: Callable[[Worker], bool] = lambda _: True

    def allows(self, worker: Worker, fleet: Fleet) -> bool:
        """Another host if there is one, else another worker if there is one, else any."""
        if self._epoch != fleet.epoch:
            self._epoch = fleet.epoch
            able = [w for w in fleet.workers.values() if w.usable and self._kind.name not in w.refused]
            if any(w.host not in self._hosts for w in able):
                self._allowed = lambda w: w.host not in self._hosts
            elif any(w.name not in self._names for w in able):
                self._allowed = lambda w: w.name not in self._names
            else:
                self._allowed = lambda _: True
        return self._allowed(worker)


class Kind:
    """The jobs of one kind: those that wait, how long such jobs take, who refused them.

    Attributes:
        waiting: tickets that wait, of every sort.
        under_way: its chunks that were sent and not answered.
        refusals: how many workers of the fleet refused it.
        hopeless_since: when the last worker that might have run it refused.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lengths = Lengths()
        self.waiting = 0
        self.under_way = 0
        self.refusals = 0
        self.hopeless_since: float | None = None
        self._length = 0.0
        self._fresh: list[tuple[float, int, Ticket]] = []
        self._groups: dict[tuple[bool, frozenset[str]], Group] = {}
        self._quarantine: deque[tuple[Ticket, Group]] = deque()

    @property
    def seconds(self) -> float:
        """Predicted seconds of all that wait."""
        return self.lengths.seconds(self.waiting, self._length)

    def put(self, ticket: Ticket, alone: bool = False) -> None:
        """A ticket waits, for the first time or again, or for a worker of its own."""
        self._count(ticket, 1)
        if alone:
            self._quarantine.append((ticket, Group(self, ticket.mishaps)))
            return
        if not ticket.mishaps:
            heapq.heappush(self._fresh, (-ticket.length, ticket.order, ticket))
            return
        key = (ticket.deaths > 0, frozenset(name for name, _, _ in ticket.mishaps))
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self, ticket.mishaps)
        group.tickets.append(ticket)

    def drop(self, ticket: Ticket) -> None:
        """A ticket waits no more."""
        self._count(ticket, -1)
        if not self.waiting:
            self._length = 0.0  # what rounding left

    def _count(self, ticket: Ticket, sign: int) -> None:
        ticket.waiting = sign > 0
        self.waiting += sign
        self._length += sign * ticket.length

    def quarantined(self) -> tuple[Ticket, Group] | None:
        """The next ticket that waits for a worker of its own; it stays the next until `isolate`."""
        while self._quarantine and not self._quarantine[0][0].live:
            self._quarantine.popleft()
        return self._quarantine[0] if self._quarantine else None

    def isolate(self) -> None:
        """A worker was found for the ticket that `quarantined` named; it still waits."""
        self._quarantine.popleft()

    def unisolate(self, ticket: Ticket) -> None:
        """That worker cannot be used after all."""
        self._quarantine.appendleft((ticket, Group(self, ticket.mishaps)))

    def suspect(self, worker: Worker, fleet: Fleet) -> Ticket | None:
        """The next ticket that may have killed a worker and may be tried on this one."""
        return self._from_groups(True, worker, fleet)

    def take(self, worker: Worker, fleet: Fleet, seconds: float, most: int) -> list[Ticket]:
        """Tickets for one chunk on this worker, of about so many predicted seconds, at least one."""
        again = self._from_groups(False, worker, fleet)
        if again is not None:
            return [again]
        chunk: list[Ticket] = []
        total = 0.0
        lengths = self.lengths
        while self._fresh and len(chunk) < most:
            ticket = self._fresh[0][2]
            if ticket.live:
                longer = lengths.seconds(1, ticket.length)
                if chunk and (not lengths.known or total + longer / 2 > seconds):
                    break
                total += longer
                chunk.append(ticket)
                self.drop(ticket)
            heapq.heappop(self._fresh)
        return chunk

    def _from_groups(self, deadly: bool, worker: Worker, fleet: Fleet) -> Ticket | None:
        if not self._groups:
            return None
        for key, group in list(self._groups.items()):
            while group.tickets and not group.tickets[0].live:
                group.tickets.popleft()
            if not group.tickets:
                del self._groups[key]
            elif key[0] == deadly and group.allows(worker, fleet):
                ticket = group.tickets.popleft()
                self.drop(ticket)
                return ticket
        return None
