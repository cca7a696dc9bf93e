# SPDX-License-Identifier: Apache-2.0
"""What goes into the dispatcher and comes out of it, besides tickets and times."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Policy:
    """How the dispatcher decides. Times are seconds.

    Attributes:
        chunk_s: a chunk lasts about so long on its worker.
        chunk_min_s: towards the end chunks shrink, but not below this.
        chunk_jobs: most jobs of a chunk, however short they are.
        task_s: what one chunk costs the busiest part of the machinery (the driver, the scheduler);
            with many slots chunks grow so that it is a quarter busy with them, in the end half.
        ahead: chunks that wait on a worker per slot, besides the one that runs there.
        retries: a job whose worker was lost is tried so often elsewhere; likewise after transient
            failures.
        suspects: most jobs that may have killed a worker that run on one worker at a time.
        double_s: a chunk is no straggler unless it is later than predicted by this much.
        strikes: after so many transient failures in a row a worker is benched,
        bench_s: at first for so long, twice as long each further time,
        bench_max_s: but no longer than this.
        unfit_s: how long to wait for another worker when all there are refused a kind of jobs.
    """

    chunk_s: float = 3.0
    chunk_min_s: float = 0.1
    chunk_jobs: int = 100
    task_s: float = 0.0015
    ahead: float = 1.0
    retries: int = 2
    suspects: int = 8
    double_s: float = 2.0
    strikes: int = 3
    bench_s: float = 5.0
    bench_max_s: float = 300.0
    unfit_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """What to send to a worker.

    Attributes:
        number: names the chunk in replies; never used twice.
        worker: where it is to run.
        tickets: the jobs, to be run in this order.
        alone: the worker runs nothing else meanwhile, because the job may kill it.
        double: its job runs elsewhere, too.
    """

    number: int
    worker: str
    tickets: tuple[int, ...]
    alone: bool = False
    double: bool = False


@dataclass
class Settled:
    """What follows from an event.

    Attributes:
        final: tickets that end with the result that just came.
        lost: tickets that end without any result, and why.
        again: tickets that are tried once more.
        stop: chunks that are superfluous now, to be told to stop; the dispatcher has forgotten them.
    """

    final: list[int] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    stop: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class WorkerState:
    """One worker, for a live view: chunks running and queued, jobs done."""

    name: str
    host: str
    slots: int
    running: int
    queued: int
    done: int
    benched: bool
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """Where all is, for a live view.

    Attributes:
        workers: in the order in which they joined.
        waiting, under_way: tickets.
        done, lost: tickets that have ended with and without a result.
        retries: how often a ticket was tried again.
        doubles: how often a ticket was run a second time while it ran.
        seconds_left: predicted, if the workers stay; None as long as nothing is known.
        chunks: how many were sent.
    """

    workers: tuple[WorkerState, ...]
    waiting: int
    under_way: int
    done: int
    lost: int
    retries: int
    doubles: int
    seconds_left: float | None
    chunks: int = 0
