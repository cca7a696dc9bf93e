# SPDX-License-Identifier: Apache-2.0
"""How much goes into a chunk, and whether it may wait at a worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from simtune.execution.dispatch.fleet import Fleet
from simtune.execution.dispatch.values import Policy
from simtune.execution.dispatch.waiting import Kind


class Sizes:
    """Sizes of chunks from what waits, what is under way and who is there.

    Args:
        policy: chunk lengths and costs.
        fleet, kinds, flights, counts: of the dispatcher, which keeps them.
    """

    def __init__(
        self,
        policy: Policy,
        fleet: Fleet,
        kinds: Mapping[str, Kind],
        flights: Collection[int],
        counts: Mapping[str, int],
    ) -> None:
        self._policy, self._fleet = policy, fleet
        self._kinds, self._flights, self._counts = kinds, flights, counts

    def seconds(self) -> float:
        """An even share of half of what waits (factoring: Hummel, Schonberg and Flynn, 1992), within
        what the machinery can stand.
        """
        policy, slots = self._policy, self._fleet.slots
        share = sum(kind.seconds for kind in self._kinds.values()) / (2 * slots)
        short = max(policy.chunk_min_s, 2 * policy.task_s * min(slots, len(self._flights)))
        return min(max(policy.chunk_s, 4 * policy.task_s * slots), max(short, share))

    def jobs(self) -> int:
        """At most so many: the more often workers die, the fewer jobs may die with them, so that they
        do with one chunk in four at most.
        """
        most, deaths = self._policy.chunk_jobs, self._counts["deaths"]
        return max(1, min(most, self._counts["done"] // (4 * deaths))) if deaths else most

    def may_queue(self, kind: Kind) -> bool:
        """Whether chunks may queue on busy workers: not as long as nothing is known about the lengths,
        nor near the end, where whoever is idle first should get them.
        """
        if not kind.lengths.known or not kind.waiting:
            return False
        each = max(self._policy.chunk_s, kind.seconds / kind.waiting)
        return kind.seconds > each * self._fleet.slots
