# SPDX-License-Identifier: Apache-2.0
"""`simtune evaluate`: how well predictors rank what they have never seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from simtune.cli.output import count, emit_json, json_option
from simtune.cli.train import dataset_options, features_option, normalise_option

if TYPE_CHECKING:
    from simtune.crossvalidate import Evaluation


@click.command()
@dataset_options
@click.option("--machine", "-m", "machines", multiple=True, help="Machine  [default: all in the store]")
@click.option(
    "--split",
    type=click.Choice(["leave-workload-out", "within"]),
    default="leave-workload-out",
    show_default=True,
    help="Test on whole workloads left out of training, or on candidates left out.",
)
@click.option("--model", "models", multiple=True, help="Model family or baseline  [default: all]")
@click.option(
    "--window",
    help="Means of a test workload over: group (all its candidates), dynamic (those so far), static:W, "
    "reference  [default: as --normalise]",
)
@normalise_option
@features_option
@click.option("--resamples", default=200, show_default=True, help="Of the bootstrap; 0 gives no intervals.")
@click.option("--seed", default=0, show_default=True, help="Seed of splits, models and bootstrap.")
@click.option("--jobs", "-j", type=click.IntRange(1), help="Models judged at once  [default: all cores]")
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Folder for figures (PNG).")
@json_option
def command(
    records: Path,
    target: str | None,
    workloads: str,
    replacement: str | None,
    machines: tuple[str, ...],
    split: str,
    models: tuple[str, ...],
    window: str | None,
    normalise: str,
    optional: tuple[str, ...],
    resamples: int,
    seed: int,
    jobs: int | None,
    plots: Path | None,
    as_json: bool,
) -> None:
    """Judge predictors by workloads, or candidates, that they were not trained on.

    Errors (R_top1, E_top1, E_top3) are in %: where the fastest candidate stands in the predicted
    order, and what is lost by taking the first prediction, or the best of the first 3 %. Figures are
    means over workloads with 95 % intervals, and the worst workload's after a slash. No predictor can
    beat the noise ceiling: a first measurement as predictor of a second.

    \b
    Example:
      simtune evaluate --records records.db --split leave-workload-out --plots plots
    """
    from simtune.cli.accuracy import plain, print_tables
    from simtune.crossvalidate import evaluate
    from simtune.dataset import load_dataset
    from simtune.execution.capacity import usable_cores
    from simtune.inputs import load_machines
    from simtune.records.store import open_existing

    console = Console(stderr=True)
    with open_existing(records) as store:
        names = machines or tuple(dict.fromkeys(run.machine for run in store.runs()))
        data = load_dataset(store, load_machines(names), target, workloads, replacement)
    with console.status("") as status:
        result = evaluate(
            data,
            models,
            split=split,
            window=window,
            normalise=normalise,
            optional=optional,
            seed=seed,
            resamples=resamples,
            # A process takes a second or two to start: not for a few models.
            jobs=jobs or (usable_cores() if not models or len(models) > 4 else 1),
            progress=lambda model: status.update(f"training and testing {model}"),
        )
    figures = _plots(result, data, plots, optional) if plots else []
    if as_json:
        emit_json(
            {
                "records": records,
                "target": data.target,
                "split": split,
                "window": window or normalise,
                "normalise": normalise,
                "features": optional,
                "seed": seed,
                "candidates": {label: len(group) for label, group in result.groups.items()},
                "models": {name: plain(summary) for name, summary in result.summaries.items()},
                "noise_ceiling": plain(result.ceiling) if result.ceiling else None,
                "unavailable": result.unavailable,
                "skipped": data.skipped,
                "plots": figures,
            }
        )
        return
    print_tables(result)
    for name, reason in result.unavailable.items():
        click.echo(f"{name} left out: {reason.splitlines()[0]}")
    for reason, number in data.skipped.items():
        click.echo(f"{count(number)} left out: {reason}")
    if plots:
        click.echo(f"{len(figures)} figures written to {plots}")


def _plots(result: Evaluation, data: Any, folder: Path, optional: tuple[str, ...]) -> list[Path]:
    from simtune.report.accuracy import write_figures

    return write_figures(result, data, folder, optional)
