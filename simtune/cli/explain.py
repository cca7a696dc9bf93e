# SPDX-License-Identifier: Apache-2.0
"""`simtune explain`: why a candidate is predicted slow or fast."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from simtune.cli import explain_template
from simtune.cli.output import count, emit_json, json_option, make_table, print_out, seconds
from simtune.cli.stored import find_trial, records_option
from simtune.cli.tune_template import refuse_foreign
from simtune.counters import SCHEMA, Counters
from simtune.errors import ConfigurationError, RecordError
from simtune.machines.model import ISAS, Machine
from simtune.records.model import Run, Trial
from simtune.records.points import is_template
from simtune.records.store import RecordStore, open_existing

#: Logarithms of factors that the table would print as 1.000.
_TOO_SMALL = 5e-4


@click.command()
@click.argument("record", metavar="RECORD")
@click.option("--predictor", "file", type=click.Path(path_type=Path), help="Trained  [default: analytical]")
@click.option("--against", help="RUN:INDEX to compare with  [default: the best of the workload]")
@click.option("--machine", "-m", help="Name or file of the run's machine, if it cannot be found by its name.")
@click.option(
    "--top",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="How many causes and counters to list.",
)
@records_option
@json_option
def command(
    record: str,
    file: Path | None,
    against: str | None,
    machine: str | None,
    top: int,
    records: Path,
    as_json: bool,
) -> None:
    """Why is this candidate predicted slow or fast? Counter by counter, against the workload's best.

    RECORD is RUN:INDEX, or RUN:best. The best is the fastest measured candidate of the run, or
    without measurements the fastest predicted one; the best itself is compared with TVM's default
    schedule. Factors multiply to the ratio of the two predictions.

    For a point of a template space (vta:...) it is the simulated time, where it goes, and the best
    other point of the run.

    \b
    Example:
      simtune explain 3f2a:17 --records records.db --predictor host.predictor
    """
    from simtune.explanation import analytical_causes, counter_table, learned_causes
    from simtune.machines.load import load_machine
    from simtune.predictors.analytical import AnalyticalPredictor
    from simtune.predictors.storage import load_predictor

    with open_existing(records) as store:
        run, trial = _locate(store, record)
        if is_template(run):
            refuse_foreign(click.get_current_context(), ("file", "machine"), "a point of a template space")
            explain_template.explain(
                store, run, trial, _locate(store, against) if against else None, top, as_json
            )
            return
        loaded = load_machine(machine or run.machine)
        _check_machine(run, loaded)
        other_run, other = _locate(store, against) if against else (run, _opponent(store, run, trial))
        if other_run.workload != run.workload:
            raise ConfigurationError(f"{record} and {against} are of different workloads")
        mine, theirs = _counters(store, trial), _counters(store, other)
        everyone = [counters for each in store.trials(run.id) if (counters := _known(store, each))]
    deviations = None
    if file:
        predictor = load_predictor(file, loaded)
        candidates = [mine, theirs, *everyone]
        predicted = predictor.seconds(candidates, loaded)[:2].tolist()
        deviations = predictor.uncertainty(candidates, loaded)
        causes = learned_causes(predictor, candidates, loaded, 0, 1)
        name = predictor.name
    else:
        analytical = AnalyticalPredictor()
        predicted = [analytical.predict(row, loaded) for row in (mine, theirs)]
        causes, name = analytical_causes(mine, theirs, loaded), analytical.name
    table = counter_table(mine, theirs)
    if as_json:
        emit_json(
            {
                "record": f"{run.id}:{trial.index}",
                "against": f"{other_run.id}:{other.index}",
                "predictor": name,
                "predicted_s": predicted[0],
                "against_predicted_s": predicted[1],
                "uncertainty": None if deviations is None else deviations[:2].tolist(),
                "measured_s": trial.measured_s,
                "against_measured_s": other.measured_s,
                "causes": [_plain(asdict(cause)) for cause in causes],
                "counters": [{"counter": n, "value": a, "against": b} for n, a, b in table],
            }
        )
        return
    ratio = predicted[0] / predicted[1]
    verdict = f"{ratio:.2f} times slower" if ratio >= 1 else f"{1 / ratio:.2f} times faster"
    sure = ["" if deviations is None else f" +- {deviation:.0%}" for deviation in _two(deviations)]
    click.echo(
        f"trial {run.id}:{trial.index}: {seconds(predicted[0])}{sure[0]} predicted by {name}, "
        f"{verdict} than trial {other.index} ({seconds(predicted[1])}{sure[1]})"
    )
    if trial.measured_s and other.measured_s:
        click.echo(
            f"measured: {seconds(trial.measured_s)} against {seconds(other.measured_s)}, a ratio of "
            f"{trial.measured_s / other.measured_s:.2f}"
        )
    shown = make_table(
        "cause", "this*", f"trial {other.index}*", "effect on time*", title="what makes the difference"
    )
    for cause in [c for c in causes if abs(math.log(c.factor)) > _TOO_SMALL][:top]:
        shown.add_row(cause.name, _figure(cause.value), _figure(cause.other), f"x {cause.factor:.3f}")
    print_out(shown)
    shown = make_table(
        "counter", "this*", f"trial {other.index}*", "ratio*", "unit", title="counters that differ most"
    )
    for counter, a, b in table[:top]:
        ratio_text = f"{a / b:.3g}" if b else "-"
        shown.add_row(counter, count(a), count(b), ratio_text, SCHEMA[counter].unit)
    print_out(shown)


def _two(deviations: Any) -> list[float]:
    """Those of the two candidates."""
    return [0.0, 0.0] if deviations is None else [float(value) for value in deviations[:2]]


def _check_machine(run: Run, machine: Machine) -> None:
    """Counters are of the machine that was simulated, whatever they are explained with."""
    target = json.loads(run.target)
    simulated = str(target.get("mtriple", "")).partition("-")[0] if isinstance(target, dict) else ""
    if simulated in ISAS and simulated != machine.isa.name:
        raise ConfigurationError(
            f"run {run.id} is of {run.machine} ({simulated}), {machine.name} is {machine.isa.name}",
            "leave --machine out, or give the machine of the run",
        )
    if machine.digest() != run.machine_digest:
        click.echo(
            f"note: run {run.id} was simulated for another version of {run.machine} than this {machine.name}",
            err=True,
        )


def _locate(store: RecordStore, record: str) -> tuple[Run, Trial]:
    name, colon, index = record.partition(":")
    if not colon:
        raise ConfigurationError(f"'{record}' names no candidate", "give RUN:INDEX or RUN:best")
    run = store.run(name)
    return run, find_trial(store, run, index)


def _opponent(store: RecordStore, run: Run, trial: Trial) -> Trial:
    """The fastest measured candidate, else the best predicted one, else TVM's default schedule."""
    medians = {}
    for measurement in store.measurements():
        if math.isfinite(measurement.median) and measurement.median > 0:
            medians[measurement.simulation] = measurement.median
    found = [t for t in store.trials(run.id) if t.ok and t.simulation in medians]
    best = min(found, key=lambda t: medians[str(t.simulation)]) if found else store.best_trial(run=run.id)
    if best is None or best.index == trial.index:
        best = store.best_trial(run=run.id, reference=True)
    if best is None or best.index == trial.index:
        raise RecordError(
            f"run {run.id} has no other candidate to compare with", "name one: --against RUN:INDEX"
        )
    return best


def _counters(store: RecordStore, trial: Trial) -> Counters:
    counters = _known(store, trial)
    if counters is None:
        raise RecordError(
            f"trial {trial.run}:{trial.index} has no counters ({trial.status})",
            f"see: simtune records show {trial.run}:{trial.index}",
        )
    return counters


def _known(store: RecordStore, trial: Trial) -> Counters | None:
    simulation = store.simulation(trial.simulation) if trial.ok and trial.simulation else None
    return simulation.outcome.counters if simulation else None


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
