# SPDX-License-Identifier: Apache-2.0
"""Runs x86-64 executables in valgrind: cachegrind or callgrind, with their LRU cache model.

callgrind counts from toggle to toggle: `simulators/harness/roi.h` puts its request beside the marks.
cachegrind of the releases before 3.22 cannot be switched on and off, so it runs twice: up to the
begin of the region and up to its end. Executables with marks but without the request are counted that
way by callgrind, too; how they end is then found out by running them on the host itself.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import threading
from pathlib import Path

from simtune.counters import Counters
from simtune.execution.supervise import Completed, Ending
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Cache, Machine
from simtune.simulators import marks
from simtune.simulators.base import Capability
from simtune.simulators.ending import Stages, attempt, cold_start, named
from simtune.simulators.locate import find_program, output_of

#: ``rol $3, %rdi; rol $13, %rdi; rol $61, %rdi; rol $51, %rdi; xchg %rbx, %rbx``
_REQUEST = bytes.fromhex("48c1c70348c1c70d48c1c73d48c1c7334887db")
#: What is counted between two toggles beside the region: the request, both marks, lea, xor.
_TOGGLE_EDGE = 5
#: ``push $60; pop %rax; xor %edi, %edi; syscall; nop``: exit(0) in the space of a mark.
_EXIT = bytes.fromhex("6a3c5831ff0f0590")
_INSTALL = "sudo apt-get install valgrind"
_OPTIONAL = frozenset({"branch"})

_COUNTERS = frozenset(
    {"instructions", "loads", "stores", "branches", "branch_mispredicts", "l1i.read_misses"}
    | {f"l1d.{kind}_{what}" for kind in ("read", "write") for what in ("hits", "misses")}
    | {"l2.read_misses", "l3.read_misses", "dram_read_bytes"}
)


class ValgrindSimulator:
    """One of valgrind's two counting tools; see `CachegrindSimulator` and `CallgrindSimulator`.

    Args:
        path: the `valgrind` program; by default ``SIMTUNE_VALGRIND``, the configuration, then PATH.
    """

    name = ""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def probe(self, machine: Machine | None = None) -> Capability:
        """Works for x86-64 machines on an x86-64 host; see `Simulator.probe`."""
        found = find_program("valgrind", ("valgrind",), _INSTALL)
        program = str(self._path) if self._path is not None else found.path
        if not program:
            return Capability(False, reason=found.reason, fix=found.fix)
        version = re.search(r"valgrind-(\d+(?:\.\d+)+)", output_of(program, "--version"))
        if not version:
            reason = f"{program} does not run, or is not valgrind"
            return Capability(False, path=program, reason=reason, fix=_INSTALL)
        reason = fix = ""
        if platform.machine() != "x86_64":
            reason = f"this host is {platform.machine()}, and valgrind runs x86-64 candidates on x86-64 only"
            fix = "use --simulator qemu"
        elif machine is not None:
            reason, fix = _unfit(machine)
        return Capability(
            available=not reason,
            version=version[1],
            path=program,
            isas=("x86_64",) if platform.machine() == "x86_64" else (),
            counters=self._counters(machine) if not reason else frozenset(),
            reason=reason,
            fix=fix,
        )

    def _counters(self, machine: Machine | None) -> frozenset[str]:
        if machine is None:
            return _COUNTERS
        other = {"l2", "l3"} - {_last_level(machine)}
        return frozenset(name for name in _COUNTERS if name.partition(".")[0] not in other)

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Runs one job; see `Simulator.run`."""
        capability = self.probe(job.machine)
        return attempt(
            job, self.name, capability, _OPTIONAL, lambda folder: self._run(job, capability, folder, cancel)
        )

    def _run(
        self, job: SimJob, capability: Capability, folder: Path, cancel: threading.Event | None
    ) -> Outcome:
        data = job.executable.read_bytes()
        stages = Stages(job.limits, folder, cancel)
        simulator = f"{self.name} {capability.version}"
        toggles = self.name == "callgrind" and _REQUEST in data
        if job.region == "all" or toggles:
            out = folder / "out"
            options = [] if job.region == "all" else ["--collect-atstart=no"]
            argv = [
                *self._command(capability.path, job.machine, out, options),
                str(job.executable.absolute()),
            ]
            argv += [*job.arguments, *(cold_start(data, job) if options else ())]
            done = stages.run(argv)
            events = parse_events(_read(out))
            if job.region == "marker" and events:
                events["Ir"] -= _TOGGLE_EDGE
            counters = self._map(events, job, simulator)
            problem = None if counters else _missing(events, toggles and bool(events))
            return stages.outcome(done, counters, _again(argv), problem)
        return self._by_difference(job, data, capability.path, simulator, stages, folder)

    def _by_difference(
        self, job: SimJob, data: bytes, program: str, simulator: str, stages: Stages, folder: Path
    ) -> Outcome:
        """First natively, to see whether it is right; then up to the end and up to the begin."""
        cut = {"begin": marks.replace(data, _EXIT, None), "end": marks.replace(data, None, _EXIT)}
        native = stages.run([str(job.executable.absolute()), *job.arguments])
        if native.ending is not Ending.EXITED or native.exit_code not in (0, 3):
            return stages.outcome(native, None, _again([str(job.executable), *job.arguments]))
        total: dict[str, int] = {}
        for place, sign in (("end", 1), ("begin", -1)):
            executable, out = folder / place, folder / f"{place}.out"
            executable.write_bytes(cut[place])
            executable.chmod(0o755)
            # The same path on both stacks: it decides where everything else lies.
            same = folder / "program"
            executable.rename(same)
            argv = [*self._command(program, job.machine, out, []), str(same), *job.arguments]
            argv += cold_start(data, job)
            done = stages.run(argv)
            events = parse_events(_read(out))
            if not events or done.ending is not Ending.EXITED:
                problem = _missing(events, False)
                return stages.outcome(_worse(done, native), None, _again(argv), problem)
            for name, value in events.items():
                total[name] = total.get(name, 0) + sign * value
        total["Ir"] -= 1  # the begin mark
        return stages.outcome(native, self._map(total, job, simulator), _again(argv))

    def _command(self, program: str, machine: Machine, out: Path, options: list[str]) -> list[str]:
        geometry = {"I1": "l1i", "D1": "l1d", "LL": _last_level(machine)}
        return [
            *(program, f"--tool={self.name}", "--quiet", "--cache-sim=yes", "--branch-sim=yes"),
            *(f"--{name}={_geometry(machine.caches[level])}" for name, level in geometry.items()),
            *(f"--{self.name}-out-file={out}", *options),
        ]

    def _map(self, events: dict[str, int], job: SimJob, simulator: str) -> Counters | None:
        """Valgrind's events under the names of the schema."""
        if events.get("Ir", 0) <= 0:
            return None
        e, last = events, _last_level(job.machine)
        counts: dict[str, float] = {
            "instructions": e["Ir"],
            "loads": e["Dr"],
            "stores": e["Dw"],
            "branches": e["Bc"],
            "l1i.read_misses": max(0, e["I1mr"]),
            "l1d.read_hits": e["Dr"] - e["D1mr"],
            "l1d.read_misses": e["D1mr"],
            "l1d.write_hits": e["Dw"] - e["D1mw"],
            "l1d.write_misses": e["D1mw"],
        }
        # Write misses fetch their line, too.
        fills = max(0, e["ILmr"]) + e["DLmr"] + e["DLmw"]
        counts[f"{last}.read_misses"] = fills
        counts["dram_read_bytes"] = fills * job.machine.caches[last].line
        if "branch" in job.count:
            counts["branch_mispredicts"] = e["Bcm"]
        return named(counts, simulator)


