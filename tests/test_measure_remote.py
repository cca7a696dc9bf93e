# SPDX-License-Identifier: Apache-2.0
"""Measuring behind a real sshd and behind TVM's own RPC server, both on this host."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from execution_helpers import wait_for
from measure_helpers import (
    QUICK,
    crashing,
    endless,
    falsified,
    free_port,
    native_machine,
    program,
    rpc_server,
    rpc_tracker,
    sshd,
)

import simtune
from simtune.build.toolchain import find
from simtune.dataset import load_dataset
from simtune.errors import ConfigurationError
from simtune.jobs import Status
from simtune.machines.load import load_machine
from simtune.measure.base import Program, require
from simtune.measure.rpc import RpcTarget
from simtune.measure.ssh import SshTarget
from simtune.records.store import RecordStore
from simtune.tuning.collect import collect

SMALL = "matmul:m=24,n=32,k=16"
ISA = platform.machine()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SshTarget, Path]]:
    folder = tmp_path_factory.mktemp("sshd")
    with sshd(folder) as target:
        yield target, folder / "board"


@pytest.fixture
def small(build_default: Callable[..., Path], tmp_path: Path) -> Program:
    return program(build_default(SMALL, load_machine(native_machine())), SMALL, tmp_path)


def foreign_program(build_default: Callable[..., Path], tmp_path: Path) -> Program:
    other = load_machine("sifive-u74" if ISA != "riscv64" else "cortex-a72")
    return program(build_default(SMALL, other), SMALL, tmp_path, checked=False)


def test_ssh_measures_and_checks(
    board: tuple[SshTarget, Path], small: Program, build_default: Callable[..., Path], tmp_path: Path
) -> None:
    target, _ = board
    assert require(target, ISA).isa == ISA
    timing = target.measure(small, QUICK)
    assert timing.status is Status.OK, timing.error
    assert len(timing.seconds) >= 3
    assert all(1e-8 < seconds < 1e-2 for seconds in timing.seconds)
    assert timing.conditions["core"] == max(os.sched_getaffinity(0))
    assert "load" in timing.conditions
    wrong = target.measure(falsified(small), QUICK)
    assert (wrong.status, wrong.median) == (Status.WRONG_OUTPUT, None)
    (tmp_path / "foreign").mkdir()
    assert (
        target.measure(foreign_program(build_default, tmp_path / "foreign"), QUICK).status is Status.INVALID
    )


def test_ssh_failures_are_data_and_leave_nothing_running(
    board: tuple[SshTarget, Path], small: Program, tmp_path: Path
) -> None:
    target, folder = board
    cc = find(ISA).cc
    start = time.monotonic()
    late = target.measure(endless(cc, tmp_path, ISA), replace(QUICK, timeout_s=1.0))
    assert late.status is Status.TIMEOUT
    assert time.monotonic() - start < 10
    crashed = target.measure(crashing(cc, tmp_path, ISA), QUICK)
    assert crashed.status is Status.CRASHED
    assert "SIGSEGV" in crashed.error
    assert target.measure(small, QUICK).ok
    assert wait_for(lambda: not _processes_in(folder), 2), "the shell of a run may take a moment to end"


def test_ssh_a_lost_connection_is_no_verdict_and_heals(board: tuple[SshTarget, Path], small: Program) -> None:
    target, folder = board
    assert target.measure(small, QUICK).ok
    master = target._shell._master
    assert master is not None
    master.kill()
    master.wait()
    assert target.measure(small, QUICK).ok
    target.close()
    deadline = time.monotonic() + 5
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(folder.iterdir()) == []  # also what the killed connection had there


def test_ssh_cleans_up_after_kill_9(board: tuple[SshTarget, Path], tmp_path: Path) -> None:
    target, folder = board
    script = tmp_path / "user.py"
    script.write_text(
        "import sys, time\nfrom pathlib import Path\nfrom simtune.measure.ssh import SshTarget\n"
        "target = SshTarget(sys.argv[1], int(sys.argv[2]), sys.argv[3], config=Path(sys.argv[4]))\n"
        "print(target.probe().isa, flush=True)\ntime.sleep(60)\n"
    )
    shell = target._shell
    arguments = (shell.address, str(shell.port), str(folder), str(shell.config))
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip().decode() == ISA
    assert len(list(folder.iterdir())) >= 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    target.close()
    deadline = time.monotonic() + 10
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(folder.iterdir()) == []


def test_ssh_nobody_there(small: Program) -> None:
    target = SshTarget("127.0.0.1", free_port(), config=Path("/dev/null"))
    probe = target.probe()
    assert not probe.available
    with pytest.raises(ConfigurationError, match="cannot be used"):
        require(target, ISA)
    assert target.measure(small, QUICK).status is Status.INFRASTRUCTURE


def test_rpc_measures_checks_and_survives_failures(small: Program, tmp_path: Path) -> None:
    cc = find(ISA).cc
    with rpc_server() as port:
        target = RpcTarget("127.0.0.1", port, patience_s=2.0)
        assert require(target, ISA).isa == ISA
        timing = target.measure(small, QUICK)
        assert timing.status is Status.OK, timing.error
        assert len(timing.seconds) == 3
        assert all(1e-8 < seconds < 1e-2 for seconds in timing.seconds)
        wrong = target.measure(falsified(small), QUICK)
        assert (wrong.status, wrong.median) == (Status.WRONG_OUTPUT, None)
        late = target.measure(endless(cc, tmp_path, ISA), replace(QUICK, timeout_s=1.0))
        assert late.status is Status.TIMEOUT
        # TVM's server does not outlive a crash of what it runs: the candidate is to blame, the next
        # one is not, and neither hangs.
        crashed = target.measure(crashing(cc, tmp_path, ISA), replace(QUICK, timeout_s=1.0))
        assert crashed.status is Status.CRASHED
        after = target.measure(small, replace(QUICK, timeout_s=1.0))
        assert after.status is Status.INFRASTRUCTURE
        assert "restart" in after.error


def test_collecting_over_ssh_and_rpc(board: tuple[SshTarget, Path], tmp_path: Path) -> None:
    """Candidates of one store with the times of two boards; the second finds all simulations there."""
    machine, path = load_machine(native_machine()), tmp_path / "records.db"
    target, _ = board
    builder = simtune.Builder(1)
    try:
        with rpc_server() as port:
            for place in (target, f"rpc:127.0.0.1:{port}"):
                (result,) = collect(
                    SMALL, machine, 2, target=place, records=path, settings=QUICK, builder=builder, jobs=1
                )
                assert (result.measured, result.measure_failures) == (2, 0)
    finally:
        builder.close()
    with RecordStore(path) as store:
        assert len(list(store.simulations())) == 3
        names = {measurement.target for measurement in store.measurements()}
        assert names == {target.name, f"rpc:127.0.0.1:{port}"}
        for name in names:
            (group,) = load_dataset(store, [machine], name).groups
            assert len(group) == 3
            assert group.has_reference
            assert ((group.seconds > 1e-8) & (group.seconds < 1e-2)).all()


def test_rpc_through_a_tracker(small: Program) -> None:
    with rpc_tracker() as tracker, rpc_server("--tracker", f"127.0.0.1:{tracker}", "--key", "pi4"):
        target = RpcTarget("127.0.0.1", tracker, "pi4", patience_s=10.0)
        timing = target.measure(small, replace(QUICK, max_processes=3))
        assert timing.status is Status.OK, timing.error
        assert not RpcTarget("127.0.0.1", tracker, "nokey", patience_s=2.0).probe().available


def test_rpc_nobody_there() -> None:
    probe = RpcTarget("127.0.0.1", free_port(), patience_s=4.0).probe()
    assert not probe.available
    assert "rpc_server" in probe.fix


def _processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(folder) in os.readlink(entry):
                found.append(entry.parent.name)
        except OSError:
            continue
    return found
