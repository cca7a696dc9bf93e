# SPDX-License-Identifier: Apache-2.0
"""The two text files between the adapter and the QEMU plugin: configuration and report.

Their format is described in `simulators/qemu/config.c` and `simulators/qemu/report.c`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from simtune.counters import CACHE_LEVELS, SCHEMA
from simtune.errors import ConfigurationError
from simtune.jobs import HotBlock
from simtune.machines.model import Machine

#: How many blocks are reported when blocks are asked for.
HOT_BLOCKS = 64

OPTIONAL_MODELS = ("branch", "prefetch", "blocks")


@dataclass(frozen=True)
class Report:
    """A parsed report. `status` is empty when the file is not a whole report."""

    status: str = ""
    counters: dict[str, float] = field(default_factory=dict)
    blocks: tuple[HotBlock, ...] = ()
    extra: dict[str, float] = field(default_factory=dict)


def configuration(
    machine: Machine,
    count: Collection[str] = (),
    instructions: int | None = None,
    *,
    roi: str = "marker",
    l1i_callback: bool = False,
    verify: bool = False,
) -> str:
    """Text of the configuration file for one run.

    Args:
        machine: caches, issue model, and the parameters of the optional models.
        count: optional models to switch on, from `OPTIONAL_MODELS`.
        instructions: limit inside the region of interest.
        roi: ``"marker"``, or ``"all"`` for the whole program.
        l1i_callback: model L1I fetch by fetch; needed when the code does not fit.
        verify: check the plugin's own address arithmetic (slow; for tests).

    Raises:
        ConfigurationError: an unknown model in `count`, or line sizes that shrink outwards.
    """
    if unknown := sorted(set(count) - set(OPTIONAL_MODELS)):
        raise ConfigurationError(
            f"cannot count {', '.join(unknown)}", f"allowed: {', '.join(OPTIONAL_MODELS)}"
        )
    lines = [f"roi {roi}"]
    if instructions is not None:
        lines.append(f"limit {max(1, int(instructions))}")
    if "blocks" in count:
        lines.append(f"blocks {HOT_BLOCKS}")
    line_size = 0
    for level in CACHE_LEVELS:
        if level not in machine.caches:
            continue
        cache = machine.caches[level]
        if level != "l1i":
            if cache.line < line_size:
                raise ConfigurationError(
                    f"{machine.name}: the line of {level} is shorter than that of the level above"
                )
            line_size = cache.line
        lines.append(f"{level} {cache.sets} {cache.ways} {cache.line}")
    lines.append(f"l1i_mode {'callback' if l1i_callback else 'footprint'}")
    predictor, prefetcher = machine.branch_predictor, machine.prefetcher
    if "branch" in count and predictor.kind == "gshare":
        lines.append(f"branch {predictor.table_bits} {predictor.history_bits}")
    if "prefetch" in count and prefetcher.kind == "stride":
        lines.append(f"prefetch {prefetcher.streams} {prefetcher.degree} {prefetcher.distance}")
    lines += _issue_model(machine)
    if verify:
        lines.append("verify 1")
    return "\n".join(lines) + "\n"


def _issue_model(machine: Machine) -> list[str]:
    pipeline = machine.pipeline
    bit = {port: 1 << number for number, port in enumerate(pipeline.ports)}
    lines = [f"issue {pipeline.kind} {pipeline.issue_width}"]
    for name, timing in pipeline.classes.items():
        mask = sum({bit[port] for port in timing.ports})
        lines.append(f"class {name} {timing.latency} {timing.busy} {mask:x}")
    return lines


def parse_report(data: bytes) -> Report:
    """Reads a report. Never raises: what is not a whole, sound report has an empty status."""
    lines = data.decode("ascii", errors="replace").split("\n")
    if len(lines) < 2 or lines[-1] or lines[-2] != f"end {len(lines) - 2}":
        return Report()
    status = ""
    counters: dict[str, float] = {}
    extra: dict[str, float] = {}
    blocks: list[HotBlock] = []
    try:
        for line in lines[:-2]:
            name, *values = line.split(" ")
            if name == "block":
                address, executions, instructions, code = values
                blocks.append(
                    HotBlock(int(address, 16), int(executions), int(instructions), bytes.fromhex(code))
                )
            elif name == "status":
                (status,) = values
            else:
                (text,) = values
                value = float(text) if "." in text else int(text)
                if not (math.isfinite(value) and value >= 0):
                    return Report()
                (counters if name in SCHEMA else extra)[name] = value
    except (ValueError, OverflowError):
        return Report()
    return Report(status, counters, tuple(blocks), extra)
