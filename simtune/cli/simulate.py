# SPDX-License-Identifier: Apache-2.0
"""`simtune simulate`: run one file and print what was counted."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from simtune.build.elf import Elf
from simtune.build.image import Tensor
from simtune.cli.counting import count_option, models_from, timeout_option, warmup_option
from simtune.cli.output import count as count_text
from simtune.cli.output import emit_json, json_option, seconds
from simtune.counters import SCHEMA
from simtune.errors import ConfigurationError, InputFileError
from simtune.jobs import Limits, Outcome, SimJob, Status
from simtune.machines.model import Machine


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--machine", "-m", required=True, help="Machine name, path of a machine file, or 'host'.")
@click.option(
    "--args",
    "signature",
    help="Tensors in argument order, the last one the output: "
    "float32:1x64x56x56,float32:64x64x3x3,...; for files that 'simtune' did not build.",
)
@click.option(
    "--expect",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the right output, raw; a different answer is a failure.",
)
@click.option("--rtol", default=1e-3, show_default=True, help="Relative tolerance of --expect.")
@click.option("--atol", default=1e-4, show_default=True, help="Absolute tolerance of --expect.")
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the inputs.")
@click.option("--constant", is_flag=True, help="Inputs whose elements are all the same.")
@warmup_option
@count_option
@timeout_option("Seconds of wall time, and of CPU time.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    default=2048.0,
    show_default=True,
    help="MiB that the simulation may use.",
)
@click.option(
    "--config", "-c", multiple=True, help="Knobs of a layer on VTA: tile_h=8,... or the number of a point."
)
@click.option("--max-instructions", type=click.IntRange(1), help="Cut off after so many instructions.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    arguments: tuple[str, ...],
    machine: str,
    signature: str | None,
    expect: Path | None,
    rtol: float,
    atol: float,
    simulator: str,
    seed: int,
    constant: bool,
    warmup: int,
    models: tuple[str, ...],
    timeout: float,
    memory: float,
    max_instructions: int | None,
    config: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run FILE (an object, a TVM tar, or a static executable) and print its counters.

    FILE may also be a layer on the accelerator VTA, such as vta:resnet18.c2, with --config.

    Exits with 0 when it ran and was right, with 1 when it failed, with 2 when it cannot be run.
    An executable that simtune linked is counted inside its marked region, any other one as a
    whole; ARGUMENTS are its command line, after '--'.

    \b
    Example:
      simtune simulate candidate.o --machine sifive-u74
      simtune simulate kernel.tar --machine cortex-a72 --args float32:64x64,float32:64x64,float32:64x64
      simtune simulate vta:resnet18.c2 --machine vta-pynq --config tile_h=8,tile_w=56,tile_co=2
    """
    if str(file).startswith(_VTA):
        _simulate_vta(context, str(file), machine, config, seed, as_json)
        return
    if config:
        raise ConfigurationError(f"{file} has no knobs for --config", "name a layer such as vta:resnet18.c2")
    from simtune.machines.load import load_machine

    loaded = load_machine(machine)
    models = models_from(models, simulator)
    limits = Limits(
        wall_s=timeout, cpu_s=timeout, memory_bytes=int(memory * 2**20), instructions=max_instructions
    )
    elf = Elf.read(file) if starts_like_elf(file) else None
    if elf is not None and elf.is_executable:
        _refuse_object_options(context, file)
        outcome = run_executable(file, elf, loaded, arguments, simulator, limits, models)
    else:
        if arguments:
            raise ConfigurationError(
                f"{file} is no executable and takes no arguments ({' '.join(arguments)})",
                "use --args for the tensors of an object",
            )
        inputs = Inputs(parse_signature(signature), expect, rtol, atol, seed, constant, warmup)
        outcome = run_object(file, loaded, inputs, simulator, limits, models)
    predicted = _predict(outcome, loaded)
    if as_json:
        emit_json(_as_dict(outcome, loaded, predicted))
    else:
        _print(outcome, loaded, predicted)
    sys.exit(0 if outcome.ok else 1)


