# SPDX-License-Identifier: Apache-2.0
"""The state of a Linux computer around a measurement, from the text of a few files of its kernel.

The same for this host and for a board behind ssh; only reading the files differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Reads files by path; those that cannot be read are left out.
Read = Callable[[tuple[str, ...]], Mapping[str, str]]

#: Beyond these a measurement gets a note.
BUSY_CORES, STOLEN, SLOWED = 0.25, 0.02, 0.85

_LOAD, _STAT, _SELF = "/proc/loadavg", "/proc/stat", "/proc/self/status"
_TICKS_PER_S = 100  # of /proc/stat, on every architecture that simtune knows


@dataclass(frozen=True)
class State:
    """One look at a computer. What the kernel does not tell is None.

    Attributes:
        load: average number of running processes over the last minute.
        busy_s, stolen_s: CPU seconds since boot, of all cores: at work, and taken by a hypervisor.
        frequency: of the pinned core, as a share of its maximum.
        throttled: how often heat has slowed the pinned core down since boot.
    """

    load: float | None = None
    busy_s: float | None = None
    stolen_s: float | None = None
    frequency: float | None = None
    throttled: int | None = None
    at: float = field(default_factory=time.monotonic)


def read_files(paths: tuple[str, ...]) -> dict[str, str]:
    """Reads files of this host."""
    texts = {}
    for path in paths:
        try:
            texts[path] = Path(path).read_text(errors="replace")
        except OSError:
            continue
    return texts


def default_core(read: Read) -> int | None:
    """The last core that a process started like ours may use."""
    for line in read((_SELF,)).get(_SELF, "").splitlines():
        name, _, value = line.partition(":")
        last = value.strip().rpartition(",")[2].rpartition("-")[2]
        if name == "Cpus_allowed_list" and last.isdigit():
            return int(last)
    return None


def look(read: Read, core: int | None) -> State:
    """The state right now."""
    folder = f"/sys/devices/system/cpu/cpu{core or 0}"
    current, top = f"{folder}/cpufreq/scaling_cur_freq", f"{folder}/cpufreq/cpuinfo_max_freq"
    throttled = f"{folder}/thermal_throttle/core_throttle_count"
    texts = read((_LOAD, _STAT, current, top, throttled))
    frequencies = _number(texts.get(current)), _number(texts.get(top))
    count = _number(texts.get(throttled))
    busy, stolen = _cpu_seconds(texts.get(_STAT, ""))
    return State(
        load=_number(texts.get(_LOAD)),
        busy_s=busy,
        stolen_s=stolen,
        frequency=frequencies[0] / frequencies[1] if frequencies[0] and frequencies[1] else None,
        throttled=None if count is None else int(count),
    )


def compare(before: State, after: State) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Facts for the records, and notes on what disturbed a measurement between two looks."""
    wall = max(after.at - before.at, 1e-3)
    facts: dict[str, Any] = {"load": before.load}
    notes = []
    if before.busy_s is not None and after.busy_s is not None and wall > 10 / _TICKS_PER_S:
        # We keep one core busy ourselves, or less: a lower bound on what others did.
        others = max(0.0, (after.busy_s - before.busy_s) / wall - 1.0)
        facts["others_cores"] = round(others, 2)
        if others > BUSY_CORES:
            notes.append(f"busy: other work took {others:.1f} cores meanwhile")
    if before.stolen_s is not None and after.stolen_s is not None:
        stolen = (after.stolen_s - before.stolen_s) / wall
        facts["stolen"] = round(stolen, 3)
        if stolen > STOLEN:
            notes.append(f"busy: the hypervisor took {stolen:.0%} of a core away")
    if after.frequency is not None:
        facts["frequency"] = round(after.frequency, 3)
        if after.frequency < SLOWED:
            notes.append(f"slow: the core ran at {after.frequency:.0%} of its highest clock")
    if before.throttled is not None and after.throttled is not None and after.throttled > before.throttled:
        notes.append("throttled: heat slowed the core down")
    return facts, tuple(notes)


def _cpu_seconds(stat: str) -> tuple[float | None, float | None]:
    # cpu user nice system idle iowait irq softirq steal ...; guests are counted in user already.
    line = stat.partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu" or not all(word.isdigit() for word in line[1:9]):
        return None, None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line[1:9])
    return (user + nice + system + irq + softirq) / _TICKS_PER_S, steal / _TICKS_PER_S


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").split()[0])
    except (ValueError, IndexError):
        return None
