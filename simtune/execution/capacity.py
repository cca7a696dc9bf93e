# SPDX-License-Identifier: Apache-2.0
"""How much of this machine may be used: affinity, cgroup quotas (v1 and v2), free memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from simtune.errors import ConfigurationError

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def slots(jobs: int | None = None, memory_per_job: int = 512 << 20) -> int:
    """How many jobs can run at once without competing for cores or memory; at least one.

    Args:
        jobs: upper bound from the user; None means no bound.
        memory_per_job: bytes that one job is expected to need.

    Raises:
        ConfigurationError: an argument is not positive.
    """
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"jobs is {jobs}, but must be at least 1")
    if memory_per_job < 1:
        raise ConfigurationError(f"memory_per_job is {memory_per_job}, but must be at least 1 byte")
    bounds = [usable_cores(), usable_memory() // memory_per_job]
    if jobs is not None:
        bounds.append(jobs)
    return max(1, min(bounds))


def usable_cores(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Cores of this process's affinity mask, within the CPU quota of its cgroups; at least one."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _levels(proc, cgroup, "cpu"):
        # v2: "max 100000" or "150000 100000"; v1: two files, -1 for no quota.
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota = quota or _read(folder / "cpu.cfs_quota_us")
        period = period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            cores = min(cores, int(quota) / int(period))
    return max(1, int(cores))


def usable_memory(proc: Path = PROC, cgroup: Path = CGROUP) -> int:
    """Bytes that can still be used: what the system has available, within the cgroup limits."""
    available = _table(proc / "meminfo").get("MemAvailable:", 0) * 1024
    for folder in _levels(proc, cgroup, "memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            # Usage counts the page cache, whose inactive part the kernel gives back on demand.
            stat = _table(folder / "memory.stat")
            cache = stat.get("total_inactive_file", stat.get("inactive_file", 0))
            available = min(available, int(limit) - int(used) + cache)
    return max(0, available)


def _levels(proc: Path, cgroup: Path, controller: str) -> Iterator[Path]:
    """The cgroup folders whose limits bind this process: its own, and all above it."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root = cgroup  # v2: one hierarchy for all controllers
        elif controller in controllers.split(","):
            root = cgroup / controllers
            if not root.is_dir():
                root = cgroup / controller
        else:
            continue
        # Inside a container the path may be the host's, of which only the root is mounted.
        folder = root / path.strip("/")
        while folder != root:
            if folder.is_dir():
                yield folder
            folder = folder.parent
        yield root


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _table(path: Path) -> dict[str, int]:
    """Reads lines "name number [unit]"."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
