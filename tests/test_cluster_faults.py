# SPDX-License-Identifier: Apache-2.0
"""Parts of a cluster fail, for real; every job still ends exactly once, as it would without faults."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cluster_helpers import Cluster, Run, hasty, mounted, naps
from execution_helpers import wait_for
from process_helpers import ROOT, scratch_entries

import simtune
from simtune.errors import ConfigurationError
from simtune.testing.jobs import FakeJob, processes_of

# ---- workers ----------------------------------------------------------------------------------


def test_workers_that_are_killed_again_and_again(cluster: Cluster, tmp_path: Path) -> None:
    with hasty(cluster.address) as executor:
        run = Run(executor, [FakeJob(n, seconds=0.05, does="process") for n in range(60)])
        for round, worker in enumerate([*cluster.workers, *cluster.workers]):
            run.until(10 * round)
            before = worker.joined()
            worker.kill_process()
            assert wait_for(lambda w=worker, b=before: w.joined() > b, 20)
        run.check(tmp_path)
    for worker in cluster.workers:
        assert wait_for(lambda w=worker: len(scratch_entries(w.temporary)) == 1, 5), "swept by the next start"


def test_kill_9_of_a_worker_leaves_no_processes(cluster: Cluster) -> None:
    with hasty(cluster.address) as executor:
        jobs = [FakeJob(n, does="hang") for n in (901, 902)]
        futures = [executor.submit(job) for job in jobs]
        assert wait_for(lambda: all(processes_of(job.number) for job in jobs), 20)
        pids = [pid for job in jobs for pid in processes_of(job.number)]
        for worker in cluster.workers:
            worker.kill_process()
        assert wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 3)
        executor.cancel()
        assert all(future.cancelled() for future in futures)
    cluster.settle()


def test_a_host_with_all_its_workers_goes(cluster: Cluster, tmp_path: Path) -> None:
    others = [cluster.add(1, "--host", "127.0.0.2") for _ in range(2)]
    cluster.ready()
    with hasty(cluster.address) as executor:
        assert wait_for(lambda: executor.capacity() == 4, 10)
        run = Run(executor, naps(80))
        run.until(8)
        for worker in others:
            for child in worker.children():
                child.suspend()  # so that it cannot say good-bye when its guard dies
            worker.kill()
        run.check(tmp_path)
        assert {state.host for state in executor.view().workers} == {"127.0.0.1"}
    for worker in others:
        cluster.workers.remove(worker)


def test_a_worker_that_leaves_in_good_order_raises_no_suspicion(cluster: Cluster, tmp_path: Path) -> None:
    leaving = cluster.add()
    cluster.ready()
    with hasty(cluster.address) as executor:
        assert wait_for(lambda: executor.capacity() == 3, 10)
        run = Run(executor, naps(60))
        run.until(6)
        leaving.stop()
        assert leaving.process.returncode == 0
        assert scratch_entries(leaving.temporary) == []
        run.check(tmp_path)
    cluster.workers.remove(leaving)


def test_a_poisonous_job_takes_nobody_with_it(cluster: Cluster, tmp_path: Path) -> None:
    poison = FakeJob(999, seconds=0.02, does="poison", state=tmp_path)
    with hasty(cluster.address) as executor:
        innocent = naps(15, 0.02)
        run = Run(executor, innocent)
        lost = executor.submit(poison)
        rest = Run(executor, naps(15, 0.02))
        run.check(tmp_path)
        rest.check(tmp_path)
        result = lost.result(60)
        assert executor.view().lost == 1
    assert result.status == "lost"
    assert result.reason.count("127.0.0.1") >= 3, result.reason
    assert poison.runs() == 3
    cluster.settle()


def test_scratch_removed_under_running_workers(cluster: Cluster, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.write_bytes(b"content" * 1000)
    with hasty(cluster.address) as executor:
        run = Run(executor, [FakeJob(n, seconds=0.05, file=shared) for n in range(60)])
        for done in (10, 20, 30):
            run.until(done)
            for worker in cluster.workers:
                for entry in scratch_entries(worker.temporary):
                    shutil.rmtree(worker.temporary / entry, ignore_errors=True)
        run.check(tmp_path)


def test_a_full_disk_on_a_worker(cluster: Cluster, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", 2) as small:
        full = cluster.add(1, TMPDIR=str(small))
        cluster.ready()
        files = []
        for number in range(8):
            files.append(tmp_path / str(number))
            files[-1].write_bytes(os.urandom(3 << 20))
        with hasty(cluster.address) as executor:
            assert wait_for(lambda: executor.capacity() == 3, 10)
            plain = Run(executor, naps(30))
            run = Run(executor, [FakeJob(n, seconds=0.02, file=file) for n, file in enumerate(files)])
            run.check(tmp_path)
            plain.check(tmp_path)
            assert executor.view().retried >= 1, "nothing ever met the full disk"
        full.stop()
    cluster.workers.remove(full)


def test_jobs_on_workers_have_no_network(cluster: Cluster) -> None:
    assert all("the network" in worker.log() for worker in cluster.workers), "it is said at the start"
    if "refuses" in cluster.logs():
        pytest.skip("this kernel lets nobody leave the network")
    with hasty(cluster.address) as executor:
        result = executor.submit(FakeJob(1, does="devices")).result(30)
    assert result.reason.endswith("b'lo'"), result.reason


# ---- versions ---------------------------------------------------------------------------------


def test_another_version_is_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "simtune", copy / "simtune", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(ROOT / "simulators", copy / "simulators")
    init = copy / "simtune" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{simtune.__version__}"', '"9.8.7"'))
    other = cluster.add(1, PYTHONPATH=str(copy))
    cluster.ready()
    with hasty(cluster.address) as executor:
        assert wait_for(lambda: executor.capacity() == 3, 10)
        Run(executor, naps(30, 0.01)).check(tmp_path)
        reasons = [worker.note for worker in executor.view().workers if worker.note]
    assert len(reasons) == 1
    assert f"the driver is simtune {simtune.__version__}" in reasons[0]
    assert "the worker is simtune 9.8.7" in reasons[0]
    other.stop()
    cluster.workers.remove(other)


def test_what_no_worker_can_run_says_why(cluster: Cluster) -> None:
    with hasty(cluster.address) as executor:
        error = executor.submit(FakeJob(7, does="refuse")).exception(30)
        assert isinstance(error, ConfigurationError)
        assert "all workers refused it" in str(error)
        assert "fake job 7 runs nowhere" in str(error)
        assert executor.submit(FakeJob(8)).exception(30) is not None, "nor another one with the same needs"


def test_a_scheduler_without_simtune_is_named(cluster: Cluster, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "simtune"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('nobody installed it')")
    cluster.scheduler.kill()
    cluster.start_scheduler(PYTHONPATH=str(broken.parent))
    try:
        cluster.settle()
        with hasty(cluster.address) as executor:
            error = executor.submit(FakeJob(1)).exception(30)
    finally:
        cluster.scheduler.kill()
        cluster.start_scheduler()
        cluster.settle()
    assert isinstance(error, ConfigurationError)
    assert f"the scheduler at {cluster.address} cannot load simtune" in str(error)
    assert "nobody installed it" in str(error)
