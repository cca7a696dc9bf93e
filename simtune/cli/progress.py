# SPDX-License-Identifier: Apache-2.0
"""Live progress of a tuning run: one changing line on a terminal, log lines elsewhere."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from simtune.cli.output import seconds
from simtune.records.model import Run, Trial
from simtune.tuning.model import Observer

#: After Ctrl-C the search may be deep inside TVM; after this many seconds we leave anyway.
DRAIN_S = 1.5


@contextmanager
def make_observer(workload: str, machine: str, quiet: bool) -> Iterator[Any]:
    """Gives an observer for `simtune.tune`; on Ctrl-C everything ends within two seconds."""
    with leave_soon_after_interrupt():
        if quiet:
            yield Observer()
        elif sys.stderr.isatty():
            yield from _live(workload, machine)
        else:
            yield _lines(workload, machine)


class _Totals(Observer):
    """Keeps the numbers that every display shows."""

    def __init__(self, name: str) -> None:
        self.name, self.total, self.done = name, 0, 0
        self.best: float | None = None
        self.reference: float | None = None
        self.latency = True
        self.failures: Counter[str] = Counter()
        self.simulated = 0

    def on_start(self, run: Run, stored: Sequence[Trial], trials: int) -> None:
        self.total = trials
        self.latency = run.config.get("objective", "latency") == "latency"
        for trial in stored:
            self._count(trial)

    def on_candidate(self, evaluation: Any) -> None:
        self.simulated += not evaluation.cached
        if evaluation.value is not None and (self.best is None or evaluation.value < self.best):
            self.best = evaluation.value

    def on_trial(self, trial: Trial) -> None:
        self._count(trial)

    def _count(self, trial: Trial) -> None:
        if trial.is_reference:
            self.reference, self.best = trial.value, None
            return
        self.done += 1
        if not trial.ok:
            self.failures[str(trial.status)] += 1
        elif trial.value is not None and (self.best is None or trial.value < self.best):
            self.best = trial.value

    def text(self) -> str:
        def form(value: float) -> str:
            return seconds(value) if self.latency else f"{value:,.6g}"

        parts = []
        if self.best is not None:
            parts.append(f"best {form(self.best)}")
        if self.reference is not None:
            parts.append(f"default {form(self.reference)}")
        if self.best and self.reference:
            parts.append(f"{self.reference / self.best:.2f}x")
        parts += [f"{number} {status}" for status, number in self.failures.items()]
        return ", ".join(parts)


def _live(workload: str, machine: str) -> Iterator[Any]:
    class Live(_Totals):
        def on_start(self, run: Run, stored: Sequence[Trial], trials: int) -> None:
            super().on_start(run, stored, trials)
            progress.update(task, total=trials, completed=self.done, best=self.text())
            if stored:
                progress.console.print(f"run {run.id} taken up: {self.done} of {trials} trials are stored")

        def on_stage(self, text: str) -> None:
            progress.update(task, stage=text)

        def on_candidate(self, evaluation: Any) -> None:
            super().on_candidate(evaluation)
            progress.update(task, stage=f"{self.simulated} simulated", best=self.text())

        def on_trial(self, trial: Any) -> None:
            super().on_trial(trial)
            progress.update(task, completed=self.done, best=self.text())

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[best]}"),
        TextColumn("[dim]{task.fields[stage]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(f"{workload} for {machine}", total=None, stage="starting TVM", best="")
        yield Live(workload)


def _lines(workload: str, machine: str) -> Any:
    class Lines(_Totals):
        start = time.monotonic()
        last = 0.0

        def say(self, text: str) -> None:
            click.echo(f"[{time.monotonic() - self.start:6.1f} s] {text}", err=True)

        def on_start(self, run: Run, stored: Sequence[Trial], trials: int) -> None:
            super().on_start(run, stored, trials)
            verb = (
                f"taken up, {self.done} of {trials} trials are stored"
                if stored
                else f"starts, {trials} trials"
            )
            self.say(f"{workload} for {machine}: run {run.id} {verb}")

        def on_stage(self, text: str) -> None:
            self.say(text)

        def on_candidate(self, evaluation: Any) -> None:
            super().on_candidate(evaluation)
            if time.monotonic() - self.last > 5:
                self.last = time.monotonic()
                self.say(f"{self.done}/{self.total} trials, {self.simulated} simulated; {self.text()}")

        def on_trial(self, trial: Any) -> None:
            super().on_trial(trial)
            if self.done == self.total:
                self.say(f"{self.done}/{self.total} trials; {self.text()}")

    return Lines(workload)


@contextmanager
def leave_soon_after_interrupt() -> Iterator[None]:
    """Python sees a signal only between bytecodes, and TVM's search can stay in C++ for long.

    A second thread learns of the signal at once through the wake-up descriptor; when the main
    thread has not come out in time, it ends the process. Nothing is lost: finished jobs are
    committed, and the launchers end their simulations when this process is gone.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    left = threading.Event()

    def watch() -> None:
        while data := os.read(reader, 1):
            if data[0] == signal.SIGINT and not left.wait(DRAIN_S):
                sys.stderr.write("interrupted; finished jobs are stored, run the same command to go on\n")
                sys.stderr.flush()
                os._exit(130)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(previous)
        os.close(writer)
