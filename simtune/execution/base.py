# SPDX-License-Identifier: Apache-2.0
"""What a job is, and what every executor offers, wherever its jobs run."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from simtune.errors import SimtuneError

R = TypeVar("R")


class Refused(SimtuneError):
    """This machine can run no job of this kind, whatever the candidate: another simtune, another
    simulator, a missing tool. An executor gives such jobs to other machines."""


@dataclass(frozen=True)
class Site:
    """Where one job runs.

    Attributes:
        folder: existing, empty, for this run of this job alone; the executor removes it.
        cancel: set when the job should give up; it hands it on to `simtune.execution.supervise.run`.
    """

    folder: Path
    cancel: threading.Event


class Job(ABC, Generic[R]):
    """A frozen value that says what to run. What it computes is no business of the executor's."""

    @property
    def length(self) -> float:
        """Predicted length in a unit that all jobs share (guest instructions); 0 when unknown.

        Longer jobs start first, and short ones travel together. On this machine those of unknown
        length come before all others.
        """
        return 0.0

    @abstractmethod
    def run(self, site: Site) -> R:
        """Runs here, to its end. Whatever a candidate does becomes a result, never an exception.

        Raises:
            Refused: this machine cannot run any such job.
        """


class PortableJob(Job[R]):
    """A job that can run on another machine: it travels as JSON, its files by content.

    Its class lives in a module that the other machine can import by name.
    """

    @property
    def needs(self) -> str:
        """What a machine must have for it, in any words: a machine that refuses a job gets no other
        one with the same needs."""
        return ""

    @abstractmethod
    def files(self) -> Mapping[str, Path]:
        """Files of this machine that it reads, by names of its own."""

    @abstractmethod
    def encode(self) -> dict[str, Any]:
        """All but the files, as plain JSON.

        Raises:
            ConfigurationError: it cannot leave this machine.
        """

    @classmethod
    @abstractmethod
    def decode(cls, data: Mapping[str, Any], files: Mapping[str, Path]) -> Self:
        """The same job on another machine, where `files` lie at these places, read-only.

        Raises:
            Refused: this machine cannot run any such job.
        """

    @classmethod
    @abstractmethod
    def encode_result(cls, result: R) -> dict[str, Any]:
        """A result as plain JSON: counters and short texts, kilobytes at most."""

    @classmethod
    @abstractmethod
    def decode_result(cls, data: Mapping[str, Any]) -> R:
        """The inverse of `encode_result`."""

    @classmethod
    @abstractmethod
    def transient(cls, result: R) -> bool:
        """Whether the machine is at fault rather than the job, so that another one may do better."""

    @abstractmethod
    def failed(self, reason: str) -> R:
        """The result of a job that was lost on as many machines as may try it."""


class Executor(Protocol):
    """Runs many jobs at once."""

    def submit(self, job: Job[R]) -> Future[R]:
        """Queues one job; of those that wait, the longest starts first, then the earliest.

        Raises:
            RuntimeError: the executor is closed.
            ConfigurationError: this executor cannot run such a job.
        """
        ...

    def capacity(self) -> int:
        """How many jobs run at the same time."""
        ...

    def cancel(self, futures: Collection[Future[Any]] | None = None) -> None:
        """Gives up these futures of `submit`, or all: pending ones are cancelled, running jobs
        are told to stop. Returns at once; the executor can be used again.
        """
        ...

    def close(self, cancel: bool = False) -> None:
        """Waits for the submitted jobs, or with `cancel` gives them up first. Idempotent."""
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


class Closing(ABC):
    """The context manager of executors, see `Executor.__exit__`."""

    @abstractmethod
    def close(self, cancel: bool = False) -> None:
        """See `Executor.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(cancel=kind is not None)


def run_all(executor: Executor, jobs: Iterable[Job[R]]) -> list[R]:
    """Runs all jobs and returns their results in order; if interrupted, gives them all up."""
    futures: list[Future[R]] = []
    try:
        futures.extend(map(executor.submit, jobs))  # what was submitted before an error is given up, too
        return [future.result() for future in futures]
    except BaseException:
        executor.cancel(futures)
        raise
