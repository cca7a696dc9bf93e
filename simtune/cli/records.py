# SPDX-License-Identifier: Apache-2.0
"""`simtune records`: list and show stored results; `records_files`, `records_merge` work on whole stores."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from simtune.cli import records_files, records_merge
from simtune.cli.output import count, emit_json, json_option, make_pairs, make_table, print_out, seconds
from simtune.cli.stored import find_trial, records_option
from simtune.counters import spec_of
from simtune.records.model import Run, Simulation, Trial
from simtune.records.origins import origin_of
from simtune.records.points import config_of
from simtune.records.store import RecordStore, open_existing


@click.group("records")
def command() -> None:
    """List, show, check, merge and export stored results.

    \b
    Example:
      simtune records list
      simtune records show 3f2a:17
      simtune records export --format csv -o trials.csv
    """


for _verb in (*records_files.VERBS, records_merge.merge):
    command.add_command(_verb)


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
    table = make_table(
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
    print_out(table if summaries else f"{records} holds no runs yet")


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
            trial = find_trial(store, run, index)
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
    origin = origin_of(trial)
    return ({"job": str(origin)} if origin else {}) | {
        "index": trial.index,
        "status": str(trial.status),
        "stage": trial.stage or (outcome.stage if outcome else ""),
        "error": trial.error or (outcome.error if outcome else ""),
    }


def _show_run(data: dict[str, Any]) -> None:
    objective = str(data["config"].get("objective", "latency"))
    table = make_pairs(f"run {data['id']}")
    table.add_row("workload", escape(f"{data['workload']['name']} ({data['workload']['id']})"))
    for argument in data["workload"]["arguments"]:
        table.add_row("", escape(" ".join(map(str, argument))))
    table.add_row("machine", escape(f"{data['machine']} ({data['machine_digest']})"))
    if json.loads(data["target"]):  # a batch has none
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
    print_out(table)
    if data["failures"]:
        failed = make_table("trial", "status", "stage", "error", title="failed trials")
        for failure in data["failures"][:20]:
            last = failure["error"].partition("\n  next: ")[0].strip().splitlines()[-1:]
            error = ": ".join(filter(None, [failure.get("job", ""), *last]))
            failed.add_row(
                f"{data['id']}:{failure['index']}", failure["status"], failure["stage"], escape(error)
            )
        print_out(failed)
        if len(data["failures"]) > 20:
            click.echo(f"… and {len(data['failures']) - 20} more; --json lists all")


def _show_trial(run: Run, trial: Trial, simulation: Simulation | None) -> None:
    table = make_pairs(
        f"trial {run.id}:{trial.index}" + (" (TVM's default schedule)" if trial.is_reference else "")
    )
    if (origin := origin_of(trial)) is not None:
        table.add_row("job", escape(str(origin)))
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
    print_out(table)
    if outcome and outcome.counters:
        counters = make_table(
            "counter", "value*", "unit", title=f"counters of {escape(outcome.counters.simulator)}"
        )
        for name, value in outcome.counters.items():
            spec = spec_of(name)
            counters.add_row(name, count(value), spec.unit if spec else "")
        print_out(counters)


def _when(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")


def _objective(run: Run, value: float | None) -> str:
    return _number(value, str(run.config.get("objective", "latency")))


def _number(value: float | None, objective: str) -> str:
    """Latency is in seconds; other objectives have units of their own."""
    if value is None:
        return "-"
    return seconds(value) if objective == "latency" else f"{value:.6g}"
