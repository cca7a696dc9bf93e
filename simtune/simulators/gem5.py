# SPDX-License-Identifier: Apache-2.0
"""Runs executables in gem5's system-call emulation: counters, and cycles with a detailed model.

Four adapters share this: ``gem5`` (AtomicSimpleCPU, instruction-accurate) and ``gem5-timing``,
``gem5-minor``, ``gem5-o3``, which count cycles, too. The system that is simulated is built from the
machine file by `simulators/gem5/system.py`.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from simtune import native
from simtune.counters import INSTRUCTION_CLASSES
from simtune.execution.supervise import Ending
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Machine
from simtune.simulators import marks
from simtune.simulators.base import Capability
from simtune.simulators.ending import Stages, attempt, cold_start, named, refuse_unmarked, reproducer
from simtune.simulators.gem5_stats import map_section, parse_sections
from simtune.simulators.locate import find_program, output_of

#: work_begin (0x5a) and work_end (0x5b) as m5ops, in the space of a mark.
_M5OPS = {
    "riscv64": tuple((0x7B | func << 25).to_bytes(4, "little") for func in (0x5A, 0x5B)),
    "aarch64": tuple((0xFF000110 | func << 16).to_bytes(4, "little") for func in (0x5A, 0x5B)),
    # 0f 04, the number, and a four-byte nop
    "x86_64": tuple(bytes((0x0F, 0x04, func, 0, 0x0F, 0x1F, 0x40, 0x00)) for func in (0x5A, 0x5B)),
}
_NAMES = {"RISCV": "riscv64", "ARM": "aarch64", "X86": "x86_64"}
_INSTALL = "build gem5 23 to 25 (https://www.gem5.org, such as: scons build/RISCV/gem5.fast)"
_MEMORY_BYTES = 3 << 30
_CACHES = ("l1d", "l2", "l3")
_OPTIONAL = frozenset({"branch"})


class Gem5Simulator:
    """gem5 with one of its models of a core.

    Args:
        path: the gem5 program; by default ``SIMTUNE_GEM5``, the configuration, then PATH.
    """

    name = "gem5"
    model = "AtomicSimpleCPU"

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def probe(self, machine: Machine | None = None) -> Capability:
        """Says which instruction sets this build of gem5 has; see `Simulator.probe`."""
        found = find_program("gem5", ("gem5.fast", "gem5.opt", "gem5"), _INSTALL)
        program = str(self._path) if self._path is not None else found.path
        if not program:
            return Capability(False, reason=found.reason, fix=found.fix)
        about = output_of(program, "--build-info")
        version, isas = _version(about), _isas(about)
        reason = fix = ""
        if not version:
            reason, fix = f"{program} does not run, or is not gem5", _INSTALL
        elif not isas:
            reason, fix = f"{program} does not say for which instruction set it was built", _INSTALL
        elif machine is not None:
            reason, fix = _unfit(machine, isas)
        return Capability(
            available=not reason,
            # The script decides about the counts as much as gem5 does.
            version=f"{version}+{_script_digest()}" if version else "",
            path=program,
            isas=isas,
            counters=self._counters(machine) if not reason else frozenset(),
            reason=reason,
            fix=fix,
        )

    def _counters(self, machine: Machine | None) -> frozenset[str]:
        names = {"instructions", "branches", "loads", "stores", "l1i.read_misses"}
        names |= {"dram_read_bytes", "dram_write_bytes"}
        names |= {f"insn.{name}" for name in INSTRUCTION_CLASSES if name not in ("atomic", "vec_shuffle")}
        for level in _CACHES if machine is None else [n for n in _CACHES if n in machine.caches]:
            names |= {f"{level}.{kind}_{what}" for kind in ("read", "write") for what in ("hits", "misses")}
            names.add(f"{level}.writebacks")
        if self.model != "AtomicSimpleCPU":
            names.add("cycles")
        if self.model in ("MinorCPU", "O3CPU"):
            names.add("branch_mispredicts")
        return frozenset(names)

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Runs one job; see `Simulator.run`."""
        capability = self.probe(job.machine)
        return attempt(
            job, self.name, capability, _OPTIONAL, lambda folder: self._run(job, capability, folder, cancel)
        )

    def _run(
        self, job: SimJob, capability: Capability, folder: Path, cancel: threading.Event | None
    ) -> Outcome:
        refuse_unmarked(job, self.name)
        begin, end = _M5OPS[job.machine.isa.name]
        executable = marks.copy_with(job.executable, folder / "program", begin, end)
        out = folder / "out"
        out.mkdir()
        (folder / "job.json").write_text(json.dumps(self.description(job, executable, out)))
        script = native.sources() / "gem5" / "system.py"
        argv = [capability.path, f"--outdir={out}", str(script), str(folder / "job.json")]
        stages = Stages(job.limits, folder, cancel)
        done = stages.run(argv)
        result = _result(out / "result.json")
        stdout = _read(out / "stdout.txt")
        errors = _read(out / "stderr.txt") + done.stderr
        if done.ending is Ending.EXITED and "code" in result:
            done = replace(done, exit_code=int(result["code"]), leftovers=0)
        counts, problem = self._counts(job, _read(out / "stats.txt"), result)
        counters = named(counts, f"{self.name} {capability.version}") if counts else None
        done = replace(done, stderr=errors[-16384:])
        return stages.outcome(done, counters, reproducer(job, self.name), problem, stdout)

    def description(self, job: SimJob, executable: Path, out: Path) -> dict[str, Any]:
        """The job file for the script."""
        machine = job.machine
        return {
            "isa": machine.isa.name,
            "vlen": machine.isa.vlen,
            "model": self.model,
            "clock_hz": machine.clock_hz,
            "caches": {name: asdict(cache) for name, cache in machine.caches.items()},
            "pipeline": {
                name: getattr(machine.pipeline, name)
                for name in ("kind", "issue_width", "rob", "load_queue", "store_queue")
            },
            "memory_bytes": _MEMORY_BYTES,
            "executable": str(executable),
            "arguments": [*job.arguments, *cold_start(executable.read_bytes(), job)],
            "stdout": str(out / "stdout.txt"),
            "stderr": str(out / "stderr.txt"),
        }

    def _counts(
        self, job: SimJob, stats: bytes, result: dict[str, Any]
    ) -> tuple[dict[str, float], tuple[Status, str] | None]:
        """Counters summed over the regions, and what else may be wrong."""
        if "error" in result:
            text = f"this gem5 does not understand the system description: {result['error']}"
            return {}, (Status.INFRASTRUCTURE, text)
        if not result:
            return {}, (Status.INFRASTRUCTURE, "gem5 ended without saying how the program ended")
        if result.get("open"):
            return {}, (Status.CRASHED, "the program ended inside its region of interest")
        sections = parse_sections(stats)[: result.get("regions", 0)]
        if not result.get("regions"):
            return {}, (Status.INVALID, "the program never entered a region of interest")
        if len(sections) < result["regions"]:
            return {}, (Status.INFRASTRUCTURE, "gem5 wrote no whole statistics")
        machine, total = job.machine, dict[str, float]()
        levels = tuple(name for name in machine.caches)
        last = max(name for name in levels if name != "l1i")
        for section in sections:
            mapped = map_section(
                section,
                machine.caches[last].line,
                levels=levels,
                micro_ops=machine.isa.name == "x86_64",
            )
            if not mapped:
                return {}, (Status.INFRASTRUCTURE, "gem5's statistics name no instructions")
            for name, value in mapped.items():
                total[name] = total.get(name, 0) + value
        allowed = self._counters(machine)
        if "branch" not in job.count:
            allowed -= {"branch_mispredicts"}
        return {name: value for name, value in total.items() if name in allowed}, None


