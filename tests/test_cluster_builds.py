# SPDX-License-Identifier: Apache-2.0
"""Builds on a cluster: two drivers tune at once, and what was built there dies with its worker."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
from pathlib import Path

import psutil
from cluster_helpers import Cluster
from execution_helpers import wait_for
from process_helpers import SIMTUNE, environment

import simtune
from simtune.build.job import BuildJob
from simtune.build.pool import shared_pool
from simtune.execution.base import Site, run_all
from simtune.machines.load import load_machine
from simtune.tuning.tune import Search
from simtune.tuning.workloads import parse


def build_processes(owner: psutil.Process) -> list[psutil.Process]:
    """The process that builds are forked from, and its workers."""
    found = [child for child in owner.children() if "simtune.build.zygote" in child.cmdline()]
    return [process for zygote in found for process in (zygote, *zygote.children())]


def test_two_drivers_build_and_simulate_on_one_cluster(tmp_path: Path) -> None:
    from tvm.ir import save_json

    logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()
    cluster = Cluster(tmp_path / "cluster")
    try:
        options = ["-n", "4", "--batch", "4", "--scheduler", cluster.address, "--json", "--no-report"]
        other = subprocess.Popen(
            [*SIMTUNE, "tune", "matmul:m=32,n=32,k=32", "-m", "sifive-u74", *options],
            cwd=tmp_path,
            env=environment(tmp_path / "other"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        machine = load_machine("sifive-u74")
        with simtune.DaskExecutor(cluster.address) as executor:
            mine = simtune.tune(
                "matmul:m=24,n=32,k=16",
                machine,
                trials=4,
                executor=executor,
                records=tmp_path / "mine.db",
                work_dir=tmp_path / "mine",
                search=Search(batch=4, population=32, generations=1),
            )
            output, errors = other.communicate(timeout=100)
            assert other.returncode == 0, errors
            theirs = json.loads(output)
            assert (mine.trials, mine.failures) == (theirs["trials"], theirs["failures"]) == (4, 0)
            # Nothing was built in this process.
            assert not build_processes(psutil.Process())

            target = json.dumps(dict(machine.target))
            jobs = [
                BuildJob(save_json(parse(f"matmul:m={m},n=16,k=16").module()), target) for m in (16, 24, 40)
            ]
            built = run_all(executor, jobs)
            here = [job.run(Site(tmp_path, threading.Event())) for job in jobs]
            assert [one.code for one in built] == [one.code for one in here]
            assert all(one.code for one in built)

            workers = [child for worker in cluster.workers for child in worker.children()]
            busiest = max(workers, key=lambda worker: len(build_processes(worker)))
            victims = build_processes(busiest)
            assert len(victims) == 2  # it has one slot
            busiest.kill()
            assert wait_for(lambda: not any(p.is_running() for p in victims), 5)
            assert [one.error for one in run_all(executor, jobs)] == [""] * 3  # on the other one, or again
    finally:
        cluster.close()
        shared_pool().close()
