# SPDX-License-Identifier: Apache-2.0
"""What a machine is: the value types behind a machine file.

The fields are the keys of the TOML file; `simtune.machines.load` validates them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

ISAS = ("riscv64", "aarch64", "x86_64")


@dataclass(frozen=True)
class Isa:
    """Instruction set. `vlen` is the RVV register width in bits, 0 without RVV."""

    name: str
    extensions: tuple[str, ...] = ()
    vlen: int = 0


@dataclass(frozen=True)
class InstructionTiming:
    """Timing of one instruction class.

    Attributes:
        latency: cycles until a dependent instruction can start.
        busy: cycles for which one port of `ports` is held (1 = fully pipelined). For RVV
            classes this is the value at LMUL 1; it scales with LMUL.
        ports: names from `Pipeline.ports` that can execute the class.
        early: how many cycles before its operands an instruction may issue on an in-order core, whose
            pipe reads them in a later stage.
    """

    latency: int
    busy: int
    ports: tuple[str, ...]
    early: int = 0


@dataclass(frozen=True)
class Pipeline:
    """Issue model and scoreboard; 0 means "as wide as the issue" for a width, "unlimited" for a size.

    Attributes:
        issue_width: instructions that enter the pipeline per cycle.
        rob: instructions in flight; on an in-order core how far issue runs ahead of completion.
        scheduler: instructions that wait for operands.
        load_queue, store_queue: entries, held until a load has its data and a store has left for L1D.
        retire_width: instructions that leave per cycle.
        taken_branch_penalty: cycles without new instructions after a taken branch.
        fetch_bytes: aligned piece of code that is fetched per cycle.
        fetch_queue: instructions that are fetched ahead of issue.
        fuse_branches: whether a comparison and the branch behind it are one instruction for the core.
        fetch_lines: lines of code beyond the one that is needed which a prefetcher asks for.
    """

    kind: str  # "in-order" | "out-of-order"
    issue_width: int
    mispredict_penalty: int
    ports: tuple[str, ...]
    classes: Mapping[str, InstructionTiming]
    rob: int = 0
    load_queue: int = 0
    store_queue: int = 0
    scheduler: int = 0
    retire_width: int = 0
    taken_branch_penalty: int = 0
    fetch_bytes: int = 0
    fetch_queue: int = 0
    fetch_lines: int = 0
    fuse_branches: bool = False


@dataclass(frozen=True)
class MemoryUnit:
    """How loads and stores meet each other and the first cache, in cycles.

    Attributes:
        forward_latency: load that finds its data in the store queue.
        forward_fail: further wait of a load that finds only a part of them there, after the store
            has left the queue.
        split_penalty: an access across two lines, beyond the second access itself.
        store_interval: between two stores that leave the queue.
        misses: lines that are fetched at once; 0 = unlimited.
        early_fetch: whether a store asks for its line as soon as its address is known, rather
            than when it leaves the queue.
        dependence_bytes: aligned pieces in which loads and older stores are compared, 1, 8 or 16. A
            load that once was ahead of a store to the same piece waits for that store from then on.
        assume_hits: on an in-order core, whether instructions issue as if all loads hit, and wait for
            late data where they complete.
        masked_store: for which a store of some elements of a register holds its port.
        set_interval: between lines that are fetched into the same two sets of L1D, when four times as many
            as it has ways take turns; in proportion less for fewer.
    """

    forward_latency: int = 5
    forward_fail: int = 12
    split_penalty: int = 1
    store_interval: int = 1
    misses: int = 10
    early_fetch: bool = True
    dependence_bytes: int = 1
    assume_hits: bool = False
    masked_store: int = 1
    set_interval: int = 0


@dataclass(frozen=True)
class Tlb:
    """Data address translation for pages of 4 KiB.

    Attributes:
        entries: 0 = never misses.
        l2_entries: 0 = no second level, whose latency a miss does not pay then.
        l2_latency, walk_latency: cycles of a hit in the second level, and of a walk beyond it.
    """

    entries: int = 0
    l2_entries: int = 0
    l2_latency: int = 7
    walk_latency: int = 30


@dataclass(frozen=True)
class Cache:
    """One cache level.

    Attributes:
        latency: load-to-use cycles of a hit in this level.
        line_interval: cycles between lines delivered to the level above when many misses are
            in flight (equals the latency on a core that blocks).
    """

    size: int
    ways: int
    line: int
    latency: int
    line_interval: float

    @property
    def sets(self) -> int:
        return self.size // (self.ways * self.line)


@dataclass(frozen=True)
class Memory:
    """DRAM as one core sees it, both in nanoseconds per cache line."""

    latency_ns: float
    line_interval_ns: float


@dataclass(frozen=True)
class BranchPredictor:
    """Kind "none" or "gshare"; the table has 2**table_bits two-bit counters.

    `loop_trips` is how far a loop predictor counts, 0 without one.
    """

    kind: str = "none"
    table_bits: int = 12
    history_bits: int = 8
    loop_trips: int = 0


@dataclass(frozen=True)
class Prefetcher:
    """Kind "none" or "stride": per-instruction stride detection, in lines."""

    kind: str = "none"
    streams: int = 8
    degree: int = 1
    distance: int = 1


@dataclass(frozen=True)
class Machine:
    """One target machine, as read from a machine file.

    Attributes:
        name: unique short name, such as ``"sifive-u74"``.
        clock_hz: core clock in Hz.
        target: TVM target as a dict (kind, mtriple, mcpu, ...).
        caches: level name ("l1i", "l1d", "l2", "l3") to geometry; l1i and l1d always exist.
        energy_pj: counter name to picojoules per event, for the energy objective; may be empty.
        qemu_cpu: value for QEMU's ``-cpu``; empty lets the adapter derive it from `isa`.
        accelerator: "": it is none, but a CPU.
    """

    accelerator: ClassVar[str] = ""

    name: str
    description: str
    isa: Isa
    clock_hz: float
    target: Mapping[str, Any]
    pipeline: Pipeline
    caches: Mapping[str, Cache]
    memory: Memory
    branch_predictor: BranchPredictor = field(default_factory=BranchPredictor)
    prefetcher: Prefetcher = field(default_factory=Prefetcher)
    memory_unit: MemoryUnit = field(default_factory=MemoryUnit)
    tlb: Tlb = field(default_factory=Tlb)
    energy_pj: Mapping[str, float] = field(default_factory=dict)
    qemu_cpu: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, in file order, ready for JSON."""
        return asdict(self)

    def digest(self) -> str:
        """Hex digest of everything that can change a result; the description does not."""
        content = self.as_dict()
        del content["description"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
