# SPDX-License-Identifier: Apache-2.0
"""A pipeline estimate of a candidate's hot blocks from LLVM's `llvm-mca`: the counter `mca_cycles`.

Every hot block is taken for a loop of its own, in steady state and with all accesses hitting L1; its
cycles times its executions add up. Blocks that nobody reported, or that LLVM cannot schedule, count
as the others do, by their instructions. Estimates are kept by the content of the block.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from simtune import native
from simtune.errors import ConfigurationError, ToolMissingError
from simtune.jobs import HotBlock, Outcome
from simtune.machines.model import Machine

COUNTER = "mca_cycles"
#: Its name among the optional models.
MCA = "mca"

#: LLVM's name of the CPU -> processors whose scheduling model stands for it, the best one first.
#: LLVM's own model of "x86-64-v3" is that of an old Intel core; the machine file has Zen's numbers.
STAND_INS: Mapping[str, tuple[str, ...]] = {
    "x86-64-v3": ("znver4", "znver3", "znver2", "haswell"),
    "generic-rv64": ("sifive-u74",),
    "sifive-x280": ("sifive-x280", "sifive-7-series"),
}
_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "riscv64": "riscv64-linux-gnu"}
#: An instruction that no kernel has, as bytes and as LLVM prints it: it ends a block.
_ENDS = {
    "x86_64": (b"\x0f\x0b", "ud2"),
    "aarch64": (b"\x00\x00\x20\xd4", "brk\t#0"),
    "riscv64": (b"\x73\x00\x10\x00", "ebreak"),
}
_ITERATIONS = 100
#: With a smaller share of the instructions in estimated blocks there is no estimate.
_COVERED = 0.5
INSTALL = "sudo apt-get install llvm"


class Mca:
    """Estimates for one machine.

    Args:
        machine: its `target` names the CPU.
        cache: file for estimates; in the user's cache folder by default.

    Raises:
        ToolMissingError: LLVM's tools are not here.
        ConfigurationError: they do not know the machine's CPU.
    """

    def __init__(self, machine: Machine, cache: Path | None = None) -> None:
        self.isa = machine.isa.name
        self._mca, self._mc = find("llvm-mca"), find("llvm-mc")
        self.version = _version(self._mca)
        self.cpu = self._model(str(machine.target.get("mcpu", "generic")), machine.name)
        self._cache = _Cache(cache or native.cache_dir() / "mca.db")

    @property
    def name(self) -> str:
        """What an estimate depends on beside the block."""
        return f"mca:{self.version}:{self.cpu}"

    def add(self, outcome: Outcome, keep_blocks: bool = False) -> Outcome:
        """The outcome with the counter; unchanged when the simulator reported no blocks."""
        if outcome.counters is None:
            return outcome
        cycles = self.cycles(outcome.blocks, outcome.counters.get("instructions", 0.0))
        if cycles is not None:
            counts = {**outcome.counters.counts, COUNTER: cycles}
            outcome = replace(outcome, counters=replace(outcome.counters, counts=counts))
        return outcome if keep_blocks else replace(outcome, blocks=())

    def cycles(self, blocks: Sequence[HotBlock], instructions: float) -> float | None:
        """Cycles of all `instructions`, by what is known of their blocks; None when that is too little."""
        known = self.blocks([block.code for block in blocks])
        total = covered = 0.0
        for block, cycles in zip(blocks, known, strict=True):
            if not math.isnan(cycles):
                total += block.executions * cycles
                covered += block.executions * block.instructions
        instructions = max(instructions, covered)
        if not covered or covered < _COVERED * instructions:
            return None
        return total * instructions / covered

    def blocks(self, codes: Sequence[bytes]) -> list[float]:
        """Cycles of one execution of each block; NaN where LLVM cannot schedule it."""
        keys = {
            code: hashlib.sha256(f"{self.name}:{self.isa}:".encode() + code).hexdigest()[:32]
            for code in codes
        }
        known = self._cache.get(keys.values())
        missing = [code for code, key in keys.items() if key not in known]
        if missing:
            fresh = {keys[code]: cycles for code, cycles in self._estimate(missing).items()}
            self._cache.put(fresh)
            known |= fresh
        return [known[keys[code]] for code in codes]

    def _estimate(self, codes: list[bytes]) -> dict[bytes, float]:
        texts = dict(zip(codes, self._disassemble(codes), strict=True))
        found = self._schedule({code: text for code, text in texts.items() if text})
        if found is None:  # one bad instruction spoils the whole run: find out whose it is
            found = {}
            for code, text in texts.items():
                found |= (self._schedule({code: text}) if text else None) or {}
        return {code: found.get(code, math.nan) for code in codes}

    def _disassemble(self, codes: list[bytes]) -> list[list[str]]:
        """Assembly of each block; empty for one that does not come out whole."""
        end, printed = _ENDS[self.isa]
        stream = "\n".join(" ".join(f"0x{byte:02x}" for byte in code + end) for code in codes)
        triple = f"-triple={_TRIPLES[self.isa]}"
        text, error = self._run([self._mc, "-disassemble", triple, f"-mcpu={self.cpu}"], stream)
        blocks: list[list[str]] = [[]]
        for line in text.splitlines():
            line = line.strip()
            if line == printed:
                blocks.append([])
            elif line and not line.startswith("."):
                blocks[-1].append(line)
        if not error and len(blocks) == len(codes) + 1:
            return blocks[:-1]
        if len(codes) == 1:
            return [[]]
        return [text for code in codes for text in self._disassemble([code])]

    def _schedule(self, texts: Mapping[bytes, list[str]]) -> dict[bytes, float] | None:
        """Cycles of each block; None when LLVM refuses one of them."""
        lines: list[str] = []
        for number, text in enumerate(texts.values()):
            lines += [f"# LLVM-MCA-BEGIN b{number}", *text, f"# LLVM-MCA-END b{number}"]
        triple = f"-mtriple={_TRIPLES[self.isa]}"
        command = [self._mca, "-json", triple, f"-mcpu={self.cpu}", f"-iterations={_ITERATIONS}"]
        output, _ = self._run(command, "\n".join(lines) + "\n")
        try:
            regions = json.loads(output)["CodeRegions"]
            named = {region["Name"]: float(region["SummaryView"]["TotalCycles"]) for region in regions}
            return {code: named[f"b{number}"] / _ITERATIONS for number, code in enumerate(texts)}
        except (ValueError, KeyError, TypeError):
            return None

    def _model(self, cpu: str, machine: str) -> str:
        """The processor whose model is used."""
        tried = STAND_INS.get(cpu, (cpu,))
        for name in tried:
            command = [self._mca, f"-mtriple={_TRIPLES[self.isa]}", f"-mcpu={name}"]
            output, error = self._run(command, "nop\n")
            if output and "not a recognized processor" not in error and "unable to find" not in error:
                return name
        raise ConfigurationError(
            f"llvm-mca {self.version} has no pipeline model for {' or '.join(tried)}, the CPU of {machine}",
            "leave --features mca out, or install a newer LLVM",
        )

    def _run(self, command: list[str], text: str) -> tuple[str, str]:
        try:
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            return "", str(error)
        return done.stdout, done.stderr


class _Cache:
    """Estimates by key, in memory and in a file that processes share; without the file where it fails."""

    def __init__(self, path: Path) -> None:
        self._path, self._known, self._lock = path, dict[str, float](), threading.Lock()

    def get(self, keys: Iterable[str]) -> dict[str, float]:
        wanted = set(keys)
        with self._lock:
            missing = sorted(wanted - self._known.keys())
            if missing:
                marks = ", ".join("?" * len(missing))
                for key, cycles in self._file(
                    f"SELECT key, cycles FROM block WHERE key IN ({marks})", [missing]
                ):
                    self._known[str(key)] = math.nan if cycles is None else float(str(cycles))
            return {key: self._known[key] for key in wanted if key in self._known}

    def put(self, fresh: Mapping[str, float]) -> None:
        rows = [(key, None if math.isnan(cycles) else cycles) for key, cycles in fresh.items()]
        with self._lock:
            self._known.update(fresh)
            self._file("INSERT OR REPLACE INTO block VALUES (?, ?)", rows)

    def _file(self, sql: str, rows: Sequence[Sequence[object]]) -> list[tuple[object, ...]]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=10)
            try:
                with connection:
                    connection.execute("CREATE TABLE IF NOT EXISTS block (key TEXT PRIMARY KEY, cycles REAL)")
                    if sql.startswith("SELECT"):
                        return connection.execute(sql, rows[0]).fetchall()
                    connection.executemany(sql, rows)
            finally:
                connection.close()
        except (sqlite3.Error, OSError):  # a full disk or a damaged file costs time, no result
            pass
        return []


def find(name: str) -> str:
    """The program of that name, or with a version behind it as Debian has them; the newest one.

    Raises:
        ToolMissingError: it is not installed.
    """
    found = [shutil.which(name)] + [shutil.which(f"{name}-{number}") for number in range(30, 13, -1)]
    paths = [path for path in found if path]
    if not paths:
        raise ToolMissingError(f"--features mca needs {name}, which is not installed", INSTALL)
    versions = {path: _version(path) for path in paths}
    return max(paths, key=lambda path: [int(part) for part in versions[path].split(".") if part.isdigit()])


def _version(path: str) -> str:
    try:
        text = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        text = ""
    match = re.search(r"LLVM version (\d+(?:\.\d+)*)", text)
    return match[1] if match else "0"
