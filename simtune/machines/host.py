# SPDX-License-Identifier: Apache-2.0
"""The computer we run on as a machine: its caches and clock, the core timings of a generic file.

No interface of an operating system tells latencies, so those stay the generic file's.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from simtune.counters import CACHE_LEVELS
from simtune.errors import MachineFileError
from simtune.machines.load import load_machine
from simtune.machines.model import Cache, Machine

#: Instruction set -> machine whose core timings stand in for the host's.
GENERIC = {"x86_64": "x86-64-v3", "aarch64": "cortex-a72", "riscv64": "sifive-u74"}
#: AMD's CPU family and range of models -> machine, for cores that have a file of their own.
_AMD = {
    (25, 16, 31): "amd-zen4",
    (25, 96, 127): "amd-zen4",
    (25, 160, 175): "amd-zen4",
    (26, 0, 255): "amd-zen5",
}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Host:
    """The host as a machine; `notes` say where each part came from and what is missing."""

    machine: Machine
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Geometry:
    size: int
    ways: int
    line: int


def detect_host(root: Path = Path("/"), isa: str = "") -> Host:
    """Describes this computer.

    Args:
        root: where ``sys`` and ``proc`` are found, for tests.
        isa: instruction set, empty for that of this computer.

    Raises:
        MachineFileError: simtune knows no machine of this instruction set.
    """
    isa = isa or _ALIASES.get(platform.machine().lower(), platform.machine())
    if isa not in GENERIC:
        raise MachineFileError(
            f"machine 'host': this computer is {isa or 'unknown'}; allowed: {', '.join(GENERIC)}",
            "choose a machine of `simtune machines list`",
        )
    info = _cpuinfo(root)
    core = _core(info)
    generic = load_machine(core or GENERIC[isa])
    geometry, cache_note = _geometry(root)
    clock_hz, clock_note = _clock(root, info, isa)
    if core and "hypervisor" in info.get("flags", "") and "cpuinfo" in clock_note:
        # A virtual machine tells the base clock, which is far from what its cores run at.
        clock_hz, clock_note = generic.clock_hz, f"clock: that of {core}, because this is a virtual machine"
    model = _model_name(root, info) or isa
    notes = [
        cache_note or f"caches: those of {generic.name}, because this system does not tell",
        clock_note or f"clock: that of {generic.name}, because it could not be measured",
        f"latencies: those of {generic.name}",
    ]
    missing = {"avx2", "fma"} - set(info.get("flags", "avx2 fma").split())
    if isa == "x86_64" and missing:
        notes.append(
            f"this CPU lacks {' and '.join(sorted(missing))}: kernels for {generic.target['mcpu']} "
            "can be simulated here, not run"
        )
    machine = replace(
        generic,
        name="host",
        description=f"{model}, with the core timings of {generic.name}",
        clock_hz=clock_hz or generic.clock_hz,
        caches=_caches(geometry, generic.caches),
    )
    return Host(machine, tuple(notes))


def _core(info: Mapping[str, str]) -> str:
    """The machine whose core this computer has, empty if no file describes it."""
    if info.get("vendor_id") != "AuthenticAMD":
        return ""
    try:
        family, model = int(info["cpu family"]), int(info["model"])
    except (KeyError, ValueError):
        return ""
    return next((n for (f, low, high), n in _AMD.items() if f == family and low <= model <= high), "")


def _caches(found: Mapping[str, _Geometry], generic: Mapping[str, Cache]) -> dict[str, Cache]:
    """Geometry of the host, latencies of the generic machine; no guess for a level that is absent."""
    if "l1d" not in found or "l1i" not in found:
        return dict(generic)
    caches: dict[str, Cache] = {}
    line = found["l1d"].line
    for level in CACHE_LEVELS:
        if level not in found or (level == "l3" and "l2" not in found):
            continue
        like = generic.get(level)
        if like is None:  # a server core with one level more: each level costs about twice the one before
            inner = list(caches.values())[-1]
            like = replace(inner, latency=2 * inner.latency, line_interval=2 * inner.line_interval)
        # The cache model indexes by address bits. Sizes such as 36 MiB get more ways instead.
        lines = found[level].size // line
        sets = max(1, 1 << (lines // found[level].ways).bit_length() - 1)
        ways = lines // sets
        caches[level] = replace(like, size=sets * ways * line, ways=ways, line=line)
    return caches


def _geometry(root: Path) -> tuple[dict[str, _Geometry], str]:
    found = _from_sysfs(root / "sys/devices/system/cpu/cpu0/cache")
    if found:
        return found, "caches: from sysfs"
    if root == Path("/"):
        found = _from_getconf(_output("getconf", "-a"))
    return found, "caches: from getconf" if found else ""


def _from_sysfs(folder: Path) -> dict[str, _Geometry]:
    kinds = {"Data": "d", "Instruction": "i", "Unified": ""}
    found = {}
    for index in sorted(folder.glob("index*")):
        kind = kinds.get(_read(index / "type"), "?")
        level = f"l{_read(index / 'level')}{kind}"
        geometry = _valid(
            _read(index / "size"),
            _read(index / "ways_of_associativity"),
            _read(index / "coherency_line_size"),
        )
        if level in CACHE_LEVELS and geometry:
            found[level] = geometry
    return found if {"l1i", "l1d"} <= set(found) else {}


def _from_getconf(text: str) -> dict[str, _Geometry]:
    values = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    prefixes = {"l1i": "LEVEL1_ICACHE", "l1d": "LEVEL1_DCACHE", "l2": "LEVEL2_CACHE", "l3": "LEVEL3_CACHE"}
    found = {}
    for level, prefix in prefixes.items():
        ways = values.get(f"{prefix}_ASSOC", "").lstrip("0") or "16"  # glibc leaves some of them out
        geometry = _valid(values.get(f"{prefix}_SIZE", ""), ways, values.get(f"{prefix}_LINESIZE", ""))
        if geometry:
            found[level] = geometry
    return found if {"l1i", "l1d"} <= set(found) else {}


def _valid(size: str, ways: str, line: str) -> _Geometry | None:
    """None for what virtual machines report at times: zero ways, no size."""
    scale = {"K": 1 << 10, "M": 1 << 20}.get(size[-1:], 1)
    digits = size.rstrip("KM")
    if not (digits.isdigit() and ways.isdigit() and line.isdigit()):
        return None
    geometry = _Geometry(int(digits) * scale, int(ways), int(line))
    sane = geometry.ways > 0 and geometry.line > 0 and geometry.line & (geometry.line - 1) == 0
    return geometry if sane and geometry.size >= geometry.ways * geometry.line else None


def _clock(root: Path, info: Mapping[str, str], isa: str) -> tuple[float, str]:
    """Rounded to 100 MHz where it fluctuates, so that the machine's digest stays the same."""
    kilohertz = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
    if kilohertz.isdigit() and int(kilohertz) >= 1000:
        return int(kilohertz) * 1e3, "clock: the maximum that cpufreq reports"
    try:
        megahertz = float(info.get("cpu mhz", ""))
    except ValueError:
        megahertz = 0.0
    if megahertz >= 100:
        return round(
            megahertz, -2
        ) * 1e6, "clock: from /proc/cpuinfo, rounded to 100 MHz (a virtual machine leaves turbo out)"
    hertz = _measure_clock(isa) if root == Path("/") else 0.0
    return hertz, "clock: measured, rounded to 100 MHz" if hertz else ""


