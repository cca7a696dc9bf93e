# SPDX-License-Identifier: Apache-2.0
"""`simtune compare`: one file in several simulators, counters side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simtune.build.elf import Elf
from simtune.cli import simulate as one
from simtune.cli.counting import timeout_option
from simtune.cli.output import count, emit_json, json_option, seconds
from simtune.errors import ConfigurationError
from simtune.jobs import Limits, Outcome
from simtune.machines.model import Machine


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--machine", "-m", required=True, help="Machine name, path of a machine file, or 'host'.")
@click.option(
    "--simulators",
    "-s",
    required=True,
    help="Names with commas between them, the one to compare with first; 'all' takes what works here.",
)
@click.option("--args", "signature", help="Tensors of an object, as for 'simtune simulate'.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the inputs.")
@timeout_option("Seconds of wall time per simulator.", 300.0)
@json_option
def command(
    file: Path,
    arguments: tuple[str, ...],
    machine: str,
    simulators: str,
    signature: str | None,
    seed: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Run FILE in several simulators and put their counters side by side.

    Counters that differ are explained where the reason is known: replacement, start-up, what a
    simulator counts. Exits with 0 when all ran, with 1 when one failed.

    \b
    Example:
      simtune compare candidate.o --machine sifive-u74 --simulators qemu,spike,gem5
      simtune compare candidate.o --machine x86-64-v3 --simulators all
    """
    from simtune.machines.load import load_machine
    from simtune.simulators.explain import explain

    loaded = load_machine(machine)
    names = _names(simulators, loaded)
    limits = Limits(wall_s=timeout, cpu_s=timeout)
    outcomes = {name: _run(file, loaded, arguments, signature, seed, name, limits) for name in names}
    reasons = explain({name: o.counters for name, o in outcomes.items() if o.counters is not None}, loaded)
    if as_json:
        emit_json(
            {
                "machine": loaded.name,
                "simulators": {name: _as_dict(outcome) for name, outcome in outcomes.items()},
                "explained": reasons,
            }
        )
    else:
        _print(outcomes, reasons, loaded)
    sys.exit(0 if all(outcome.ok for outcome in outcomes.values()) else 1)


def _names(text: str, machine: Machine) -> list[str]:
    from simtune.simulators.base import get_simulator, simulator_names

    if text == "all":
        known = [name for name in simulator_names() if name not in ("replay", "native")]
        found = [name for name in known if get_simulator(name).probe(machine).available]
        # The one that the others are compared with.
        found.sort(key=lambda name: name != "qemu")
    else:
        found = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise ConfigurationError(f"no simulator to run for {machine.name}", "see 'simtune doctor'")
    for name in found:
        capability = get_simulator(name).probe(machine)
        if not capability.available:
            raise ConfigurationError(f"simulator {name}: {capability.reason}", capability.fix)
    return found


def _run(
    file: Path,
    machine: Machine,
    arguments: tuple[str, ...],
    signature: str | None,
    seed: int,
    simulator: str,
    limits: Limits,
) -> Outcome:
    elf = Elf.read(file) if one.starts_like_elf(file) else None
    if elf is not None and elf.is_executable:
        if signature is not None:
            raise ConfigurationError(f"{file} is an executable, --args is for objects", "leave it out")
        return one.run_executable(file, elf, machine, arguments, simulator, limits, ())
    if arguments:
        raise ConfigurationError(f"{file} is no executable and takes no arguments", "use --args")
    inputs = one.Inputs(one.parse_signature(signature), None, 1e-3, 1e-4, seed, False, 0)
    return one.run_object(file, machine, inputs, simulator, limits, ())


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    counters = outcome.counters
    return {
        "status": str(outcome.status),
        "error": outcome.error,
        "simulator": counters.simulator if counters else None,
        "replacement": counters.replacement if counters else None,
        "counters": dict(counters) if counters else None,
        "wall_s": outcome.wall_s,
        "cpu_s": outcome.cpu_s,
        "peak_rss": outcome.peak_rss,
    }


def _print(outcomes: dict[str, Outcome], reasons: dict[str, dict[str, str]], machine: Machine) -> None:
    console = Console()
    names = list(outcomes)
    first = outcomes[names[0]].counters
    table = Table(title=f"{machine.name}, difference from {names[0]} in brackets", title_justify="left")
    table.add_column("counter")
    for name in names:
        table.add_column(name, justify="right")
    present = dict.fromkeys(n for o in outcomes.values() if o.counters for n in o.counters)
    for counter in present:
        values = [o.counters.get(counter) if o.counters else None for o in outcomes.values()]
        if any(values):
            cells = [_cell(value, first.get(counter) if first else None) for value in values]
            table.add_row(counter, *cells)
    table.add_section()
    table.add_row("CPU time", *[seconds(outcome.cpu_s) for outcome in outcomes.values()])
    table.add_row("memory", *[f"{outcome.peak_rss / 2**20:.0f} MiB" for outcome in outcomes.values()])
    console.print(table)
    for name, outcome in outcomes.items():
        if not outcome.ok:
            click.echo(f"{name}: {outcome.status} in {outcome.stage}: {outcome.error}", err=True)
    for name, texts in reasons.items():
        for counter, text in texts.items():
            console.print(f"{name} [bold]{escape(counter)}[/]: {escape(text)}", soft_wrap=True)


def _cell(value: float | None, reference: float | None) -> str:
    if value is None:
        return "-"
    if reference is None or value == reference:
        return count(value)
    from simtune.simulators.explain import change

    return f"{count(value)} ({change(value, reference) if reference else f'{value - reference:+,.0f}'})"
