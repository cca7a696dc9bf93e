# SPDX-License-Identifier: Apache-2.0
"""A slow, plain model of the caches, to hold the plugin's against."""

from __future__ import annotations

from collections import Counter


class ReferenceCache:
    """One LRU level: a list of [line, dirty] per set, most recent last."""

    def __init__(self, sets: int, ways: int, line: int, below: ReferenceCache | None = None) -> None:
        self.sets: list[list[list[int]]] = [[] for _ in range(sets)]
        self.ways, self.line, self.below = ways, line, below
        self.counts: Counter[str] = Counter()

    def access(self, address: int, size: int, store: bool) -> None:
        """All lines of an access by the program, in order."""
        for number in range(address // self.line, (address + size - 1) // self.line + 1):
            self._touch(number, store, fetch=True)

    def _touch(self, number: int, store: bool, fetch: bool) -> None:
        entries = self.sets[number % len(self.sets)]
        kind = "write" if store else "read"
        for entry in entries:
            if entry[0] == number:
                self.counts[f"{kind}_hits"] += 1
                entries.remove(entry)
                entries.append([number, entry[1] or store])
                return
        self.counts[f"{kind}_misses"] += 1
        victim = entries.pop(0) if len(entries) == self.ways else None
        entries.append([number, store])
        if fetch and self.below:
            self.below._touch(number * self.line // self.below.line, False, fetch=True)
        if victim and victim[1]:
            self.counts["writebacks"] += 1
            if self.below:
                self.below._touch(victim[0] * self.line // self.below.line, True, fetch=False)
