# SPDX-License-Identifier: Apache-2.0
"""Executors on this machine: a thread per slot, or none at all."""

from __future__ import annotations

import itertools
import logging
import math
import platform
import shutil
import tempfile
import threading
import weakref
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from queue import PriorityQueue
from typing import Any, TypeVar

from simtune.execution.base import Closing, Job, Site
from simtune.execution.capacity import slots
from simtune.execution.scratch import scratch_folder
from simtune.execution.view import View, WorkerView

R = TypeVar("R")

_log = logging.getLogger(__name__)

#: A queued job with its future and the event that cancels it; None tells a worker to leave. The two
#: numbers in front put the longest job first, and equals in the order in which they came.
_Item = tuple[float, int, "tuple[Future[Any], Job[Any], threading.Event] | None"]


class _Local(Closing):
    """What local executors share: their scratch folder."""

    def __init__(self) -> None:
        self._scratch = scratch_folder("jobs")
        # Also for an executor that nobody closes.
        self._remove_scratch = weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)


class LocalExecutor(_Local):
    """Runs jobs in as many threads as cores and memory allow.

    A simulation is a process of its own, so threads are all it takes to wait for many. They are
    daemon threads: an executor that was never closed does not keep the interpreter from exiting,
    and what it was running dies with this process (see `simtune.execution.supervise`).

    Args:
        jobs: upper bound on the jobs at once; None leaves it to cores and memory.
        memory_per_job: bytes that one job is expected to need.
    """

    def __init__(self, jobs: int | None = None, memory_per_job: int = 512 << 20) -> None:
        self._capacity = slots(jobs, memory_per_job)
        super().__init__()
        self._queue: PriorityQueue[_Item] = PriorityQueue()
        self._order = itertools.count()
        self._threads: list[threading.Thread] = []
        self._unfinished: dict[Future[Any], threading.Event] = {}
        self._closed = False
        self._done = 0
        self._lock = threading.Lock()

    def submit(self, job: Job[R]) -> Future[R]:
        future: Future[R] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("submit() after close() of the executor")
            self._unfinished[future] = cancelled = threading.Event()
            # One of unknown length may be the longest; a build, too, that simulations wait for.
            self._queue.put((-(job.length or math.inf), next(self._order), (future, job, cancelled)))
            if len(self._threads) < min(self._capacity, len(self._unfinished)):
                self._start_thread()
        future.add_done_callback(self._forget)
        return future

    def capacity(self) -> int:
        return self._capacity

    def cancel(self, futures: Collection[Future[Any]] | None = None) -> None:
        wanted = None if futures is None else set(futures)
        with self._lock:
            given_up = [(f, e) for f, e in self._unfinished.items() if wanted is None or f in wanted]
        for future, cancelled in given_up:
            cancelled.set()
            future.cancel()  # has no effect on those that run; the event stops these

    def close(self, cancel: bool = False) -> None:
        with self._lock:
            first, self._closed = not self._closed, True
            threads = list(self._threads)
        if cancel:
            self.cancel()
        if first:
            for _ in threads:
                self._queue.put((float("inf"), next(self._order), None))
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self.cancel()  # Ctrl-C while waiting for the rest
            raise
        self._remove_scratch()

    def _start_thread(self) -> None:
        name = f"simtune-job-{len(self._threads)}"
        thread = threading.Thread(target=_work, args=(self._queue, self._scratch), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def view(self) -> View:
        """This machine as the only worker."""
        with self._lock:
            unfinished, done = list(self._unfinished), self._done
        running = sum(future.running() for future in unfinished)
        here = WorkerView("local", platform.node(), self._capacity, running, done=done)
        return View((here,), waiting=len(unfinished) - running, done=done)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._unfinished.pop(future, None)
            self._done += not future.cancelled()


class InlineExecutor(_Local):
    """Runs each job at once in the caller's thread: for debugging, and for plain tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    def submit(self, job: Job[R]) -> Future[R]:
        if self._closed:
            raise RuntimeError("submit() after close() of the executor")
        future: Future[R] = Future()
        _perform(future, job, threading.Event(), self._scratch)
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error  # Ctrl-C and exit() are meant for the caller
        return future

    def capacity(self) -> int:
        return 1

    def cancel(self, futures: Collection[Future[Any]] | None = None) -> None:
        """Nothing waits or runs when the caller has the word."""

    def view(self) -> View:
        """One slot, which is free whenever somebody can look."""
        return View((WorkerView("inline", platform.node(), 1, 0),))

    def close(self, cancel: bool = False) -> None:
        self._closed = True
        self._remove_scratch()


def _work(queue: PriorityQueue[_Item], scratch: Path) -> None:
    while (item := queue.get()[2]) is not None:
        try:
            _perform(*item, scratch)
        except BaseException:
            _log.exception("a callback of a job's future")  # exit() there must not end a worker either
        del item  # holds the result until the next job otherwise


def _perform(future: Future[Any], job: Job[Any], cancelled: threading.Event, scratch: Path) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        scratch.mkdir(exist_ok=True)  # somebody may have tidied up the folder for temporary files
        with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
            result = job.run(Site(Path(folder), cancelled))
    except BaseException as error:
        # Even SystemExit: a job must not be able to end a worker.
        future.set_exception(error)
    else:
        future.set_result(result)
