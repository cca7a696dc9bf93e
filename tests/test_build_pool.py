# SPDX-License-Identifier: Apache-2.0
"""Build workers: they survive what candidates do to a compiler, and never outlive their pool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simtune.build.pool import BuildPool, BuildRequest
from simtune.machines.model import Machine
from simtune.tuning.workloads import parse


@pytest.fixture
def pool() -> Iterator[BuildPool]:
    pool = BuildPool(2)
    yield pool
    pool.close()


def request(path: Path, machine: Machine, workload: str = "matmul:m=16,n=16,k=16") -> BuildRequest:
    from tvm.ir import save_json

    return BuildRequest(save_json(parse(workload).module()), json.dumps(dict(machine.target)), path)


def workers() -> list[psutil.Process]:
    """Grandchildren: the zygote is our child, the workers are its."""
    return [p for child in psutil.Process().children() for p in child.children()]


def test_builds_many_and_reports_in_order(pool: BuildPool, u74: Machine, tmp_path: Path) -> None:
    requests = [request(tmp_path / f"{i}.o", u74, f"matmul:m={16 + i},n=16,k=16") for i in range(5)]
    replies = pool.build(requests)
    assert [reply.error for reply in replies] == [""] * 5
    assert [reply.info["kernels"]["main"][0][1][0] for reply in replies] == [16, 17, 18, 19, 20]
    assert all((tmp_path / f"{i}.o").stat().st_size > 0 for i in range(5))


def test_a_broken_module_fails_alone(pool: BuildPool, u74: Machine, tmp_path: Path) -> None:
    broken = BuildRequest("{}", json.dumps(dict(u74.target)), tmp_path / "b.o")
    bad, good = pool.build([broken, request(tmp_path / "g.o", u74)])
    assert bad.error
    assert good.error == ""


def test_a_slow_candidate_is_given_up_and_the_next_works(u74: Machine, tmp_path: Path) -> None:
    pool = BuildPool(1, timeout_s=0.001)
    try:
        (reply,) = pool.build([request(tmp_path / "slow.o", u74)])
        assert "took longer" in reply.error
        pool._timeout = 60
        (reply,) = pool.build([request(tmp_path / "next.o", u74)])
        assert reply.error == ""
    finally:
        pool.close()


def test_a_crashing_compiler_costs_one_candidate(pool: BuildPool, u74: Machine, tmp_path: Path) -> None:
    pool.build([request(tmp_path / "warm.o", u74)] * 2)

    def kill_one() -> None:
        time.sleep(0.2)
        os.kill(workers()[0].pid, signal.SIGSEGV)

    killer = threading.Thread(target=kill_one)
    killer.start()
    heavy = "conv2d:c=64,h=56,o=64"
    replies = pool.build([request(tmp_path / f"{i}.o", u74, heavy) for i in range(12)])
    killer.join()
    errors = [reply.error for reply in replies if reply.error]
    assert len(errors) <= 1
    assert all("crashed" in error for error in errors)


def test_a_grown_worker_is_replaced(u74: Machine, tmp_path: Path) -> None:
    pool = BuildPool(1, memory_bytes=1)
    try:
        pool.build([request(tmp_path / "a.o", u74)])
        first = {p.pid for p in workers()}
        pool.build([request(tmp_path / "b.o", u74)])
        assert not first & {p.pid for p in workers()}
    finally:
        pool.close()


def test_nothing_is_left_after_close(u74: Machine, tmp_path: Path) -> None:
    pool = BuildPool(2)
    pool.build([request(tmp_path / "a.o", u74)] * 2)
    descendants = psutil.Process().children(recursive=True)
    assert len(descendants) >= 3
    pool.close()
    _gone, alive = psutil.wait_procs(descendants, timeout=3)
    assert not alive


def test_no_worker_survives_kill_9_of_its_owner() -> None:
    script = (
        "from simtune.build.pool import BuildPool, BuildRequest; import os, time\n"
        "pool = BuildPool(2); pool.build([BuildRequest('{}', '{}', '/tmp/x')] * 2)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    descendants = psutil.Process(owner.pid).children(recursive=True)
    assert len(descendants) == 3
    owner.kill()
    owner.wait()
    _gone, alive = psutil.wait_procs(descendants, timeout=3)
    assert not alive


def test_a_killed_build_process_is_started_again(pool: BuildPool, u74: Machine, tmp_path: Path) -> None:
    pool.build([request(tmp_path / "a.o", u74)])
    (zygote,) = psutil.Process().children()
    zygote.kill()
    psutil.wait_procs([zygote], timeout=3)
    replies = pool.build([request(tmp_path / f"{i}.o", u74) for i in range(4)])
    # What the dying workers held is lost, and nothing else.
    assert sum(not reply.error for reply in replies) >= 3
