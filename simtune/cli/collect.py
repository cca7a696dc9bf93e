# SPDX-License-Identifier: Apache-2.0
"""`simtune collect`: random candidates with counters and native times, to train predictors."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from simtune.cli.counting import count_option, models_from, timeout_option
from simtune.cli.measuring import measuring_options, settings_from
from simtune.cli.output import emit_json, json_option, seconds
from simtune.cli.train import features_option

#: Between two lines of progress.
_PAUSE_S = 5.0


@click.command()
@click.option(
    "--workloads",
    "-w",
    required=True,
    help="Comma-separated names, networks such as resnet18, and parametric forms.",
)
@click.option("--machine", "-m", required=True, help="Machine name, path of a machine file, or 'host'.")
@click.option(
    "--candidates",
    "-n",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Per workload, stored ones included.",
)
@click.option(
    "--target",
    default="host",
    show_default=True,
    help="Where to measure: host, ssh:[USER@]HOST[:PORT][/FOLDER], rpc:HOST:PORT, rpc:TRACKER:PORT/KEY.",
)
@click.option("--no-measure", is_flag=True, help="Only simulate; the same command without it measures.")
@click.option(
    "--records", "-o", type=click.Path(path_type=Path), help="Record store  [default: simtune-records.db]"
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the candidates and of the inputs.",
)
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@count_option
@click.option(
    "--passes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How often every candidate is measured, all others in between: a second pass tells the noise.",
)
@click.option("--jobs", "-j", type=click.IntRange(1), help="Builds and simulations at once.")
@timeout_option("Seconds per simulation.")
@features_option
@measuring_options
@json_option
def command(
    workloads: str,
    machine: str,
    candidates: int,
    target: str,
    no_measure: bool,
    records: Path | None,
    seed: int,
    simulator: str,
    models: tuple[str, ...],
    passes: int,
    jobs: int | None,
    timeout: float,
    optional: tuple[str, ...],
    as_json: bool,
    **measuring: Any,
) -> None:
    """Sample candidates without tuning, simulate all, then measure all natively, and store both.

    TVM's default schedule comes first in every workload. Interrupt at any time: the same command goes
    on where it ended and repeats nothing; with a larger --candidates it adds to what is stored.
    Measuring wants a quiet computer: run nothing else on the target, and see the notes at the end.

    Exits with 0 when every workload has candidates, with 1 when one has none, with 2 when it cannot
    start, with 130 when it was interrupted.

    \b
    Example:
      simtune collect --workloads resnet18 --machine host --candidates 200 -o records.db
      simtune collect --workloads matmul:m=64,n=64,bert.softmax -m sifive-u74 --target ssh:visionfive
    """
    from simtune.cli.progress import leave_soon_after_interrupt
    from simtune.jobs import Limits
    from simtune.machines.load import load_machine
    from simtune.measure.parse import parse_target
    from simtune.records.database import default_store_path
    from simtune.tuning.groups import expand

    # Cheap checks first: a typing error must not wait for TVM's import.
    chosen, loaded, settings = expand(workloads), load_machine(machine), settings_from(measuring)
    store_path = records or default_store_path()
    store_path.parent.mkdir(parents=True, exist_ok=True)
    with parse_target(target) as place, leave_soon_after_interrupt():
        from simtune.tuning.collect import collect

        results = collect(
            chosen,
            loaded,
            candidates,
            target=place,
            measure=not no_measure,
            settings=settings,
            records=store_path,
            simulator=simulator,
            seed=seed,
            jobs=jobs,
            limits=Limits(wall_s=timeout, cpu_s=timeout),
            count=models_from(models, simulator, optional),
            passes=passes,
            observer=_observer(lambda text: None if as_json else click.echo(text, err=True)),
        )
    if as_json:
        emit_json(
            {
                "machine": loaded.name,
                "target": target,
                "records": store_path,
                "break_even": _overall(results),
                "workloads": [{**asdict(r), "break_even": r.break_even} for r in results],
            }
        )
    else:
        _print(results, target, store_path)
    sys.exit(0 if all(r.trials > r.failures for r in results) else 1)


def _observer(say: Callable[[str], None]) -> Any:
    from simtune.tuning.collect import CollectObserver

    class Lines(CollectObserver):
        """Says what begins, and every few seconds how far it is."""

        start, last = time.monotonic(), 0.0

        def __init__(self) -> None:
            self.name, self.stage, self.done, self.total, self.failures = "", "", 0, 0, 0

        def say(self, text: str) -> None:
            self.last = time.monotonic()
            say(f"[{self.last - self.start:6.1f} s] {self.name}: {text}")

        def on_workload(self, name: str, run: Any, stored: int, candidates: int) -> None:
            self.name, self.done, self.total, self.failures = name, stored, candidates, 0
            self.say(f"run {run.id}, {stored} of {candidates} candidates are stored")

        def on_stage(self, text: str, total: int | None = None) -> None:
            self.done, self.total = (0, total) if total is not None else (self.done, self.total)
            self.say(text)

        def on_trial(self, trial: Any) -> None:
            self._step(trial.ok, "simulated", not trial.is_reference)

        def on_measured(self, trial: Any, timing: Any) -> None:
            self._step(timing.ok, "measured")

        def _step(self, ok: bool, what: str, counts: bool = True) -> None:
            self.done += counts
            self.failures += not ok
            if time.monotonic() - self.last > _PAUSE_S or (counts and self.done == self.total):
                failed = f", {self.failures} failures" if self.failures else ""
                self.say(f"{self.done}/{self.total} {what}{failed}")

    return Lines()


def _overall(results: list[Any]) -> int | None:
    """K over all workloads, each candidate counting the same."""
    from simtune.measure.cost import break_even

    timed = [r for r in results if r.measure_s is not None and r.simulate_s is not None]
    weights = sum(r.measured for r in timed)
    if not weights:
        return None
    simulate = sum(r.simulate_s * r.measured for r in timed) / weights
    return break_even(simulate, sum(r.measure_s * r.measured for r in timed) / weights)


def _print(results: list[Any], target: str, store_path: Path) -> None:
    table = Table(title=f"{store_path}, measured on {target}", title_justify="left", box=SIMPLE)
    table.add_column("workload", overflow="fold")
    for column in ("simulated", "measured", "failed", "spread", "simulate", "measure", "K"):
        table.add_column(column, justify="right", no_wrap=True)
    for r in results:
        table.add_row(
            r.workload,
            str(r.trials - r.failures),
            str(r.measured),
            str(r.failures + r.measure_failures),
            "-" if r.spread is None else f"{r.spread:.1%}",
            "-" if r.simulate_s is None else seconds(r.simulate_s),
            "-" if r.measure_s is None else seconds(r.measure_s),
            str(r.break_even or "-"),
        )
    Console().print(table)
    overall = _overall(results)
    if overall is not None:
        click.echo(f"break-even: {overall} simulators at once do the work of {target}")
    for r in results:
        if r.exhausted:
            click.echo(f"{r.workload}: its design space has no more than {r.trials} different candidates")
        if r.notes:
            notes = ", ".join(f"{kind} {number}" for kind, number in sorted(r.notes.items()))
            click.echo(f"{r.workload}: of {r.measured} measurements with a note: {notes}")
