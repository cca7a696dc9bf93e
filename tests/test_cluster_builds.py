# SPDX-License-Identifier: Apache-2.0
"""Builds on a cluster: two tunings at once, and what was built there dies with its worker."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from cluster_helpers import Cluster
from execution_helpers import wait_for

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


def test_tunings_share_a_cluster_and_its_builds_die_with_their_worker(tmp_path: Path) -> None:
    from tvm.ir import save_json

    machine = load_machine("sifive-u74")
    logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()
    shared_pool().close()  # what other tests have left
    cluster = Cluster(tmp_path / "cluster")

    def tune(size: int) -> simtune.TuneResult:
        with simtune.DaskExecutor(cluster.address) as own:
            return simtune.tune(
                f"matmul:m={size},n=32,k=16",
                machine,
                trials=4,
                executor=own,
                records=tmp_path / "records.db",
                work_dir=tmp_path / str(size),
                search=Search(batch=4, population=32, generations=1),
            )

    try:
        with ThreadPoolExecutor(2) as drivers:
            results = list(drivers.map(tune, (24, 32)))
        assert [(result.trials, result.failures) for result in results] == [(4, 0)] * 2
        assert not build_processes(psutil.Process())  # nothing was built in this process

        target = json.dumps(dict(machine.target))
        modules = [save_json(parse(f"matmul:m={m},n=16,k=16").module()) for m in (16, 24, 40)]
        jobs = [BuildJob(module, target) for module in modules]
        with simtune.DaskExecutor(cluster.address) as executor:
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
            assert [one.error for one in run_all(executor, jobs)] == [""] * 3  # elsewhere, or there again
    finally:
        cluster.close()
        shared_pool().close()
