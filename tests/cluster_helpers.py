# SPDX-License-Identifier: Apache-2.0
"""A Dask scheduler and workers as processes of their own, with different scratch folders and caches."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import distributed
import psutil
import pytest
from execution_helpers import wait_for
from process_helpers import ROOT, SIMTUNE

import simtune
from simtune.execution.base import Executor, Site
from simtune.execution.dispatch import Policy
from simtune.testing.jobs import FakeJob, FakeResult


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One process of a cluster, with its descendants."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._log = folder, folder / "log"
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                cwd=folder,
            )

    def log(self) -> str:
        return self._log.read_text()

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """The process dies without a word, as when its machine is switched off."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Worker(Node):
    """`simtune worker` with a folder of its own for temporary files, cache and all."""

    def __init__(
        self,
        address: str,
        folder: Path,
        jobs: int = 1,
        *options: str,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.jobs = jobs
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        places = {"TMPDIR": str(self.temporary), "SIMTUNE_CACHE": str(folder / "cache")}
        command = [*prefix, *SIMTUNE, "worker", address, "--jobs", str(jobs), *options]
        super().__init__(command, folder, {**places, **environment})

    def joined(self) -> int:
        """How often it has joined a scheduler."""
        return self.log().count("joined")

    def kill_process(self) -> None:
        """Kills the process that runs the jobs; its guard starts another one."""
        for child in self.children():
            child.kill()


class Cluster:
    """A scheduler and some workers."""

    def __init__(
        self, folder: Path, workers: int = 2, jobs: int = 1, host: str = "127.0.0.1", **environment: str
    ) -> None:
        self.folder, self.host, self.environment = folder, host, environment
        self.port = free_port()
        self.address = f"tcp://{host}:{self.port}"
        self.workers: list[Worker] = []
        self.scheduler = self.start_scheduler()
        for _ in range(workers):
            self.add(jobs)
        self.ready()

    def start_scheduler(self, **changed: str) -> Node:
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", self.host]
        options = ["--port", str(self.port), "--dashboard-address", "127.0.0.1:0"]
        environment = {**self.environment, **changed}
        self.scheduler = Node([*command, *options], self.folder / "scheduler", environment)
        return self.scheduler

    def add(
        self,
        jobs: int = 1,
        *options: str,
        address: str = "",
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> Worker:
        folder = self.folder / f"worker{len(self.workers)}"
        worker = Worker(
            address or self.address, folder, jobs, *options, **{**self.environment, **environment}
        )
        self.workers.append(worker)
        return worker

    def ready(self, seconds: float = 40) -> None:
        """Waits until all workers have joined."""
        assert wait_for(lambda: all(w.joined() for w in self.workers), seconds), self.logs()

    def settle(self) -> None:
        """Waits until the workers whose processes were killed are back."""
        assert wait_for(lambda: self._there() == sum(w.jobs for w in self.workers), 40), self.logs()

    def _there(self) -> int:
        with distributed.Client(self.address, set_as_default=False) as client:
            return sum(client.nthreads().values())

    def logs(self) -> str:
        return "\n".join(node.log() for node in [self.scheduler, *self.workers])

    def close(self) -> None:
        nodes = [*self.workers, self.scheduler]
        for node in nodes:
            if node.process.poll() is None:
                node.process.terminate()
        for node in nodes:
            node.stop()


class Proxy:
    """Forwards TCP connections to a port, until it is told to behave like a cut wire."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._cut = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def heal(self) -> None:
        self._cut.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self._cut.is_set():
                    here.close()
                    continue
                try:
                    there = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    here.close()
                    continue
                self._open += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=_forward, args=(one, other), daemon=True).start()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def mounted(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of so many MiB; skips the test where nobody may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


#: Short chunks and pauses, so that faults strike in the middle of things.
HASTY = Policy(chunk_s=0.3, bench_s=0.5, unfit_s=1.0)


def hasty(address: str, **options: object) -> simtune.DaskExecutor:
    return simtune.DaskExecutor(address, policy=HASTY, **options)


def without_faults(jobs: Sequence[FakeJob], folder: Path) -> list[FakeResult]:
    """What the jobs give on one machine where nothing fails."""
    site = Site(folder, threading.Event())
    return [FakeJob(job.number, file=job.file).run(site) for job in jobs]


class Run:
    """Jobs that run while the test breaks something."""

    def __init__(self, executor: Executor, jobs: Sequence[FakeJob]) -> None:
        self.jobs = jobs
        self.ends: Counter[int] = Counter()
        self.futures: list[Future[FakeResult]] = []
        for job in jobs:
            future = executor.submit(job)
            future.add_done_callback(lambda _, number=job.number: self.ends.update([number]))
            self.futures.append(future)

    def done(self) -> int:
        return sum(future.done() for future in self.futures)

    def until(self, number: int) -> None:
        assert wait_for(lambda: self.done() >= number, 40), f"{self.done()} of {number} jobs ended"

    def check(self, folder: Path, seconds: float = 60) -> list[FakeResult]:
        """All jobs ended once, and as without faults."""
        end = time.monotonic() + seconds
        results = [future.result(max(0.1, end - time.monotonic())) for future in self.futures]
        assert results == without_faults(self.jobs, folder)
        assert set(self.ends.values()) == {1}
        return results


def naps(count: int, seconds: float = 0.05) -> list[FakeJob]:
    return [FakeJob(number, seconds=seconds) for number in range(count)]
