# SPDX-License-Identifier: Apache-2.0
"""`simtune calibrate`: fit a machine file to native measurements."""

from __future__ import annotations

import datetime
import math
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from simtune.cli.output import emit_json, json_option, make_table, print_out
from simtune.cli.train import dataset_options
from simtune.errors import ConfigurationError
from simtune.execution.scratch import scratch

if TYPE_CHECKING:
    from simtune.calibration.fit import Fit, Score


@click.command()
@dataset_options
@click.option("--machine", "-m", required=True, help="Machine that was simulated, and where the fit starts.")
@click.option(
    "-o", "out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Machine file to write."
)
@click.option(
    "--candidates",
    "-n",
    type=click.IntRange(4),
    default=12,
    show_default=True,
    help="Per workload, out of all that were measured.",
)
@click.option(
    "--hold-out",
    "held",
    multiple=True,
    help="Workload that is only judged; 'none' holds none out  [default: every third]",
)
@click.option(
    "--only",
    multiple=True,
    default=["*"],
    help="Parameters, such as 'caches.*'; may be repeated  [default: all]",
)
@click.option(
    "--budget",
    type=click.FloatRange(1),
    default=600.0,
    show_default=True,
    help="Seconds for trying other numbers, from when all candidates are built and simulated once; the "
    "best until then is written.",
)
@click.option("--count", multiple=True, help="Models of the simulator to switch on  [default: as stored]")
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@click.option("--jobs", "-j", type=click.IntRange(1), help="Simulations at once.")
@json_option
def command(
    records: Path,
    target: str | None,
    workloads: str,
    replacement: str | None,
    machine: str,
    out: Path,
    candidates: int,
    held: tuple[str, ...],
    only: tuple[str, ...],
    budget: float,
    count: tuple[str, ...],
    simulator: str,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Fit the numbers of a machine file that nobody publishes to native measurements.

    Takes measured candidates of every workload, builds them once, and simulates them again and again
    with other latencies, intervals and penalties, as long as the untrained prediction gets better.
    Numbers stay inside physical bounds. Workloads held out are never fitted to: they tell whether the
    new file is better for kernels it has not seen.

    Exits with 0 when it is (or nothing was held out), with 1 when it is not, with 130 when it was
    interrupted; the best until then is written in all these cases.

    \b
    Example:
      simtune calibrate --records records.db --machine host -o my-host.toml
      simtune resimulate --records records.db --from host --machine my-host.toml -o again.db
    """
    from simtune.dataset import load_dataset
    from simtune.machines.load import load_machine
    from simtune.records.store import open_existing
    from simtune.simulators.qemu_report import configuration

    if out.suffix != ".toml":
        raise ConfigurationError(f"{out} is no name of a machine file", "let it end with .toml")
    loaded = load_machine(machine)
    if simulator == "qemu":
        configuration(loaded, count)  # refuses unknown models now
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out.parent):  # it is written after minutes: can it be?
        pass
    tell = _Lines(quiet=as_json)
    with open_existing(records) as store, scratch("calibrate") as folder:
        data = load_dataset(store, [loaded], target, workloads, replacement)
        names = [group.name for group in data.groups]

        from simtune.build.builder import Builder
        from simtune.calibration.experiment import Experiment, prepare
        from simtune.calibration.fit import INTERRUPTED, Fitter, check_held, every_third, split
        from simtune.calibration.parameters import free_parameters
        from simtune.simulators.base import get_simulator

        wanted = [name for name in held if name != "none"] if held else every_third(names)
        check_held(names, wanted)
        parameters = free_parameters(loaded, [row for g in data.groups for row in g.counters], only)
        builder = Builder(jobs)
        try:
            cases = prepare(store, data, candidates, folder, builder, tell.now)
        finally:
            builder.close()
        fitted, judged = split(cases, wanted)
        tell.now(
            f"{len(parameters)} free numbers; {len(fitted)} candidates to fit to, {len(judged)} held out "
            f"({', '.join(wanted) or 'none'})"
        )
        built_s = time.monotonic() - tell.start
        experiment = Experiment(get_simulator(simulator), count or _models(store, data), jobs)
        fit = Fitter(experiment, loaded, parameters, fitted, judged, budget, tell.sometimes).run()
    _write(out, fit, loaded.name, data.target, len(fitted), len({case.workload for case in fitted}))
    better = fit.held_after is None or fit.held_before is None or fit.held_after.loss <= fit.held_before.loss
    if as_json:
        emit_json(
            {
                "machine_file": out,
                "started_from": loaded.name,
                "target": data.target,
                "fitted": [case.trial for case in fitted],
                "held_out": wanted,
                "better_on_held_out": better if fit.held_after else None,
                "built_s": built_s,
                **{key: value for key, value in _plain(asdict(fit)).items() if key != "machine"},
            }
        )
    else:
        _print_fit(replace(fit, start_s=built_s + fit.start_s, wall_s=built_s + fit.wall_s), out)
    sys.exit(130 if fit.ended == INTERRUPTED else 0 if better else 1)


def _models(store: Any, data: Any) -> tuple[str, ...]:
    """Optional models that were on when the candidates were simulated; blocks cost time and fit nothing."""
    run, _, index = data.groups[0].trials[0].partition(":")
    trial = store.trial(run, int(index))
    simulation = store.simulation(trial.simulation)
    return tuple(n for n in simulation.conditions.count if n != "blocks" and not n.startswith("mca"))


class _Lines:
    """Progress on standard error, at most a line every two seconds unless it matters."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.start, self.last = quiet, time.monotonic(), 0.0

    def now(self, text: str) -> None:
        self.last = time.monotonic()
        if not self.quiet:
            click.echo(f"[{self.last - self.start:6.1f} s] {text}", err=True)

    def sometimes(self, text: str) -> None:
        if "loss" in text or time.monotonic() - self.last > 2:
            self.now(text)


def _write(out: Path, fit: Fit, start: str, target: str, number: int, workloads: int) -> None:
    from simtune.calibration.parameters import changed
    from simtune.machines.dump import commented_toml

    date = datetime.date.today().isoformat()
    comments = {
        change.path: f"fitted: {change.old:g} -> {change.new:g}"
        + ("" if math.isnan(change.gain) else f", worth {change.gain:.4f} of the loss")
        + f"; {number} native times of {target}, {date}"
        for change in fit.changes
    }
    head = [
        f"Written by 'simtune calibrate' on {date}: {start} with {len(fit.changes)} of {fit.tried} numbers",
        f"fitted to native times of {number} candidates of {workloads} workloads on {target}.",
        "Numbers without a comment are those it started from.",
        f"Fitted workloads: {_both(fit.before, fit.after)}.",
    ]
    if fit.held_before and fit.held_after:
        head.append(f"Workloads held out: {_both(fit.held_before, fit.held_after)}.")
    machine = changed(fit.machine, {}, name=out.stem)
    if machine is not None and fit.changes:
        note = f"{machine.description}; {len(fit.changes)} numbers fitted to native times"
        machine = replace(machine, description=note)
    if machine is None:
        raise ConfigurationError(
            f"'{out.stem}' is no name for a machine", "choose letters, digits, '-' and '_'"
        )
    out.write_text(
        "# SPDX-License-Identifier: Apache-2.0\n#\n" + commented_toml(machine, comments, "\n".join(head))
    )


def _both(before: Score, after: Score) -> str:
    return (
        f"median error {before.error:.1%} -> {after.error:.1%}, tau-b {before.tau_b:.3f} -> {after.tau_b:.3f}"
    )


def _print_fit(fit: Fit, out: Path) -> None:
    table = make_table(
        "parameter", "before*", "after*", "worth*", title="fitted numbers (worth: of the loss)"
    )
    for change in fit.changes:
        worth = "-" if math.isnan(change.gain) else f"{change.gain:.4f}"
        table.add_row(change.path, f"{change.old:g}", f"{change.new:g}", worth)
    print_out(table if fit.changes else "no change of any number makes the predictions better")
    table = make_table("workload", "error*", "", "tau-b*", "", title="untrained predictions: before, after")
    for held, before, after in ((False, fit.before, fit.after), (True, fit.held_before, fit.held_after)):
        if before is None or after is None:
            continue
        table.add_section()
        for name, (error, tau) in before.workloads.items():
            new_error, new_tau = after.workloads.get(name, (math.nan, math.nan))
            label = escape(name) + (" (held out)" if held else "")
            table.add_row(label, f"{error:.1%}", f"{new_error:.1%}", f"{tau:.3f}", f"{new_tau:.3f}")
    print_out(table)
    click.echo(f"fitted workloads:   {_both(fit.before, fit.after)}")
    if fit.held_before and fit.held_after:
        click.echo(f"workloads held out: {_both(fit.held_before, fit.held_after)}")
        if fit.held_after.loss > fit.held_before.loss:
            click.echo("worse on what it has not seen: collect more workloads before you use it")
    most = ", ".join(list(fit.sensitivity)[:5])
    click.echo(f"most sensitive: {most or '-'}")
    click.echo(
        f"{fit.runs} simulations, {fit.rounds} rounds, {fit.wall_s:.0f} s, of which {fit.start_s:.0f} s for "
        f"building and for simulating every candidate once; {fit.ended}; written to {out}"
    )


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
