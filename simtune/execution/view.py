# SPDX-License-Identifier: Apache-2.0
"""What an executor is doing at the moment, for those who watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class WorkerView:
    """One worker: this machine, or a process on another one.

    Attributes:
        name: what tells it from the others, such as its address.
        host: the machine it runs on.
        slots: how many jobs it runs at the same time.
        running: jobs that occupy a slot now.
        queued: jobs that it was given and that wait for a slot.
        done: jobs it finished, whatever came out.
        note: why it gets no jobs at the moment, such as a refusal; empty for a sound worker.
    """

    name: str
    host: str
    slots: int
    running: int
    queued: int = 0
    done: int = 0
    note: str = ""


@dataclass(frozen=True)
class View:
    """A moment of an executor.

    Attributes:
        workers: those it has now; those that left are gone from here.
        waiting: jobs that no worker was given yet.
        retried: times that a job was started again after a worker was lost or at fault.
        doubled: times that a late job was started a second time in an idle slot.
        lost: jobs given up after as many tries as may be.
        expected_s: seconds until the jobs submitted so far are done; None when nothing is known yet.
        done: jobs that ended with a result.
        chunks: groups of jobs that were sent to other machines.
    """

    workers: tuple[WorkerView, ...] = ()
    waiting: int = 0
    retried: int = 0
    doubled: int = 0
    lost: int = 0
    expected_s: float | None = None
    done: int = 0
    chunks: int = 0

    @property
    def slots(self) -> int:
        """Of all workers."""
        return sum(worker.slots for worker in self.workers)

    @property
    def running(self) -> int:
        """Slots of all workers that are occupied."""
        return sum(worker.running for worker in self.workers)


@runtime_checkable
class Viewable(Protocol):
    """An executor that can be watched. It may also have a `dashboard_link`, an address for browsers."""

    def view(self) -> View:
        """The moment, from what is known already: asks no other machine, and returns at once."""
        ...
