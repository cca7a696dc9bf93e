# SPDX-License-Identifier: Apache-2.0
"""What every executor offers, however it runs its tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self, TypeVar

T = TypeVar("T")

#: A task is a callable of plain data (a frozen dataclass with `__call__`, or a partial of a
#: module-level function), so that another executor can send it elsewhere. It receives an event
#: that is set when it should give up, and hands it on to `simtune.execution.supervise.run`.
Task = Callable[[threading.Event], T]


class Executor(Protocol):
    """Runs many tasks at once. What a task computes is none of its business."""

    def submit(self, task: Task[T]) -> Future[T]:
        """Queues one task; tasks start in the order in which they were submitted.

        Raises:
            RuntimeError: the executor is closed.
        """
        ...

    def capacity(self) -> int:
        """How many tasks run at the same time."""
        ...

    def cancel(self) -> None:
        """Gives up everything submitted so far: pending futures are cancelled, running tasks
        are told to stop. Returns at once; the executor can be used again.
        """
        ...

    def close(self, cancel: bool = False) -> None:
        """Waits for the submitted tasks, or with `cancel` gives them up first. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes; after an exception, such as KeyboardInterrupt, with `cancel`."""
        ...


def run_all(executor: Executor, tasks: Iterable[Task[T]]) -> list[T]:
    """Runs all tasks and returns their results in order; if interrupted, gives them all up."""
    try:
        return [future.result() for future in [executor.submit(task) for task in tasks]]
    except BaseException:
        executor.cancel()
        raise
