# SPDX-License-Identifier: Apache-2.0
"""A simulator adapter for simtune, to copy. What is yours to write is marked with 1 to 4."""

from __future__ import annotations

import re
import threading
from pathlib import Path

from simtune import native
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Machine
from simtune.simulators.base import Capability
from simtune.simulators.ending import Stages, attempt, named, reproducer
from simtune.simulators.locate import find_program, output_of

_INSTALL = "sudo apt-get install qemu-user (Debian 12)"


class ExampleSimulator:
    """Counts instructions of RISC-V programs. Instances are used by several threads at once."""

    name = "example"

    def probe(self, machine: Machine | None = None) -> Capability:
        """1. Where it is, which version, and what it can do; never raises."""
        found = find_program(self.name, ("qemu-riscv64",), _INSTALL)  # or SIMTUNE_EXAMPLE=PATH
        if not found.path:
            return Capability(False, reason=found.reason, fix=found.fix)
        version = re.search(r"version (\d+\.\d+\.\d+)", output_of(found.path, "--version"))
        reason = fix = ""
        if not version:
            reason, fix = f"{found.path} does not run", _INSTALL
        elif "-plugin" not in output_of(found.path, "-h") or not 7 <= int(version[1].split(".")[0]) < 9:
            reason, fix = f"{found.path} is not a QEMU 7 or 8 that takes plugins", _INSTALL
        elif machine is not None and machine.isa.name != "riscv64":
            reason, fix = f"it runs riscv64, {machine.name} is {machine.isa.name}", "use --simulator qemu"
        return Capability(
            available=not reason,
            version=version[1] if version else "",
            path=found.path,
            isas=("riscv64",),
            counters=frozenset({"instructions"}),  # names of simtune.counters.SCHEMA
            reason=reason,
            fix=fix,
        )

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """2. Runs one job under its limits; whatever the program does becomes an Outcome."""
        capability = self.probe(job.machine)

        def work(folder: Path) -> Outcome:
            stages = Stages(job.limits, folder, cancel)
            argv = [capability.path, "-plugin", f"{_counter()},out=report", str(job.executable.absolute())]
            done = stages.run([*argv, *job.arguments])
            counts = parse_report(_read(folder / "report"))
            version = f"{self.name} {capability.version}"
            counters = named({"instructions": counts["instructions"]}, version) if counts else None
            return stages.outcome(done, counters, reproducer(job, self.name), _problem(counts))

        return attempt(job, self.name, capability, (), work)


def parse_report(data: bytes) -> dict[str, int]:
    """3. Reads what the simulator wrote; never raises, and gives nothing for half a report."""
    lines = re.findall(rb"^(\w+) (\d+)$", data, re.MULTILINE)
    found = {name.decode(): int(value) for name, value in lines if len(value) < 20}
    return found if {"regions", "open", "instructions"} <= set(found) else {}


def _problem(counts: dict[str, int]) -> tuple[Status, str] | None:
    """4. What the report says although the program ended well."""
    if not counts:
        return Status.INFRASTRUCTURE, "the simulator wrote no whole report"
    if not counts["regions"]:
        return Status.INVALID, "the program never entered a region of interest"
    return (Status.CRASHED, "the program ended inside its region") if counts["open"] else None


def _counter() -> Path:
    """The stand-in for a simulator, compiled at first use; yours is a program that is there already."""
    source = Path(__file__).with_name("counter.c")
    command = [
        "cc",
        "-O2",
        "-std=gnu11",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        "-o",
        "{out}",
        str(source),
    ]
    return native.build("example-counter.so", command, [source])


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
