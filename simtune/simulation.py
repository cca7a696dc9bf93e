# SPDX-License-Identifier: Apache-2.0
"""The job of one candidate: link its objects, simulate the executable, count.

It runs wherever an executor puts it. On another machine everything that decides an outcome is the
driver's: harness, machine file, expected output; simulator and simtune there must be of the same
version as here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from simtune import native
from simtune.build.expectation import Expectation
from simtune.build.image import Plan
from simtune.build.link import linker
from simtune.build.toolchain import harness
from simtune.counters import Counters
from simtune.errors import ConfigurationError, InputFileError, SimtuneError
from simtune.execution.base import PortableJob, Refused, Site
from simtune.jobs import HotBlock, Limits, Outcome, SimJob, Status
from simtune.machines.dump import as_toml
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.mca import Mca
from simtune.simulators.base import Simulator, get_simulator

_OBJECT = "object"


@dataclass(frozen=True)
class Simulated:
    """What became of one job.

    Attributes:
        link_s, simulate_s: wall seconds.
        cancelled: it was told to give up, so the outcome says nothing about the candidate.
    """

    outcome: Outcome
    link_s: float = 0.0
    simulate_s: float = 0.0
    cancelled: bool = False


@dataclass(frozen=True)
class SimulationJob(PortableJob[Simulated]):
    """One simulation of one candidate.

    Attributes:
        objects: its object files, or the one executable when `plan` is None.
        plan: what the harness does with the objects.
        simulator: adapter; on another machine the one of the same name.
        version: of the simulator, which another machine must have too.
        arguments: of the executable, without those of `expected`.
        expected: what the output is compared with.
        count: optional models of the simulator.
        mca: adds its estimate to the counters.
        instructions: predicted guest instructions, 0 when unknown.
        harness: what the objects are linked with; this machine's when None.
    """

    objects: tuple[Path, ...]
    plan: Plan | None
    machine: Machine
    simulator: Simulator
    version: str
    arguments: tuple[str, ...] = ()
    expected: Expectation | None = None
    limits: Limits = Limits()
    count: tuple[str, ...] = ()
    mca: Mca | None = None
    region: str = "marker"
    content: str = ""
    instructions: float = 0.0
    harness: Path | None = None

    @property
    def length(self) -> float:
        return self.instructions

    @property
    def needs(self) -> str:
        estimator = f" {self.mca.name}" if self.mca else ""
        return f"{self.simulator.name} {self.version} {self.machine.name}{estimator}"

    def run(self, site: Site) -> Simulated:
        """Links and simulates."""
        start = time.perf_counter()
        executable = self.objects[0]
        if self.plan is not None:
            try:
                isa = self.machine.isa.name
                executable = linker(isa, self.harness).link(
                    self.objects, self.plan, site.folder / "candidate.elf"
                )
            except OSError as error:  # such as a full disk
                return _no_run(Status.INFRASTRUCTURE, f"cannot write the executable: {error}", start, site)
            except InputFileError as error:
                return _no_run(Status.INVALID, str(error), start, site)
        linked = time.perf_counter()
        outcome = self.simulator.run(
            SimJob(
                executable,
                self.machine,
                (*self.arguments, *(self.expected.arguments() if self.expected else ())),
                self.limits,
                tuple(dict.fromkeys((*self.count, "blocks"))) if self.mca else self.count,
                site.folder,
                self.region,
                self.content,
            ),
            site.cancel,
        )
        if self.mca:
            outcome = self.mca.add(outcome, keep_blocks="blocks" in self.count)
        return Simulated(
            outcome, linked - start, time.perf_counter() - linked, site.cancel.is_set() and not outcome.ok
        )

    # ---- on the way to another machine ------------------------------------------------------

    def files(self) -> Mapping[str, Path]:
        files = {f"{_OBJECT}{number}": path for number, path in enumerate(self.objects)}
        files["machine"] = _machine_file(self.machine)
        if self.plan is not None:
            files["harness"] = self.harness or harness(self.machine.isa.name)
        if self.expected is not None:
            files["expected"] = self.expected.path
        return files

    def encode(self) -> dict[str, Any]:
        _check_portable(self.simulator)
        expected = self.expected
        return {
            "plan": self.plan.as_json() if self.plan else None,
            "simulator": self.simulator.name,
            "version": self.version,
            "arguments": self.arguments,
            "expected": [expected.digest, expected.rtol, expected.atol, expected.constant]
            if expected
            else None,
            "limits": asdict(self.limits),
            "count": self.count,
            "mca": self.mca.name if self.mca else "",
            "region": self.region,
            "content": self.content,
            "instructions": self.instructions,
        }

    @classmethod
    def decode(cls, data: Mapping[str, Any], files: Mapping[str, Path]) -> Self:
        machine = _read_machine(files["machine"])
        simulator = _usable(data["simulator"], files["machine"], data["version"])
        return cls(
            tuple(files[f"{_OBJECT}{n}"] for n in range(sum(name.startswith(_OBJECT) for name in files))),
            Plan.from_json(data["plan"]) if data["plan"] is not None else None,
            machine,
            simulator,
            data["version"],
            tuple(data["arguments"]),
            Expectation(files["expected"], *data["expected"]) if data["expected"] else None,
            Limits(**data["limits"]),
            tuple(data["count"]),
            _mca(files["machine"], data["mca"]) if data["mca"] else None,
            data["region"],
            data["content"],
            data["instructions"],
            files.get("harness"),
        )

    @classmethod
    def encode_result(cls, result: Simulated) -> dict[str, Any]:
        outcome = result.outcome
        counters = outcome.counters
        return {
            "outcome": {
                "status": outcome.status,
                "stage": outcome.stage,
                "output": dict(outcome.output),
                "error": outcome.error[-_ERROR_TAIL:],
                "wall_s": outcome.wall_s,
                "cpu_s": outcome.cpu_s,
                "peak_rss": outcome.peak_rss,
            },
            "counters": [
                dict(counters.counts),
                counters.simulator,
                counters.replacement,
                counters.schema_version,
            ]
            if counters
            else None,
            "blocks": [[b.address, b.executions, b.instructions, b.code.hex()] for b in outcome.blocks],
            "link_s": result.link_s,
            "simulate_s": result.simulate_s,
            "cancelled": result.cancelled,
        }

    @classmethod
    def decode_result(cls, data: Mapping[str, Any]) -> Simulated:
        values = {**data["outcome"], "status": Status(data["outcome"]["status"])}
        outcome = Outcome(
            **values,
            counters=Counters(*data["counters"]) if data["counters"] else None,
            blocks=tuple(HotBlock(a, n, size, bytes.fromhex(code)) for a, n, size, code in data["blocks"]),
        )
        return Simulated(outcome, data["link_s"], data["simulate_s"], data["cancelled"])

    @classmethod
    def transient(cls, result: Simulated) -> bool:
        return result.outcome.status is Status.INFRASTRUCTURE and not result.cancelled

    def failed(self, reason: str) -> Simulated:
        return Simulated(Outcome(Status.INFRASTRUCTURE, error=reason))


#: Bytes of an error message that travel.
_ERROR_TAIL = 4000


def _no_run(status: Status, error: str, start: float, site: Site) -> Simulated:
    outcome = Outcome(status, "link", error=error)
    return Simulated(outcome, time.perf_counter() - start, cancelled=site.cancel.is_set())


def _check_portable(simulator: Simulator) -> None:
    """An adapter is named on the way, so it must be what that name stands for."""
    hint = "register it under the entry points 'simtune.simulators' on all machines, or run locally"
    try:
        same = _namesake(simulator.name)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"simulator {simulator.name} cannot go to another machine: {error.what}", hint
        ) from None
    if type(same) is not type(simulator) or getattr(same, "__dict__", {}) != getattr(
        simulator, "__dict__", {}
    ):
        raise ConfigurationError(
            f"simulator {simulator.name} has settings of its own that stay on this machine", hint
        )


@lru_cache(maxsize=64)
def _namesake(name: str) -> Simulator:
    """What the name stands for; looking it up takes milliseconds, and every job asks."""
    return get_simulator(name)


def _machine_file(machine: Machine) -> Path:
    """A file of the machine, named by content. A machine has no hash, and is asked for by every job."""
    known = _machine_files.get(id(machine))
    if known is None or known[0] is not machine or not known[1].exists():
        known = _machine_files[id(machine)] = (machine, native.keep("machine.toml", as_toml(machine)))
    return known[1]


#: By identity; the machine is kept, so that its identity stays its own.
_machine_files: dict[int, tuple[Machine, Path]] = {}


@lru_cache(maxsize=64)
def _read_machine(path: Path) -> Machine:
    return load_machine(path)


@lru_cache(maxsize=64)
def _usable(name: str, machine_file: Path, version: str) -> Simulator:
    """The simulator of that name here.

    Raises:
        Refused: it does not work here, or is of another version than the driver's.
    """
    try:
        simulator = get_simulator(name)
    except ConfigurationError as error:
        raise Refused(error.what, error.hint) from None
    here = simulator.probe(_read_machine(machine_file))
    if not here.available:
        raise Refused(f"simulator {name} does not work there: {here.reason}", here.fix)
    if here.version != version:
        raise Refused(
            f"simulator {name} is of version {here.version or 'unknown'} there, {version} here",
            "install the same version on both machines: their counts would not belong together",
        )
    return simulator


@lru_cache(maxsize=64)
def _mca(machine_file: Path, name: str) -> Mca:
    """The estimator of that name here.

    Raises:
        Refused: it does not work here, or is of another version than the driver's.
    """
    try:
        mca = Mca(_read_machine(machine_file))
    except SimtuneError as error:
        raise Refused(error.what, error.hint) from error
    if mca.name != name:
        raise Refused(f"llvm-mca is {mca.name} there, {name} here", "install the same LLVM on both machines")
    return mca
