# SPDX-License-Identifier: Apache-2.0
"""A worker that stays: a Dask worker in a process of its own, and a guard that starts it again.

Dask ends a worker that has lost its scheduler, and a poisonous candidate may kill one. The guard
brings it back, with growing pauses, until it is told to stop; the worker dies with its guard, and what
it runs dies with the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from simtune.execution.dask.clock import TimeOfDay, send_now
from simtune.execution.dask.setup import dask_distributed, security_of

#: Seconds before a worker is started again: after its first end, and at most.
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

#: A worker that lasted so long has started well.
_LASTED_S = 5.0

#: How long running jobs may take to notice that they are to stop, and the driver to fetch what is done.
_LEAVE_S = 2.0

#: Seconds after which a worker that was told to leave is killed.
_LAST_S = 10.0

#: Seconds between looks at the state of the worker.
_PULSE_S = 0.2

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is started with.

    Attributes:
        address: of the scheduler, such as ``"tcp://head:8786"``.
        slots: jobs at once.
        host: address under which others reach this machine; empty for Dask's guess.
        port: of the worker; 0 for any.
        tls: files for encryption, by the names of `distributed.Security`.
    """

    address: str
    slots: int
    host: str = ""
    port: int = 0
    tls: dict[str, str] | None = None


def guard(options: WorkerOptions, say: Callable[[str], None]) -> int:
    """Keeps a worker running until SIGTERM or Ctrl-C, then has it leave in good order.

    Returns how often it was started.

    Args:
        options: of the worker.
        say: called with what happens, for people.
    """
    stop = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def leave(number: int, frame: object) -> None:
        stop.set()
        if child is not None and child.poll() is None:
            child.terminate()
            last = threading.Timer(_LAST_S, child.kill)
            last.daemon = True
            last.start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, leave)
    next_pause = _PAUSE_S
    starts = 0
    while not stop.is_set():
        started = time.monotonic()
        starts += 1
        # A session of its own: Ctrl-C goes to the guard alone, which asks the worker to leave.
        child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), json.dumps(asdict(options))],
            start_new_session=True,
        )
        if stop.is_set():  # the signal came before there was a child to hand it to
            child.terminate()
        code = child.wait()
        if stop.is_set() or code == 0:
            break
        pause = _PAUSE_S if time.monotonic() - started > _LASTED_S else next_pause
        next_pause = min(2 * pause, _LONGEST_PAUSE_S)
        how = f"signal {-code}" if code < 0 else f"status {code}"
        say(f"the worker ended ({how}); it starts again in {pause:.1f} s")
        stop.wait(pause)
    return starts


def main(arguments: list[str]) -> int:
    """The worker process. Returns 0 when it was told to leave, 3 when it lost its scheduler."""
    parent, text = int(arguments[0]), arguments[1]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0  # it died before the line above
    return asyncio.run(_serve(WorkerOptions(**json.loads(text))))


async def _serve(options: WorkerOptions) -> int:
    from simtune.execution.remote import runner

    distributed = dask_distributed()
    import dask

    for name in ("distributed", "distributed.worker", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    #: Jobs are processes; what this process needs itself is little, and nothing is to be moved to a disk.
    quiet: dict[str, Any] = {"distributed.worker.profile.enabled": False}
    jobs = runner()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    with dask.config.set(quiet):
        worker = distributed.Worker(
            options.address,
            nthreads=options.slots,
            name=f"{socket.gethostname()}-{os.getpid()}",
            memory_limit=0,
            local_directory=str(jobs.scratch),
            security=security_of(options.tls),
            dashboard=False,
            host=options.host or None,
            port=options.port,
        )
        try:
            if not await _joined(worker, told):
                return 0
            async with worker:
                print(f"joined {options.address} with {options.slots} slots", file=sys.stderr, flush=True)
                clock = TimeOfDay()
                while worker.status is distributed.Status.running and not told.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(told.wait(), _PULSE_S)
                    if clock.set_back():
                        send_now(worker.batched_stream)
                jobs.stop()
                if told.is_set():
                    await _leave(worker, jobs)
        except Exception as error:  # Dask's start wraps whatever went wrong
            why = error.__cause__ or error
            print(f"not joined {options.address}: {type(why).__name__}: {why}", file=sys.stderr, flush=True)
        finally:
            jobs.close()
    return 0 if told.is_set() else 3


async def _joined(worker: Any, told: asyncio.Event) -> bool:
    """Waits for the scheduler, however long it takes; False when told to leave meanwhile."""
    joining, leaving = asyncio.ensure_future(worker.start()), asyncio.ensure_future(told.wait())
    await asyncio.wait({joining, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not joining.done():
        joining.cancel()
        return False
    await joining
    return True


async def _leave(worker: Any, jobs: Any) -> None:
    """Lets the driver fetch what is done, and says good-bye, so that nobody suspects the jobs."""
    end = time.monotonic() + _LEAVE_S
    while jobs.busy() and time.monotonic() < end:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(worker.close_gracefully(reason="simtune-worker-told-to-leave"), _LEAVE_S)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)  # threads that still wait for a job must not keep the process
