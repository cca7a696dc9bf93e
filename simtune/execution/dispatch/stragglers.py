# SPDX-License-Identifier: Apache-2.0
"""Which chunks take much longer than predicted."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from simtune.execution.dispatch.state import Flight


def predicted(flight: Flight) -> float:
    """Seconds that the chunk takes, as far as is known now."""
    return flight.kind.lengths.seconds(len(flight.tickets), flight.length)


def remaining(flight: Flight, now: float) -> float:
    """Seconds that it still takes, at least 0."""
    ran = now - flight.started if flight.started is not None else 0.0
    return max(0.0, predicted(flight) - ran)


class Stragglers:
    """Chunks by the time from which they are stragglers.

    Args:
        flights: all that are under way, by number; kept by the dispatcher.
        patience: a chunk is none unless it is later than predicted by so many seconds.
    """

    def __init__(self, flights: Mapping[int, Flight], patience: float) -> None:
        self._flights = flights
        self._patience = patience
        # (when to look, number). What has landed meanwhile is dropped when it comes up.
        self._watch: list[tuple[float, int]] = []

    def watch(self, flight: Flight, now: float) -> None:
        """A chunk was sent."""
        self._push(self._due(flight, now), flight.number)

    def postpone(self, flight: Flight, now: float) -> None:
        """Nothing can be done about this one at present."""
        self._push(now + self._patience, flight.number)

    def overdue(self, now: float) -> Iterator[Flight]:
        """The stragglers; each once, unless it is postponed."""
        while self._watch and self._watch[0][0] <= now:
            flight = self._flights.get(heapq.heappop(self._watch)[1])
            if flight is None:
                continue
            due = self._due(flight, now)
            if due <= now:
                yield flight
            else:
                self._push(due, flight.number)

    def next_look(self) -> float | None:
        """When a chunk may become one."""
        while self._watch and self._watch[0][1] not in self._flights:
            heapq.heappop(self._watch)
        return self._watch[0][0] if self._watch else None

    def _due(self, flight: Flight, now: float) -> float:
        lengths = flight.kind.lengths
        if not lengths.known:
            return now + self._patience
        seconds = predicted(flight)
        # One that queues starts when the one before it, of about the same length, is done.
        start = flight.started if flight.started is not None else flight.sent + seconds
        return start + max(seconds + self._patience, seconds * lengths.tardy)

    def _push(self, when: float, number: int) -> None:
        heapq.heappush(self._watch, (when, number))
        if len(self._watch) > 64 + 4 * len(self._flights):
            self._watch = [entry for entry in self._watch if entry[1] in self._flights]
            heapq.heapify(self._watch)
