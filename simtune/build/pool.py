# SPDX-License-Identifier: Apache-2.0
"""Persistent build workers that survive candidates which hang, crash or eat memory."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from simtune.build import channel
from simtune.errors import SimtuneError
from simtune.execution.base import Refused

_CRASH_TAIL = 3000
#: How soon a cancellation is noticed: an Event cannot be polled together with a socket.
_CANCEL_POLL_S = 0.05


@dataclass(frozen=True)
class BuildRequest:
    """One module as TVM JSON, its target as JSON, and where the object goes."""

    module_json: str
    target_json: str
    path: Path


@dataclass(frozen=True)
class BuildReply:
    """Side information of a built object, or why it could not be built.

    Attributes:
        seconds: wall time of the build.
        lost: this machine is at fault, or whoever gave the build up; the module may be fine.
    """

    info: dict[str, Any]
    error: str
    seconds: float
    lost: bool = False


class BuildPool:
    """Workers forked from a process that imported TVM once. Any number of threads may build at once.

    Args:
        workers: how many build at the same time; None leaves that to the callers of `build_one`.
        timeout_s: a candidate that needs longer is given up and its worker killed.
        memory_bytes: a worker that has grown beyond is replaced after its job.
    """

    def __init__(self, workers: int | None, timeout_s: float = 60.0, memory_bytes: int = 1 << 30) -> None:
        self._count = sys.maxsize if workers is None else max(1, workers)
        self._timeout, self._memory = timeout_s, memory_bytes
        self._turns = threading.Semaphore(self._count)
        self._zygote: _Zygote | None = None
        self._idle: list[_Worker] = []
        self._batches: set[threading.Event] = set()
        self._lock = threading.Lock()

    def build(self, requests: Sequence[BuildRequest]) -> list[BuildReply]:
        """Builds all requests and returns their replies in order. Never raises for a bad module."""
        if not requests:
            return []
        cancel = threading.Event()
        self._batches.add(cancel)  # `close` may come from another thread
        try:
            with ThreadPoolExecutor(min(self._count, len(requests)), "simtune-build") as threads:
                replies = [threads.submit(self.build_one, request, cancel) for request in requests]
                try:
                    return [reply.result() for reply in replies]
                except BaseException:
                    cancel.set()  # Ctrl-C: nothing goes on compiling behind the user's back
                    threads.shutdown(cancel_futures=True)
                    raise
        finally:
            self._batches.discard(cancel)

    def build_one(
        self, request: BuildRequest, cancel: threading.Event | None = None, timeout_s: float | None = None
    ) -> BuildReply:
        """Builds one request, when its turn comes. Never raises for a bad module.

        Args:
            cancel: gives it up when set.
            timeout_s: wall seconds for this one, instead of the pool's.

        Raises:
            Refused: this machine cannot build at all.
        """
        start = time.monotonic()
        while not self._turns.acquire(timeout=_CANCEL_POLL_S if cancel else None):
            if cancel and cancel.is_set():
                return _given_up(start)
        try:
            worker = self._take(cancel)
            if worker is None:
                return _given_up(start)
            keep = False
            try:
                reply, resident = worker.build(request, timeout_s or self._timeout, cancel)
                keep = resident is not None and resident <= self._memory
            finally:
                self._put_back(worker, keep)
            return reply
        finally:
            self._turns.release()

    def _take(self, cancel: threading.Event | None) -> _Worker | None:
        """An idle worker or a fresh one; None when it is given up."""
        with self._lock:
            if cancel and cancel.is_set():
                return None
            while self._idle:
                worker = self._idle.pop()
                if worker.alive():
                    return worker
                worker.end()  # somebody killed it: no fault of the next candidate's
            for last in (False, True):
                if self._zygote is None:
                    zygote = _Zygote()
                    if not zygote.wait_until_ready(cancel):
                        zygote.end()
                        return None
                    self._zygote = zygote
                if (fresh := self._zygote.fork()) is not None:
                    return fresh
                # Somebody killed it, such as the system when memory ran out. Its workers die with it.
                self._zygote.end()
                self._zygote = None
                if last:
                    break
        raise SimtuneError("the build process ended unexpectedly", "run 'simtune doctor'")

    def _put_back(self, worker: _Worker, keep: bool) -> None:
        with self._lock:
            if keep and worker.zygote is self._zygote:
                self._idle.append(worker)
                return
        worker.end()

    def close(self) -> None:
        """Ends all processes, gives up what they build; the pool starts them again when it is used again."""
        for cancel in list(self._batches):
            cancel.set()
        with self._lock:
            idle, self._idle = self._idle, []
            zygote, self._zygote = self._zygote, None
        for worker in idle:
            worker.end()
        if zygote is not None:
            zygote.end()


@lru_cache(maxsize=1)
def shared_pool() -> BuildPool:
    """The pool of this process for all who run build jobs; it ends with the process."""
    pool = BuildPool(None)
    atexit.register(pool.close)
    return pool


class _Zygote:
    """The process that imports TVM and is forked, see `simtune.build.zygote`."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        env = dict(os.environ, TVM_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simtune.build.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=env,
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the whole group of the terminal; what it means is decided here.
            process_group=0,
        )
        theirs.close()

    def wait_until_ready(self, cancel: threading.Event | None) -> bool:
        """Waits for TVM's import; False when it was given up.

        Raises:
            Refused: it cannot start here.
        """
        while cancel and not select.select([self._control], [], [], _CANCEL_POLL_S)[0]:
            if cancel.is_set():
                self._process.kill()
                return False
        if self._control.recv(5) != b"ready":
            self.end()
            raise Refused("the build process cannot start (see its message above)", "run 'simtune doctor'")
        return True

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self) -> _Worker | None:
        """A fresh worker; None when this process is gone."""
        ours, theirs = socket.socketpair()
        log = os.memfd_create("simtune-build-log")
        fcntl.fcntl(log, fcntl.F_SETFL, os.O_APPEND)  # it is emptied between two candidates
        try:
            socket.send_fds(self._control, [b"f"], [theirs.fileno(), log])
            pid = int.from_bytes(self._control.recv(4), "little")
        except OSError:
            pid = 0
        finally:
            theirs.close()
        if pid == 0:
            ours.close()
            os.close(log)
            return None
        return _Worker(self, ours, pid, log)

    def end(self) -> None:
        """Ends it, and with it all of its workers."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()


@dataclass(eq=False)
class _Worker:
    """One forked process; serves one thread at a time."""

    zygote: _Zygote
    sock: socket.socket
    pid: int
    log: int  # descriptor of what the worker has printed

    def alive(self) -> bool:
        """Whether an idle worker is still there: a dead one's socket is at its end."""
        return not select.select([self.sock], [], [], 0)[0]

    def build(
        self, request: BuildRequest, timeout_s: float, cancel: threading.Event | None
    ) -> tuple[BuildReply, int | None]:
        """The reply, and the worker's resident bytes; None when it can build no more."""
        start = time.monotonic()
        os.ftruncate(self.log, 0)
        with contextlib.suppress(OSError):  # a dead worker shows itself as end of file below
            channel.send(
                self.sock,
                {"target": request.target_json, "path": str(request.path)},
                request.module_json,
            )
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        while True:
            left = start + timeout_s - time.monotonic()
            if left <= 0:
                return BuildReply({}, f"building took longer than {timeout_s:g} s", timeout_s), None
            if poll.poll(1000 * (min(left, _CANCEL_POLL_S) if cancel else left)):
                break
            if cancel and cancel.is_set():
                return _given_up(start), None
        message = channel.receive(self.sock)
        if message is None:
            seconds = time.monotonic() - start
            if not self.zygote.alive:
                return BuildReply({}, "the build process was ended", seconds, lost=True), None
            return BuildReply({}, self._last_words(), seconds), None
        info = message[0]
        resident = info.pop("rss")
        return BuildReply(info, info.pop("error", ""), info.pop("seconds")), resident

    def _last_words(self) -> str:
        """What is known of a worker that died: the last that it printed."""
        size = os.fstat(self.log).st_size
        tail = os.pread(self.log, _CRASH_TAIL, max(0, size - _CRASH_TAIL)).decode(errors="replace").strip()
        what = "the compiler crashed on this candidate"
        return f"{what}\n{tail}" if tail else what

    def end(self) -> None:
        self.sock.close()
        os.close(self.log)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _given_up(start: float) -> BuildReply:
    return BuildReply({}, "given up", time.monotonic() - start, lost=True)
