# SPDX-License-Identifier: Apache-2.0
"""Builds that an executor runs: the same objects, wherever, and a compiler's death is one failed build."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

import simtune
from simtune.build.job import BuildJob, Built
from simtune.build.pool import BuildPool, BuildRequest, shared_pool
from simtune.execution.base import PortableJob, Refused, Site, run_all
from simtune.execution.remote import JobRunner
from simtune.execution.wire import Chunk, PackedJob, Reply, decode_reply, encode_chunk, kind_of
from simtune.machines.model import Machine
from simtune.tuning.workloads import parse

HEAVY = "conv2d:c=64,h=56,o=64"


def module_json(workload: str = "matmul:m=16,n=16,k=16") -> str:
    from tvm.ir import save_json

    return str(save_json(parse(workload).module()))


@pytest.fixture
def job(u74: Machine) -> BuildJob:
    return BuildJob(module_json(), json.dumps(dict(u74.target)))


@pytest.fixture(autouse=True)
def _own_pool() -> Iterator[None]:
    """Each test starts the processes of the pool that it looks at."""
    yield
    shared_pool().close()


def site(folder: Path) -> Site:
    return Site(folder, threading.Event())


def build_workers() -> list[psutil.Process]:
    return [p for child in psutil.Process().children() for p in child.children()]


def travel(*jobs: PortableJob[Any]) -> Reply:
    """What a worker replies to these jobs."""
    runner = JobRunner()
    packed = [PackedJob(i, kind_of(job), {}, json.dumps(job.encode()).encode()) for i, job in enumerate(jobs)]
    try:
        return decode_reply(runner.perform(encode_chunk(Chunk(packed))))
    finally:
        runner.close()


def test_a_build_elsewhere_gives_the_same_object(job: BuildJob, tmp_path: Path) -> None:
    here = job.run(site(tmp_path))
    (reply,) = travel(job).jobs
    there = BuildJob.decode_result(reply.result)
    assert here.error == there.error == ""
    assert here.code[:4] == b"\x7fELF"
    assert (there.code, there.info) == (here.code, here.info)
    assert there.seconds > 0
    assert not reply.transient


def test_the_builder_leaves_the_same_artifacts_with_an_executor(u74: Machine) -> None:
    import tvm
    from tvm.target import Target

    from simtune.build.builder import ms

    target = Target(dict(u74.target))
    modules = [parse(f"matmul:m={m},n=16,k=16").module() for m in (16, 24)]
    inputs = [ms.builder.BuilderInput(module, target) for module in (*modules, tvm.IRModule({}))]
    outcomes = []
    with simtune.LocalExecutor(2) as executor:
        for builder in (simtune.Builder(2), simtune.Builder(executor=executor)):
            try:
                results = builder.build(inputs)
                paths = [Path(str(one.artifact_path)) for one in results if one.artifact_path]
                outcomes.append(
                    [
                        *[(path.read_bytes(), _without_time(path)) for path in paths],
                        *[str(one.error_msg).splitlines()[0] for one in results if one.error_msg],
                    ]
                )
            finally:
                builder.close()
        assert executor.submit(BuildJob("{}", "{}")).result().error  # it is still open
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 3


def _without_time(path: Path) -> dict[str, Any]:
    info: dict[str, Any] = json.loads(Path(f"{path}.json").read_text())
    assert info.pop("build_s") > 0
    return info


def test_another_tvm_is_refused_by_name(job: BuildJob, tmp_path: Path) -> None:
    other = replace(job, versions={**job.versions, "apache-tvm": "0.99.0"})
    reply = travel(other)
    assert not reply.jobs
    assert "apache-tvm 0.99.0" in reply.refused
    assert f"apache-tvm {job.versions['apache-tvm']}" in reply.refused


def test_a_machine_without_build_processes_refuses(
    job: BuildJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Refused, match="cannot start"):
        job.run(site(tmp_path))
    assert "cannot start" in travel(job).refused


def test_a_crash_of_the_compiler_is_a_failed_build(job: BuildJob, tmp_path: Path) -> None:
    (tmp_path / "candidate.o.part").symlink_to("/dev/full")  # LLVM gives up the whole process
    crashed = job.run(site(tmp_path))
    assert "crashed" in crashed.error
    assert "LLVM ERROR" in crashed.error
    assert not BuildJob.transient(crashed)
    (tmp_path / "next").mkdir()
    assert job.run(site(tmp_path / "next")).error == ""


def test_a_hanging_compiler_is_given_up(job: BuildJob, tmp_path: Path) -> None:
    job.run(site(tmp_path))
    (worker,) = build_workers()
    worker.send_signal(signal.SIGSTOP)
    hung = replace(job, timeout_s=0.3).run(site(tmp_path))
    assert "longer than 0.3 s" in hung.error
    assert not BuildJob.transient(hung)
    assert job.run(site(tmp_path)).error == ""


def test_a_cancelled_build_stops_at_once(job: BuildJob, tmp_path: Path) -> None:
    job.run(site(tmp_path))
    (worker,) = build_workers()
    worker.send_signal(signal.SIGSTOP)
    where = site(tmp_path)
    threading.Timer(0.2, where.cancel.set).start()
    start = time.monotonic()
    result = job.run(where)
    assert time.monotonic() - start < 2
    assert result.error == "given up"
    assert not BuildJob.transient(result)
    psutil.wait_procs([worker], timeout=3)
    assert not worker.is_running()


def test_the_death_of_the_build_process_is_no_fault_of_the_candidate(job: BuildJob, tmp_path: Path) -> None:
    job.run(site(tmp_path))
    (zygote,) = [p for p in psutil.Process().children() if p.children()]
    build_workers()[0].send_signal(signal.SIGSTOP)
    threading.Timer(0.2, zygote.kill).start()
    lost = job.run(site(tmp_path))
    assert BuildJob.transient(lost)
    assert job.run(site(tmp_path)).error == ""


def test_threads_share_the_workers_of_a_pool(u74: Machine, tmp_path: Path) -> None:
    """Batches from three threads: as many workers as the pool has build, no more and no fewer."""
    pool = BuildPool(2)
    target = json.dumps(dict(u74.target))
    heavy = module_json(HEAVY)
    errors: list[str] = []

    def batch(thread: int) -> None:
        requests = [BuildRequest(heavy, target, tmp_path / f"{thread}-{i}.o") for i in range(2)]
        errors.extend(reply.error for reply in pool.build(requests))

    try:
        threads = [threading.Thread(target=batch, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == [""] * 6
        assert len(list(tmp_path.glob("*.o"))) == 6
        assert len(build_workers()) == 2
    finally:
        pool.close()


def test_every_slot_of_a_process_builds_at_the_same_time(job: BuildJob) -> None:
    heavy = replace(job, module_json=module_json(HEAVY))
    with simtune.LocalExecutor(2) as executor:
        if executor.capacity() < 2:
            pytest.skip("this machine has a single core")
        assert [built.error for built in run_all(executor, [heavy] * 4)] == [""] * 4
    assert len(build_workers()) == 2


def test_closing_a_pool_gives_up_what_it_builds(job: BuildJob, tmp_path: Path) -> None:
    job.run(site(tmp_path))
    (worker,) = build_workers()
    worker.send_signal(signal.SIGSTOP)
    results: list[Built] = []
    thread = threading.Thread(target=lambda: results.append(job.run(site(tmp_path))))
    thread.start()
    time.sleep(0.2)
    shared_pool().close()
    thread.join(5)
    assert [BuildJob.transient(result) for result in results] == [True]
    assert not build_workers()
