# SPDX-License-Identifier: Apache-2.0
"""Jobs that may have killed their worker run apart from the others, so that none dies for another.

For them some workers are closed: these finish what they have, run suspects a few at a time, each in
a chunk of its own, and those on their last try one at a time; then they are as any other again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from simtune.execution.dispatch.fleet import Fleet
from simtune.execution.dispatch.state import Ticket, Worker
from simtune.execution.dispatch.waiting import Group, Kind


class Quarantine:
    """The closed workers.

    Args:
        fleet: all workers.
        most: suspects that run on a worker at a time.
    """

    def __init__(self, fleet: Fleet, most: int) -> None:
        self._fleet = fleet
        self._most = most
        self._closed: dict[str, Worker] = {}

    def tend(self, kinds: Iterable[Kind], send: Callable[[Worker, Ticket, bool], None]) -> None:
        """Sends the suspects that can be sent, and closes or opens workers as needed.

        Args:
            kinds: all kinds of jobs.
            send: is called with a worker, a ticket, and whether it runs alone.
        """
        groups = [group for kind in kinds for group in kind.suspect_groups()]
        if not groups and not self._closed:
            return
        for worker in list(self._closed.values()):
            self._serve(worker, groups, send)
        fresh = any(kind.waiting > kind.suspects for kind in kinds)
        most = max(1, len(self._fleet.workers) // 4) if fresh else len(self._fleet.workers)
        for group in groups:
            while len(self._closed) < most and (wanted := self._wanted(group)) is not None:
                wanted.closed = True
                self._closed[wanted.name] = wanted
                self._fleet.offer(wanted)
                self._serve(wanted, groups, send)

    def forget(self, worker: Worker) -> None:
        """The worker is gone, or not to be used for a while."""
        if self._closed.pop(worker.name, None) is not None:
            worker.closed = False
            self._fleet.offer(worker)

    def _wanted(self, group: Group) -> Worker | None:
        """The next worker to close for this group; None if there are enough, or none that will do."""
        room = sum(self._room(group, w) for w in self._closed.values() if group.allows(w, self._fleet))
        if room >= len(group.tickets):
            return None
        will_do = (w for w in self._fleet.workers.values() if not w.closed and group.allows(w, self._fleet))
        return min(will_do, key=lambda w: (len(w.flights), w.slots, w.order), default=None)

    def _room(self, group: Group, worker: Worker) -> int:
        return 1 if group.alone else min(worker.slots, self._most)

    def _serve(
        self, worker: Worker, groups: list[Group], send: Callable[[Worker, Ticket, bool], None]
    ) -> None:
        flights = worker.flights
        if any(not flight.suspect for flight in flights.values()):
            return
        while not any(flight.alone for flight in flights.values()):
            group = next((g for g in groups if g.tickets and self._fits(g, worker)), None)
            if group is None:
                break
            send(worker, next(iter(group.tickets.values())), group.alone)
        if not flights:
            self.forget(worker)

    def _fits(self, group: Group, worker: Worker) -> bool:
        room = not worker.flights if group.alone else len(worker.flights) < self._room(group, worker)
        return room and group.allows(worker, self._fleet)
