# SPDX-License-Identifier: Apache-2.0
"""Live view of a batch: a table that changes on a terminal, log lines elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simtune.batching.model import Finished, Observer
from simtune.batching.progress import Progress
from simtune.cli.output import count
from simtune.execution.view import View, WorkerView
from simtune.jobs import Status
from simtune.records.model import Run
from simtune.report.text import duration

#: Seconds between two log lines.
_LINE_S = 10.0
#: Workers with a line of their own; the others share one.
_WORKERS = 12


class Observers(Observer):
    """Tells several."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def on_start(self, run: Run, jobs: int) -> None:
        for observer in self._observers:
            observer.on_start(run, jobs)

    def on_settled(self, status: Status) -> None:
        for observer in self._observers:
            observer.on_settled(status)

    def on_duplicate(self) -> None:
        for observer in self._observers:
            observer.on_duplicate()

    def on_job(self, finished: Finished) -> None:
        for observer in self._observers:
            observer.on_job(finished)

    def on_view(self, view: View, under_way: int) -> None:
        for observer in self._observers:
            observer.on_view(view, under_way)


class JsonLines(Observer):
    """Writes one JSON object for each job that ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def on_job(self, finished: Finished) -> None:
        trial, origin = finished.trial, finished.origin
        line = {
            "path": origin.path,
            "arguments": list(origin.arguments),
            "line": None if origin.line is None else origin.line + 1,
            "status": trial.status,
            "predicted_s": trial.predicted_s,
            "instructions": finished.instructions or None,
            "cached": finished.cached,
            "stage": trial.stage,
            "error": trial.error,
            "command": trial.command,
            "simulate_s": trial.simulate_s,
            "trial": f"{trial.run}:{trial.index}",
            "candidate": trial.candidate,
            "simulation": trial.simulation,
        }
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


@contextmanager
def display(quiet: bool, dashboard: str) -> Iterator[Observer]:
    """Shows a batch on standard error.

    Args:
        dashboard: address of the executor's own pages, empty for none.
    """
    if quiet:
        yield Observer()
    elif sys.stderr.isatty():
        progress = Progress()
        picture = _Picture(progress, dashboard)
        with Live(
            console=Console(stderr=True), get_renderable=lambda: picture, refresh_per_second=4, transient=True
        ):
            yield progress
    else:
        if dashboard:
            click.echo(f"dashboard: {dashboard}", err=True)
        yield Lines()


class Lines(Progress):
    """Says how far it is every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said = self.start

    def on_start(self, run: Run, jobs: int) -> None:
        super().on_start(run, jobs)
        self._say(f"run {run.id} on {run.machine}: {count(jobs)} jobs")

    def on_view(self, view: View, under_way: int) -> None:
        super().on_view(view, under_way)
        if self._clock() - self._said >= _LINE_S:
            self._said = self._clock()
            self._say(", ".join(facts(self)))

    def _say(self, text: str) -> None:
        click.echo(f"[{self.elapsed_s:6.1f} s] {text}", err=True)


def facts(progress: Progress) -> list[str]:
    """How far a batch is, in words."""
    view = progress.view
    parts = [f"{count(progress.done)} of {count(progress.total)} done"]
    if progress.settled:
        parts.append(f"{count(progress.settled)} of them before")
    parts.append(f"{view.running} running on {view.slots} slots" if view.slots else "no worker yet")
    parts += [f"{count(number)} {status}" for status, number in sorted(progress.failures.items())]
    parts.append(f"{progress.jobs_per_s:.3g} jobs/s")
    if progress.instructions_per_s:
        parts.append(f"{progress.instructions_per_s / 1e6:.3g} M instructions/s")
    if view.retried:
        parts.append(f"{view.retried} tried again")
    if view.doubled:
        parts.append(f"{view.doubled} started twice")
    if progress.left_s is not None and progress.done < progress.total:
        parts.append(f"{duration(progress.left_s)} left")
    return parts


class _Picture:
    """Draws the present state of a batch."""

    def __init__(self, progress: Progress, dashboard: str) -> None:
        self._progress, self._dashboard = progress, dashboard

    def __rich__(self) -> Group:
        progress = self._progress
        head = Table.grid(padding=(0, 1))
        name = f"{progress.run.id} on {progress.run.machine}" if progress.run else "starting"
        bar = ProgressBar(total=max(1, progress.total), completed=progress.done, width=30)
        share = f"{100 * progress.done / max(1, progress.total):.0f} %"
        head.add_row(Text(name, style="bold"), bar, share, f"{duration(progress.elapsed_s)} so far")
        parts: list[Any] = [head, Text(", ".join(facts(progress)))]
        if progress.view.workers:
            parts.append(_workers(progress.view.workers))
        if self._dashboard:
            parts.append(Text(f"dashboard: {self._dashboard}", style="dim"))
        return Group(*parts)


def _workers(workers: Sequence[WorkerView]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("worker", "host", "busy", "queued", "done", ""):
        table.add_column(name, justify="left" if name in ("worker", "host", "") else "right")
    busiest = sorted(workers, key=lambda worker: (not worker.note, worker.host, worker.name))
    for worker in busiest[:_WORKERS]:
        table.add_row(
            Text(worker.name),
            Text(worker.host),
            f"{worker.running}/{worker.slots}",
            str(worker.queued),
            count(worker.done),
            Text(worker.note, style="yellow"),
        )
    rest = busiest[_WORKERS:]
    if rest:
        table.add_row(
            f"and {len(rest)} more",
            "",
            f"{sum(w.running for w in rest)}/{sum(w.slots for w in rest)}",
            str(sum(w.queued for w in rest)),
            count(sum(w.done for w in rest)),
        )
    return table