class CachegrindSimulator(ValgrindSimulator):
    """valgrind --tool=cachegrind"""

    name = "cachegrind"


class CallgrindSimulator(ValgrindSimulator):
    """valgrind --tool=callgrind"""

    name = "callgrind"


def parse_events(data: bytes) -> dict[str, int]:
    """The events of an output file of either tool. Never raises: empty when it is not whole."""
    names: list[str] = []
    values: list[int] = []
    try:
        for line in data.decode("ascii", errors="replace").splitlines():
            key, _, rest = line.partition(":")
            if key == "events":
                names = rest.split()
            elif key == "summary":
                values = [int(item) for item in rest.split()]
    except ValueError:
        return {}
    # Trailing zeros are left out by callgrind.
    if not names or not values or len(values) > len(names) or any(value < 0 for value in values):
        return {}
    found = dict.fromkeys(names, 0) | dict(zip(names, values, strict=False))
    wanted = ("Ir", "Dr", "Dw", "I1mr", "D1mr", "D1mw", "ILmr", "DLmr", "DLmw", "Bc", "Bcm")
    return found if all(name in found for name in wanted) else {}


def _last_level(machine: Machine) -> str:
    """The level that valgrind's LL stands for; it has no L2 beside an L3."""
    return max((level for level in machine.caches if level in ("l2", "l3")), default="l1d")


def _geometry(cache: Cache) -> str:
    return f"{cache.size},{cache.ways},{cache.line}"


def _unfit(machine: Machine) -> tuple[str, str]:
    """Why valgrind cannot model a machine, and what to do."""
    if machine.isa.name != "x86_64":
        return f"valgrind runs x86-64, {machine.name} is {machine.isa.name}", "use --simulator qemu"
    for level, cache in machine.caches.items():
        if cache.sets & (cache.sets - 1) and level in ("l1i", "l1d", _last_level(machine)):
            what = (
                f"valgrind wants a power of two as number of sets, {level} of {machine.name} has {cache.sets}"
            )
            return what, "use --simulator qemu"
    if _last_level(machine) == "l1d":
        return f"valgrind models a last level behind L1, {machine.name} has none", "use --simulator qemu"
    return "", ""


def _missing(events: dict[str, int], entered: bool) -> tuple[Status, str]:
    if events and not entered:
        return Status.INFRASTRUCTURE, "valgrind wrote no whole report"
    if events:
        return Status.INVALID, "the program never entered a region of interest"
    return Status.INFRASTRUCTURE, "valgrind wrote no whole report"


def _worse(done: Completed, native: Completed) -> Completed:
    return native if done.ending is Ending.EXITED else done


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _again(argv: list[str]) -> str:
    return f"env -i setarch -R {shlex.join(os.fspath(item) for item in argv)}"
