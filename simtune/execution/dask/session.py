# SPDX-License-Identifier: Apache-2.0
"""One connection to a Dask scheduler: sends parcels, fetches replies, notices workers come and go.

It ends when the connection does, and knows nothing of what happens then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from simtune.execution.courier import Courier, Moves, Parcel
from simtune.execution.dask.clock import TimeOfDay, send_now
from simtune.execution.dask.setup import dask_distributed
from simtune.execution.remote import perform

#: Seconds between looks at the list of workers; that one has come or gone is told by events as well.
_LOOK_S = 3.0

#: Seconds between looks at the state of the connection, which cost nothing.
_PULSE_S = 0.3

#: A scheduler that does not answer within this is as good as gone.
_ANSWER_S = 15.0

#: Dask warns of graphs larger than this; ours are bytes that it need not look into.
_NO_WARNING = {"distributed.admin.large-graph-warning-threshold": "1 GiB"}

_log = logging.getLogger(__name__)


class Session:
    """A connection; all methods run in its event loop.

    Args:
        address: of the scheduler.
        security: a `distributed.Security`, or None.
        courier: whose parcels are carried.
        changed: called after something that may give the courier more to do.

    Attributes:
        lost: set when the connection has ended.
        unfit: why this scheduler cannot pass simtune's chunks on; empty when it can.
        error: a mistake of ours that ended it; nothing may wait for what will not come.
    """

    def __init__(self, address: str, security: Any, courier: Courier, changed: Callable[[], None]) -> None:
        self._address, self._security = address, security
        self._courier, self._changed = courier, changed
        self._client: Any = None
        self._chunks: dict[int, tuple[Any, asyncio.Task[None]]] = {}
        self._prefix = f"simtune-{uuid.uuid4().hex}"
        self._look_now = asyncio.Event()
        self.lost = asyncio.Event()
        self.unfit = ""
        self.error: BaseException | None = None

    async def open(self, timeout: float) -> None:
        """Connects, and learns which workers are there.

        Raises:
            OSError: no scheduler answers within `timeout` seconds.
        """
        distributed = dask_distributed()
        client = distributed.Client(
            self._address,
            timeout=timeout,
            asynchronous=True,
            security=self._security,
            set_as_default=False,
            name="simtune",
        )
        try:
            await asyncio.wait_for(_started(client), timeout)
        except BaseException as error:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(client.close(), 1.0)
            if isinstance(error, asyncio.TimeoutError | ValueError):
                raise OSError(str(error) or "no answer") from None
            raise
        self._client = client
        client.subscribe_topic("all", self._on_event)
        await self._look()

    @property
    def dashboard_link(self) -> str:
        return str(self._client.dashboard_link or "")

    async def watch(self) -> None:
        """Keeps the courier's list of workers right, until the connection is lost."""
        looked, clock = time.monotonic(), TimeOfDay()
        while not self.lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), _PULSE_S)
                await asyncio.sleep(0.05)  # workers tend to come together
            if clock.set_back():
                send_now(self._client.scheduler_comm)
            if self._client.status != "running":
                self.lost.set()
            elif self._look_now.is_set() or time.monotonic() - looked > _LOOK_S:
                self._look_now.clear()
                try:
                    await self._look()
                except Exception as error:
                    # A client that is closing meanwhile raises all sorts of things.
                    if not isinstance(error, OSError) and self._client.status == "running":
                        raise
                    self.lost.set()
                looked = time.monotonic()
        self._changed()

    def send(self, parcel: Parcel) -> None:
        """Hands a chunk to its worker."""
        import dask

        if self._client.status != "running":  # Dask would refuse, or send it to another scheduler
            self.lost.set()
            self._changed()
            return
        with dask.config.set(_NO_WARNING):
            future = self._client.submit(
                perform,
                parcel.payload,
                key=f"{self._prefix}-{parcel.number}-{time.monotonic_ns()}",
                workers=[parcel.worker],
                allow_other_workers=False,
                pure=False,
                fifo_timeout=0,  # several drivers take turns
            )
        task = self.start(self._follow(parcel.number, future))
        self._chunks[parcel.number] = (future, task)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs something of this connection beside the rest; an exception in it ends the connection."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = error
            self.lost.set()
            self._changed()

    def stop(self, numbers: Collection[int]) -> None:
        """Tells workers to give these chunks up."""
        for number in numbers:
            # The task that follows it ends by itself. It must not be cancelled: those that fetch results
            # at the same time share one request of Dask's, which would be cancelled for all of them.
            if (entry := self._chunks.pop(number, None)) is not None:
                entry[0].release()

    async def close(self) -> None:
        """Ends the connection; what is under way is given up."""
        self.stop(list(self._chunks))
        if self._client is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._client.close(), 2.0)

    async def _follow(self, number: int, future: Any) -> None:
        distributed = dask_distributed()
        try:
            payload = await future
        except (distributed.client.FutureCancelledError, distributed.client.FuturesCancelledError):
            if number in self._chunks:  # we did not stop it, so it was the end of the connection
                self.lost.set()
                self._changed()
            return
        except distributed.KilledWorker:
            self._look_now.set()
            return
        except ImportError as error:
            self._courier.refused(number, f"simtune cannot be loaded there: {error}", time.monotonic())
            moves = Moves()
        except Exception as error:
            if "deserialization of the task graph" in str(error):
                self.unfit = str(error.__cause__ or "it is not installed there")
                self.lost.set()
            moves = self._courier.broken(number, f"{type(error).__name__}: {error}", time.monotonic())
        else:
            moves = self._courier.replied(number, payload, time.monotonic())
        self._chunks.pop(number, None)
        future.release()
        self.carry_out(moves)
        self._changed()

    def carry_out(self, moves: Moves) -> None:
        """Stops and sends."""
        self.stop(moves.stop)
        for parcel in moves.send:
            self.send(parcel)

    def _on_event(self, event: tuple[float, Any]) -> None:
        message = event[1]
        action = message.get("action") if isinstance(message, dict) else None
        if action == "remove-worker":
            blame = not message.get("expected", False)
            self.stop(self._courier.left(message["worker"], time.monotonic(), blame))
            self._changed()
        elif action == "add-worker":
            self._look_now.set()

    async def _look(self) -> None:
        identity = await asyncio.wait_for(self._client.scheduler.identity(n_workers=-1), _ANSWER_S)
        now = time.monotonic()
        there = {
            address: worker
            for address, worker in identity["workers"].items()
            if worker["status"] in ("running", "paused", "closing_gracefully") and worker["nthreads"] > 0
        }
        for gone in set(self._courier.workers) - set(there):
            self.stop(self._courier.left(gone, now, blame=True))
        for address, worker in there.items():
            if address not in self._courier.workers and worker["status"] == "running":
                self._courier.joined(address, worker["nthreads"], worker["host"], now)
                self._changed()


async def _started(client: Any) -> None:
    await client
