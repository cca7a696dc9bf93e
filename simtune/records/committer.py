# SPDX-License-Identifier: Apache-2.0
"""Commits simulations as they come, many at once when they come fast."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from simtune.records.model import Simulation
from simtune.records.store import RecordStore

#: Called once the simulation is on the disk, or with the reason why it is not.
Then = Callable[[BaseException | None], None]

#: More would make a single transaction hold the store for long.
_MOST = 500

_log = logging.getLogger(__name__)


class Committer:
    """One thread that writes what finished jobs hand in.

    A commit waits for the disk, longer than all else that is done with an outcome. Those that
    arrive meanwhile share the next one, so that a store keeps up with thousands of jobs a second.
    """

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._queue: SimpleQueue[tuple[Simulation, Then] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, simulation: Simulation, then: Then) -> None:
        """Queues a simulation; `then` is called in the committer's thread."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="simtune-commit", daemon=True)
                self._thread.start()
            self._queue.put((simulation, then))

    def close(self) -> None:
        """Commits what is queued and ends the thread; it starts again when it is needed again."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            items = [first]
            last = False
            while len(items) < _MOST and not self._queue.empty():
                item = self._queue.get()
                if item is None:
                    last = True
                    break
                items.append(item)
            error: BaseException | None = None
            try:
                self._store.put_simulations([simulation for simulation, _ in items])
            except BaseException as caught:
                error = caught
            for simulation, then in items:
                try:
                    then(error)
                except BaseException:
                    # Others wait for this thread, whatever became of the one.
                    _log.exception("after the commit of %s", simulation.conditions.key)
            if last:
                return
            del first, items  # would hold the results until the next one