_VTA = "vta:"
#: Options that mean something for a layer on VTA.
_FOR_VTA = ("file", "machine", "config", "seed", "as_json")


def _simulate_vta(
    context: click.Context, layer: str, machine: str, config: tuple[str, ...], seed: int, as_json: bool
) -> None:
    from simtune.cli.vta import simulate_config

    for name in context.params:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name not in _FOR_VTA and given and context.params[name]:
            raise ConfigurationError(f"{layer} is a layer on VTA and takes no '{name}'", "leave it out")
    if not config:
        raise ConfigurationError(
            f"{layer} needs a configuration", "--config tile_h=8,tile_w=56,... or the number of a point"
        )
    simulate_config(layer, machine, config, seed=seed, gantt=None, as_json=as_json)


#: Options that the harness of an object understands.
_FOR_OBJECTS = ("signature", "expect", "rtol", "atol", "seed", "constant", "warmup")


@dataclass(frozen=True)
class Inputs:
    """What the kernel of an object is called with, and what it must answer."""

    signature: tuple[Tensor, ...]
    expect: Path | None
    rtol: float
    atol: float
    seed: int
    constant: bool
    warmup: int


def _refuse_object_options(context: click.Context, file: Path) -> None:
    """An option without effect would let the user believe it had one."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in _FOR_OBJECTS
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise ConfigurationError(
            f"{file} is an executable, {', '.join(given)} is for objects",
            "give the executable's own arguments after '--'",
        )


def parse_signature(text: str | None) -> tuple[Tensor, ...]:
    return tuple(Tensor.parse(item.strip()) for item in text.split(",")) if text is not None else ()


def starts_like_elf(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"\x7fELF"
    except OSError as error:
        raise InputFileError(f"cannot read {file}: {error.strerror}", "check the path") from None


def run_executable(
    file: Path,
    elf: Elf,
    machine: Machine,
    arguments: tuple[str, ...],
    simulator: str,
    limits: Limits,
    models: tuple[str, ...],
) -> Outcome:
    from simtune.mca import MCA, Mca
    from simtune.simulators.base import get_simulator

    if elf.isa != machine.isa.name:
        raise InputFileError(
            f"{file} is for {elf.isa}, {machine.name} is {machine.isa.name}",
            "choose a machine of that instruction set, see 'simtune machines list'",
        )
    if not elf.is_static:
        raise InputFileError(f"{file} is dynamically linked", "link it with -static")
    adapter = get_simulator(simulator)
    capability = adapter.probe(machine)
    if not capability.available:
        raise ConfigurationError(f"simulator {simulator}: {capability.reason}", capability.fix)
    mca = Mca(machine) if MCA in models else None
    count = {name for name in models if name != MCA} | ({"blocks"} if mca else set())
    region = "marker" if elf.has_region else "all"
    outcome = adapter.run(
        SimJob(file.resolve(), machine, arguments, limits, tuple(sorted(count)), region=region)
    )
    return mca.add(outcome, keep_blocks="blocks" in models) if mca else outcome


def run_object(
    file: Path,
    machine: Machine,
    inputs: Inputs,
    simulator: str,
    limits: Limits,
    models: tuple[str, ...],
) -> Outcome:
    from simtune.build.expectation import Expectation
    from simtune.candidates import Candidate
    from simtune.evaluate import Evaluator
    from simtune.predictors.analytical import AnalyticalPredictor
    from simtune.predictors.objective import resolve_objective
    from simtune.records.store import RecordStore
    from simtune.simulators.base import get_simulator

    expected = None
    if inputs.expect is not None:
        digest = hashlib.sha256(inputs.expect.read_bytes()).hexdigest()
        expected = Expectation(
            inputs.expect.resolve(), digest, inputs.rtol, inputs.atol, constant=inputs.constant
        )
    with RecordStore(":memory:") as store:
        evaluator = Evaluator(
            machine,
            get_simulator(simulator),
            AnalyticalPredictor(),
            resolve_objective("latency"),
            store,
            jobs=1,
            limits=limits,
            count=models,
            seed=inputs.seed,
            warmup=inputs.warmup,
        )
        try:
            candidate = Candidate(file, inputs.signature, expected, expected, inputs.constant)
            evaluation = evaluator.evaluate(candidate)
        finally:
            evaluator.close()
    if evaluation.outcome is None:  # it never came to a simulation: the file is at fault
        what, _, hint = evaluation.error.partition("\n  next: ")
        raise InputFileError(what, hint)
    outcome = evaluation.outcome
    if mismatch := _ARGUMENT_ERROR.search(outcome.error):
        raise InputFileError(
            f"the tensors do not fit the kernel of {file}: {mismatch[1]}",
            "give all tensors in argument order, the output last: --args float32:64x64,float32:64x64,...",
        )
    if outcome.status is Status.INVALID:  # the harness refused the files or options it was given
        raise InputFileError(f"{file} cannot run: {outcome.error.splitlines()[-1]}", "check the options")
    return replace(outcome, command=shlex.join(["simtune", *sys.argv[1:]]))


#: How TVM's generated code complains about its arguments.
_ARGUMENT_ERROR = re.compile(
    r"^kernel raised \w+: ((?:Expected \d+ arguments|Mismatched|Invalid).*?)(?: when calling:)?$",
    re.MULTILINE,
)


def _predict(outcome: Outcome, machine: Machine) -> float | None:
    from simtune.predictors.analytical import AnalyticalPredictor

    if outcome.counters is None:
        return None
    return AnalyticalPredictor().predict(outcome.counters, machine)


def _as_dict(outcome: Outcome, machine: Machine, predicted: float | None) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "stage": outcome.stage if not outcome.ok else "",
        "error": outcome.error,
        "machine": machine.name,
        "machine_digest": machine.digest(),
        "predicted_s": predicted,
        "counters": dict(outcome.counters) if outcome.counters else None,
        "simulator": outcome.counters.simulator if outcome.counters else None,
        "replacement": outcome.counters.replacement if outcome.counters else None,
        "schema_version": outcome.counters.schema_version if outcome.counters else None,
        "output": dict(outcome.output),
        "wall_s": outcome.wall_s,
        "cpu_s": outcome.cpu_s,
        "peak_rss": outcome.peak_rss,
        "command": outcome.command,
        "blocks": [
            {
                "address": b.address,
                "executions": b.executions,
                "instructions": b.instructions,
                "code": b.code.hex(),
            }
            for b in outcome.blocks
        ],
    }


def _print(outcome: Outcome, machine: Machine, predicted: float | None) -> None:
    console = Console()
    if not outcome.ok:
        click.echo(f"simtune: {outcome.status} in {outcome.stage}: {outcome.error}", err=True)
        if outcome.command:
            click.echo(f"  again: {outcome.command}", err=True)
    if outcome.counters is None:
        return
    policy = outcome.counters.replacement
    random = "" if policy == "lru" else f", {policy} replacement"
    table = Table(title=f"{machine.name}, {outcome.counters.simulator}{random}", title_justify="left")
    table.add_column("counter")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("meaning", style="dim")
    for name, value in outcome.counters.items():
        if value or not name.startswith("insn."):  # classes that never occur would fill the screen
            table.add_row(name, count_text(value), SCHEMA[name].unit, SCHEMA[name].meaning)
    console.print(table)
    for name, text in outcome.output.items():
        if name in ("checksum", "max_abs_error"):
            click.echo(f"{name}: {text}")
    if outcome.blocks:
        blocks = Table(title="hottest blocks", title_justify="left")
        for column in ("address", "executions", "instructions"):
            blocks.add_column(column, justify="right")
        for block in outcome.blocks[:10]:
            blocks.add_row(hex(block.address), count_text(block.executions), str(block.instructions))
        console.print(blocks)
    if predicted is not None:
        click.echo(f"predicted time: {seconds(predicted)} (analytical model of {machine.name})")
    click.echo(f"simulated in {seconds(outcome.wall_s)}, {outcome.peak_rss / 2**20:.0f} MiB")