_ADD = {"x86_64": "add %0, %0", "aarch64": "add %0, %0, %0", "riscv64": "add %0, %0, %0"}
_CHAIN = """
#include <stdio.h>
#include <time.h>
int main(void)
{
    double best = 0;
    for (int run = 0; run < 5; run++) {
        struct timespec from, to;
        long x = 1;
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (int i = 0; i < 100000; i++)
            __asm__ volatile(".rept 100\\n" ADD "\\n.endr" : "+r"(x));
        clock_gettime(CLOCK_MONOTONIC, &to);
        double hertz = 1e7 / (to.tv_sec - from.tv_sec + 1e-9 * (to.tv_nsec - from.tv_nsec));
        best = hertz > best ? hertz : best;
    }
    printf("%.0f\\n", best);
    return 0;
}
"""


def _measure_clock(isa: str) -> float:
    """Hertz from a chain of dependent additions, one cycle each on every core; 0 without a compiler."""
    with tempfile.TemporaryDirectory(prefix="simtune-clock-") as folder:
        source, program = Path(folder, "chain.c"), Path(folder, "chain")
        source.write_text(_CHAIN)
        _output("cc", "-O1", f'-DADD="{_ADD[isa]}"', "-o", str(program), str(source))
        hertz = _output(str(program)).strip() if program.exists() else ""
    return round(float(hertz), -8) if hertz.isdigit() else 0.0


def _model_name(root: Path, info: Mapping[str, str]) -> str:
    names = (info.get(key, "") for key in ("model name", "model", "hardware", "uarch"))
    board = _read(root / "proc/device-tree/model").strip("\0")
    return next((name for name in (*names, board) if name and not name.isdigit()), "")


def _cpuinfo(root: Path) -> dict[str, str]:
    """First processor of /proc/cpuinfo; keys in lower case."""
    info: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            info.setdefault(key.strip().lower(), value.strip())
    return info


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
