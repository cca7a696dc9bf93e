# SPDX-License-Identifier: Apache-2.0
"""From the content of a machine file to a `Machine`, refusing everything that makes no sense."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simtune.counters import CACHE_LEVELS, INSTRUCTION_CLASSES, SCHEMA
from simtune.errors import MachineFileError
from simtune.machines.model import (
    ISAS,
    BranchPredictor,
    Cache,
    InstructionTiming,
    Isa,
    Machine,
    Memory,
    MemoryUnit,
    Pipeline,
    Prefetcher,
    Tlb,
)
from simtune.machines.section import Section, power_of_two
from simtune.machines.target import read_target

# What the QEMU plugin's issue model and scoreboard have room for.
MAX_PORTS, MAX_BUSY = 24, 255


def build_machine(data: Mapping[str, Any], file: Path | str, default_name: str) -> Machine:
    """Validates the content of a machine file.

    Args:
        data: the parsed file, merged with what it extends.
        file: shown in errors.
        default_name: the name when the file does not give one.

    Raises:
        MachineFileError: names the file, the full key, the bad value and what is allowed.
    """
    top = Section(file, data)
    name = top.text("name", default=default_name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        top.wrong("name", "up to 64 letters, digits, '.', '_' and '-'")
    isa = _isa(top.section("isa"))
    clock_hz = top.number("clock_hz", 1e6, 1e10)  # catches MHz and GHz in the place of Hz
    caches = _caches(top.section("caches"))
    machine = Machine(
        name=name,
        description=top.text("description", default=""),
        isa=isa,
        clock_hz=clock_hz,
        target=read_target(top.section("target"), isa),
        pipeline=_pipeline(top.section("pipeline")),
        caches=caches,
        memory=_memory(top.section("memory"), caches, clock_hz),
        branch_predictor=_branch_predictor(top.section("branch_predictor", optional=True)),
        prefetcher=_prefetcher(top.section("prefetcher", optional=True)),
        memory_unit=_memory_unit(top.section("memory_unit", optional=True)),
        tlb=_tlb(top.section("tlb", optional=True)),
        energy_pj=_energy(top.section("energy_pj", optional=True)),
        qemu_cpu=top.text("qemu_cpu", default=""),
    )
    top.close(also=("extends",))
    return machine


def _isa(section: Section) -> Isa:
    name = section.choice("name", ISAS)
    extensions = section.names("extensions", 'a list of names such as ["m", "a"]', default=())
    vlen = section.integer("vlen", 0, 65536, default=0)
    if vlen and (name != "riscv64" or not power_of_two(vlen) or vlen < 128):
        section.wrong("vlen", "0, or with riscv64 a power of two from 128 to 65536")
    section.close()
    return Isa(name, extensions, vlen)


def _pipeline(section: Section) -> Pipeline:
    kind = section.choice("kind", ("in-order", "out-of-order"))
    ports = section.names("ports", f"a list of 1 to {MAX_PORTS} distinct port names")
    if not 1 <= len(ports) <= MAX_PORTS:
        section.wrong("ports", f"a list of 1 to {MAX_PORTS} distinct port names")
    lowest = 1 if kind == "out-of-order" else 0  # an out-of-order core has a window
    pipeline = Pipeline(
        kind=kind,
        issue_width=section.integer("issue_width", 1, 32),
        mispredict_penalty=section.integer("mispredict_penalty", 0, 200),
        ports=ports,
        classes=_classes(section, ports),
        rob=section.integer("rob", lowest, 4096, default=None if lowest else 0),
        load_queue=section.integer("load_queue", 0, 4096, default=0),
        store_queue=section.integer("store_queue", 0, 4096, default=0),
        scheduler=section.integer("scheduler", 0, 4096, default=0),
        retire_width=section.integer("retire_width", 0, 64, default=0),
        taken_branch_penalty=section.integer("taken_branch_penalty", 0, 100, default=0),
        fetch_bytes=section.integer("fetch_bytes", 0, 4096, default=0),
        fetch_queue=section.integer("fetch_queue", 0, 4096, default=0),
        fetch_lines=section.integer("fetch_lines", 0, 64, default=0),
        fuse_branches=section.boolean("fuse_branches", False),
    )
    section.close()
    return pipeline


def _classes(pipeline: Section, ports: tuple[str, ...]) -> dict[str, InstructionTiming]:
    """Every class has a timing: its own, or that of ``pipeline.default``."""
    default = _timing(pipeline.section("default"), ports) if "default" in pipeline else None
    section = pipeline.section("classes", optional=default is not None)
    section.close(also=INSTRUCTION_CLASSES)
    classes = {}
    for name in INSTRUCTION_CLASSES:  # in this order, which native code relies on
        if name in section:
            classes[name] = _timing(section.section(name), ports)
        elif default is not None:
            classes[name] = default
        else:
            section.missing(name, "{ latency = 1, busy = 1, ports = [...] }, here or in pipeline.default")
    return classes


def _timing(section: Section, ports: tuple[str, ...]) -> InstructionTiming:
    allowed = f"one or more of {', '.join(ports)} (pipeline.ports)"
    timing = InstructionTiming(
        latency=section.integer("latency", 1, 1000),
        busy=section.integer("busy", 1, MAX_BUSY),
        ports=section.names("ports", allowed, options=ports),
        early=section.integer("early", 0, 100, default=0),
    )
    if not timing.ports:
        section.wrong("ports", allowed)
    section.close()
    return timing


def _caches(section: Section) -> dict[str, Cache]:
    section.close(also=CACHE_LEVELS)
    for required in ("l1i", "l1d"):
        if required not in section:
            section.missing(required, "a table with size, ways, line, latency and line_interval")
    if "l3" in section and "l2" not in section:
        section.missing("l2", "a table, because caches.l3 is there")
    caches: dict[str, Cache] = {}
    for level in CACHE_LEVELS:
        if level in section:
            caches[level] = _cache(section.section(level), caches, level)
    return caches


def _cache(section: Section, inner: Mapping[str, Cache], level: str) -> Cache:
    cache = Cache(
        size=section.size("size", 256, 1 << 36),
        ways=section.integer("ways", 1, 128),
        line=section.integer("line", 8, 4096),
        latency=section.integer("latency", 1, 10000),
        line_interval=section.number("line_interval", 0.01, 10000),
    )
    if not power_of_two(cache.line):
        section.wrong("line", "a power of two from 8 to 4096")
    if inner and cache.line != inner["l1i"].line:
        section.wrong("line", f"{inner['l1i'].line}, as in caches.l1i: all levels share one line size")
    if cache.size != cache.sets * cache.ways * cache.line or not power_of_two(cache.sets):
        section.wrong(
            "size", f"sets x ways x line = sets x {cache.ways} x {cache.line} with a power of two of sets"
        )
    nearer = {"l2": "l1d", "l3": "l2"}.get(level)
    if nearer and cache.latency < inner[nearer].latency:
        section.wrong("latency", f"at least {inner[nearer].latency}, the latency of caches.{nearer}")
    section.close()
    return cache


def _memory(section: Section, caches: Mapping[str, Cache], clock_hz: float) -> Memory:
    memory = Memory(
        latency_ns=section.number("latency_ns", 0.1, 1e5),
        line_interval_ns=section.number("line_interval_ns", 0.01, 1e5),
    )
    last = [level for level in CACHE_LEVELS if level in caches][-1]
    nearest = caches[last].latency / clock_hz * 1e9
    if memory.latency_ns < nearest:
        section.wrong("latency_ns", f"at least {nearest:.3g}, the latency of caches.{last} at this clock")
    section.close()
    return memory


def _branch_predictor(section: Section) -> BranchPredictor:
    fallback = BranchPredictor()
    predictor = BranchPredictor(
        kind=section.choice("kind", ("none", "gshare"), fallback.kind),
        table_bits=section.integer("table_bits", 1, 24, fallback.table_bits),
        history_bits=section.integer("history_bits", 0, 64, fallback.history_bits),
        loop_trips=section.integer("loop_trips", 0, 1 << 20, fallback.loop_trips),
    )
    if predictor.history_bits > predictor.table_bits:
        key = "history_bits" if "history_bits" in section else "table_bits"
        section.wrong(key, "history_bits not larger than table_bits")
    section.close()
    return predictor


def _prefetcher(section: Section) -> Prefetcher:
    fallback = Prefetcher()
    prefetcher = Prefetcher(
        kind=section.choice("kind", ("none", "stride"), fallback.kind),
        streams=section.integer("streams", 1, 1024, fallback.streams),
        degree=section.integer("degree", 1, 64, fallback.degree),
        distance=section.integer("distance", 1, 64, fallback.distance),
    )
    section.close()
    return prefetcher


def _memory_unit(section: Section) -> MemoryUnit:
    fallback = MemoryUnit()
    unit = MemoryUnit(
        forward_latency=section.integer("forward_latency", 0, 1000, fallback.forward_latency),
        forward_fail=section.integer("forward_fail", 0, 1000, fallback.forward_fail),
        split_penalty=section.integer("split_penalty", 0, 1000, fallback.split_penalty),
        store_interval=section.integer("store_interval", 1, 1000, fallback.store_interval),
        misses=section.integer("misses", 0, 64, fallback.misses),
        early_fetch=section.boolean("early_fetch", fallback.early_fetch),
        dependence_bytes=section.integer("dependence_bytes", 1, 16, fallback.dependence_bytes),
        assume_hits=section.boolean("assume_hits", fallback.assume_hits),
        masked_store=section.integer("masked_store", 1, MAX_BUSY, fallback.masked_store),
        set_interval=section.integer("set_interval", 0, 1000, fallback.set_interval),
    )
    if unit.dependence_bytes not in (1, 8, 16):
        section.wrong("dependence_bytes", "1, 8 or 16")
    section.close()
    return unit


def _tlb(section: Section) -> Tlb:
    fallback = Tlb()
    tlb = Tlb(
        entries=section.integer("entries", 0, 1 << 16, fallback.entries),
        l2_entries=section.integer("l2_entries", 0, 1 << 16, fallback.l2_entries),
        l2_latency=section.integer("l2_latency", 0, 1000, fallback.l2_latency),
        walk_latency=section.integer("walk_latency", 0, 10000, fallback.walk_latency),
    )
    section.close()
    return tlb


def _energy(section: Section) -> dict[str, float]:
    """Counter names have dots, so ``l2.read_misses = 1`` arrives as a table in a table: flatten."""
    flat: dict[str, Any] = {}
    for key, value in section.data.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": deep for inner, deep in value.items()})
        else:
            flat[key] = value
    events = Section(section.file, flat, section.path)
    try:
        events.close(also=SCHEMA)
    except MachineFileError as error:  # the schema is too long to print
        what = error.what.split("; allowed:")[0]
        hint = error.hint if "did you mean" in error.hint else "see docs/machines.md for the counter names"
        raise MachineFileError(f"{what}; allowed: the names of the counter schema", hint) from None
    return {name: events.number(name, 0, 1e9) for name in SCHEMA if name in events}
