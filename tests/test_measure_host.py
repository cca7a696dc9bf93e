# SPDX-License-Identifier: Apache-2.0
"""Measuring on this host for real: labels, guards, pinning, failures, the lock."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measure_helpers import QUICK, crashing, endless, falsified, native_machine, program

from simtune.build.toolchain import find
from simtune.errors import ConfigurationError
from simtune.jobs import Status
from simtune.machines.load import load_machine
from simtune.measure.base import Program, Settings, require
from simtune.measure.host import HostTarget
from simtune.measure.lock import exclusive

SMALL = "matmul:m=24,n=32,k=16"
ISA = platform.machine()


@pytest.fixture
def small(build_default: Callable[..., Path], tmp_path: Path) -> Program:
    return program(build_default(SMALL, load_machine(native_machine())), SMALL, tmp_path)


def test_a_label_is_the_median_over_processes(small: Program) -> None:
    timing = HostTarget().measure(small, replace(QUICK, max_processes=5, max_spread=0.0))
    assert timing.status is Status.OK, timing.error
    assert len(timing.seconds) == 5  # they never agree to the last digit
    assert all(1e-8 < seconds < 1e-2 for seconds in timing.seconds)
    assert timing.median == sorted(timing.seconds)[2]
    assert timing.spread == pytest.approx(
        (max(timing.seconds) - min(timing.seconds)) / sorted(timing.seconds)[2]
    )
    assert any(note.startswith("unsteady") for note in timing.notes)


def test_timings_last_as_long_as_asked(small: Program) -> None:
    for seconds in (0.002, 0.02):
        timing = HostTarget().measure(small, replace(QUICK, min_repeat_s=seconds))
        assert timing.median is not None
        # Calibrated on a single call, which is slower than one of many.
        assert 0.2 * seconds < timing.conditions["number"] * timing.median < 5 * seconds


def test_the_child_is_pinned(small: Program) -> None:
    cores = sorted(os.sched_getaffinity(0))
    for core in {cores[0], cores[-1]}:
        timing = HostTarget().measure(small, replace(QUICK, core=core))
        assert timing.conditions["core"] == core  # as sched_getcpu() of the child says
    assert HostTarget().measure(small, QUICK).conditions["core"] == cores[-1]
    absent = HostTarget().measure(small, replace(QUICK, core=1000))
    assert absent.status is Status.INVALID
    assert "core" in absent.error


@pytest.mark.alone
def test_sharing_a_core_does_not_change_the_label(small: Program) -> None:
    """The label is CPU time; that the process had to wait is noted."""
    core = max(os.sched_getaffinity(0))
    settings = replace(QUICK, core=core, repeat=3, min_repeat_s=0.02)
    alone = HostTarget().measure(small, settings).median
    loop = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(2)]
    try:
        time.sleep(0.3)
        shared = HostTarget().measure(small, settings)
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert shared.conditions["waited"] > 0.2
    assert any("waited for its core" in note for note in shared.notes)
    assert alone is not None
    assert shared.median is not None
    assert shared.median < 1.8 * alone  # in wall time it is near three times as long


def test_a_wrong_answer_is_never_a_label(small: Program) -> None:
    timing = HostTarget().measure(falsified(small), QUICK)
    assert timing.status is Status.WRONG_OUTPUT
    assert (timing.seconds, timing.median) == ((), None)
    assert "wrong output" in timing.error


def test_foreign_code_is_refused(build_default: Callable[..., Path], tmp_path: Path) -> None:
    foreign = "sifive-u74" if ISA != "riscv64" else "cortex-a72"
    other = program(build_default(SMALL, load_machine(foreign)), SMALL, tmp_path, checked=False)
    timing = HostTarget().measure(other, QUICK)
    assert timing.status is Status.INVALID
    assert load_machine(foreign).isa.name in timing.error
    with pytest.raises(ConfigurationError, match="riscv64|aarch64"):
        require(HostTarget(), load_machine(foreign).isa.name)
    assert require(HostTarget(), ISA).isa == ISA


def test_failures_are_data(tmp_path: Path) -> None:
    cc = find(ISA).cc
    start = time.monotonic()
    late = HostTarget().measure(endless(cc, tmp_path, ISA), replace(QUICK, timeout_s=0.5))
    assert late.status is Status.TIMEOUT
    assert time.monotonic() - start < 10
    crashed = HostTarget().measure(crashing(cc, tmp_path, ISA), QUICK)
    assert crashed.status is Status.CRASHED
    assert "SIGSEGV" in crashed.error


def test_a_cancelled_measurement_says_nothing_about_the_candidate(tmp_path: Path) -> None:
    cancel = threading.Event()
    threading.Timer(0.5, cancel.set).start()
    timing = HostTarget().measure(endless(find(ISA).cc, tmp_path, ISA), QUICK, cancel)
    assert timing.status is Status.INFRASTRUCTURE


def test_one_measurement_at_a_time(small: Program) -> None:
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(HostTarget().measure(small, QUICK)))
    with exclusive("host"):
        thread.start()
        time.sleep(0.5)
        assert not done
    thread.join(timeout=30)
    assert done[0].ok


def test_settings_are_checked() -> None:
    for wrong in (
        {"processes": 0},
        {"repeat": 0},
        {"max_processes": 2},
        {"timeout_s": 0},
        {"cooldown_s": -1},
        {"max_spread": float("nan")},
        {"core": -1},
    ):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            Settings(**wrong)  # type: ignore[arg-type]


def test_cooldown_is_kept(small: Program) -> None:
    timing = HostTarget().measure(small, replace(QUICK, max_processes=3, cooldown_s=0.3))
    assert timing.wall_s > 0.9
