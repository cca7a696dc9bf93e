# SPDX-License-Identifier: Apache-2.0
"""A Dask scheduler and workers as processes of their own, with different scratch folders and caches."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from execution_helpers import wait_for
from process_helpers import ROOT, SIMTUNE


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

    def __init__(self, address: str, folder: Path, jobs: int = 1, *options: str, **environment: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        places = {"TMPDIR": str(self.temporary), "SIMTUNE_CACHE": str(folder / "cache")}
        command = [*SIMTUNE, "worker", address, "--jobs", str(jobs), *options]
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

    def __init__(self, folder: Path, workers: int = 2, jobs: int = 1, **environment: str) -> None:
        self.folder, self.environment = folder, environment
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.workers: list[Worker] = []
        self.scheduler = self.start_scheduler()
        for _ in range(workers):
            self.add(jobs)
        self.ready()

    def start_scheduler(self) -> Node:
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
        options = ["--port", str(self.port), "--dashboard-address", "127.0.0.1:0"]
        self.scheduler = Node([*command, *options], self.folder / "scheduler", self.environment)
        return self.scheduler

    def add(self, jobs: int = 1, *options: str, address: str = "", **environment: str) -> Worker:
        folder = self.folder / f"worker{len(self.workers)}"
        worker = Worker(
            address or self.address, folder, jobs, *options, **{**self.environment, **environment}
        )
        self.workers.append(worker)
        return worker

    def ready(self, seconds: float = 40) -> None:
        """Waits until all workers have joined."""
        assert wait_for(lambda: all(w.joined() for w in self.workers), seconds), self.logs()

    def logs(self) -> str:
        return "\n".join(node.log() for node in [self.scheduler, *self.workers])

    def close(self) -> None:
        nodes = [*self.workers, self.scheduler]
        for node in nodes:
            if node.process.poll() is None:
                node.process.terminate()
        for node in nodes:
            node.stop()


def pause(seconds: float) -> None:
    """For what has no condition to wait for."""
    time.sleep(seconds)
