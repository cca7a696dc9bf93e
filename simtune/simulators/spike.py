# SPDX-License-Identifier: Apache-2.0
"""Runs RISC-V executables bare-metal in Spike, the reference simulator of the instruction set.

Spike knows no region of interest: it reports once, at its end. So it runs three times. The whole
program first, without caches, tells how it ends and whether its answer is right. Then come two runs
with caches and a histogram of addresses, one that ends at the begin of the region and one that ends at
its end: they are equal up to the begin, so their difference is the region alone.

Spike's caches replace pseudo-randomly, which is what `Counters.replacement` says: such counts are
another quantity than LRU counts of the same program and never meet them in one training set.
"""

from __future__ import annotations

import functools
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from simtune import native
from simtune.counters import INSTRUCTION_CLASSES, Counters
from simtune.errors import SimtuneError
from simtune.execution.supervise import Completed, Ending
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Machine
from simtune.simulators import bare, marks
from simtune.simulators.base import Capability
from simtune.simulators.ending import Stages, attempt, cold_start, named, refuse_unmarked, reproducer
from simtune.simulators.locate import find_program, output_of

#: What `Counters.replacement` holds for these counts.
REPLACEMENT = "pseudo-random"

_INSTALL = "pip install --pre spike, or build it (https://github.com/riscv-software-src/riscv-isa-sim)"
_EBREAK = bytes.fromhex("73001000")
_LEVELS = {"l1i": "ic", "l1d": "dc", "l2": "l2"}
#: zicclsm: loads and stores at any address, which LLVM makes use of for vectors.
_EXTENSIONS = "zba_zbb_zbc_zbs_zicclsm_zicntr_zicsr_zifencei"
_STATISTIC = re.compile(rb"^(I|D|L2)\$ ([A-Z][A-Za-z ]+):\s+(\d+)\s*$", re.MULTILINE)
_HISTOGRAM = re.compile(rb"^([0-9a-f]{1,16}) (\d+)\s*$", re.MULTILINE)
#: Random replacement leaves 1/e of the old lines in each pass over the size of a cache.
_FLUSH_PASSES = 5
#: What lies here and above is the monitor.
_MONITOR = 0x80000000

_COUNTERS = frozenset(
    {"instructions", "loads", "stores", "load_bytes", "store_bytes", "branches", "l1i.read_misses"}
    | {f"insn.{name}" for name in INSTRUCTION_CLASSES}
    | {
        f"{level}.{what}"
        for level in ("l1d", "l2")
        for what in ("read_hits", "read_misses", "write_hits", "write_misses", "writebacks")
    }
    | {"dram_read_bytes", "dram_write_bytes"}
)


