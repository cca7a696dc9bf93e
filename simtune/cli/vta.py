# SPDX-License-Identifier: Apache-2.0
"""`simtune vta`: the accelerator's layers, machines, spaces, and single programs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from simtune.cli.output import count as count_text
from simtune.cli.output import emit_json, json_option, seconds
from simtune.errors import ConfigurationError, SimtuneError

if TYPE_CHECKING:
    from simtune.templates.space import Space
    from simtune.vta.backend import Backend, Result

_MACHINE = click.option(
    "--machine",
    "-m",
    default="vta-pynq",
    show_default=True,
    help="A VTA machine ('simtune vta machines'), or the path of its file.",
)
_CONFIG = click.option(
    "--config",
    "-c",
    "config",
    multiple=True,
    required=True,
    help="tile_h=8,tile_w=56,...; knobs left out are 1. Or the number of a point. May be repeated.",
)


@click.group("vta")
def command() -> None:
    """Layers, machines, spaces and programs of the Versatile Tensor Accelerator.

    \b
    Example:
      simtune vta layers
      simtune vta space resnet18.c2 --plot map.png
      simtune vta simulate resnet18.c2 -c tile_h=8,tile_w=56,tile_co=2,oc_nthread=2 --gantt gantt.png
    """


@command.command()
@json_option
def layers(as_json: bool) -> None:
    """List the layers that have a name, with the size of their template's space.

    Others are written as forms: conv2d:h=56,w=56,ci=64,co=64,k=3,stride=1,pad=1 or dense:n=1,ci=256,co=128.

    \b
    Example: simtune vta layers
    """
    from simtune.vta import load_machine, space
    from simtune.vta.layers import LAYERS

    machine = load_machine("vta-pynq")
    rows: list[dict[str, Any]] = [
        {"name": layer.name, "form": layer.form, "macs": layer.macs, "space": space(layer, machine).size}
        for layer in LAYERS.values()
    ]
    if as_json:
        emit_json({"layers": rows})
        return
    table = _table("layer", "MACs*", "space*", "n", "h x w", "ci", "co", "kernel", "stride", "pad")
    for layer, row in zip(LAYERS.values(), rows, strict=True):
        table.add_row(
            layer.name,
            f"{layer.macs / 1e6:.1f}M",
            f"{row['space']:,}",
            str(layer.n),
            f"{layer.h} x {layer.w}",
            str(layer.ci),
            str(layer.co),
            f"{layer.kh} x {layer.kw}",
            str(layer.stride),
            f"{layer.ph}",
        )
    Console().print(table)


@command.command()
@click.argument("name", required=False)
@json_option
def machines(name: str | None, as_json: bool) -> None:
    """List the VTA machines, or show one: a NAME, or the path of a file.

    \b
    Example: simtune vta machines vta-pynq
    """
    from simtune.vta.hwspec import list_machines, load_machine

    if name is not None:
        machine = load_machine(name)
        content = {**machine.as_dict(), "digest": machine.digest(), "config": machine.hardware.config_string}
        if as_json:
            emit_json(content)
            return
        table = _table("key", "value")
        for key, value in content.items():
            for inner, item in value.items() if isinstance(value, dict) else ((None, value),):
                table.add_row(f"{key}.{inner}" if inner else key, escape(_plain(item)))
        Console().print(table)
        return
    found = [load_machine(path) for path in list_machines().values()]
    if as_json:
        rows = [
            {"name": m.name, "description": m.description, "config": m.hardware.config_string} for m in found
        ]
        emit_json({"machines": rows})
        return
    table = _table("machine", "hardware", "clock*", "description")
    for machine in found:
        clock = f"{machine.clock_hz / 1e6:g} MHz"
        table.add_row(machine.name, machine.hardware.config_string, clock, escape(machine.description))
    Console().print(table)


@command.command()
@click.argument("layer")
@_MACHINE
@click.option("--plot", type=click.Path(path_type=Path), help="Write the map of the space to this PNG.")
@json_option
def space(layer: str, machine: str, plot: Path | None, as_json: bool) -> None:
    """Show the size of a layer's space, how much of it is valid, and why the rest is not.

    \b
    Example: simtune vta space resnet18.c2 --plot map.png
    """
    from simtune.vta import load_layer, load_machine, validity
    from simtune.vta import space as space_of
    from simtune.vta.codes import REASONS

    loaded, target = load_layer(layer), load_machine(machine)
    points = space_of(loaded, target)
    codes = validity.check_all(loaded, target)
    counts = Counter(codes)
    valid = counts.pop("", 0)
    clusters = _clusters(points, codes)
    if plot is not None:
        from simtune.report.style import to_png
        from simtune.vta.plots import space_map

        title = f"{loaded.name} on {target.name}: {valid:,} of {points.size:,} points are valid"
        plot.write_bytes(to_png(space_map(points, codes, title)))
    knobs = {knob.name: knob.values for knob in points.knobs}
    if as_json:
        emit_json(
            {
                "layer": loaded.name,
                "form": loaded.form,
                "machine": target.name,
                "size": points.size,
                "valid": valid,
                "valid_share": valid / points.size,
                "reasons": {code: counts[code] for code in REASONS if counts[code]},
                "clusters": clusters,
                "knobs": knobs,
            }
        )
        return
    console = Console(highlight=False)
    console.print(f"[bold]{escape(loaded.name)}[/bold] ({loaded.form.partition(':')[2]}) on {target.name}")
    for name, values in knobs.items():
        console.print(f"  {name}: {', '.join(map(str, values))}")
    share = valid / points.size
    console.print(f"{points.size:,} points, {valid:,} valid ({share:.1%})", end="")
    sizes = ", ".join(f"{size:,}" for size in clusters[:8]) + (", ..." if len(clusters) > 8 else "")
    groups = "one cluster" if len(clusters) == 1 else f"{len(clusters)} clusters"
    console.print(f" in {groups} of neighbours: {sizes}" if clusters else "")
    table = _table("reason", "points*", "share*", "fails in", "meaning")
    for code in REASONS:
        if counts[code]:
            reason = REASONS[code]
            part = f"{counts[code] / points.size:.1%}"
            table.add_row(code, f"{counts[code]:,}", part, reason.stage, reason.meaning)
    console.print(table)
    if plot is not None:
        console.print(f"map: {escape(str(plot))}")


@command.command()
@click.argument("layer")
@_MACHINE
@_CONFIG
@json_option
def disasm(layer: str, machine: str, config: tuple[str, ...], as_json: bool) -> None:
    """Print the instructions of a configuration.

    \b
    Example: simtune vta disasm resnet18.c2 -c tile_h=8,tile_w=56,tile_co=2,oc_nthread=2
    """
    backend = _backend(layer, machine)
    program = backend.program(parse_config(config, backend.space))
    lines = program.text(backend.machine)
    if as_json:
        rows = [
            {"text": line, "words": [f"{int(low):016x}", f"{int(high):016x}"]}
            for line, (low, high) in zip(lines, program.insns, strict=True)
        ]
        emit_json({"instructions": rows, "uops": [f"{int(uop):08x}" for uop in program.uops]})
        return
    for number, line in enumerate(lines):
        click.echo(f"{number:6d}  {line}")


@command.command()
@click.argument("layer")
@_MACHINE
@_CONFIG
@click.option(
    "--seed", type=click.IntRange(0, 1 << 31), default=0, show_default=True, help="Of the operands."
)
@click.option("--gantt", type=click.Path(path_type=Path), help="Write the schedule to this PNG.")
@json_option
def simulate(
    layer: str, machine: str, config: tuple[str, ...], seed: int, gantt: Path | None, as_json: bool
) -> None:
    """Compile, run, check and time one configuration; exits with 1 when it is not valid.

    \b
    Example:
      simtune vta simulate resnet18.c2 -c tile_h=8,tile_w=56,tile_co=2,oc_nthread=2 --gantt gantt.png
      simtune vta simulate resnet18.c2 -c 1410
    """
    simulate_config(layer, machine, config, seed=seed, gantt=gantt, as_json=as_json)


def simulate_config(
    layer: str, machine: str, config: Sequence[str], *, seed: int, gantt: Path | None, as_json: bool
) -> None:
    """What `simtune vta simulate` and `simtune simulate vta:...` share."""
    backend = _backend(layer, machine, seed)
    chosen = parse_config(config, backend.space)
    result = backend.evaluate([chosen])[0]
    if gantt is not None and result.ok:
        from simtune.report.style import to_png
        from simtune.vta.plots import gantt as draw

        program = backend.program(chosen)
        timeline = backend.timeline(program)
        knobs = " ".join(f"{name}={value}" for name, value in chosen.items() if value > 1) or "all knobs 1"
        title = f"{backend.layer.name} on {backend.machine.name}, {knobs}: {timeline.cycles:,} cycles"
        gantt.write_bytes(to_png(draw(program.text(backend.machine), timeline, title)))
    if as_json:
        emit_json(_as_dict(backend, chosen, result))
    else:
        _print(backend, chosen, result)
        if gantt is not None and result.ok:
            click.echo(f"schedule: {gantt}")
    sys.exit(0 if result.ok else 1)


def parse_config(texts: Sequence[str], space: Space) -> dict[str, int]:
    """A configuration from ``knob=value`` items, which commas may join, or the number of a point.

    Raises:
        ConfigurationError: an item is none of these, or the space has no such point.
    """
    items = [item.strip() for text in texts for item in text.split(",") if item.strip()]
    if len(items) == 1 and items[0].isascii() and items[0].isdigit():
        return space.config(int(items[0]))
    config = {knob.name: 1 for knob in space.knobs}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not value.isascii() or not value.isdigit():
            raise ConfigurationError(
                f"'{item}' is no setting of a knob",
                "write knob=value, such as tile_h=8, or the number of a point",
            )
        config[name] = int(value)
    return space.config(space.index(config))


def _backend(layer: str, machine: str, seed: int = 0) -> Backend:
    from simtune.vta import Backend, load_layer, load_machine
    from simtune.vta.hwspec import is_machine_name

    if not is_machine_name(machine) and not machine.endswith(".toml"):
        raise ConfigurationError(
            f"'{machine}' is no VTA machine", "see 'simtune vta machines', such as --machine vta-pynq"
        )
    return Backend(load_layer(layer), load_machine(machine), seed=seed)


def _clusters(points: Space, codes: list[str]) -> list[int]:
    """Sizes of the groups of valid points that are neighbours, largest first."""
    left = {index for index, code in enumerate(codes) if not code}
    sizes = []
    while left:
        stack, size = [left.pop()], 0
        while stack:
            size += 1
            near = left.intersection(points.neighbours(stack.pop()))
            left -= near
            stack += near
        sizes.append(size)
    return sorted(sizes, reverse=True)


def _as_dict(backend: Backend, config: dict[str, int], result: Result) -> dict[str, Any]:
    return {
        "layer": backend.layer.name,
        "form": backend.layer.form,
        "machine": backend.machine.name,
        "machine_digest": backend.machine.digest(),
        "config": config,
        "point": backend.space.index(config),
        "status": result.status,
        "stage": result.stage,
        "code": result.code,
        "error": result.message,
        "cycles": result.cycles,
        "seconds": result.seconds,
        "counters": dict(result.counters) or None,
        "seed": backend.seed,
        "wall_s": result.wall_s,
    }


def _print(backend: Backend, config: dict[str, int], result: Result) -> None:
    from simtune.vta.codes import REASONS
    from simtune.vta.counters import SCHEMA

    knobs = " ".join(f"{name}={value}" for name, value in config.items())
    point = backend.space.index(config)
    if not result.ok:
        error = SimtuneError(
            f"{backend.layer.name} with {knobs}: {result.status} in {result.stage}: "
            f"{result.code}, {REASONS[result.code].meaning} ({result.message})",
            f"'simtune vta space {backend.layer.name}' shows what is valid",
        )
        click.echo(f"simtune: {error}", err=True)
        return
    click.echo(f"{backend.layer.name} on {backend.machine.name}, point {point}: {knobs}")
    table = _table("counter", "value*", "unit", "meaning")
    for name, value in result.counters.items():
        table.add_row(name, count_text(value), SCHEMA[name].unit, SCHEMA[name].meaning)
    Console().print(table)
    assert result.cycles is not None
    assert result.seconds is not None
    ideal = result.counters["gemm.uops"]
    click.echo("the output equals the reference, bit for bit")
    click.echo(
        f"{result.cycles:,} cycles ({ideal / result.cycles:.1%} of them at the GEMM's peak), "
        f"{seconds(result.seconds)} at {backend.machine.clock_hz / 1e6:g} MHz"
    )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(*columns: str) -> Table:
    """A plain table; a star marks a right-aligned column."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        right = column.endswith("*")
        table.add_column(
            column.rstrip("*"), justify="right" if right else "left", no_wrap=column == columns[0]
        )
    return table
