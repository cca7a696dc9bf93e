# SPDX-License-Identifier: Apache-2.0
"""Between futures and bytes: what an executor on other machines needs besides a way to send bytes.

Holds the submitted jobs, asks the `Dispatcher` what goes where, packs chunks with the files that a
worker does not have yet, and turns replies into results. Used by one thread; results are handed to
`settle`, whoever waits for them is not served here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simtune.errors import ConfigurationError, ExecutorError, InputFileError
from simtune.execution import wire
from simtune.execution.base import Job, PortableJob
from simtune.execution.blobs import Library
from simtune.execution.dispatch import Chunk, Dispatcher, Policy, Progress, Settled
from simtune.execution.wire import JobReply, PackedJob, WireError, decode_reply, encode_chunk, kind_of

#: A worker that has got more files than this is thought to have none: it asks for what it lacks.
_KNOWN = 20_000

#: How often a worker may say that it lacks files of one chunk: somebody may tidy up there, but a job
#: may also remove what it should not.
_LACKED = 3


@dataclass(frozen=True, slots=True)
class Order:
    """A submitted job, ready to travel.

    Attributes:
        kind: its class, see `simtune.execution.wire.kind_of`.
        files: of this machine, read when it is sent.
        data: the rest, as JSON.
    """

    job: PortableJob[Any]
    future: Future[Any]
    kind: str
    files: Mapping[str, Path]
    data: bytes

    @classmethod
    def of(cls, job: Job[Any], future: Future[Any]) -> Order:
        """Packs a job; any thread may do that.

        Raises:
            ConfigurationError: it cannot leave this machine.
        """
        if not isinstance(job, PortableJob):
            raise ConfigurationError(
                f"{type(job).__name__} cannot run on another machine", "derive it from PortableJob"
            )
        data = json.dumps(job.encode(), separators=(",", ":")).encode()
        return cls(job, future, kind_of(job), dict(job.files()), data)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Bytes for a worker; `number` names the chunk in its reply."""

    number: int
    worker: str
    payload: bytes


@dataclass(frozen=True)
class Moves:
    """What is to be done: chunks to stop, parcels to send."""

    stop: Collection[int] = ()
    send: Collection[Parcel] = ()


