# SPDX-License-Identifier: Apache-2.0
"""`simtune machines`: list, show and check the machines that can be predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simtune.cli.output import emit_json, json_option
from simtune.errors import MachineFileError
from simtune.machines.host import detect_host
from simtune.machines.load import BUILT_IN, HOST, find_machine, list_machines, load_machine
from simtune.machines.model import Machine


@click.group("machines")
def command() -> None:
    """List, show and check the machines that can be predicted.

    \b
    Example:
      simtune machines list
      simtune machines show sifive-u74
      simtune machines check my-board.toml
    """


@command.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """List the machines, built in and from the folders of $SIMTUNE_MACHINES.

    \b
    Example: SIMTUNE_MACHINES=~/boards simtune machines list
    """
    rows = [_summary(name, path) for name, path in list_machines().items()]
    rows.append(_host_summary())
    if as_json:
        emit_json({"machines": rows})
        return
    table = _table("machine", "isa", "description")
    for row in rows:
        problem = f"[red]{escape(row['error'])}[/red]" if "error" in row else ""
        origin = f" [dim]({escape(row['file'])})[/dim]" if _is_user_file(row["file"]) else ""
        table.add_row(escape(row["name"]), row["isa"], (problem or escape(row["description"])) + origin)
    Console().print(table)


@command.command("show")
@click.argument("machine")
@click.option("--raw", is_flag=True, help="Print the file itself, with the source of each number.")
@json_option
def show(machine: str, raw: bool, as_json: bool) -> None:
    """Show caches, timings and target of a machine: a name, the path of a file, or "host".

    \b
    Example: simtune machines show cortex-a72
    """
    if raw:
        if machine == HOST:
            raise MachineFileError("machine 'host' has no file", "leave out --raw")
        path = find_machine(machine)
        text = path.read_text(encoding="utf-8", errors="replace")
        if as_json:
            emit_json({"file": str(path), "text": text})
        else:
            click.echo(text, nl=False)
        return
    notes: tuple[str, ...] = ()
    if machine == HOST:
        host = detect_host()
        loaded, notes = host.machine, host.notes
    else:
        loaded = load_machine(machine)
    if as_json:
        emit_json({**loaded.as_dict(), "digest": loaded.digest(), "notes": notes})
        return
    _print(loaded, notes)
    if machine != HOST:
        Console().print(f"[dim]Sources of the numbers: simtune machines show {escape(machine)} --raw[/dim]")


@command.command("check")
@click.argument("path")
@json_option
def check(path: str, as_json: bool) -> None:
    """Check a machine file; the exit status is 2 and the message names the key if it is wrong.

    \b
    Example: simtune machines check my-board.toml
    """
    machine = load_machine(Path(path).absolute())
    if as_json:
        emit_json({"valid": True, "name": machine.name, "digest": machine.digest()})
    else:
        click.echo(f"{path}: valid, machine '{machine.name}', digest {machine.digest()}")


def _summary(name: str, path: Path) -> dict[str, Any]:
    """One row; a broken user file is shown as such and does not hide the others."""
    row: dict[str, Any] = {"name": name, "file": str(path), "isa": "", "description": ""}
    try:
        machine = load_machine(path)
    except MachineFileError as error:
        return {**row, "error": error.what}
    return {**row, "isa": machine.isa.name, "description": machine.description}


def _host_summary() -> dict[str, Any]:
    row: dict[str, Any] = {"name": HOST, "file": None, "isa": "", "description": ""}
    try:
        machine = detect_host().machine
    except MachineFileError as error:
        return {**row, "error": error.what}
    return {**row, "isa": machine.isa.name, "description": machine.description}


def _is_user_file(file: str | None) -> bool:
    return file is not None and Path(file).parent != BUILT_IN


def _print(machine: Machine, notes: tuple[str, ...]) -> None:
    console = Console()
    console.print(f"[bold]{escape(machine.name)}[/bold]: {escape(machine.description)}")
    for note in notes:
        console.print(f"[dim]{escape(note)}[/dim]")
    console.print(_core(machine), _caches(machine), _classes(machine))
    if machine.energy_pj:
        console.print(_energy(machine))


def _core(machine: Machine) -> Table:
    pipeline, isa = machine.pipeline, machine.isa
    table = _table("core", "")
    vector = f", RVV registers of {isa.vlen} bits" if isa.vlen else ""
    table.add_row("isa", escape(f"{isa.name} ({' '.join(isa.extensions)}){vector}"))
    table.add_row("clock", f"{machine.clock_hz / 1e9:g} GHz")
    window = f", reorder buffer {pipeline.rob}" if pipeline.rob else ""
    table.add_row("pipeline", f"{pipeline.kind}, {pipeline.issue_width} per cycle{window}")
    table.add_row("ports", escape(" ".join(pipeline.ports)))
    predictor = machine.branch_predictor
    shape = "" if predictor.kind == "none" else f" (2^{predictor.table_bits} counters)"
    table.add_row("mispredict", f"{pipeline.mispredict_penalty} cycles; predictor {predictor.kind}{shape}")
    prefetcher = machine.prefetcher
    reach = "" if prefetcher.kind == "none" else f", {prefetcher.streams} streams"
    table.add_row("prefetcher", f"{prefetcher.kind}{reach}")
    target = " ".join(
        f"{key}={','.join(value) if isinstance(value, list) else value}"
        for key, value in machine.target.items()
    )
    table.add_row("target", escape(target))
    table.add_row("digest", machine.digest())
    return table


def _caches(machine: Machine) -> Table:
    table = _table("cache", "size*", "ways*", "sets*", "line*", "latency*", "line every*")
    for level, cache in machine.caches.items():
        table.add_row(
            level,
            _bytes(cache.size),
            str(cache.ways),
            str(cache.sets),
            str(cache.line),
            f"{cache.latency} cycles",
            f"{cache.line_interval:g} cycles",
        )
    memory = machine.memory
    table.add_row("memory", "", "", "", "", f"{memory.latency_ns:g} ns", f"{memory.line_interval_ns:g} ns")
    return table


def _classes(machine: Machine) -> Table:
    table = _table("instruction class", "latency*", "busy*", "ports")
    for name, timing in machine.pipeline.classes.items():
        table.add_row(name, str(timing.latency), str(timing.busy), escape(" ".join(timing.ports)))
    return table


def _energy(machine: Machine) -> Table:
    table = _table("counter", "energy per event*")
    for name, picojoules in machine.energy_pj.items():
        table.add_row(name, f"{picojoules:g} pJ")
    return table


def _table(*columns: str) -> Table:
    """A plain table; a star marks a right-aligned column."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column.rstrip("*"), justify="right" if column.endswith("*") else "left")
    return table


def _bytes(size: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:g} {unit}"
    return f"{size} B"
