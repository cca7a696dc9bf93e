# SPDX-License-Identifier: Apache-2.0
"""The value types that pass between stages: limits, a simulation job, its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from simtune.counters import Counters
from simtune.machines.model import Machine


class Status(StrEnum):
    """How a candidate ended. Failure is data: none of these is an exception."""

    OK = "ok"
    BUILD_FAILED = "build_failed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    WRONG_OUTPUT = "wrong_output"
    INVALID = "invalid"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Limits:
    """Bounds on one supervised process tree. None means unlimited.

    Attributes:
        wall_s: wall-clock seconds for the whole tree.
        cpu_s: CPU seconds (enforced by the kernel on the main process).
        memory_bytes: resident memory of the whole tree.
        output_bytes: bytes on standard output and error together.
        file_bytes: size of any file that is written.
        grace_s: seconds between TERM and KILL.
        instructions: guest instructions inside the region of interest (simulators only).
    """

    wall_s: float | None = 120.0
    cpu_s: float | None = 120.0
    memory_bytes: int | None = 2 << 30
    output_bytes: int | None = 1 << 20
    file_bytes: int | None = 256 << 20
    grace_s: float = 0.5
    instructions: int | None = None


@dataclass(frozen=True)
class HotBlock:
    """One basic block of the region of interest with its execution count."""

    address: int
    executions: int
    instructions: int
    code: bytes


@dataclass(frozen=True)
class SimJob:
    """One simulation to run.

    Attributes:
        executable: static ELF for `machine.isa`.
        arguments: its command line, without the program name.
        count: optional models to switch on, a subset of ("branch", "prefetch", "blocks").
        region: "marker" counts between the executable's marks, "all" from its start to its end.
        content: what is simulated, whatever simulates it and counts what:
            `simtune.records.model.Conditions.content`; empty where the executable itself is all that
            is known.
        scratch: folder for temporary files; the adapter makes and removes a unique one inside.
    """

    executable: Path
    machine: Machine
    arguments: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    count: tuple[str, ...] = ()
    scratch: Path | None = None
    region: str = "marker"
    content: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one simulation gave.

    Attributes:
        status: how it ended.
        stage: where a failure happened: "build", "link", "simulate" or "check".
        counters: None unless the region of interest completed.
        output: what the harness reported, such as checksum and largest error.
        error: tail of the error stream and the reason, at most a few kilobytes.
        command: a shell command that reproduces the run.
        wall_s, cpu_s, peak_rss: of the simulator process tree (seconds, seconds, bytes).
        blocks: hottest blocks first, when asked for.
    """

    status: Status
    stage: str = "simulate"
    counters: Counters | None = None
    output: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    command: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss: int = 0
    blocks: tuple[HotBlock, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status is Status.OK