class Gem5TimingSimulator(Gem5Simulator):
    """gem5's TimingSimpleCPU: one instruction at a time, with the latencies of caches and memory."""

    name, model = "gem5-timing", "TimingSimpleCPU"


class Gem5MinorSimulator(Gem5Simulator):
    """gem5's in-order MinorCPU, as wide as the machine file says."""

    name, model = "gem5-minor", "MinorCPU"


class Gem5O3Simulator(Gem5Simulator):
    """gem5's out-of-order O3CPU, with the widths, reorder buffer and queues of the machine file."""

    name, model = "gem5-o3", "O3CPU"


def _version(about: str) -> str:
    found = re.search(r"gem5 version (\S+)", about)
    return found[1] if found else ""


def _isas(about: str) -> tuple[str, ...]:
    """Instruction sets of a build, from what ``gem5 --build-info`` prints."""
    found = {isa for name, isa in _NAMES.items() if re.search(rf"USE_{name}_ISA\W+(True|1|y)\b", about)} or {
        isa for name, isa in _NAMES.items() if re.search(rf"TARGET_ISA\W+{name}\b", about, re.IGNORECASE)
    }
    return tuple(sorted(found))


@functools.cache
def _script_digest() -> str:
    import hashlib

    return hashlib.sha256((native.sources() / "gem5" / "system.py").read_bytes()).hexdigest()[:8]


def _unfit(machine: Machine, isas: tuple[str, ...]) -> tuple[str, str]:
    """Why gem5 cannot simulate a machine, and what to do."""
    if machine.isa.name not in isas:
        what = f"this gem5 is built for {', '.join(isas)}, {machine.name} is {machine.isa.name}"
        return what, _INSTALL
    lines = {cache.line for cache in machine.caches.values()}
    if len(lines) > 1:
        return f"gem5 has one line size for all caches, {machine.name} has {sorted(lines)}", "use qemu"
    for level, cache in machine.caches.items():
        if cache.sets & (cache.sets - 1):
            what = f"gem5 wants a power of two as number of sets, {level} of {machine.name} has {cache.sets}"
            return what, "use --simulator qemu"
    return "", ""


def _result(file: Path) -> dict[str, Any]:
    """What the script wrote; empty when it did not come that far."""
    try:
        result = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    good = isinstance(result, dict) and isinstance(result.get("regions", 0), int)
    return result if good and isinstance(result.get("code", 0), int) else {}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
