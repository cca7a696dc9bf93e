# SPDX-License-Identifier: Apache-2.0
"""How much of the machine may be used, on made-up machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simtune.execution import capacity

GIB = 1 << 30


class Machine:
    """A made-up /proc and cgroup tree."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.write("proc/meminfo", "MemTotal: 33554432 kB\nMemAvailable:   16777216 kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @property
    def cores(self) -> int:
        return capacity.usable_cores(self.proc, self.cgroup)

    @property
    def memory(self) -> int:
        return capacity.usable_memory(self.proc, self.cgroup)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    return Machine(tmp_path)


def test_without_cgroups(machine: Machine) -> None:
    assert (machine.cores, machine.memory) == (16, 16 * GIB)


def test_cgroup_v2_takes_the_tightest_level(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/user.slice/job\n")
    machine.write("cgroup/user.slice/cpu.max", "450000 100000\n")
    machine.write("cgroup/user.slice/job/cpu.max", "max 100000\n")
    machine.write("cgroup/user.slice/memory.max", "max\n")
    machine.write("cgroup/user.slice/job/memory.max", f"{4 * GIB}\n")
    machine.write("cgroup/user.slice/job/memory.current", f"{3 * GIB}\n")
    assert (machine.cores, machine.memory) == (4, GIB)
    machine.write("cgroup/user.slice/job/memory.stat", f"anon 5\ninactive_file {GIB}\n")
    assert machine.memory == 2 * GIB


def test_cgroup_v2_inside_a_container(machine: Machine) -> None:
    """The path may be the host's, while only our part of the tree is mounted."""
    machine.write("proc/self/cgroup", "0::/docker/abc\n")
    machine.write("cgroup/cpu.max", "50000 100000\n")
    assert machine.cores == 1


def test_cgroup_v1(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n1:name=systemd:/x\n0::/\n")
    machine.write("cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "300000\n")
    machine.write("cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n")
    machine.write("cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    machine.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("cgroup/memory/memory.usage_in_bytes", "1000\n")
    machine.write("cgroup/memory/job/memory.limit_in_bytes", f"{2 * GIB}\n")
    machine.write("cgroup/memory/job/memory.usage_in_bytes", f"{GIB}\n")
    assert (machine.cores, machine.memory) == (3, GIB)


def test_garbage_is_no_limit(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write("cgroup/cpu.max", "\n")
    machine.write("cgroup/memory.max", "many\n")
    assert (machine.cores, machine.memory) == (16, 16 * GIB)


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "usable_cores", lambda: 8)
    monkeypatch.setattr(capacity, "usable_memory", lambda: 3 * GIB)
    assert capacity.slots() == 6
    assert capacity.slots(memory_per_job=GIB) == 3
    assert capacity.slots(memory_per_job=1 << 20) == 8
    assert capacity.slots(jobs=2) == 2
    assert capacity.slots(memory_per_job=4 * GIB) == 1


def test_this_machine() -> None:
    assert 1 <= capacity.usable_cores() <= len(os.sched_getaffinity(0))
    assert capacity.usable_memory() > 0
