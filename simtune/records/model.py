# SPDX-License-Identifier: Apache-2.0
"""The rows of the record store as frozen values, and the content hashes that name them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from simtune.counters import SCHEMA_VERSION
from simtune.jobs import Outcome, Status


def plain(value: Any) -> Any:
    """What JSON does not know: numpy scalars and TVM's immediates as numbers, the rest as text."""
    if hasattr(value, "item"):
        return value.item()
    return value.value if hasattr(value, "value") else str(value)


#: Made once: `json.dumps` makes an encoder of its own for every call.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=plain).encode


def canonical_json(value: Any) -> str:
    """JSON text that is equal for equal values: sorted keys, no blanks, tuples as lists."""
    return _encode(value)


def content_hash(*parts: Any) -> str:
    """32 hex digits (128 bits) that name `parts` by content."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:32]


class RunState(StrEnum):
    """How far a run got. A run that was killed stays `RUNNING`: that is what resume looks for."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True)
class Workload:
    """What is tuned.

    Attributes:
        name: for people, such as ``resnet18.conv2_x``.
        arguments: one ``["TENSOR", dtype, [shape…]]`` per parameter; this is what TVM's
            ``ArgInfo.as_json()`` gives, and the fourth element of its tuning record.
        tvm_json: JSON text of ``Workload.as_json()`` of MetaSchedule, ``[shash, base64 graph]``;
            empty for a workload that did not come from TVM (it is then left out of TVM exports).
    """

    name: str
    arguments: Sequence[Sequence[Any]]
    tvm_json: str = ""

    @property
    def structural_hash(self) -> str:
        """TVM's structural hash of the module, empty without `tvm_json`."""
        return str(json.loads(self.tvm_json)[0]) if self.tvm_json else ""

    @property
    def id(self) -> str:
        """Content hash. The structural hash stands for the module: its text may vary in details."""
        return content_hash("workload", self.name, self.arguments, self.structural_hash)


@dataclass(frozen=True)
class Run:
    """One tuning or collecting run, with every condition that its numbers depend on.

    Attributes:
        id: 12 random hex digits, unique across machines so that stores can be merged.
        target: JSON text of the TVM target (a JSON object, or a JSON string with its kind).
        config: options and seeds that decide what the run does; its digest identifies the run
            for resume, so leave out what may change between two sittings (jobs, trials, paths).
        versions: of simtune, TVM, the simulator and whatever else takes part.
        started, finished: seconds since the epoch.
    """

    id: str
    workload: str
    machine: str
    machine_digest: str
    target: str = '""'
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    finished: float | None = None
    state: RunState = RunState.RUNNING

    @property
    def config_digest(self) -> str:
        return config_digest(self.config)


def config_digest(config: Mapping[str, Any]) -> str:
    """Content hash of a run's configuration, as `RecordStore.find_run` wants it."""
    return content_hash("config", config)


@dataclass(frozen=True)
class Conditions:
    """Everything that decides the outcome of a simulation; `key` is its content hash.

    Attributes:
        object_sha256: of the candidate's object or executable, in hex.
        arguments: of the harness, such as seeds of the inputs and tolerances.
        count: optional models that were on; their order means nothing.
    """

    object_sha256: str
    simulator: str
    simulator_version: str
    machine_digest: str
    arguments: tuple[str, ...] = ()
    seed: int = 0
    count: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @cached_property
    def key(self) -> str:
        return content_hash(
            "simulation",
            self.object_sha256,
            self.simulator,
            self.simulator_version,
            self.machine_digest,
            self.arguments,
            self.seed,
            sorted(set(self.count)),
            self.schema_version,
        )

    @property
    def content(self) -> str:
        """Names what is simulated, whatever simulates it and counts what: object, machine, inputs."""
        return content_hash("content", self.object_sha256, self.machine_digest, self.arguments, self.seed)


def simulation_key(
    object_sha256: str,
    simulator: str,
    simulator_version: str,
    machine_digest: str,
    arguments: Sequence[str] = (),
    seed: int = 0,
    count: Sequence[str] = (),
    schema_version: int = SCHEMA_VERSION,
) -> str:
    """The key under which a simulation is stored: the content hash of its conditions."""
    conditions = Conditions(
        object_sha256,
        simulator,
        simulator_version,
        machine_digest,
        tuple(arguments),
        seed,
        tuple(count),
        schema_version,
    )
    return conditions.key


@dataclass(frozen=True)
class Simulation:
    """One simulation: its conditions, what came out, and the instruction limit it ran under."""

    conditions: Conditions
    outcome: Outcome
    instruction_limit: int | None = None
    created: float = field(default_factory=time.time)

    @property
    def key(self) -> str:
        return self.conditions.key

    def reusable(self, instruction_limit: int | None = None) -> bool:
        """Whether a job with this limit (None = no limit) would end the same way.

        An infrastructure failure says nothing about the candidate. A timeout under an
        instruction limit only says that more instructions were needed than that limit. A
        timeout without one was cut by the clock; it counts as final, or resume would hang
        on the same candidate again.
        """
        match self.outcome.status:
            case Status.INFRASTRUCTURE:
                return False
            case Status.TIMEOUT if self.instruction_limit is not None:
                return instruction_limit is not None and instruction_limit <= self.instruction_limit
        return True


@dataclass(frozen=True)
class Trial:
    """One candidate of a run.

    Attributes:
        index: position in the run, from 0.
        candidate: hash that names the candidate, chosen by the tuner.
        trace_json: JSON text of the schedule's trace, the first element of TVM's
            ``TuningRecord.as_json()`` (``Trace.as_json()`` has the same content, but keeps TVM's
            own integers), or the point of a template space (`simtune.records.points`); empty when
            there is none (it is then left out of TVM exports).
        simulation: key of its simulation, None when it never came that far.
        stage: where a failure happened.
        error, command: tail of the message and a shell command that reproduces it, for failures
            before the simulation; later ones have theirs in the simulation.
        value: the objective, smaller is better; None without a result.
        predicted_s, measured_s: run time on the target, predicted and measured.
        build_s, link_s, simulate_s: where the wall time went.
        is_reference: TVM's default schedule rather than a candidate of the search.
    """

    run: str
    index: int
    candidate: str
    status: Status
    trace_json: str = ""
    simulation: str | None = None
    stage: str = ""
    error: str = ""
    command: str = ""
    value: float | None = None
    predicted_s: float | None = None
    measured_s: float | None = None
    build_s: float = 0.0
    link_s: float = 0.0
    simulate_s: float = 0.0
    is_reference: bool = False
    created: float = field(default_factory=time.time)

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class TrialBrief:
    """What resume needs of a trial: cheap enough to read a million of them in seconds."""

    index: int
    candidate: str
    status: Status
    value: float | None
    simulation: str | None
    is_reference: bool


@dataclass(frozen=True)
class Measurement:
    """Native run times of a simulated candidate on real hardware; a candidate may have several.

    Attributes:
        target: where it ran, such as ``host`` or ``ssh:board``.
        seconds: one time per process, see `simtune.measure`.
        spread: (largest - smallest) / median.
        conditions: pinning, repeats, temperature, versions.
    """

    simulation: str
    target: str
    seconds: Sequence[float]
    median: float
    spread: float
    conditions: Mapping[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)


class RunSummary(NamedTuple):
    """A run with its totals, for listings."""

    run: Run
    workload: str
    trials: int
    failures: int
    best: float | None
    reference: float | None