class SpikeSimulator:
    """Spike with simtune's bare-metal monitor.

    Args:
        path: the `spike` program; by default ``SIMTUNE_SPIKE``, the configuration, then PATH.
    """

    name = "spike"

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def probe(self, machine: Machine | None = None) -> Capability:
        """Works for RISC-V machines, with vectors of any length; see `Simulator.probe`."""
        found = find_program("spike", ("spike",), _INSTALL)
        program = str(self._path) if self._path is not None else found.path
        if not program:
            return Capability(False, reason=found.reason, fix=found.fix)
        version = re.search(r"Simulator (\S+)", output_of(program, "--help"))
        if not version:
            return Capability(
                False, path=program, reason=f"{program} does not run, or is not Spike", fix=_INSTALL
            )
        reason = fix = digest = ""
        try:
            digest = bare.monitor("riscv64", "htif").stem.rpartition("-")[2][:8]
            _classifier()
        except SimtuneError as error:
            reason, fix = error.what, error.hint
        if not reason and machine is not None:
            reason, fix = _unfit(machine)
        return Capability(
            available=not reason,
            version=f"{version[1]}+{digest}",
            path=program,
            isas=("riscv64",),
            counters=_available(machine) if not reason else frozenset(),
            reason=reason,
            fix=fix,
        )

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Runs one job; see `Simulator.run`."""
        capability = self.probe(job.machine)
        return attempt(
            job, self.name, capability, (), lambda folder: self._run(job, capability, folder, cancel)
        )

    def _run(
        self, job: SimJob, capability: Capability, folder: Path, cancel: threading.Event | None
    ) -> Outcome:
        refuse_unmarked(job, self.name)
        data, base = job.executable.read_bytes(), bare.monitor("riscv64", "htif").read_bytes()
        cut = {
            bare.Stop.END: marks.replace(data, None, _EBREAK),
            bare.Stop.BEGIN: marks.replace(data, _EBREAK, None),
        }
        stages, command = Stages(job.limits, folder, cancel), reproducer(job, self.name)
        image = folder / "image.elf"
        image.write_bytes(bare.join(data, base, job.arguments))
        start = [capability.path, f"--isa={isa_string(job.machine)}", f"-m{bare.MEMORY_MIB}"]
        whole = stages.run([*start, str(image)])
        if whole.exit_code != 0:
            # Spike sends what the program writes to its error stream to standard output, too.
            whole = replace(whole, stderr=whole.stdout[-4096:] + whole.stderr)
        if whole.ending is not Ending.EXITED or whole.exit_code not in (0, 3):
            return stages.outcome(whole, None, command)
        runs: dict[bare.Stop, tuple[int, Counter[str], Counter[int]]] = {}
        for stop, program in cut.items():
            arguments = (*job.arguments, *cold_start(data, job, _FLUSH_PASSES))
            image.write_bytes(bare.join(program, base, arguments, stop))
            report, signature = folder / f"{stop.name}.log", folder / f"{stop.name}.sig"
            argv = [*start, "-g", *_caches(job.machine), f"+signature={signature}"]
            argv += ["+signature-granularity=8", str(image)]
            # The histogram is longer than what is kept of an error stream.
            done = stages.run(
                ["/bin/sh", "-c", 'out=$1; shift; exec "$@" 2>"$out"', "sh", str(report), *argv]
            )
            if done.ending is not Ending.EXITED:
                return stages.outcome(done, None, command)
            stopped, executed = parse_signature(_read(signature))
            if stopped != stop:
                return stages.outcome(whole, None, command, _unstopped(done, stopped))
            runs[stop] = executed, parse_statistics(done.stdout), parse_histogram(_read(report))
        counters = _difference(runs, data, job.machine, f"{self.name} {capability.version}")
        problem = None if counters else (Status.INFRASTRUCTURE, "spike wrote no whole report")
        return stages.outcome(whole, counters, command, problem)


def isa_string(machine: Machine) -> str:
    """What ``--isa`` wants: G, C, bit manipulation, and vectors of the machine's length."""
    vectors = f"v_zvl{machine.isa.vlen}b" if machine.isa.vlen else ""
    return f"rv64gc{vectors}_{_EXTENSIONS}"


def parse_signature(data: bytes) -> tuple[int, int]:
    """Which mark ended a run, and the instructions until then. Never raises; (0, 0) without one."""
    try:
        stop, executed = (int(word, 16) for word in data.decode("ascii").split()[:2])
    except ValueError:
        return 0, 0
    return stop, executed


def parse_statistics(data: bytes) -> Counter[str]:
    """Cache statistics by name, such as ``"D$ Read Misses"``. Never raises."""
    return Counter(
        {f"{match[1].decode()}$ {match[2].decode()}": int(match[3]) for match in _STATISTIC.finditer(data)}
    )


def parse_histogram(data: bytes) -> Counter[int]:
    """Executions by address, of the program alone. Never raises."""
    executed: Counter[int] = Counter()
    _, _, lines = data.rpartition(b"PC Histogram size:")
    for match in _HISTOGRAM.finditer(lines):
        address = int(match[1], 16)
        if address < _MONITOR or address >= 1 << 32:
            executed[address] += int(match[2])
    return executed


def _difference(
    runs: Mapping[bare.Stop, tuple[int, Counter[str], Counter[int]]],
    data: bytes,
    machine: Machine,
    simulator: str,
) -> Counters | None:
    end, begin = runs[bare.Stop.END], runs[bare.Stop.BEGIN]
    executed = end[0] - begin[0] - 1  # the begin mark itself
    cache, addresses = end[1], end[2]
    cache.subtract(begin[1])
    addresses.subtract(begin[2])
    if executed < 0 or not addresses:
        return None
    counts: dict[str, float] = {"instructions": executed}
    counts |= _mix(addresses, data)
    if "D$ Read Accesses" not in cache:
        return None
    counts["l1i.read_misses"] = cache["I$ Read Misses"]
    for level, name in (("l1d", "D$"), ("l2", "L2$")):
        if level not in machine.caches:
            continue
        for kind, title in (("read", "Read"), ("write", "Write")):
            misses = cache[f"{name} {title} Misses"]
            counts[f"{level}.{kind}_misses"] = misses
            counts[f"{level}.{kind}_hits"] = cache[f"{name} {title} Accesses"] - misses
        counts[f"{level}.writebacks"] = cache[f"{name} Writebacks"]
    if "l2" in machine.caches and "l3" not in machine.caches:
        line = machine.caches["l2"].line
        # A write miss of L2 is a line that L1 wrote back: Spike fetches it none the less.
        counts["dram_read_bytes"] = (counts["l2.read_misses"] + counts["l2.write_misses"]) * line
        counts["dram_write_bytes"] = counts["l2.writebacks"] * line
    return named(counts, simulator, REPLACEMENT)


