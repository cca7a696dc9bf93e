# SPDX-License-Identifier: Apache-2.0
"""Executors on this machine: a thread per slot, or none at all."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from simtune.execution.base import Task
from simtune.execution.capacity import slots

T = TypeVar("T")

#: A queued task with its future and the event that cancels it; None tells a worker to leave.
_Item = tuple["Future[Any]", Task[Any], threading.Event] | None


class _Closing:
    """The context manager that local executors share."""

    def close(self, cancel: bool = False) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(cancel=kind is not None)


class LocalExecutor(_Closing):
    """Runs tasks in as many threads as cores and memory allow.

    A simulation is a process of its own, so threads are all it takes to wait for many. They are
    daemon threads: an executor that was never closed does not keep the interpreter from exiting,
    and what it was running dies with this process (see `simtune.execution.supervise`).

    Args:
        jobs: upper bound on the tasks at once; None leaves it to cores and memory.
        memory_per_job: bytes that one task is expected to need.
    """

    def __init__(self, jobs: int | None = None, memory_per_job: int = 512 << 20) -> None:
        self._capacity = slots(jobs, memory_per_job)
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._unfinished: set[Future[Any]] = set()
        self._cancelled = threading.Event()
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, task: Task[T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("submit() after close() of the executor")
            self._unfinished.add(future)
            self._queue.put((future, task, self._cancelled))
            if len(self._threads) < min(self._capacity, len(self._unfinished)):
                self._start_thread()
        future.add_done_callback(self._forget)
        return future

    def capacity(self) -> int:
        return self._capacity

    def cancel(self) -> None:
        with self._lock:
            # Later tasks get a fresh event, so that the executor can be used again.
            cancelled, self._cancelled = self._cancelled, threading.Event()
            unfinished = list(self._unfinished)
        cancelled.set()
        for future in unfinished:
            future.cancel()  # has no effect on those that run; the event stops these

    def close(self, cancel: bool = False) -> None:
        with self._lock:
            first, self._closed = not self._closed, True
            threads = list(self._threads)
        if cancel:
            self.cancel()
        if first:
            for _ in threads:
                self._queue.put(None)
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self.cancel()  # Ctrl-C while waiting for the rest
            raise

    def _start_thread(self) -> None:
        name = f"simtune-job-{len(self._threads)}"
        thread = threading.Thread(target=_work, args=(self._queue,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._unfinished.discard(future)


class InlineExecutor(_Closing):
    """Runs each task at once in the caller's thread: for debugging, and for plain tracebacks."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._closed = False

    def submit(self, task: Task[T]) -> Future[T]:
        if self._closed:
            raise RuntimeError("submit() after close() of the executor")
        future: Future[T] = Future()
        _perform(future, task, self._cancelled)
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise error  # Ctrl-C and exit() are meant for the caller
        return future

    def capacity(self) -> int:
        return 1

    def cancel(self) -> None:
        cancelled, self._cancelled = self._cancelled, threading.Event()
        cancelled.set()

    def close(self, cancel: bool = False) -> None:
        self._closed = True
        if cancel:
            self.cancel()


def _work(queue: SimpleQueue[_Item]) -> None:
    while (item := queue.get()) is not None:
        _perform(*item)
        del item  # holds the result until the next task otherwise


def _perform(future: Future[Any], task: Task[Any], cancelled: threading.Event) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = task(cancelled)
    except BaseException as error:
        # Even SystemExit: a task must not be able to end a worker.
        future.set_exception(error)
    else:
        future.set_result(result)
