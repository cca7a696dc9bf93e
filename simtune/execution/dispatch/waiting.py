# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait for a worker: the longest first, and those that had mishaps apart from the rest."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from simtune.execution.dispatch.fleet import Fleet
from simtune.execution.dispatch.lengths import Lengths
from simtune.execution.dispatch.state import Ticket, Worker

#: Whether the tickets are suspects, whether each has to run alone, the workers of their mishaps.
_Key = tuple[bool, bool, frozenset[str]]


class Group:
    """Tickets that had mishaps on the same workers: where they may be tried again.

    Attributes:
        suspect: a worker was lost that may have been running them.
        alone: they are to run one at a time, on a worker that runs nothing else.
    """

    def __init__(self, kind: Kind, key: _Key, hosts: frozenset[str]) -> None:
        self.kind = kind
        self.key = key
        self.suspect, self.alone, self._names = key
        self.tickets: dict[int, Ticket] = {}
        self._hosts = hosts
        self._epoch = -1
        self._elsewhere: Callable[[Worker], bool]

    def allows(self, worker: Worker, fleet: Fleet) -> bool:
        """Another host if there is one, else another worker if there is one, else any."""
        if self._epoch != fleet.epoch:
            self._epoch = fleet.epoch
            able = [w for w in fleet.workers.values() if w.can(self.kind.name)]
            if any(w.host not in self._hosts for w in able):
                self._elsewhere = lambda w: w.host not in self._hosts
            elif any(w.name not in self._names for w in able):
                self._elsewhere = lambda w: w.name not in self._names
            else:
                self._elsewhere = lambda w: True
        return worker.can(self.kind.name) and self._elsewhere(worker)


class Kind:
    """The jobs of one kind: those that wait, how long such jobs take, who refused them.

    Attributes:
        waiting: how many tickets wait,
        suspects: and how many of them may have killed a worker.
        under_way: its chunks that were sent and not answered.
        refusals: how many workers of the fleet refused it.
        hopeless_since: when the last worker that might have run it refused.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lengths = Lengths()
        self.waiting = 0
        self.suspects = 0
        self.under_way = 0
        self.refusals = 0
        self.hopeless_since: float | None = None
        self._length = 0.0
        # Longest first. What waits here no more is dropped when it comes up.
        self._fresh: list[tuple[float, int, Ticket]] = []
        self._groups: dict[_Key, Group] = {}

    @property
    def seconds(self) -> float:
        """Predicted seconds of all that wait."""
        return self.lengths.seconds(self.waiting, self._length)

    def put(self, ticket: Ticket, alone: bool = False) -> None:
        """A ticket waits, for the first time or again."""
        ticket.waiting = True
        self.waiting += 1
        self._length += ticket.length
        if not ticket.mishaps:
            heapq.heappush(self._fresh, (-ticket.length, ticket.order, ticket))
            return
        key = (ticket.deaths > 0, alone, frozenset(name for name, _, _ in ticket.mishaps))
        group = self._groups.get(key)
        if group is None:
            hosts = frozenset(host for _, host, _ in ticket.mishaps)
            group = self._groups[key] = Group(self, key, hosts)
        group.tickets[ticket.number] = ticket
        ticket.group = group
        self.suspects += group.suspect

    def drop(self, ticket: Ticket) -> None:
        """A ticket waits no more."""
        ticket.waiting = False
        self.waiting -= 1
        self._length -= ticket.length
        if not self.waiting:
            self._length = 0.0  # what rounding left
        if (group := ticket.group) is not None:
            ticket.group = None
            self.suspects -= group.suspect
            del group.tickets[ticket.number]
            if not group.tickets:
                del self._groups[group.key]

    def take(self, worker: Worker, fleet: Fleet, seconds: float, most: int) -> list[Ticket]:
        """Tickets for one chunk on this worker, of about so many predicted seconds, at least one.

        Suspects are not among them.
        """
        chunk: list[Ticket] = []
        lengths, total = self.lengths, 0.0
        for ticket in self._next(worker, fleet):
            longer = lengths.seconds(1, ticket.length)
            if chunk and (not lengths.known or total + longer / 2 > seconds):
                break
            total += longer
            chunk.append(ticket)
            self.drop(ticket)
            if len(chunk) >= most:
                break
        return chunk

    def suspect_groups(self) -> list[Group]:
        return [group for group in self._groups.values() if group.suspect] if self.suspects else []

    def _next(self, worker: Worker, fleet: Fleet) -> Iterator[Ticket]:
        """What this worker may run now, in order, without suspects; the caller drops what it takes."""
        for group in list(self._groups.values()):
            if not group.suspect and group.allows(worker, fleet):
                yield from list(group.tickets.values())
        while self._fresh:
            ticket = self._fresh[0][2]
            if ticket.waiting and ticket.group is None:
                yield ticket
                if ticket.waiting:
                    return
            heapq.heappop(self._fresh)
