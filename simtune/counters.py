# SPDX-License-Identifier: Apache-2.0
"""The canonical counter schema: what a simulation may count, and in which unit.

Every simulator maps its own statistics onto these names. A counter that a
simulator cannot give is absent from the mapping, never zero.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

SCHEMA_VERSION = 2

#: Instruction classes, in the order in which native code numbers them. An x86 instruction
#: with a memory operand is classed by its operation (its access shows up in `loads`/`stores`).
INSTRUCTION_CLASSES: tuple[str, ...] = (
    "int_alu",  # integer add, logic, shift, compare, move, address arithmetic
    "int_mul",
    "int_div",
    "load",  # scalar loads, integer and floating point
    "store",
    "atomic",
    "branch",  # conditional
    "jump",  # unconditional, call, return, indirect
    "fp_add",  # scalar floating-point add and subtract
    "fp_mul",
    "fp_fma",
    "fp_div",  # divide and square root
    "fp_misc",  # compare, convert, move, min, max, sign
    "vec_alu",  # vector integer add, logic, shift, compare
    "vec_mul",  # vector integer multiply, multiply-add, dot product
    "vec_fp_add",
    "vec_fp_mul",
    "vec_fp_fma",
    "vec_fp_div",
    "vec_misc",  # vector convert, compare, min, max, move, reduce, mask
    "vec_shuffle",  # permute, slide, gather, zip, broadcast between registers
    "vec_load",
    "vec_store",
    "vec_config",  # RVV vsetvl family
    "other",  # system, fences, nop, anything not recognised
)

#: Counters that simtune adds to what a simulator counts, see `simtune.mca`.
DERIVED = frozenset({"mca_cycles"})

#: Cache levels, from the core outwards.
CACHE_LEVELS: tuple[str, ...] = ("l1i", "l1d", "l2", "l3")


#: What the scoreboard says its cycles go to; the counters ``pipeline.*`` add up to ``pipeline_cycles``.
PIPELINE_CAUSES: dict[str, str] = {
    "core": "executing: width, ports, latencies and chains of dependences",
    "front_end": "waiting for instructions to be fetched",
    "mispredicts": "fetching the right way after a mispredicted branch",
    "stores": "waiting for room in the store queue",
    "forwarding": "loads that find only a part of their bytes in the store queue",
    "l2": "loads served by L2",
    "l3": "loads served by L3",
    "memory": "loads served by memory",
}


@dataclass(frozen=True)
class CounterSpec:
    """Unit and meaning of one counter."""

    unit: str
    meaning: str


def _schema() -> dict[str, CounterSpec]:
    spec = {
        "instructions": CounterSpec("instructions", "executed in the region of interest"),
        "loads": CounterSpec("instructions", "that read memory; a vector access counts once"),
        "stores": CounterSpec("instructions", "that write memory; a vector access counts once"),
        "load_bytes": CounterSpec("bytes", "read by the program"),
        "store_bytes": CounterSpec("bytes", "written by the program"),
        "branches": CounterSpec("instructions", "conditional branches"),
        "branch_mispredicts": CounterSpec("events", "by the modelled predictor"),
        "blocks": CounterSpec("events", "basic blocks entered"),
        "code_bytes": CounterSpec("bytes", "of distinct code executed"),
        "cycles": CounterSpec("cycles", "of a detailed timing model, such as gem5's Minor or O3"),
        "issue_cycles": CounterSpec("cycles", "static issue model, all accesses hitting L1"),
        "mca_cycles": CounterSpec("cycles", "llvm-mca's estimate of the hot blocks, all accesses hitting L1"),
        "pipeline_cycles": CounterSpec("cycles", "pipeline scoreboard, with real addresses and misses"),
        "prefetches": CounterSpec("lines", "brought in by the modelled prefetcher"),
        "dram_read_bytes": CounterSpec("bytes", "fetched from memory behind the last cache"),
        "dram_write_bytes": CounterSpec("bytes", "written back to memory behind the last cache"),
    }
    for cause, meaning in PIPELINE_CAUSES.items():
        spec[f"pipeline.{cause}"] = CounterSpec("cycles", f"of pipeline_cycles, {meaning}")
    for name in INSTRUCTION_CLASSES:
        spec[f"insn.{name}"] = CounterSpec("instructions", f"of class {name}")
    for level in CACHE_LEVELS:
        reads = "instruction fetches" if level == "l1i" else "reads, or fills for the level above"
        spec[f"{level}.read_hits"] = CounterSpec("lines", f"{level} hits of {reads}")
        spec[f"{level}.read_misses"] = CounterSpec("lines", f"{level} misses of {reads}")
        if level != "l1i":
            writes = "writes, or write-backs from the level above"
            spec[f"{level}.write_hits"] = CounterSpec("lines", f"{level} hits of {writes}")
            spec[f"{level}.write_misses"] = CounterSpec("lines", f"{level} misses of {writes}")
            spec[f"{level}.writebacks"] = CounterSpec("lines", f"dirty lines evicted from {level}")
    return spec


SCHEMA: Mapping[str, CounterSpec] = _schema()

#: Accelerators count what only they have, under names that start with theirs, such as ``vta.gemm.uops``.
ACCELERATORS: tuple[str, ...] = ("vta",)


def spec_of(name: str) -> CounterSpec | None:
    """Unit and meaning of a counter; None for a name that is neither in the schema nor an accelerator's."""
    if name in SCHEMA:
        return SCHEMA[name]
    prefix, _, rest = name.partition(".")
    if prefix not in ACCELERATORS or not rest:
        return None
    # Each accelerator has a schema of its own, which is built on this module.
    known: Mapping[str, CounterSpec] = importlib.import_module(f"simtune.{prefix}.counters").SCHEMA
    return known.get(rest)


@dataclass(frozen=True)
class Counts(Mapping[str, float]):
    """Immutable counts by name."""

    counts: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.counts)

    def __len__(self) -> int:
        return len(self.counts)


@dataclass(frozen=True)
class Counters(Counts):
    """Immutable counters of one run, with the conditions they were taken under.

    Attributes:
        counts: counter name to value, names from `SCHEMA` or of an accelerator.
        simulator: adapter name and version, such as ``"qemu 7.2.22"``.
        replacement: cache replacement policy; counts of different policies do not mix.

    Raises:
        KeyError: on construction, for a name that is not in the schema.
    """

    simulator: str = ""
    replacement: str = "lru"
    schema_version: int = field(default=SCHEMA_VERSION)

    def __post_init__(self) -> None:
        for name in self.counts:
            if spec_of(name) is None:
                raise KeyError(f"'{name}' is not in the counter schema v{SCHEMA_VERSION}")

    def misses(self, level: str) -> float | None:
        """Read plus write misses of a cache level, or None when it was not modelled."""
        reads = self.counts.get(f"{level}.read_misses")
        if reads is None:
            return None
        return reads + self.counts.get(f"{level}.write_misses", 0)

    def accesses(self, level: str) -> float | None:
        """All accesses of a cache level in lines, or None when it was not modelled."""
        misses = self.misses(level)
        if misses is None:
            return None
        hits = (self.counts.get(f"{level}.{kind}_hits", 0) for kind in ("read", "write"))
        return misses + sum(hits)
