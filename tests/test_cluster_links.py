# SPDX-License-Identifier: Apache-2.0
"""What connects a cluster fails: scheduler, network, clocks, drivers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from cluster_helpers import Cluster, Proxy, Run, Worker, free_port, hasty, naps
from execution_helpers import wait_for
from process_helpers import environment, scratch_entries

import simtune
from simtune.cli.worker import command as worker_command
from simtune.errors import ConfigurationError, ExecutorError
from simtune.testing.jobs import FakeJob, processes_of


def test_no_scheduler(tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    start = time.monotonic()
    said = f"no Dask scheduler answers at {address}: no answer .tried for 0.5 s"
    with pytest.raises(ConfigurationError, match=said):
        simtune.DaskExecutor(address, connect_s=0.5)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://head:8786", "unknown address scheme"),
        ("tcp://head", "missing port"),
        ("head:port", "invalid literal"),
        ("head:99999", "no port 99999"),
        ("garbage", ""),
        ("", ""),
    ],
)
def test_addresses_that_nobody_can_ever_have(address: str, why: str) -> None:
    said = f"'{address}' is no address of a scheduler: .*{why}"
    with pytest.raises(ConfigurationError, match=said):
        simtune.DaskExecutor(address)
    refused = CliRunner().invoke(worker_command, [address]).exception
    assert isinstance(refused, ConfigurationError)
    assert re.search(said, str(refused))


def test_a_plain_address_and_certificates() -> None:
    with pytest.raises(ConfigurationError, match="tcp://head:8786 is not encrypted"):
        simtune.DaskExecutor("tcp://head:8786", security={"tls_ca_file": "ca.pem"})
    with pytest.raises(ConfigurationError, match="no files for TLS are given"):
        simtune.DaskExecutor("tls://head:8786")


def test_a_worker_that_waits_for_its_scheduler_can_be_stopped(tmp_path: Path) -> None:
    worker = Worker(f"tcp://127.0.0.1:{free_port()}", tmp_path / "worker")
    assert wait_for(lambda: worker.children() and scratch_entries(worker.temporary), 20), worker.log()
    time.sleep(0.5)  # it is connecting
    worker.process.terminate()
    assert worker.process.wait(5) == 0
    assert scratch_entries(worker.temporary) == []


def test_no_worker_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    lonely = Cluster(tmp_path / "lonely", workers=0)

    def tell(text: str) -> None:
        said.append(f"{text} ({executor.view().waiting} wait)")
        raise ValueError("who is told may fail")

    try:
        with hasty(lonely.address, quiet_s=0.5, patience_s=1.0, tell=tell, connect_s=60) as executor:
            assert executor.capacity() == 1
            future = executor.submit(FakeJob(1))
            assert wait_for(lambda: len(said) >= 2, 10), "it is said again and again"
            assert f"no worker has joined {lonely.address}" in said[0]
            assert f"simtune worker {lonely.address}" in said[0]
            assert said[0].endswith("(1 wait)")
            assert not future.done()
            lonely.scheduler.kill()
            error = future.exception(30)
        assert isinstance(error, ExecutorError)
        assert f"the scheduler at {lonely.address} could not be reached" in str(error)
    finally:
        lonely.close()


def test_a_scheduler_that_is_restarted(cluster: Cluster, tmp_path: Path) -> None:
    said: list[str] = []
    with hasty(cluster.address, tell=said.append) as executor:
        run = Run(executor, naps(60))
        run.until(10)
        cluster.scheduler.kill()
        time.sleep(0.5)
        cluster.start_scheduler()
        run.check(tmp_path)
    assert f"the connection to {cluster.address} is lost; it is tried again" in said[0]
    cluster.settle()


def test_a_network_that_is_cut_and_heals(cluster: Cluster, tmp_path: Path) -> None:
    """Between one worker and the scheduler, then between the driver and the scheduler."""
    wires = Proxy(cluster.port), Proxy(cluster.port)
    far = cluster.add(address=wires[0].address)
    cluster.ready()
    try:
        with hasty(wires[1].address) as executor:
            assert wait_for(lambda: executor.capacity() == 3, 10)
            run = Run(executor, naps(70))
            for wire, done in zip(wires, (10, 30), strict=True):
                run.until(done)
                wire.cut()
                time.sleep(0.7)
                wire.heal()
            run.check(tmp_path)
    finally:
        far.stop()
        for wire in wires:
            wire.close()
        cluster.workers.remove(far)


# ---- drivers in processes of their own --------------------------------------------------------

HANGING = """
import sys, simtune
from simtune.execution.base import run_all
from simtune.testing.jobs import FakeJob
with simtune.DaskExecutor(sys.argv[1]) as executor:
    print("ready", flush=True)
    run_all(executor, [FakeJob(int(n), does="hang") for n in sys.argv[2:]])
"""

COUNTING = """
import sys, time, simtune
from simtune.execution.dispatch import Policy
from simtune.testing.jobs import FakeJob
with simtune.DaskExecutor(sys.argv[1], policy=Policy(chunk_s=0.3)) as executor:
    print("ready", flush=True)
    sys.stdin.readline()
    for future in [executor.submit(FakeJob(n, seconds=0.02)) for n in range(int(sys.argv[2]))]:
        future.add_done_callback(lambda _: print(time.monotonic(), flush=True))
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_nothing_running(how: signal.Signals, cluster: Cluster) -> None:
    numbers = (801, 802, 803)
    driver = start(HANGING, cluster.address, *numbers)
    assert wait_for(lambda: sum(bool(processes_of(n)) for n in numbers) == 2, 20)
    begin = time.monotonic()
    driver.send_signal(how)
    driver.wait(10)
    assert time.monotonic() - begin < 2
    assert wait_for(lambda: not any(processes_of(n) for n in numbers), 3)


def test_two_drivers_share_a_cluster_fairly(cluster: Cluster) -> None:
    drivers = [start(COUNTING, cluster.address, 100) for _ in range(2)]
    times = []
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    for driver in drivers:
        out, _ = driver.communicate(timeout=60)
        times.append([float(line) for line in out.splitlines()])
        assert len(times[-1]) == 100
    everything = sorted(times[0] + times[1])
    half = everything[len(everything) // 2]
    shares = [sum(t <= half for t in one) / 100 for one in times]
    assert 0.35 <= shares[0] <= 0.65, shares