@functools.cache
def _classifier() -> Path:
    folder = native.sources() / "qemu"
    inputs = [folder / "tools" / "classify.c", folder / "decode_riscv.c", folder / "decode.h"]
    command = ["cc", "-O2", "-std=gnu11", "-o", "{out}", *map(str, inputs[:2])]
    return native.build("classify-riscv64", command, inputs)


def _mix(addresses: Mapping[int, int], data: bytes) -> dict[str, float]:
    """Classes, loads and stores, from how often each address was executed and the code there."""
    begin, end = marks.MARKS["riscv64"]
    executed: Counter[bytes] = Counter()
    for address, times in addresses.items():
        code = _code_at(data, address)
        if times > 0 and code and code not in (begin, end):
            executed[code] += times
    codes = list(executed)
    done = subprocess.run(
        [str(_classifier())],
        input="".join(f"{code.hex()}\n" for code in codes),
        capture_output=True,
        text=True,
    )
    counts: dict[str, float] = dict.fromkeys((f"insn.{name}" for name in INSTRUCTION_CLASSES), 0)
    counts |= {"loads": 0, "stores": 0, "load_bytes": 0, "store_bytes": 0}
    varying = set()
    for code, line in zip(codes, done.stdout.splitlines(), strict=True):
        kind, loads, stores, read, written = map(int, line.split())
        times = executed[code]
        counts[f"insn.{INSTRUCTION_CLASSES[kind]}"] += times
        counts["loads"] += times * loads
        counts["stores"] += times * stores
        for name, size in (("load_bytes", read), ("store_bytes", written)):
            counts[name] += times * max(0, size)
            if size < 0:  # vectors: how many elements is not in the code
                varying.add(name)
    counts["branches"] = counts["insn.branch"]
    return {name: value for name, value in counts.items() if name not in varying}


def _code_at(data: bytes, address: int) -> bytes:
    """The instruction at an address of the program; empty where the file has none."""
    for kind, _, offset, start, _, size, *_ in marks.program_headers(data):
        if kind == 1 and start <= address < start + size:
            at = offset + address - start
            length = 4 if data[at] & 3 == 3 else 2
            return data[at : at + length]
    return b""


def _caches(machine: Machine) -> list[str]:
    found = {name: machine.caches[level] for level, name in _LEVELS.items() if level in machine.caches}
    return [f"--{name}={cache.sets}:{cache.ways}:{cache.line}" for name, cache in found.items()]


def _available(machine: Machine | None) -> frozenset[str]:
    if machine is None:
        return _COUNTERS
    absent = set() if "l2" in machine.caches else {n for n in _COUNTERS if n.startswith("l2.")}
    if "l2" not in machine.caches or "l3" in machine.caches:
        absent |= {"dram_read_bytes", "dram_write_bytes"}
    return _COUNTERS - absent


def _unfit(machine: Machine) -> tuple[str, str]:
    if machine.isa.name != "riscv64":
        return f"spike runs riscv64, {machine.name} is {machine.isa.name}", "use --simulator qemu"
    for level in _LEVELS:
        if level in machine.caches and machine.caches[level].sets & (machine.caches[level].sets - 1):
            what = f"spike wants a power of two as number of sets, {level} of {machine.name} has another"
            return what, "use --simulator qemu"
    return "", ""


def _unstopped(done: Completed, stopped: int) -> tuple[Status, str]:
    if done.exit_code == 0 and stopped == 0:
        return Status.INVALID, "the program never entered a region of interest"
    return Status.INFRASTRUCTURE, "spike wrote no whole report"


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