class Courier:
    """The jobs of one executor on their way.

    Args:
        settle: called with a function that sets a future's result, to be run soon in any thread.
        policy: of the dispatcher.
    """

    def __init__(self, settle: Callable[[Callable[[], None]], None], policy: Policy | None = None) -> None:
        self._settle = settle
        self._dispatcher = Dispatcher(policy)
        self._orders: dict[int, Order] = {}
        self._tickets: dict[Future[Any], int] = {}
        self._chunks: dict[int, Chunk] = {}
        self._known: dict[str, set[str]] = {}
        self._slots: dict[str, int] = {}
        self._lacked: Counter[int] = Counter()
        self._library = Library()
        self._next = 0
        #: Of all workers together.
        self.slots = 0
        #: Jobs that have come to an end.
        self.settled = 0

    def __len__(self) -> int:
        return len(self._orders)

    # ---- jobs -------------------------------------------------------------------------------

    def add(self, order: Order, now: float) -> None:
        """Takes a job on."""
        ticket, self._next = self._next, self._next + 1
        self._orders[ticket] = order
        self._tickets[order.future] = ticket
        self._dispatcher.add(ticket, order.job.length, now, f"{order.kind} {order.job.needs}")

    def drop(self, futures: Iterable[Future[Any]], now: float) -> list[int]:
        """Gives up jobs whose futures are cancelled; returns chunks to stop."""
        tickets = [ticket for future in futures if (ticket := self._tickets.get(future)) is not None]
        for ticket in tickets:
            future = self._remove(ticket).future
            self._settle(partial(_acknowledge, future))
        return self._stopped(self._dispatcher.cancel(tickets, now))

    def fail(self, error: Exception, now: float) -> list[int]:
        """Ends all jobs with an error; returns chunks to stop."""
        tickets = list(self._orders)
        for ticket in tickets:
            self._settle(partial(_resolve, self._remove(ticket).future, partial(_raise, error)))
        return self._stopped(self._dispatcher.cancel(tickets, now))

    # ---- workers ----------------------------------------------------------------------------

    def joined(self, worker: str, slots: int, host: str, now: float) -> None:
        """A worker is there, or has another number of slots."""
        self._known.setdefault(worker, set())
        self._slots[worker] = slots
        self.slots = sum(self._slots.values())
        self._dispatcher.joined(worker, slots, host, now)

    def left(self, worker: str, now: float, blame: bool) -> list[int]:
        """A worker is gone; `blame` says that its jobs may be the reason. Returns chunks to stop."""
        self._known.pop(worker, None)
        self._slots.pop(worker, None)
        self.slots = sum(self._slots.values())
        mine = [number for number, chunk in self._chunks.items() if chunk.worker == worker]
        self._apply(self._dispatcher.left(worker, now, blame), {})
        return self._stopped(mine)

    @property
    def workers(self) -> Collection[str]:
        """Names of those that are there."""
        return self._slots.keys()

    # ---- chunks -----------------------------------------------------------------------------

    def parcels(self, now: float) -> list[Parcel]:
        """What to send now."""
        for ticket, reason in self._dispatcher.unfit(now):
            self._lose(ticket, ConfigurationError(reason, "give workers what they lack, or add others"))
        parcels = []
        for chunk in self._dispatcher.assign(now):
            self._chunks[chunk.number] = chunk
            if (parcel := self._pack(chunk, now)) is not None:
                parcels.append(parcel)
        return parcels

    def replied(self, number: int, payload: bytes, now: float) -> Moves:
        """Takes a reply, and says what follows from it."""
        chunk = self._chunks.get(number)
        if chunk is None:
            return Moves()  # stopped, or its worker was thought to be dead
        try:
            reply = decode_reply(payload)
        except WireError as error:
            return self.broken(number, error.what, now)
        if reply.refused:
            self.refused(number, reply.refused, now)
            return Moves()
        if reply.missing:
            self._lacked[number] += 1
            if self._lacked[number] > _LACKED:
                return self.broken(number, "its files vanished again and again", now)
            self._known.get(chunk.worker, set()).clear()
            self._dispatcher.missing(number, now)
            parcel = self._pack(chunk, now)
            return Moves(send=[parcel] if parcel else [])
        if reply.trouble and not reply.leaving:
            return self.broken(number, reply.trouble, now)
        self._close(number)
        # What a worker that leaves has not done is forgotten first, so that only its results count.
        stop = self.left(chunk.worker, now, blame=False) if reply.leaving else []
        replies = {job.ticket: job for job in reply.jobs}
        seconds = {job.ticket: job.seconds for job in reply.jobs}
        transient = {job.ticket for job in reply.jobs if job.transient}
        stop += self._apply(self._dispatcher.replied(number, seconds, transient, now), replies)
        return Moves(stop=stop)

    def refused(self, number: int, reason: str, now: float) -> None:
        """The chunk's worker can run no such jobs."""
        if self._close(number):
            self._dispatcher.refused(number, reason, now)

    def broken(self, number: int, reason: str, now: float) -> Moves:
        """A chunk came to nothing although its worker lives."""
        if not self._close(number):
            return Moves()
        return Moves(stop=self._apply(self._dispatcher.broken(number, reason, now), {}))

    def next_wake(self, now: float) -> float | None:
        """When to ask for parcels again although nothing happened."""
        return self._dispatcher.next_wake(now)

    def progress(self, now: float) -> Progress:
        """Where all jobs and workers are."""
        return self._dispatcher.progress(now)

    # ---- inside -----------------------------------------------------------------------------

    def _pack(self, chunk: Chunk, now: float) -> Parcel | None:
        known = self._known.setdefault(chunk.worker, set())
        if len(known) > _KNOWN:
            known.clear()
        jobs, blobs = [], {}
        for ticket in chunk.tickets:
            order = self._orders.get(ticket)
            if order is None:
                continue
            try:
                digests = {name: self._library.digest(path) for name, path in order.files.items()}
                fresh = {d: order.files[n] for n, d in digests.items() if d not in known and d not in blobs}
                blobs.update({digest: path.read_bytes() for digest, path in fresh.items()})
            except OSError as error:
                self._lose(ticket, InputFileError(f"a file of a job cannot be read: {error}"))
                self._dispatcher.cancel([ticket], now)
                continue
            jobs.append(PackedJob(ticket, order.kind, digests, order.data))
        if not jobs:
            self._close(chunk.number)
            return None
        known.update(blobs)
        return Parcel(chunk.number, chunk.worker, encode_chunk(wire.Chunk(jobs, blobs)))

    def _apply(self, settled: Settled, replies: Mapping[int, JobReply]) -> list[int]:
        for ticket in settled.final:
            order = self._remove(ticket)
            self._settle(partial(_resolve, order.future, partial(_result, order.job, replies[ticket])))
        for ticket, reason in settled.lost:
            order = self._remove(ticket)
            self._settle(partial(_resolve, order.future, partial(order.job.failed, reason)))
        return self._stopped(settled.stop)

    def _lose(self, ticket: int, error: Exception) -> None:
        self._settle(partial(_resolve, self._remove(ticket).future, partial(_raise, error)))

    def _remove(self, ticket: int) -> Order:
        order = self._orders.pop(ticket)
        del self._tickets[order.future]
        self.settled += 1
        return order

    def _stopped(self, numbers: Collection[int]) -> list[int]:
        return [number for number in numbers if self._close(number)]

    def _close(self, number: int) -> bool:
        """A chunk is under way no more; whether it was."""
        self._lacked.pop(number, None)
        return self._chunks.pop(number, None) is not None


def _result(job: PortableJob[Any], reply: JobReply) -> Any:
    if reply.result is None:
        raise ExecutorError(f"{type(job).__name__} raised on a worker: {reply.error}")
    return job.decode_result(reply.result)


def _raise(error: Exception) -> Any:
    raise error


def _resolve(future: Future[Any], make: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(make())
    except Exception as error:
        future.set_exception(error)


def _acknowledge(future: Future[Any]) -> None:
    """Those who wait for a cancelled future are told only now."""
    future.set_running_or_notify_cancel()
