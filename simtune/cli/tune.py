# SPDX-License-Identifier: Apache-2.0
"""`simtune tune`: tune one workload in simulation, with live progress."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from simtune.cli.counting import count_option, models_from, timeout_option, warmup_option
from simtune.cli.executing import ExecutorChoice, executor_options
from simtune.cli.output import emit_json, json_option, seconds
from simtune.cli.train import features_option
from simtune.errors import SimtuneError
from simtune.machines.model import Machine


@click.command()
@click.argument("workload")
@click.option("--machine", "-m", required=True, help="Machine name, path of a machine file, or 'host'.")
@click.option(
    "--trials",
    "-n",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Trials of the whole run, stored ones included.",
)
@click.option(
    "--records", type=click.Path(path_type=Path), help="Record store  [default: simtune-records.db]"
)
@click.option("--work-dir", type=click.Path(path_type=Path), help="Logs, report  [default: simtune-runs/RUN]")
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@click.option(
    "--predictor",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of 'simtune train'  [default: the analytical model]",
)
@click.option(
    "--objective",
    default="latency",
    show_default=True,
    help="latency, energy, a counter, or an expression over counters.",
)
@executor_options
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the search and of the inputs.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Candidates per round of the search.",
)
@click.option(
    "--search-threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads of the search itself; with more than one it is faster and no longer reproducible.",
)
@click.option(
    "--straggler",
    default=10.0,
    show_default=True,
    help="Cut a candidate off at this many times the instructions of the best; 0 never does.",
)
@warmup_option
@count_option
@timeout_option("Seconds per simulation.")
@click.option(
    "--measure-top",
    help="After the search, measure so many of the best predictions natively, such as 5 or 3%, and take the "
    "best of them.",
)
@click.option(
    "--target",
    default="host",
    show_default=True,
    help="Where --measure-top measures: host, ssh:[USER@]HOST[:PORT][/FOLDER], rpc:HOST:PORT[/KEY].",
)
@features_option
@click.option(
    "--tuner",
    help="Of a template space: random, grid, genetic, annealing, initialised, validity  [default: validity]",
)
@click.option(
    "--tuner-option", multiple=True, metavar="NAME=VALUE", help="Option of the tuner; may be repeated."
)
@click.option(
    "--judge",
    type=click.Choice(["exact", "compiler", "none"]),
    help="What tells invalid points of a template space before they run  [default: depends on the tuner]",
)
@click.option("--fresh", is_flag=True, help="Start a new run instead of taking up the stored one.")
@click.option("--report/--no-report", default=True, help="Write the HTML report.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    workload: str,
    machine: str,
    trials: int,
    records: Path | None,
    work_dir: Path | None,
    simulator: str,
    predictor: Path | None,
    objective: str,
    executor: ExecutorChoice,
    seed: int,
    batch: int,
    search_threads: int,
    straggler: float,
    warmup: int,
    models: tuple[str, ...],
    timeout: float,
    measure_top: str | None,
    target: str,
    optional: tuple[str, ...],
    tuner: str | None,
    tuner_option: tuple[str, ...],
    judge: str | None,
    fresh: bool,
    report: bool,
    as_json: bool,
) -> None:
    """Tune WORKLOAD for a machine, every candidate in a simulator.

    WORKLOAD is a name or a parametric form, see 'simtune workloads list', or a layer with a template
    space, such as vta:resnet18.c2. Interrupt at any time:
    the same command goes on where it ended, and no finished simulation runs twice.

    Exits with 0 when there is a best schedule, with 1 when every candidate failed, with 2 when the
    run cannot start, with 130 when it was interrupted.

    \b
    Example:
      simtune tune resnet18.conv2_x --machine sifive-u74 --trials 64
      simtune tune matmul:m=128,n=128,k=128 --machine cortex-a72 --objective dram_bytes
      simtune tune vta:resnet18.c2 --machine vta-pynq --tuner validity -n 200
    """
    from simtune.cli import tune_template
    from simtune.tuning.targets import has_template

    if has_template(workload):
        tune_template.run(context, dict(context.params))
    tune_template.refuse_foreign(
        context, ("tuner", "tuner_option", "judge"), f"{workload}, which has no template space"
    )
    from simtune.cli.progress import make_observer
    from simtune.jobs import Limits
    from simtune.machines.load import load_machine
    from simtune.measure.parse import parse_target
    from simtune.measure.top import top_count
    from simtune.records.database import default_store_path
    from simtune.tuning.workloads import parse

    # Cheap checks first: a typing error must not wait for TVM's import.
    executor.check()
    parse_target(target)
    if measure_top is not None:
        top_count(measure_top, trials)
    parsed, loaded = parse(workload), load_machine(machine)
    if predictor is not None:
        from simtune.predictors.storage import load_predictor

        load_predictor(predictor, loaded)
    store_path = records or default_store_path()
    store_path.parent.mkdir(parents=True, exist_ok=True)
    with (
        executor.elsewhere() as elsewhere,
        make_observer(parsed.name, loaded.name, quiet=as_json) as observer,
    ):
        from simtune.tuning.tune import Search, tune

        result = tune(
            parsed,
            loaded,
            trials,
            records=store_path,
            simulator=simulator,
            predictor=predictor,
            objective=objective,
            seed=seed,
            search=Search(batch=batch, threads=search_threads),
            jobs=executor.jobs,
            executor=elsewhere,
            limits=Limits(wall_s=timeout, cpu_s=timeout),
            count=models_from(models, simulator, optional),
            warmup=warmup,
            straggler_factor=straggler or None,
            work_dir=work_dir,
            fresh=fresh,
            measure_top=measure_top,
            target=target,
            observer=observer,
        )
    folder = work_dir or Path("simtune-runs") / result.run
    page = _report(store_path, result.run, folder, loaded) if report else None
    if as_json:
        emit_json(
            {
                "run": result.run,
                "workload": parsed.name,
                "machine": loaded.name,
                "trials": result.trials,
                "failures": result.failures,
                "resumed": result.resumed,
                "objective": objective,
                "unit": "s" if objective == "latency" else None,
                "gain": result.gain,
                "best": _brief(result.best),
                "reference": _brief(result.reference),
                "measured_on": target if result.measured else None,
                "measured": [_brief(trial) for trial in result.measured],
                "timings": result.timings,
                "records": store_path,
                "report": page,
            }
        )
    else:
        _print(result, objective, store_path, page)
    sys.exit(0 if result.best is not None else 1)


def _brief(trial: Any) -> dict[str, Any] | None:
    if trial is None:
        return None
    values = asdict(trial)
    del values["trace_json"]
    return values


def _print(result: Any, objective: str, store_path: Path, page: Path | None) -> None:
    form = seconds if objective == "latency" else "{:,.6g}".format
    what = "predicted time" if objective == "latency" else objective

    def text(trial: Any) -> str:
        measured = f"measured {seconds(trial.measured_s)}, " if trial in result.measured else ""
        return f"{measured}{what} {form(trial.value)}"

    if result.reference is not None and result.reference.value is not None:
        click.echo(f"TVM's default schedule  {text(result.reference)}")
    if result.best is None:
        click.echo(f"no candidate succeeded; see 'simtune records show {result.run} --records {store_path}'")
    else:
        gain = ""
        if result.gain:
            better = result.gain >= 1
            gain = f", {result.gain:.2f} times better" if better else f", {1 / result.gain:.2f} times worse"
        click.echo(f"best schedule           {text(result.best)}{gain} (trial {result.best.index})")
    resumed = f", {result.resumed} of them from before" if result.resumed else ""
    click.echo(f"{result.trials} trials{resumed}, {result.failures} failed; run {result.run} in {store_path}")
    if page is not None:
        click.echo(f"report: {page}")


def _report(store_path: Path, run: str, folder: Path, machine: Machine) -> Path | None:
    """The report is a by-product: a failure must not hide the result of the tuning."""
    from simtune.records.store import RecordStore
    from simtune.report import write_report

    try:
        with RecordStore(store_path) as store:
            return write_report(store, run, folder / "report.html", machine=machine)
    except (SimtuneError, OSError) as error:
        click.echo(f"no report written: {error}", err=True)
        return None
