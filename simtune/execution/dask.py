# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on the workers of a Dask cluster: `simtune worker`, Slurm, Kubernetes, or any other."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from simtune.errors import ConfigurationError, ExecutorError
from simtune.execution.base import Job
from simtune.execution.courier import Courier, Order
from simtune.execution.dask_session import Session
from simtune.execution.dask_setup import dask_distributed, security_of
from simtune.execution.dispatch import Policy, Progress

R = TypeVar("R")

#: Seconds for one attempt to connect, and between attempts: at first, and at most.
_CONNECT_S, _PAUSE_S, _LONGEST_PAUSE_S = 10.0, 0.2, 10.0

_log = logging.getLogger(__name__)


class DaskExecutor:
    """Runs jobs on the workers of a Dask scheduler.

    Any number of executors may share a cluster, and anybody else's tasks are left alone. A scheduler
    that is restarted, or cannot be reached for a while, costs time only.

    Args:
        cluster: address of a scheduler (``"tcp://head:8786"``), a `distributed.Client`, or a cluster
            object such as `dask_jobqueue.SLURMCluster`.
        security: for TLS, a `distributed.Security` or a mapping of its files, such as
            ``{"tls_ca_file": ..., "tls_client_cert": ..., "tls_client_key": ...}``; by default that of
            the client or cluster, or of Dask's configuration.
        policy: chunk length, retries and the like.
        connect_s: seconds to wait for the scheduler in the beginning.
        patience_s: seconds without a scheduler after which the jobs under way fail.
        quiet_s: after so many seconds in which no job ended, and again each time, `tell` is called.
        tell: called with a sentence about what keeps the jobs waiting; by default it is logged.

    Raises:
        ConfigurationError: no scheduler answers there.
        ToolMissingError: the package `distributed` is missing.
    """

    def __init__(
        self,
        cluster: Any,
        *,
        security: Any = None,
        policy: Policy | None = None,
        connect_s: float = 30.0,
        patience_s: float = 300.0,
        quiet_s: float = 60.0,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        dask_distributed()
        self.address, security = _locate(cluster, security)
        self._security = security_of(security) if isinstance(security, Mapping) else security
        self._patience_s, self._quiet_s = patience_s, quiet_s
        self._tell = tell or _log.warning
        self._settled: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._courier = Courier(self._settled.put, policy)
        self._unfinished: set[Future[Any]] = set()
        self._arrived: list[Order] = []
        self._cancelled: list[Future[Any]] = []
        self._lock = threading.Lock()
        self._closed = False
        self._problem = ""
        self.dashboard_link = ""
        self._connected: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._ending = False
        self._threads = [
            threading.Thread(target=self._run_loop, name="simtune-dask", daemon=True),
            threading.Thread(target=self._settle, name="simtune-dask-results", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(_close, weakref.ref(self))
        try:
            self._connected.result(connect_s)
        except BaseException as error:
            self.close(cancel=True)
            if isinstance(error, TimeoutError | OSError):
                raise ConfigurationError(
                    f"no Dask scheduler answers at {self.address}: {self._problem or 'no connection'}",
                    "start one there: dask scheduler",
                ) from None
            raise

    # ---- for everybody ----------------------------------------------------------------------

    def submit(self, job: Job[R]) -> Future[R]:
        future: Future[R] = Future()
        order = Order.of(job, future)
        with self._lock:
            if self._closed:
                raise RuntimeError("submit() after close() of the executor")
            self._unfinished.add(future)
            self._arrived.append(order)
        future.add_done_callback(self._forget)
        self._wake()
        return future

    def capacity(self) -> int:
        return max(1, self._courier.slots)

    def cancel(self, futures: Collection[Future[Any]] | None = None) -> None:
        with self._lock:
            given_up = [f for f in self._unfinished if futures is None or f in futures]
        for future in given_up:
            future.cancel()  # `_forget` tells the workers

    def view(self) -> Progress:
        """Where all jobs and workers are, for a live display."""
        loop, asked = self._loop, Future[Progress]()

        def look() -> None:
            asked.set_result(self._courier.progress(time.monotonic()))

        try:
            assert loop is not None
            loop.call_soon_threadsafe(look)
            return asked.result(5.0)
        except (RuntimeError, TimeoutError):  # it is closed
            return Progress((), 0, 0, 0, 0, 0, 0, None)

    def close(self, cancel: bool = False) -> None:
        with self._lock:
            self._closed = True
        if cancel:
            self.cancel()
        try:
            wait(list(self._unfinished))
        except BaseException:
            self.cancel()  # Ctrl-C while waiting for the rest
            raise
        finally:
            self._ending = True
            self._wake()
            for thread in self._threads:
                thread.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(cancel=kind is not None)

    # ---- in other threads -------------------------------------------------------------------

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._unfinished.discard(future)
            if future.cancelled():
                self._cancelled.append(future)
        if future.cancelled():
            self._wake()

    def _wake(self) -> None:
        loop, changed = self._loop, self._changed
        if loop is not None and changed is not None:
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(changed.set)

    def _settle(self) -> None:
        """Sets results, so that callbacks of the futures cannot hold up the connection."""
        while (step := self._settled.get()) is not None:
            step()
            del step  # would hold the result until the next one

    def _run_loop(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._main())
        except BaseException as caught:
            error = caught
            _log.exception("the connection to %s broke down", self.address)
        finally:
            self._loop = None
            with self._lock:
                self._closed = True
            self._take(None)
            self._courier.fail(ExecutorError(f"the executor of {self.address} has ended: {error}"), 0.0)
            self._settled.put(None)

    # ---- in the loop ------------------------------------------------------------------------

    async def _main(self) -> None:
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        lost_at, pause = time.monotonic(), _PAUSE_S
        while not self._ending:
            session = Session(self.address, self._security, self._courier, self._changed.set)
            try:
                await session.open(_CONNECT_S)
            except OSError as error:
                self._problem = str(error)
                await self._without_scheduler(lost_at, pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            self.dashboard_link = session.dashboard_link
            if not self._connected.done():
                self._connected.set_result(None)
            try:
                await self._serve(session)
            finally:
                now = time.monotonic()
                for worker in list(self._courier.workers):
                    session.stop(self._courier.left(worker, now, blame=False))
                await session.close()
            lost_at, pause = time.monotonic(), _PAUSE_S

    async def _serve(self, session: Session) -> None:
        assert self._changed is not None
        watching = asyncio.create_task(session.watch())
        try:
            while not self._ending and not session.lost.is_set():
                self._changed.clear()
                self._take(session)
                now = time.monotonic()
                for parcel in self._courier.parcels(now):
                    session.send(parcel)
                wake = self._courier.next_wake(now)
                timeout = 1.0 if wake is None else min(1.0, max(0.0, wake - now))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout)
        finally:
            watching.cancel()

    def _take(self, session: Session | None) -> None:
        """Takes over what other threads have brought."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
            cancelled, self._cancelled = self._cancelled, []
        now = time.monotonic()
        for order in arrived:
            self._courier.add(order, now)
        stop = self._courier.drop(cancelled, now)
        if session is not None:
            session.stop(stop)

    async def _without_scheduler(self, lost_at: float, pause: float) -> None:
        assert self._changed is not None
        self._take(None)
        now = time.monotonic()
        if len(self._courier) and now - lost_at > self._patience_s:
            self._courier.fail(
                ExecutorError(
                    f"the scheduler at {self.address} could not be reached for {now - lost_at:.0f} s: "
                    f"{self._problem}",
                    "start it again and run the same command; finished jobs are stored",
                ),
                now,
            )
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), pause)


def _locate(cluster: Any, security: Any) -> tuple[str, Any]:
    """Address and security of an address, a client or a cluster."""
    if isinstance(cluster, str):
        return cluster, security
    address = getattr(cluster, "scheduler_address", None)
    if address is None and getattr(cluster, "scheduler", None) is not None:
        address = getattr(cluster.scheduler, "address", None)
    if not isinstance(address, str) or not address:
        raise ConfigurationError(
            f"a {type(cluster).__name__} is no Dask cluster",
            'give an address such as "tcp://head:8786", a distributed.Client, or a cluster object',
        )
    return address, security or getattr(cluster, "security", None)


def _close(reference: weakref.ref[DaskExecutor]) -> None:
    executor = reference()
    if executor is not None:
        executor.close(cancel=True)
