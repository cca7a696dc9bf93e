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

#: What `count` may name. ``pipeline:SHARE`` replays that share of the instructions.
OPTIONAL_MODELS = ("branch", "prefetch", "blocks", "pipeline")

#: The scoreboard replays the first instructions of a region, then a share of windows of this many.
_REPLAYED_FIRST, _WINDOW, _SHARE = 500_000, 40_000, 0.2

#: What the plugin has room for: bytes of a line; streams, and how many strides ahead of them.
_LINE, _STREAMS, _DISTANCE = 256, 64, 63


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
        ConfigurationError: an unknown model in `count`, lines that are longer than the plugin can
            follow, or line sizes that shrink outwards.
    """
    if unknown := sorted({item.partition(":")[0] for item in count} - set(OPTIONAL_MODELS)):
        raise ConfigurationError(
            f"cannot count {', '.join(unknown)}", f"allowed: {', '.join(OPTIONAL_MODELS)}"
        )
    if shared := sorted(item for item in count if ":" in item and not item.startswith("pipeline:")):
        raise ConfigurationError(
            f"cannot count {', '.join(shared)}", "only pipeline has a share: pipeline:0.5"
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
        if cache.line > _LINE:
            raise ConfigurationError(
                f"{machine.name}: lines of {cache.line} bytes in caches.{level} are too long for QEMU",
                f"give at most {_LINE}, or take another simulator",
            )
        if level != "l1i":
            if cache.line < line_size:
                raise ConfigurationError(
                    f"{machine.name}: the line of {level} is shorter than that of the level above"
                )
            line_size = cache.line
        lines.append(f"{level} {cache.sets} {cache.ways} {cache.line}")
    lines.append(f"l1i_mode {'callback' if l1i_callback else 'footprint'}")
    predictor, prefetcher = machine.branch_predictor, machine.prefetcher
    pipeline = [item for item in count if item.partition(":")[0] == "pipeline"]
    if ("branch" in count or pipeline) and predictor.kind == "gshare":
        lines.append(f"branch {predictor.table_bits} {predictor.history_bits} {predictor.loop_trips}")
    if "prefetch" in count and prefetcher.kind == "stride":
        lines.append(f"prefetch {prefetcher.streams} {prefetcher.degree} {prefetcher.distance}")
    lines += _issue_model(machine)
    if pipeline:
        lines += _scoreboard(machine, _share(pipeline[-1]), prefetched="prefetch" in count)
    if verify:
        lines.append("verify 1")
    return "\n".join(lines) + "\n"


def _issue_model(machine: Machine) -> list[str]:
    pipeline = machine.pipeline
    bit = {port: 1 << number for number, port in enumerate(pipeline.ports)}
    lines = [f"issue {pipeline.kind} {pipeline.issue_width}"]
    for name, timing in pipeline.classes.items():
        mask = sum({bit[port] for port in timing.ports})
        lines.append(f"class {name} {timing.latency} {timing.busy} {mask:x} {timing.early}")
    return lines


def _share(item: str) -> float:
    text = item.partition(":")[2] or str(_SHARE)
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0.01 <= share <= 1:
        raise ConfigurationError(f"cannot count {item}", "the share is a number from 0.01 to 1: pipeline:0.5")
    return share


def _scoreboard(machine: Machine, share: float, prefetched: bool) -> list[str]:
    pipeline, unit, tlb = machine.pipeline, machine.memory_unit, machine.tlb
    core = (
        pipeline.retire_width or pipeline.issue_width,
        *(pipeline.rob, pipeline.scheduler, pipeline.load_queue, pipeline.store_queue),
    )
    front_end = (
        *(pipeline.mispredict_penalty, pipeline.taken_branch_penalty),
        *(pipeline.fetch_bytes, pipeline.fetch_queue, pipeline.fetch_lines),
        int(pipeline.fuse_branches),
    )
    memory = (
        *(unit.forward_latency, unit.forward_fail, unit.split_penalty),
        *(unit.store_interval, unit.misses, int(unit.early_fetch)),
        *(unit.dependence_bytes, int(unit.assume_hits), unit.masked_store, unit.set_interval),
    )
    lines = [
        f"scoreboard {_REPLAYED_FIRST} {_WINDOW} {round(_WINDOW / share)}",
        f"core {' '.join(map(str, core))}",
        f"front_end {' '.join(map(str, front_end))}",
        f"memory_unit {' '.join(map(str, memory))}",
        f"tlb {tlb.entries} {tlb.l2_entries} {tlb.l2_latency} {tlb.walk_latency}",
    ]
    # Streams whose misses the cache model has taken away must not hide the rest of them once more.
    if machine.prefetcher.kind != "none" and not prefetched:
        streams, distance = machine.prefetcher.streams, machine.prefetcher.distance
        lines.append(f"fetch_ahead {min(streams, _STREAMS)} {min(distance, _DISTANCE)}")
    first = machine.caches["l1d"].latency
    cycles = machine.clock_hz * 1e-9  # per nanosecond
    served = {
        level: (float(cache.latency), cache.line_interval)
        for level, cache in machine.caches.items()
        if level in ("l2", "l3")
    }
    served["memory"] = (machine.memory.latency_ns * cycles, machine.memory.line_interval_ns * cycles)
    for level, (latency, interval) in served.items():
        lines.append(f"serve {level} {max(0, round(latency) - first)} {round(256 * interval)}")
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
