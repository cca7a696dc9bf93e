# SPDX-License-Identifier: Apache-2.0
"""`simtune records`: list, show, check, salvage and export stored results."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simtune.cli.counting import count_option, models_from
from simtune.cli.output import count, emit_json, json_option, seconds
from simtune.counters import spec_of
from simtune.errors import ConfigurationError, RecordError
from simtune.records.check import check as find_damage
from simtune.records.export import export_csv, export_parquet
from simtune.records.model import Run, Simulation, Trial
from simtune.records.points import config_of
from simtune.records.salvage import salvage as save_intact
from simtune.records.store import RecordStore, default_store_path, open_existing
from simtune.records.tvm_format import Times, export_tvm

F = TypeVar("F", bound=Callable[..., Any])


def records_option(function: F) -> F:
    """Adds ``--records FILE`` as the parameter `records`, a Path."""
    option = click.option(
        "--records",
        type=click.Path(path_type=Path, dir_okay=False),
        default=default_store_path,
        show_default="$SIMTUNE_RECORDS, or simtune-records.db here",
        help="The record store.",
    )
    return option(function)


@click.group("records")
def command() -> None:
    """List, show, check and export stored results.

    \b
    Example:
      simtune records list
      simtune records show 3f2a:17
      simtune records export --format csv -o trials.csv
    """


@command.command("list")
@records_option
@json_option
def list_runs(records: Path, as_json: bool) -> None:
    """List the runs: workload, machine, trials, best value, failures.

    \b
    Example: simtune records list --records tuning.db
    """
    with open_existing(records) as store:
        summaries = store.summaries()
    if as_json:
        rows = [_run_dict(s.run) | s._asdict() | {"run": s.run.id} for s in summaries]
        emit_json({"records": str(records), "runs": rows})
        return
    table = _table(
        "run", "workload", "machine", "started", "state", "trials*", "failed*", "best*", "default*"
    )
    for summary in summaries:
        run = summary.run
        table.add_row(
            run.id,
            escape(summary.workload),
            escape(run.machine),
            _when(run.started),
            run.state,
            count(summary.trials),
            count(summary.failures),
            _objective(run, summary.best),
            _objective(run, summary.reference),
        )
    _print(table if summaries else f"{records} holds no runs yet")


@command.command()
@click.argument("what", metavar="RUN|TRIAL")
@records_option
@json_option
def show(what: str, records: Path, as_json: bool) -> None:
    """Show all about a run, or about one trial with its counters.

    RUN is the beginning of a run's id; TRIAL is RUN:INDEX, and RUN:best is its best trial.

    \b
    Example: simtune records show 3f2a:best
    """
    name, _, index = what.partition(":")
    with open_existing(records) as store:
        run = store.run(name)
        if ":" in what:
            trial = _find_trial(store, run, index)
            simulation = store.simulation(trial.simulation) if trial.simulation else None
            if as_json:
                emit_json(_trial_dict(trial, simulation))
            else:
                _show_trial(run, trial, simulation)
        else:
            data = _describe_run(store, run)
            if as_json:
                emit_json(data)
            else:
                _show_run(data)


@command.command()
@records_option
@json_option
def check(records: Path, as_json: bool) -> None:
    """Look for damage; the exit status is 1 when there is any.

    \b
    Example: simtune records check --records tuning.db
    """
    findings = find_damage(records)
    if as_json:
        emit_json({"records": str(records), "findings": [asdict(finding) for finding in findings]})
    elif findings:
        table = _table("table", "row", "problem", "what to do")
        for finding in findings:
            table.add_row(finding.table, escape(finding.row), escape(finding.problem), escape(finding.advice))
        _print(table)
    else:
        click.echo(f"{records} is sound")
    if findings:
        sys.exit(1)


@command.command()
@click.option("-o", "out", type=click.Path(path_type=Path), required=True, help="The new store to write.")
@records_option
@json_option
def salvage(out: Path, records: Path, as_json: bool) -> None:
    """Copy every intact row of a damaged store into a new one.

    \b
    Example: simtune records salvage --records broken.db -o salvaged.db
    """
    report = save_intact(records, out)
    if as_json:
        emit_json({"records": str(records), "out": str(out)} | asdict(report))
        return
    table = _table("table", "saved*", "damaged*", "readable to its end")
    for name, number in report.saved.items():
        readable = "no" if name in report.unreadable else "yes"
        table.add_row(name, count(number), count(report.damaged.get(name, 0)), readable)
    _print(table)
    click.echo(f"written to {out}")


@command.command()
@click.option("--format", "kind", type=click.Choice(["tvm", "csv", "parquet"]), required=True)
@click.option(
    "-o", "out", type=click.Path(path_type=Path), required=True, help="File; a folder for --format tvm."
)
@click.option("--run", "run_ids", multiple=True, help="Only this run; may be given more than once.")
@click.option(
    "--times",
    type=click.Choice(get_args(Times)),
    default="value",
    show_default=True,
    help="tvm: the number that TVM sees as run time.",
)
@click.option("--failures", is_flag=True, help="tvm: write failed trials too, with 1e10 s as TVM does.")
@records_option
@json_option
def export(
    kind: str, out: Path, run_ids: tuple[str, ...], times: Times, failures: bool, records: Path, as_json: bool
) -> None:
    """Write the trials as a TVM JSON database, CSV or Parquet.

    \b
    Example: simtune records export --format tvm -o work_dir
    """
    if kind == "tvm" and out.is_file():
        raise ConfigurationError(f"{out} is a file", "give a folder with -o: a TVM database is two files")
    if kind != "tvm" and out.is_dir():
        raise ConfigurationError(f"{out} is a folder", "give a file with -o")
    with open_existing(records) as store:
        runs = [store.run(name) for name in run_ids] or None
        if kind == "tvm":
            written = export_tvm(store, out, runs, times=times, failures=failures)
            number, skipped = written.records, written.skipped
        else:
            number = (export_csv if kind == "csv" else export_parquet)(store, out, runs)
            skipped = {}
    if as_json:
        emit_json({"out": str(out), "format": kind, "trials": number, "skipped": skipped})
        return
    click.echo(f"{count(number)} trials written to {out}")
    for reason, left_out in skipped.items():
        click.echo(f"{count(left_out)} left out: {reason}")


@command.command("import")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--machine", "-m", required=True, help="Machine to simulate the candidates for.")
@click.option(
    "--target", required=True, help="What the database's times were measured on, such as rpc:board."
)
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@count_option
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, help="Calls before the one that counts."
)
@click.option("--jobs", "-j", type=click.IntRange(1), help="Builds and simulations at once.")
@records_option
@json_option
def import_database(
    folder: Path,
    machine: str,
    target: str,
    simulator: str,
    models: tuple[str, ...],
    warmup: int,
    jobs: int | None,
    records: Path,
    as_json: bool,
) -> None:
    """Rebuild and simulate the candidates of a TVM database, and keep its times as measured.

    FOLDER holds database_workload.json and database_tuning_record.json of MetaSchedule, or both
    as .xz. Predictors can then be trained on them: 'simtune train --target TARGET'.

    \b
    Example: simtune records import work_dir -m cortex-a72 --target rpc:pi4
    """
    from simtune.machines.load import load_machine
    from simtune.tuning.imported import import_tvm

    loaded = load_machine(machine)
    with RecordStore(records) as store:
        found = import_tvm(
            folder,
            loaded,
            store,
            target=target,
            simulator=simulator,
            count=models_from(models, simulator),
            warmup=warmup,
            jobs=jobs,
            progress=lambda name: click.echo(name, err=True),
        )
    if as_json:
        emit_json({"records": str(records), "workloads": [asdict(item) for item in found]})
        return
    table = _table("workload", "run", "candidates*", "failed*", "with time*")
    for item in found:
        table.add_row(
            escape(item.workload), item.run, count(item.trials), count(item.failures), count(item.timed)
        )
    _print(table)


def _find_trial(store: RecordStore, run: Run, index: str) -> Trial:
    trial = None
    if index == "best":
        trial = store.best_trial(run=run.id)
    elif index.isdecimal():
        trial = store.trial(run.id, int(index))
    if trial is None:
        raise RecordError(f"run {run.id} has no trial '{index}'", f"see: simtune records show {run.id}")
    return trial


def _run_dict(run: Run) -> dict[str, Any]:
    return asdict(run) | {"config_digest": run.config_digest}


def _trial_dict(trial: Trial, simulation: Simulation | None) -> dict[str, Any]:
    data = asdict(trial)
    data["simulation"] = None
    if simulation is not None:
        outcome = asdict(simulation.outcome)
        outcome["blocks"] = [block | {"code": block["code"].hex()} for block in outcome["blocks"]]
        data["simulation"] = {
            "key": simulation.key,
            "conditions": asdict(simulation.conditions),
            "instruction_limit": simulation.instruction_limit,
            "created": simulation.created,
        } | outcome
    elif trial.simulation:
        data["simulation"] = {"key": trial.simulation}
    return data


def _describe_run(store: RecordStore, run: Run) -> dict[str, Any]:
    best, reference = store.best_trial(run=run.id), store.best_trial(run=run.id, reference=True)
    workload = store.workload(run.workload)
    return _run_dict(run) | {
        "workload": {"id": workload.id, "name": workload.name, "arguments": workload.arguments},
        "statuses": {str(status): number for status, number in store.status_counts(run.id).items()},
        "best": best and {"index": best.index, "value": best.value, "measured_s": best.measured_s},
        "reference": reference and {"index": reference.index, "value": reference.value},
        "failures": [_failure(store, trial) for trial in store.trials(run.id) if not trial.ok],
    }


def _failure(store: RecordStore, trial: Trial) -> dict[str, Any]:
    """Where and why a trial failed; after its build, the simulation knows."""
    simulation = store.simulation(trial.simulation) if trial.simulation and not trial.error else None
    outcome = simulation.outcome if simulation else None
    return {
        "index": trial.index,
        "status": str(trial.status),
        "stage": trial.stage or (outcome.stage if outcome else ""),
        "error": trial.error or (outcome.error if outcome else ""),
    }


def _show_run(data: dict[str, Any]) -> None:
    objective = str(data["config"].get("objective", "latency"))
    table = _pairs(f"run {data['id']}")
    table.add_row("workload", escape(f"{data['workload']['name']} ({data['workload']['id']})"))
    for argument in data["workload"]["arguments"]:
        table.add_row("", escape(" ".join(map(str, argument))))
    table.add_row("machine", escape(f"{data['machine']} ({data['machine_digest']})"))
    table.add_row("target", escape(data["target"]))
    table.add_row("started", _when(data["started"]))
    table.add_row("finished", _when(data["finished"]) if data["finished"] else "-")
    table.add_row("state", data["state"])
    for heading in ("config", "versions"):
        for key, value in data[heading].items():
            table.add_row(f"{heading}.{key}", escape(str(value)))
    for status, number in data["statuses"].items():
        table.add_row(f"trials {status}", count(number))
    for heading, found in (("best", data["best"]), ("TVM's default", data["reference"])):
        if found:
            table.add_row(
                heading, f"{_number(found['value'], objective)} (trial {data['id']}:{found['index']})"
            )
    _print(table)
    if data["failures"]:
        failed = _table("trial", "status", "stage", "error", title="failed trials")
        for failure in data["failures"][:20]:
            last = failure["error"].strip().splitlines()[-1:]
            failed.add_row(
                f"{data['id']}:{failure['index']}", failure["status"], failure["stage"], escape("".join(last))
            )
        _print(failed)
        if len(data["failures"]) > 20:
            click.echo(f"… and {len(data['failures']) - 20} more; --json lists all")


def _show_trial(run: Run, trial: Trial, simulation: Simulation | None) -> None:
    table = _pairs(
        f"trial {run.id}:{trial.index}" + (" (TVM's default schedule)" if trial.is_reference else "")
    )
    table.add_row("candidate", trial.candidate)
    for knob, setting in (config_of(trial) or {}).items():
        table.add_row(f"knob {escape(knob)}", str(setting))
    table.add_row(
        "status", f"{trial.status}" + (f" in {trial.stage}" if trial.stage and not trial.ok else "")
    )
    table.add_row("objective", _objective(run, trial.value))
    for name in ("predicted_s", "measured_s", "build_s", "link_s", "simulate_s"):
        value = getattr(trial, name)
        if value is not None:
            table.add_row(name, seconds(value))
    table.add_row("simulation", trial.simulation or "-")
    outcome = simulation.outcome if simulation else None
    if simulation and outcome:
        conditions = simulation.conditions
        table.add_row("simulator", escape(f"{conditions.simulator} {conditions.simulator_version}"))
        table.add_row("object", conditions.object_sha256)
        table.add_row("harness", escape(" ".join(conditions.arguments)))
        for key, text in outcome.output.items():
            table.add_row(f"output.{escape(key)}", escape(text))
    command_line = trial.command or (outcome.command if outcome else "")
    error = trial.error or (outcome.error if outcome else "")
    if command_line:
        table.add_row("reproduce", escape(command_line))
    if error:
        table.add_row("error", escape(error.strip()))
    _print(table)
    if outcome and outcome.counters:
        counters = _table(
            "counter", "value*", "unit", title=f"counters of {escape(outcome.counters.simulator)}"
        )
        for name, value in outcome.counters.items():
            spec = spec_of(name)
            counters.add_row(name, count(value), spec.unit if spec else "")
        _print(counters)


def _table(*columns: str, title: str | None = None) -> Table:
    """A table; columns with a star are numbers."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for name in columns:
        table.add_column(name.rstrip("*"), justify="right" if name.endswith("*") else "left", overflow="fold")
    return table


def _pairs(title: str) -> Table:
    table = Table(box=None, show_header=False, title=title, title_justify="left", padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _print(content: Table | str) -> None:
    # Output into a pipe or a file is for other programs: it is not folded to a made-up width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    console.print(content, markup=isinstance(content, Table))


def _when(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")


def _objective(run: Run, value: float | None) -> str:
    return _number(value, str(run.config.get("objective", "latency")))


def _number(value: float | None, objective: str) -> str:
    """Latency is in seconds; other objectives have units of their own."""
    if value is None:
        return "-"
    return seconds(value) if objective == "latency" else f"{value:.6g}"
