# SPDX-License-Identifier: Apache-2.0
"""`simtune evaluate`: how well predictors rank what they have never seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from simtune.cli.output import count, emit_json, json_option
from simtune.cli.records import _print, _table
from simtune.cli.train import dataset_options, normalise_option
from simtune.metrics import METRICS, Interval, Summary

if TYPE_CHECKING:
    from simtune.crossvalidate import Evaluation

#: What fits a terminal; `--json` has all.
_SHOWN = ("R_top1", "E_top1", "E_top1_resampled", "E_top3", "tau_b", "pairwise")


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
@click.option("--resamples", default=200, show_default=True, help="Of the bootstrap; 0 gives no intervals.")
@click.option("--seed", default=0, show_default=True, help="Seed of splits, models and bootstrap.")
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
    resamples: int,
    seed: int,
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
    from simtune.crossvalidate import evaluate
    from simtune.dataset import load_dataset
    from simtune.machines.load import load_machine
    from simtune.records.store import open_existing

    console = Console(stderr=True)
    with open_existing(records) as store:
        names = machines or tuple(dict.fromkeys(run.machine for run in store.runs()))
        loaded = [load_machine(name) for name in names]
        data = load_dataset(store, loaded, target, workloads, replacement)
    with console.status("") as status:
        result = evaluate(
            data,
            models,
            split=split,
            window=window,
            normalise=normalise,
            seed=seed,
            resamples=resamples,
            progress=lambda model: status.update(f"training and testing {model}"),
        )
    figures = _plots(result, data, plots) if plots else []
    if as_json:
        emit_json(
            {
                "records": records,
                "target": data.target,
                "split": split,
                "window": window or normalise,
                "normalise": normalise,
                "seed": seed,
                "candidates": {label: len(group) for label, group in result.groups.items()},
                "models": {name: _plain(summary) for name, summary in result.summaries.items()},
                "noise_ceiling": _plain(result.ceiling) if result.ceiling else None,
                "unavailable": result.unavailable,
                "skipped": data.skipped,
                "plots": figures,
            }
        )
        return
    _print_tables(result)
    for name, reason in result.unavailable.items():
        click.echo(f"{name} left out: {reason.splitlines()[0]}")
    for reason, number in data.skipped.items():
        click.echo(f"{count(number)} left out: {reason}")
    if plots:
        click.echo(f"{len(figures)} figures written to {plots}")


def _plots(result: Evaluation, data: Any, folder: Path) -> list[Path]:
    from simtune.report.accuracy import write_figures

    return write_figures(result, data, folder)


def _plain(summary: Summary) -> dict[str, Any]:
    """For JSON, where there is no NaN: null."""

    def interval(figure: Interval) -> list[float | None]:
        return [_known(figure.value), _known(figure.low), _known(figure.high)]

    def table(figures: Mapping[str, Interval]) -> dict[str, Any]:
        return {metric: interval(figure) for metric, figure in figures.items()}

    return {
        "mean": table(summary.mean),
        "worst": {metric: _known(value) for metric, value in summary.worst.items()},
        "workloads": {label: table(figures) for label, figures in summary.workloads.items()},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _print_tables(result: Evaluation) -> None:
    table = _table(
        "model", *(f"{metric}*" for metric in _SHOWN), title="mean [95 % interval] / worst workload"
    )
    rows = dict(result.summaries)
    if result.ceiling:
        rows["noise ceiling"] = result.ceiling
    for name, summary in rows.items():
        if name == "noise ceiling":
            table.add_section()
        cells = [_cell(metric, summary.mean[metric], summary.worst[metric]) for metric in _SHOWN]
        table.add_row(name, *cells)
    _print(table)
    best = max(
        (name for name in result.summaries),
        key=lambda name: _order(result.summaries[name].mean["tau_b"].value),
    )
    _print(_workload_table(best, result))


def _workload_table(model: str, result: Evaluation) -> Table:
    """The workloads of one model, each with its own ceiling."""
    title = f"workloads, model {model} (tau_b / that of a second measurement)"
    table = _table("workload", "candidates*", *(f"{metric}*" for metric in _SHOWN), title=title)
    for label, figures in result.summaries[model].workloads.items():
        cells = [_cell(metric, figures[metric]) for metric in _SHOWN]
        limit = result.ceiling.workloads.get(label) if result.ceiling else None
        if limit:
            cells[_SHOWN.index("tau_b")] += f" / {_number('tau_b', limit['tau_b'].value)}"
        table.add_row(label, count(len(result.groups[label])), *cells)
    return table


def _cell(metric: str, figure: Interval, worst: float | None = None) -> str:
    text = _number(metric, figure.value)
    if not math.isnan(figure.low):
        text += f" \\[{_number(metric, figure.low)}, {_number(metric, figure.high)}]"
    return text if worst is None else f"{text} / {_number(metric, worst)}"


def _number(metric: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    whole = metric in METRICS and metric not in ("tau_b", "spearman", "ndcg")  # in %
    return f"{value:.1f}" if whole else f"{value:.3f}"


def _order(value: float) -> float:
    return -math.inf if math.isnan(value) else value
