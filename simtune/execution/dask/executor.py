# SPDX-License-Identifier: Apache-2.0
"""Runs jobs on the workers of a Dask cluster: `simtune worker`, Slurm, Kubernetes, or any other."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from simtune.errors import ConfigurationError
from simtune.execution.base import Closing, Job
from simtune.execution.courier import Courier, Order
from simtune.execution.dask.driver import Driver
from simtune.execution.dask.setup import check_address, dask_distributed, security_of
from simtune.execution.dispatch import Policy, Progress
from simtune.execution.view import View, WorkerView

R = TypeVar("R")

_log = logging.getLogger(__name__)


class DaskExecutor(Closing):
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
        connect_s: seconds to wait for the scheduler in the beginning. Workers may come later.
        patience_s: seconds without a scheduler after which the jobs under way fail.
        quiet_s: after so many seconds in which no job ended, and again each time, `tell` is called.
        tell: called with a sentence about what keeps the jobs waiting; by default it is logged.

    Raises:
        ConfigurationError: no scheduler answers there, or it is no address of one.
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
        self._unfinished: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._results: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._courier = Courier(self._results.put, policy)
        self._driver = Driver(
            self.address,
            security_of(security) if isinstance(security, Mapping) else security,
            self._courier,
            patience_s=patience_s,
            quiet_s=quiet_s,
            tell=tell or _log.warning,
            ended=lambda: self._results.put(None),
        )
        self._thread = threading.Thread(target=self._settle, name="simtune-dask-results", daemon=True)
        self._thread.start()
        atexit.register(_close, weakref.ref(self))
        try:
            self._driver.connected.result(connect_s)
        except BaseException as error:
            self.close(cancel=True)
            if not isinstance(error, Exception) or isinstance(error, ConfigurationError):
                raise
            timed_out = isinstance(error, TimeoutError)
            why = f"{self._driver.problem or 'no answer'} (tried for {connect_s:g} s)" if timed_out else error
            raise ConfigurationError(
                f"no Dask scheduler answers at {self.address}: {why}",
                "start one there: dask scheduler",
            ) from (None if timed_out else error)

    def submit(self, job: Job[R]) -> Future[R]:
        future: Future[R] = Future()
        order = Order.of(job, future)
        with self._lock:
            if self._closed:
                raise RuntimeError("submit() after close() of the executor")
            self._driver.add(order)
            self._unfinished.add(future)
        future.add_done_callback(self._forget)
        return future

    def capacity(self) -> int:
        """How many jobs run at the same time with the workers that are there now."""
        return max(1, self._courier.slots)

    def cancel(self, futures: Collection[Future[Any]] | None = None) -> None:
        wanted = None if futures is None else set(futures)
        with self._lock:
            given_up = [f for f in self._unfinished if wanted is None or f in wanted]
        for future in given_up:
            future.cancel()  # `_forget` tells the workers

    @property
    def dashboard_link(self) -> str:
        """Where Dask shows what its workers do; empty when the scheduler has no dashboard."""
        return self._driver.dashboard_link

    def view(self) -> View:
        """Where all jobs and workers are, for a live display."""
        progress = self._driver.ask(lambda: self._courier.progress(time.monotonic()))
        return View() if progress is None else _view(progress)

    def close(self, cancel: bool = False) -> None:
        with self._lock:
            self._closed = True
            unfinished = list(self._unfinished)
        if cancel:
            self.cancel()
        try:
            wait(unfinished)
        except BaseException:
            self.cancel()  # Ctrl-C while waiting for the rest
            raise
        finally:
            self._driver.end()
            if threading.current_thread() is not self._thread:
                self._thread.join(5.0)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._unfinished.discard(future)
        if future.cancelled():
            self._driver.drop(future)

    def _settle(self) -> None:
        """Sets results, so that callbacks of the futures cannot hold up the connection."""
        while (step := self._results.get()) is not None:
            try:
                step()
            except BaseException:
                _log.exception("a callback of a job's future")  # exit() there must not end this thread
            del step  # would hold the result until the next one


def _locate(cluster: Any, security: Any) -> tuple[str, Any]:
    """Address and security of an address, a client or a cluster."""
    if isinstance(cluster, str):
        known = security is None or isinstance(security, Mapping)
        check_address(cluster, bool(security) if known else None)
        return cluster, security
    address = getattr(cluster, "scheduler_address", None) or getattr(
        getattr(cluster, "scheduler", None), "address", None
    )
    if not isinstance(address, str):
        raise ConfigurationError(
            f"a {type(cluster).__name__} is no Dask cluster",
            'give an address such as "tcp://head:8786", a distributed.Client, or a cluster object',
        )
    return address, security or getattr(cluster, "security", None)


def _close(reference: weakref.ref[DaskExecutor]) -> None:
    executor = reference()
    if executor is not None:
        executor.close(cancel=True)


def _view(progress: Progress) -> View:
    workers = [
        WorkerView(
            worker.name,
            worker.host,
            worker.slots,
            worker.running,
            worker.queued,
            worker.done,
            "; ".join(worker.refused) or ("resting after failures" if worker.benched else ""),
        )
        for worker in progress.workers
    ]
    return View(
        tuple(workers),
        progress.waiting,
        progress.retries,
        progress.doubles,
        progress.lost,
        progress.seconds_left,
        progress.done,
        progress.chunks,
    )
