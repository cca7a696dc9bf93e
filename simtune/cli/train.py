# SPDX-License-Identifier: Apache-2.0
"""`simtune train`: learn a predictor from simulated candidates with native times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from simtune.cli.output import count, emit_json, json_option
from simtune.cli.stored import records_option

F = TypeVar("F", bound=Callable[..., Any])


def dataset_options(function: F) -> F:
    """Adds ``--records`` and the options that choose what of them is learned from."""
    function = click.option(
        "--replacement",
        metavar="POLICY",
        help="Only counts of caches that replace so: lru, pseudo-random (Spike), or any to mix them.",
    )(function)
    function = click.option(
        "--workloads",
        default="*",
        show_default=True,
        metavar="PATTERN",
        help="Only workloads with such a name: a model per kernel type.",
    )(function)
    function = click.option(
        "--target", help="Where times were measured, if the store has several: host, ssh:HOST, …"
    )(function)
    return records_option(function)


def normalise_option(function: F) -> F:
    """Adds ``--normalise``, what features and times are relative to."""
    option = click.option(
        "--normalise",
        type=click.Choice(["group", "reference"]),
        default="group",
        show_default=True,
        help="Learn relative to the mean of a workload, or to TVM's default schedule.",
    )
    return option(function)


def features_option(function: F) -> F:
    """Adds ``--features`` as `optional`: features beside those of the simulator's own counters."""
    option = click.option(
        "--features",
        "optional",
        multiple=True,
        type=click.Choice(["mca"]),
        help="Features beside those of the counters: llvm-mca's estimate of the hot blocks.",
    )
    return option(function)


@click.command()
@dataset_options
@click.option(
    "--machine",
    "-m",
    "machines",
    multiple=True,
    required=True,
    help="Machine of the simulations; several for one pooled model.",
)
@click.option("--model", default="ensemble", show_default=True, help="Model family; 'list' shows all.")
@normalise_option
@features_option
@click.option("--seed", default=0, show_default=True, help="Seed of the families that draw.")
@click.option(
    "-o", "out", type=click.Path(path_type=Path, dir_okay=False), help="The predictor file to write."
)
@json_option
def command(
    records: Path,
    target: str | None,
    workloads: str,
    replacement: str | None,
    machines: tuple[str, ...],
    model: str,
    normalise: str,
    optional: tuple[str, ...],
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Learn a predictor of run times from records: native ones, or those of the simulated VTA.

    Use it with 'simtune tune --predictor FILE', or in Python as
    simtune.SimulatorRunner(machine, predictor=FILE). How well it does on workloads that it has
    never seen is what 'simtune evaluate' measures.

    \b
    Example:
      simtune train --records records.db --machine host --model xgb -o host.predictor
      simtune train --records records.db --machine vta-pynq -o vta.predictor
    """
    from simtune.predictors.families import FAMILIES

    if model == "list":
        emit_json(FAMILIES) if as_json else click.echo(
            "\n".join(f"{name:16} {text}" for name, text in FAMILIES.items())
        )
        return
    if out is None:
        raise click.UsageError("Missing option '-o'.")
    from simtune.dataset import load_dataset
    from simtune.inputs import load_machines
    from simtune.predictors.storage import save_predictor
    from simtune.predictors.trained import train
    from simtune.records.store import open_existing

    loaded = load_machines(machines)
    with open_existing(records) as store:
        data = load_dataset(store, loaded, target, workloads, replacement)
    predictor = train(
        data.groups, model, target=data.target, seed=seed, normalise=normalise, optional=optional
    )
    save_predictor(predictor, out)
    card = predictor.card
    model_of_cycles = predictor.inputs.cycle_model
    if as_json:
        emit_json(
            {
                "predictor": out,
                "model": model,
                "machines": list(card.machines),
                "target": card.target,
                "base": "pipeline_cycles" if card.pipeline else model_of_cycles,
                "normalise": normalise,
                "features": card.optional,
                "scale": card.scale,
                "workloads": card.workloads,
                "skipped": data.skipped,
            }
        )
        return
    click.echo(
        f"{model} for {', '.join(card.machines)}, times of {card.target}: learned from "
        f"{count(sum(card.workloads.values()))} candidates of {len(card.workloads)} workloads"
    )
    base = "the pipeline scoreboard" if card.pipeline else f"the {model_of_cycles} model"
    click.echo(f"times are {card.scale:.3g} times what {base} says, in the mean")
    for reason, number in data.skipped.items():
        click.echo(f"{count(number)} left out: {reason}")
    click.echo(f"written to {out}")
