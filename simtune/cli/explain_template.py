# SPDX-License-Identifier: Apache-2.0
"""The part of `simtune explain` for points of a template space, such as those of ``vta:resnet18.c2``."""

from __future__ import annotations

from typing import Any

import click

from simtune.cli.output import count, emit_json, make_table, print_out, seconds
from simtune.counters import Counters, spec_of
from simtune.errors import ConfigurationError, RecordError
from simtune.explanation import Cause, counter_table, shares
from simtune.records.model import Run, Trial
from simtune.records.points import config_of
from simtune.records.store import RecordStore

#: Counters of the timed run; they say where the time went.
_TIMED = "vta.t."


def explain(
    store: RecordStore, run: Run, trial: Trial, against: tuple[Run, Trial] | None, top: int, as_json: bool
) -> None:
    """Where the simulated time of one point goes, beside that of another, or of the best other of its run."""
    other_run, other = against or (run, _opponent(store, run, trial))
    if (run.workload, run.machine_digest) != (other_run.workload, other_run.machine_digest):
        raise ConfigurationError(
            f"{run.id} and {other_run.id} are runs of different workloads or machines",
            "compare points of one layer and machine",
        )
    mine, theirs = (_simulated(store, each) for each in (trial, other))
    causes = shares(_parts(*mine), _parts(*theirs))
    table = [row for row in counter_table(mine[0], theirs[0]) if not row[0].startswith(_TIMED)]
    knobs = [(config_of(each) or {}) for each in (trial, other)]
    if as_json:
        emit_json(
            {
                "record": f"{run.id}:{trial.index}",
                "against": f"{other_run.id}:{other.index}",
                "cycles": mine[1],
                "against_cycles": theirs[1],
                "seconds": trial.value,
                "against_seconds": other.value,
                "config": knobs[0],
                "against_config": knobs[1],
                "causes": [vars(cause) for cause in causes],
                "counters": [{"counter": n, "value": a, "against": b} for n, a, b in table],
            }
        )
        return
    ratio = mine[1] / theirs[1]
    verdict = f"{ratio:.2f} times slower" if ratio >= 1 else f"{1 / ratio:.2f} times faster"
    label = f"trial {other.index}" if other_run.id == run.id else f"trial {other_run.id}:{other.index}"
    click.echo(
        f"trial {run.id}:{trial.index}: {_time(trial)} simulated, {verdict} than {label} ({_time(other)})"
    )
    shown = make_table("knob", "this*", f"{label}*", title="knobs that differ")
    for knob, value in knobs[0].items():
        if knobs[1].get(knob) != value:
            shown.add_row(knob, str(value), str(knobs[1].get(knob, "-")))
    print_out(shown)
    print_out(_causes(causes, label))
    shown = make_table("counter", "this*", f"{label}*", "ratio*", "unit", title="counters that differ most")
    for counter, a, b in [row for row in table if row[1] != row[2]][:top]:
        shown.add_row(
            counter,
            count(a),
            count(b),
            f"{a / b:.3g}" if b else "-",
            spec.unit if (spec := spec_of(counter)) else "",
        )
    print_out(shown)


def _opponent(store: RecordStore, run: Run, trial: Trial) -> Trial:
    """The best other point of the run."""
    others = [t for t in store.trials(run.id) if t.ok and t.value is not None and t.index != trial.index]
    if not others:
        raise RecordError(f"run {run.id} has no other point to compare with", "name one: --against RUN:INDEX")
    return min(others, key=lambda t: t.value or 0.0)


def _causes(causes: list[Cause], label: str) -> Any:
    table = make_table(
        "cycles in which", "this*", f"{label}*", "effect on time*", title="what makes the difference"
    )
    for cause in causes:
        if cause.value or cause.other:
            table.add_row(cause.name, count(cause.value), count(cause.other), f"x {cause.factor:.3f}")
    return table


def _simulated(store: RecordStore, trial: Trial) -> tuple[Counters, float]:
    """Counters and cycles of a trial."""
    simulation = store.simulation(trial.simulation) if trial.ok and trial.simulation else None
    outcome = simulation.outcome if simulation else None
    if outcome is None or outcome.counters is None or "cycles" not in outcome.output:
        raise RecordError(
            f"trial {trial.run}:{trial.index} has no counters ({trial.status})",
            f"see: simtune records show {trial.run}:{trial.index}",
        )
    return outcome.counters, float(outcome.output["cycles"])


def _parts(counters: Counters, cycles: float) -> dict[str, float]:
    """The cycles of a program by what the compute module does in them: it is the one that all wait for."""

    def timed(name: str) -> float:
        return counters.get(f"{_TIMED}compute.{name}", 0.0)

    parts = {
        "compute works": timed("busy") - timed("wait_bus"),
        "compute waits for loads or stores": timed("wait_token"),
        "compute waits for the bus": timed("wait_bus"),
        "compute waits for instructions": timed("wait_insn"),
    }
    return {**parts, "the last stores end": max(0.0, cycles - sum(parts.values()))}


def _time(trial: Trial) -> str:
    return seconds(trial.value or 0.0)
