# SPDX-License-Identifier: Apache-2.0
"""The main path on a cluster: real simulations on workers that share nothing, with a record for each."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cluster_helpers import Cluster, hasty, mounted
from execution_helpers import wait_for
from process_helpers import environment, scratch_entries
from qemu_helpers import assemble, program

import simtune
from simtune.machines.load import load_machine
from simtune.tuning.workloads import parse

COUNT = 40

#: Simulates one executable with COUNT different arguments, and prints what became of each.
DRIVER = """
import json, sys, simtune
from simtune.candidates import Candidate
from simtune.errors import SimtuneError
from simtune.evaluate import Evaluator
from simtune.execution.dispatch import Policy
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import resolve_objective
from simtune.simulators.base import get_simulator
from pathlib import Path
address, records, executable, count = sys.argv[1:]
predictor = AnalyticalPredictor()
executor = simtune.DaskExecutor(address, policy=Policy(chunk_s=0.2)) if address else simtune.LocalExecutor(2)

def main():
    with executor, simtune.RecordStore(records) as store:
        evaluator = Evaluator(simtune.load_machine("sifive-u74"), get_simulator("qemu"), predictor,
                              resolve_objective("latency", predictor), store, executor=executor)
        try:
            futures = [evaluator.submit(Candidate(Path(executable), executable=True, arguments=(str(n),)))
                       for n in range(int(count))]
            for number, future in enumerate(futures):
                one = future.result()
                print(json.dumps([number, one.status, one.value, one.cached]), flush=True)
        finally:
            evaluator.close(cancel=True)

try:
    main()
except SimtuneError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(2)
"""


@pytest.fixture(scope="module")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its instructions depend on the number of arguments only, so that all take equally long."""
    loop = " li t0, 300000\n1: addi t0, t0, -1\n bnez t0, 1b"
    return assemble(tmp_path_factory.mktemp("program"), "riscv64", program("riscv64", loop))


def drive(address: str, records: Path, executable: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, address, str(records), str(executable), str(COUNT)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(driver: subprocess.Popen[str]) -> list[list[Any]]:
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def stored(records: Path) -> list[str]:
    """Keys of the stored simulations, as often as they are there."""
    with sqlite3.connect(records) as connection:
        return [key for (key,) in connection.execute("SELECT key FROM simulation")]


def values(rows: list[list[Any]]) -> list[list[Any]]:
    return [row[:3] for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, executable: Path) -> list[list[Any]]:
    rows = finish(drive("", tmp_path_factory.mktemp("local") / "records.db", executable))
    assert [row[1] for row in rows] == ["ok"] * COUNT
    return values(rows)


def test_a_killed_driver_goes_on_from_the_store(
    cluster: Cluster, executable: Path, undisturbed: list[list[Any]], tmp_path: Path
) -> None:
    records = tmp_path / "records.db"
    driver = drive(cluster.address, records, executable)
    assert driver.stdout is not None
    seen = [driver.stdout.readline() for _ in range(COUNT // 4)]
    for worker in cluster.workers:
        worker.kill_process()  # at the same time, since troubles come together
    driver.kill()
    driver.communicate()
    before = len(stored(records))
    assert before >= len(seen)
    rows = finish(drive(cluster.address, records, executable))
    assert values(rows) == undisturbed
    assert sum(row[3] for row in rows) == before
    assert len(stored(records)) == len(set(stored(records))) == COUNT


def test_a_full_disk_under_the_store(
    cluster: Cluster, executable: Path, undisturbed: list[list[Any]], tmp_path: Path
) -> None:
    """Full from the start, then in the middle of the run, then with room."""
    with mounted(tmp_path / "small", 2) as small:
        records, ballast = small / "records.db", small / "ballast"
        simtune.RecordStore(records).close()
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        for room in (0, 256 << 10):
            os.truncate(ballast, ballast.stat().st_size - room)
            _, err = (driver := drive(cluster.address, records, executable)).communicate(timeout=60)
            assert driver.returncode == 2, err
            assert f"{records}: the disk is full" in err
            assert "Traceback" not in err
        ballast.unlink()
        before = len(stored(records))
        assert 0 < before < COUNT
        rows = finish(drive(cluster.address, records, executable))
        assert values(rows) == undisturbed
        assert sum(row[3] for row in rows) == before
        assert len(stored(records)) == len(set(stored(records))) == COUNT


# ---- tuning -----------------------------------------------------------------------------------


def tune(executor: Any, folder: Path) -> list[float]:
    """A seeded run of MetaSchedule; returns all times that it was told, in order."""
    from simtune.tvm_setup import load

    ms = load()
    from tvm.target import Target

    module = parse("matmul:m=24,n=32,k=16").module()
    target = Target(dict(load_machine("sifive-u74").target))
    folder.mkdir()
    runner = simtune.SimulatorRunner(
        "sifive-u74", records=folder / "records.db", workloads=[module], executor=executor
    )
    builder = simtune.Builder(2)
    logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()
    try:
        with target:
            database = ms.tune_tir(
                module,
                target,
                work_dir=str(folder),
                max_trials_global=12,
                num_trials_per_iter=6,
                builder=builder,
                runner=runner,
                cost_model="random",
                seed=1,
                num_tuning_cores=1,
                strategy=ms.search_strategy.ReplayTrace(),
            )
    finally:
        runner.close()
        builder.close()
    return [float(record.run_secs[0]) for record in database.get_all_tuning_records()]


def test_tuning_on_a_cluster_finds_the_same(cluster: Cluster, tmp_path: Path) -> None:
    with simtune.LocalExecutor(2) as executor:
        here = tune(executor, tmp_path / "here")
    with hasty(cluster.address) as remote:
        there = tune(remote, tmp_path / "there")
        done = {worker.name: worker.done for worker in remote.view().workers}
    assert len(here) == 12
    assert sorted(there) == sorted(here)
    assert min(there) == min(here)
    assert len(done) == 2
    assert all(done.values()), "both workers had their share"
    keys = stored(tmp_path / "there" / "records.db")
    assert len(keys) == len(set(keys))
    assert all(
        wait_for(lambda w=worker: len(scratch_entries(w.temporary)) == 1, 5) for worker in cluster.workers
    )
