# SPDX-License-Identifier: Apache-2.0
"""Persistent build workers that survive candidates which hang, crash or eat memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simtune.build import channel
from simtune.errors import SimtuneError

_CRASH_TAIL = 3000


@dataclass(frozen=True)
class BuildRequest:
    """One module as TVM JSON, its target as JSON, and where the object goes."""

    module_json: str
    target_json: str
    path: Path


@dataclass(frozen=True)
class BuildReply:
    """Side information of a built object, or why it could not be built."""

    info: dict[str, Any]
    error: str
    seconds: float


@dataclass
class _Worker:
    sock: socket.socket
    pid: int
    log: int  # descriptor of what the worker has printed
    job: int = -1
    started: float = 0.0


class BuildPool:
    """Workers forked from a process that imported TVM once.

    Args:
        workers: how many build at the same time.
        timeout_s: a candidate that needs longer is given up and its worker killed.
        memory_bytes: a worker that has grown beyond is replaced after its job.
    """

    def __init__(self, workers: int, timeout_s: float = 60.0, memory_bytes: int = 1 << 30) -> None:
        self._count, self._timeout, self._memory = max(1, workers), timeout_s, memory_bytes
        self._control: socket.socket | None = None
        self._zygote: subprocess.Popen[bytes] | None = None
        self._workers: list[_Worker] = []
        self._lock = threading.Lock()

    def build(
        self, requests: Sequence[BuildRequest], on_done: Callable[[int, BuildReply], None] | None = None
    ) -> list[BuildReply]:
        """Builds all requests and returns their replies in order. Never raises for a bad module."""
        with self._lock:
            try:
                return self._run(requests, on_done)
            except BaseException:
                self._stop()  # Ctrl-C: nothing goes on compiling behind the user's back
                raise

    def _run(
        self, requests: Sequence[BuildRequest], on_done: Callable[[int, BuildReply], None] | None
    ) -> list[BuildReply]:
        replies: list[BuildReply | None] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        selector = selectors.DefaultSelector()

        def finish(worker: _Worker, reply: BuildReply) -> None:
            replies[worker.job] = reply
            if on_done:
                on_done(worker.job, reply)
            worker.job = -1

        def assign(worker: _Worker) -> None:
            if waiting:
                worker.job, worker.started = waiting.popleft(), time.monotonic()
                os.ftruncate(worker.log, 0)
                request = requests[worker.job]
                with contextlib.suppress(OSError):  # a dead worker shows itself as end of file below
                    channel.send(
                        worker.sock,
                        {"target": request.target_json, "path": str(request.path)},
                        request.module_json,
                    )

        def replace(worker: _Worker) -> None:
            selector.unregister(worker.sock)
            self._discard(worker)
            if waiting:
                fresh = self._fork()
                selector.register(fresh.sock, selectors.EVENT_READ, fresh)
                assign(fresh)

        while len(self._workers) < min(self._count, len(requests)):
            self._fork()
        for worker in list(self._workers):
            selector.register(worker.sock, selectors.EVENT_READ, worker)
            assign(worker)
        while any(reply is None for reply in replies):
            busy = [w for w in self._workers if w.job >= 0]
            nearest = min(w.started + self._timeout for w in busy)
            for key, _events in selector.select(max(0.0, nearest - time.monotonic())):
                worker = key.data
                message = channel.receive(worker.sock)
                if message is None:
                    if worker.job >= 0:
                        finish(
                            worker,
                            BuildReply(
                                {},
                                _crash_message(worker),
                                time.monotonic() - worker.started,
                            ),
                        )
                    replace(worker)
                    continue
                info = message[0]
                finish(worker, BuildReply(info, info.pop("error", ""), info.pop("seconds")))
                if info.pop("rss") > self._memory:
                    replace(worker)
                else:
                    assign(worker)
            for worker in [w for w in self._workers if w.job >= 0]:
                if time.monotonic() - worker.started >= self._timeout:
                    finish(
                        worker,
                        BuildReply({}, f"building took longer than {self._timeout:g} s", self._timeout),
                    )
                    replace(worker)
        selector.close()
        return [reply for reply in replies if reply is not None]

    def _fork(self, again: bool = False) -> _Worker:
        control = self._control or self._start()
        ours, theirs = socket.socketpair()
        log = os.memfd_create("simtune-build-log")
        fcntl.fcntl(log, fcntl.F_SETFL, os.O_APPEND)  # it is emptied between two candidates
        try:
            socket.send_fds(control, [b"f"], [theirs.fileno(), log])
            pid = int.from_bytes(control.recv(4), "little")
        except OSError:
            pid = 0
        finally:
            theirs.close()
        if pid == 0:
            os.close(log)
            ours.close()
            # Somebody killed it, such as the system when memory ran out. Its workers die with it.
            self._end_zygote()
            if not again:
                return self._fork(again=True)
            raise SimtuneError("the build process ended unexpectedly", "run 'simtune doctor'")
        worker = _Worker(ours, pid, log)
        self._workers.append(worker)
        return worker

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        env = dict(os.environ, TVM_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "simtune.build.zygote", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=env,
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the whole group of the terminal; what it means is decided here.
            process_group=0,
        )
        theirs.close()
        if ours.recv(5) != b"ready":
            raise SimtuneError(
                "the build process cannot start (see its message above)", "run 'simtune doctor'"
            )
        self._control = ours
        return ours

    def _discard(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.sock.close()
        os.close(worker.log)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _stop(self) -> None:
        for worker in list(self._workers):
            self._discard(worker)
        self._end_zygote()

    def _end_zygote(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._zygote is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._zygote.wait(2)
            self._zygote.kill()
            self._zygote.wait()
            self._zygote = None

    def close(self) -> None:
        """Ends all processes; the pool starts them again when it is used again."""
        with self._lock:
            self._stop()


def _crash_message(worker: _Worker) -> str:
    """What is known of a worker that died: the last that it printed."""
    size = os.fstat(worker.log).st_size
    tail = os.pread(worker.log, _CRASH_TAIL, max(0, size - _CRASH_TAIL)).decode(errors="replace").strip()
    what = "the compiler crashed on this candidate"
    return f"{what}\n{tail}" if tail else what
