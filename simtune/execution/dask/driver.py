# SPDX-License-Identifier: Apache-2.0
"""The thread that drives a cluster: brings jobs to the courier, carries its parcels, survives the
scheduler, and says so when nothing moves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import simtune
from simtune.errors import ConfigurationError, ExecutorError
from simtune.execution.courier import Courier, Order
from simtune.execution.dask.session import Session

T = TypeVar("T")

#: Seconds for an attempt to connect, and before the next one: at first, and at most.
_CONNECT_S, _PAUSE_S, _LONGEST_S = 2.0, 0.2, 10.0

#: Seconds after which the driver looks around although nothing has happened.
_TICK_S = 1.0

_log = logging.getLogger(__name__)


class Driver:
    """Runs in a thread of its own; the methods without underscore are for all threads.

    Args:
        address, security: of the scheduler.
        courier: holds the jobs; only this thread uses it.
        patience_s: seconds without a scheduler after which the jobs fail.
        quiet_s: seconds without the end of a job after which `tell` is called, again and again.
        tell: called with a sentence for people.
        ended: called last of all.

    Attributes:
        connected: is set when there is a connection for the first time.
        problem: why there is no connection.
    """

    def __init__(
        self,
        address: str,
        security: Any,
        courier: Courier,
        *,
        patience_s: float,
        quiet_s: float,
        tell: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        self.connected: Future[None] = Future()
        self.problem = ""
        self.dashboard_link = ""
        self._address, self._security, self._courier = address, security, courier
        self._patience_s, self._quiet_s, self._tell, self._ended = patience_s, quiet_s, tell, ended
        self._lock = threading.Lock()
        self._arrived: list[Order] = []
        self._cancelled: list[Future[Any]] = []
        self._ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._changed: asyncio.Event | None = None
        self._quiet_since = time.monotonic()
        self._settled = self._said = 0
        self._thread = threading.Thread(target=self._run, name="simtune-dask", daemon=True)
        self._thread.start()

    def add(self, order: Order) -> None:
        """Takes a job on.

        Raises:
            RuntimeError: the driver has ended.
        """
        with self._lock:
            if self._ending:
                raise RuntimeError("submit() after close() of the executor")
            self._arrived.append(order)
            first = len(self._arrived) == 1
        if first:  # the others are taken along
            self._wake()

    def drop(self, future: Future[Any]) -> None:
        """Gives up the job of a cancelled future."""
        with self._lock:
            self._cancelled.append(future)
            first = len(self._cancelled) == 1
        if first:
            self._wake()

    def ask(self, question: Callable[[], T], seconds: float = 5.0) -> T | None:
        """What `question` returns in the driver's thread; None when that has ended."""
        if threading.current_thread() is self._thread:  # as in `tell`
            return question()
        answer: Future[T] = Future()
        loop = self._loop
        if loop is None:
            return None
        try:
            loop.call_soon_threadsafe(lambda: answer.set_result(question()))
            return answer.result(seconds)
        except (RuntimeError, TimeoutError):
            return None

    def end(self) -> None:
        """Ends the thread; what is under way is given up."""
        with self._lock:
            self._ending = True
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(5.0)

    # ---- in the thread ----------------------------------------------------------------------

    def _wake(self) -> None:
        loop, changed = self._loop, self._changed
        if loop is not None and changed is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(changed.set)

    def _run(self) -> None:
        reason = "it was closed"
        try:
            asyncio.run(self._drive())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            if not self.connected.done():
                self.connected.set_exception(error)
                return
            _log.exception("the connection to %s broke down", self._address)
        finally:
            with self._lock:
                self._ending = True
            self._take(None)
            self._courier.fail(ExecutorError(f"the executor of {self._address} has ended: {reason}"), 0.0)
            self._ended()

    async def _drive(self) -> None:
        self._changed, self._task = asyncio.Event(), asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        lost_at, pause, connect_s = time.monotonic(), _PAUSE_S, _CONNECT_S
        while not self._ending:
            session = Session(self._address, self._security, self._courier, self._changed.set)
            try:
                await session.open(connect_s)
            except OSError as error:
                self.problem = str(error)
                self._changed.clear()
                self._take(None)
                self._look_without_scheduler(lost_at)
                await self._sleep(pause)
                pause, connect_s = min(2 * pause, _LONGEST_S), min(2 * connect_s, _LONGEST_S)
                continue
            self.dashboard_link = session.dashboard_link
            if not self.connected.done():
                self.connected.set_result(None)
            try:
                await self._serve(session)
                if session.error is not None:
                    raise session.error
                if session.unfit:
                    self._refuse(session.unfit)
            finally:
                now = time.monotonic()
                for worker in list(self._courier.workers):
                    session.stop(self._courier.left(worker, now, blame=False))
                await session.close()
            lost_at, pause, connect_s = time.monotonic(), _PAUSE_S, _CONNECT_S
            if len(self._courier) and not self._ending:
                self._say(
                    f"the connection to {self._address} is lost; it is tried again for up to "
                    f"{self._patience_s:.0f} s, and nothing is lost meanwhile"
                )

    async def _serve(self, session: Session) -> None:
        assert self._changed is not None
        watching = session.start(session.watch())
        try:
            while not self._ending and not session.lost.is_set():
                self._changed.clear()
                self._take(session)
                now = time.monotonic()
                for parcel in self._courier.parcels(now):
                    session.send(parcel)
                self._look(now)
                wake = self._courier.next_wake(now)
                await self._sleep(_TICK_S if wake is None else min(_TICK_S, max(0.0, wake - now)))
        finally:
            watching.cancel()

    def _refuse(self, reason: str) -> None:
        error = ConfigurationError(
            f"the scheduler at {self._address} cannot load simtune {simtune.__version__}: {reason}",
            "install the same simtune where the scheduler runs, and start it again",
        )
        self._courier.fail(error, time.monotonic())

    async def _sleep(self, seconds: float) -> None:
        """Until something happens, at most so long."""
        assert self._changed is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

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

    # ---- what people are told ---------------------------------------------------------------

    def _quiet(self, now: float) -> bool:
        """Whether it is time to say that no job has ended for long."""
        if self._settled != self._courier.settled or not len(self._courier):
            self._settled, self._quiet_since, self._said = self._courier.settled, now, 0
        if now - self._quiet_since < self._quiet_s * (self._said + 1):
            return False
        self._said += 1
        return True

    def _say(self, text: str) -> None:
        try:
            self._tell(text)
        except Exception:
            _log.exception("%s", text)  # somebody else's function must not end the jobs

    def _look(self, now: float) -> None:
        if not self._quiet(now):
            return
        quiet = f"{now - self._quiet_since:.0f} s"
        state = self._courier.progress(now)
        if not state.workers:
            self._say(
                f"no worker has joined {self._address} for {quiet}, and {len(self._courier)} jobs wait; "
                f"start some: simtune worker {self._address}"
            )
            return
        benched = sum(worker.benched for worker in state.workers)
        reasons = {reason for worker in state.workers for reason in worker.refused}
        self._say(
            f"no job has ended for {quiet}: {state.waiting} wait, {state.under_way} are under way on "
            f"{len(state.workers)} workers"
            + (f", {benched} of them benched after failures" if benched else "")
            + "".join(f"; refused: {reason}" for reason in sorted(reasons))
            + (f"; see {self.dashboard_link}" if self.dashboard_link else "")
        )

    def _look_without_scheduler(self, lost_at: float) -> None:
        now = time.monotonic()
        if not len(self._courier):
            return
        if now - lost_at > self._patience_s:
            self._courier.fail(
                ExecutorError(
                    f"the scheduler at {self._address} could not be reached for {now - lost_at:.0f} s: "
                    f"{self.problem}",
                    "start it again and run the same command; finished jobs are stored",
                ),
                now,
            )
        elif self._quiet(now):
            self._say(
                f"the scheduler at {self._address} cannot be reached since {now - lost_at:.0f} s: "
                f"{self.problem}; {len(self._courier)} jobs fail after {self._patience_s:.0f} s"
            )
