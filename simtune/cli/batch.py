# SPDX-License-Identifier: Apache-2.0
"""`simtune batch`: simulate many files, here or on a cluster, with progress and resume."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from simtune.cli.batch_view import JsonLines, Observers, display
from simtune.cli.counting import count_option, models_from
from simtune.cli.executing import ExecutorChoice, executor_options
from simtune.cli.output import count, emit_json, json_option, make_table, print_out, seconds
from simtune.cli.progress import leave_soon_after_interrupt
from simtune.cli.simulate import parse_signature
from simtune.cli.stored import records_option
from simtune.errors import ConfigurationError
from simtune.report.text import duration

if TYPE_CHECKING:
    from rich.table import Table

    from simtune.batching.model import BatchResult, Named, Observer, Plan


@click.command()
@click.argument("jobs_from", metavar="JOBS...", nargs=-1, required=True)
@click.option("--machine", "-m", required=True, help="Machine name, path of a machine file, or 'host'.")
@executor_options
@click.option("--name", help="Of the batch  [default: the folder that all JOBS are in]")
@click.option(
    "--args",
    "signature",
    help="Tensors in argument order, the last one the output, of objects that 'simtune' did not build: "
    "float32:64x64,float32:64x64,float32:64x64.",
)
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@click.option(
    "--predictor",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of 'simtune train'  [default: the analytical model]",
)
@count_option
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds of wall time, and of CPU time, per job; waiting for a slot does not count.",
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    default=2048.0,
    show_default=True,
    help="MiB that one simulation may use.",
)
@click.option("--max-instructions", type=click.IntRange(1), help="Cut jobs off after so many instructions.")
@click.option(
    "--keep-failed", type=click.Path(path_type=Path, file_okay=False), help="Folder for failed candidates."
)
@click.option("--retry-failed", is_flag=True, help="Run jobs again whose record is a failure.")
@click.option("--fresh", is_flag=True, help="Start a new run instead of taking up the stored one.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and run nothing.")
@records_option
@click.option(
    "--json-lines",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Append one JSON object to FILE for each job that ends; '-' prints it.",
)
@json_option
def command(
    jobs_from: tuple[str, ...],
    machine: str,
    executor: ExecutorChoice,
    name: str | None,
    signature: str | None,
    simulator: str,
    predictor: Path | None,
    models: tuple[str, ...],
    timeout: float,
    memory: float,
    max_instructions: int | None,
    keep_failed: Path | None,
    retry_failed: bool,
    fresh: bool,
    dry_run: bool,
    records: Path,
    json_lines: Path | None,
    as_json: bool,
) -> None:
    """Simulate many candidates, and record how each one ended.

    JOBS are objects (.o), TVM tars (.tar), static executables, folders and lists. A folder is
    searched to its depths for files *.o and *.tar, and for static executables (not
    position-independent ones) of any name; hidden files are left out, links to folders not followed,
    and what is left out is counted. MetaSchedule's two database files in a folder stand for all
    candidates of that work directory. A list, or '-' for standard input, has one job a line: a
    path, relative to the working directory, and the arguments of a program.

    A job is known by its content: interrupt at any time, and the same command runs what is
    missing; moved files are no new jobs. Failures are recorded and not run again, unless the
    machine was at fault or with --retry-failed.

    Exits with 0 when all jobs have a result, with 1 when some failed, with 2 when it cannot
    start, with 130 when it was interrupted.

    \b
    Example:
      simtune batch objects --machine sifive-u74
      find . -name '*.tar' | simtune batch - -m cortex-a72 --args float32:64x64,float32:64x64,float32:64x64
      simtune batch work_dir -m sifive-u74 --executor dask --scheduler tcp://driver:8786
    """
    if as_json and json_lines is not None and str(json_lines) == "-":
        raise ConfigurationError("--json and --json-lines - both print to standard output", "name a file")
    executor.check()
    from simtune.batching.find import find, nothing_to_do
    from simtune.batching.run import batch, plan_batch
    from simtune.jobs import Limits
    from simtune.machines.load import load_machine

    load_machine(machine)  # cheap checks first: a typing error must not wait for a cluster
    found = find(jobs_from, sys.stdin)
    if not len(found):
        raise nothing_to_do(found)
    common: dict[str, Any] = {
        "name": name or "",
        "simulator": simulator,
        "predictor": predictor,
        "count": models_from(models, simulator),
        "signature": parse_signature(signature),
        "records": records,
        "fresh": fresh,
        "retry_failed": retry_failed,
    }
    if dry_run:
        _print_plan(plan_batch(found, machine, **common), as_json)
        return
    records.parent.mkdir(parents=True, exist_ok=True)
    limits = Limits(
        wall_s=timeout, cpu_s=timeout, memory_bytes=int(memory * 2**20), instructions=max_instructions
    )
    with (
        leave_soon_after_interrupt(),
        executor.elsewhere() as running,
        _lines_to(json_lines) as lines,
        display(as_json, getattr(running, "dashboard_link", "")) as shown,
    ):
        result = batch(
            found,
            machine,
            limits=limits,
            executor=running,
            jobs=executor.jobs,
            keep_failed=keep_failed,
            observer=Observers([shown, *lines]),
            **common,
        )
    if as_json:
        emit_json(_as_dict(result, records))
    elif str(json_lines) != "-":
        _print(result, records)
    sys.exit(0 if result.ok else 1)


@contextlib.contextmanager
def _lines_to(path: Path | None) -> Iterator[list[Observer]]:
    if path is None:
        yield []
    elif str(path) == "-":
        yield [JsonLines(sys.stdout)]
    else:
        with path.open("a") as stream:
            yield [JsonLines(stream)]


def _as_dict(result: BatchResult, records: Path) -> dict[str, Any]:
    tally, view = result.tally, result.view
    return {
        "run": result.run,
        "name": result.name,
        "records": records,
        "jobs": tally.jobs,
        "statuses": {str(status): number for status, number in tally.statuses.items() if number},
        "failures": tally.failures,
        "settled_before": tally.settled,
        "cached": tally.cached,
        "simulated": tally.simulated,
        "duplicates": tally.duplicates,
        "skipped": dict(result.skipped),
        "instructions": tally.instructions,
        "wall_s": result.wall_s,
        "retried": view.retried,
        "doubled": view.doubled,
        "fastest": [_brief(named) for named in result.fastest],
        "slowest": [_brief(named) for named in result.slowest],
        "failed": [_brief(named) for named in result.failed],
    }


def _brief(named: Named) -> dict[str, Any]:
    trial = named.trial
    brief: dict[str, Any] = {"job": named.origin, "trial": f"{trial.run}:{trial.index}"}
    if trial.ok:
        return brief | {"predicted_s": trial.predicted_s}
    return brief | {
        "status": trial.status,
        "stage": trial.stage,
        "error": trial.error,
        "command": trial.command,
    }


def _print(result: BatchResult, records: Path) -> None:
    tally = result.tally
    click.echo(f"run {result.run}: {result.name}")
    statuses = make_table("jobs", "number*")
    for status, number in sorted(tally.statuses.items()):
        statuses.add_row(str(status), count(number))
    for text, number in (
        ("recorded before", tally.settled),
        ("simulation was in the store", tally.cached),
        ("of equal content, run once", tally.duplicates),
        *((f"left out: {reason}", number) for reason, number in result.skipped.items()),
    ):
        if number:
            statuses.add_row(text, count(number), style="dim")
    print_out(statuses)
    if result.fastest:
        print_out(_extremes(result))
    _print_failures(result, records)
    rate = tally.simulated / max(1e-9, result.wall_s)
    click.echo(
        f"{count(tally.simulated)} simulated in {duration(result.wall_s)}"
        + (f", {rate:.3g} a second" if tally.simulated else "")
    )


def _extremes(result: BatchResult) -> Table:
    """The fastest and the slowest, each once: of a small run all of them."""
    slowest = [named for named in reversed(result.slowest) if named not in result.fastest]
    title = "fastest and slowest of the run" if slowest else "all results of the run"
    table = make_table("predicted*", "trial", "job", title=title)
    for number, named in enumerate([*result.fastest, *slowest]):
        if number == len(result.fastest):
            table.add_section()
        trial = named.trial
        table.add_row(seconds(trial.predicted_s or 0.0), f"{trial.run}:{trial.index}", escape(named.origin))
    return table


def _print_failures(result: BatchResult, records: Path) -> None:
    for named in result.failed:
        trial = named.trial
        first, _, more = trial.error.strip().partition("\n")
        click.echo(f"{trial.status} in {trial.stage}: {named.origin}")
        click.echo(f"  {first}" + (" …" if more else ""))
        if trial.command:
            click.echo(f"  again: {trial.command}")
    if result.tally.failures > len(result.failed):
        click.echo(
            f"… {count(result.tally.failures)} failures in all: "
            f"simtune records show {result.run} --records {records} --json"
        )


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "run": plan.run or None,
                "jobs": plan.jobs,
                "would_run": plan.due_count,
                "settled_before": {str(status): number for status, number in plan.settled.items()},
                "duplicates": plan.duplicates,
                "skipped": dict(plan.skipped),
                "first": [str(origin) for origin in plan.due],
            }
        )
        return
    click.echo(f"would take up run {plan.run}" if plan.run else "would start a new run")
    table = make_table("jobs", "number*")
    table.add_row("would run", count(plan.due_count))
    rows: Sequence[tuple[str, int]] = [
        *((f"recorded before: {status}", number) for status, number in plan.settled.items()),
        ("of equal content, run once", plan.duplicates),
        *((f"left out: {reason}", number) for reason, number in plan.skipped.items()),
    ]
    for text, number in rows:
        if number:
            table.add_row(text, count(number), style="dim")
    print_out(table)
    for origin in plan.due:
        click.echo(f"  {origin}")
    if plan.due_count > len(plan.due):
        click.echo(f"  … and {count(plan.due_count - len(plan.due))} more")
