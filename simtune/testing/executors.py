# SPDX-License-Identifier: Apache-2.0
"""The conformance kit for executors: one pytest class that each executor runs.

A third party's test file::

    from simtune.testing.executors import ExecutorConformance
    from my_package import MyExecutor

    class TestMyExecutor(ExecutorConformance):
        def make(self):
            return MyExecutor()

pytest is needed.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import ClassVar

import pytest

from simtune.execution.base import Executor, run_all
from simtune.testing.jobs import FakeJob, FakeResult, processes_of

#: Numbers of fake jobs, so that the processes of one test are told from those of another.
_numbers = itertools.count(random.SystemRandom().randrange(10**9) * 1000)


class ExecutorConformance:
    """Subclass it, say in `make` how the executor is made, and let pytest collect the subclass.

    Attributes:
        immediate: True for an executor whose `submit` returns when the job is done.
        retries: True for one that runs a job again elsewhere after a transient failure.
        prompt_s: how soon what runs must have stopped after `cancel`.
    """

    immediate: ClassVar[bool] = False
    retries: ClassVar[bool] = False
    prompt_s: ClassVar[float] = 3.0

    def make(self) -> Executor:
        """The executor under test."""
        raise NotImplementedError("a conformance class says in make() how its executor is made")

    # Fixtures ---------------------------------------------------------------------------------

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        executor = self.make()
        yield executor
        executor.close(cancel=True)

    @pytest.fixture
    def concurrent(self, executor: Executor) -> Executor:
        if self.immediate:
            pytest.skip("its jobs are done when submit() returns")
        return executor

    # Results ----------------------------------------------------------------------------------

    def test_results_in_order(self, executor: Executor, tmp_path: Path) -> None:
        shared = tmp_path / "shared"
        shared.write_bytes(b"some content")
        jobs = [FakeJob(n, seconds=0.001 * (n % 3), file=shared, weight=n % 7) for n in range(60)]
        results = run_all(executor, jobs)
        assert [result.number for result in results] == list(range(60))
        assert [result.value for result in results] == [_here(job, tmp_path).value for job in jobs]

    def test_whatever_a_job_does_is_a_result(self, executor: Executor, tmp_path: Path) -> None:
        expected = {"fail": "failed", "crash": "failed", "flood": "failed", "orphans": "ok", "process": "ok"}
        jobs = [FakeJob(next(_numbers), does=does) for does in expected]
        assert [r.status for r in run_all(executor, jobs)] == list(expected.values())
        assert not [pid for job in jobs for pid in processes_of(job.number)]

    def test_an_exception_ends_its_own_future_only(self, executor: Executor) -> None:
        raising, fine = executor.submit(FakeJob(1, does="raise")), executor.submit(FakeJob(2))
        assert "fake job 1 raises" in str(raising.exception(30))
        assert fine.result(30).status == "ok"

    def test_transient_failures(self, executor: Executor, tmp_path: Path) -> None:
        job = FakeJob(3, does="transient", times=1, state=tmp_path)
        result = executor.submit(job).result(30)
        assert result.status == ("ok" if self.retries else "transient")
        assert job.runs() == (2 if self.retries else 1)

    def test_a_changed_file_is_read_anew(self, executor: Executor, tmp_path: Path) -> None:
        file = tmp_path / "file"
        values = set()
        for content in (b"one", b"two", b"six"):
            file.write_bytes(content)
            values.add(executor.submit(FakeJob(4, file=file)).result(30).value)
        assert len(values) == 3

    # Many at once -----------------------------------------------------------------------------

    def test_as_many_at_once_as_it_says(self, concurrent: Executor) -> None:
        slots, seconds, rounds = concurrent.capacity(), 0.2, 3
        assert slots >= 1
        run_all(concurrent, [FakeJob(n) for n in range(2 * slots)])  # all that starts has started
        start = time.monotonic()
        run_all(concurrent, [FakeJob(n, seconds=seconds) for n in range(slots * rounds)])
        assert rounds * seconds * 0.95 < time.monotonic() - start < rounds * seconds + 5

    def test_callbacks_may_submit(self, executor: Executor) -> None:
        """A candidate hands itself from stage to stage in callbacks."""
        numbers: list[int] = []
        last: Future[None] = Future()

        def step(done: Future[FakeResult]) -> None:
            numbers.append(done.result().number)
            if len(numbers) == 20:
                last.set_result(None)
            else:
                executor.submit(FakeJob(len(numbers))).add_done_callback(step)

        executor.submit(FakeJob(0)).add_done_callback(step)
        last.result(60)
        assert numbers == list(range(20))

    def test_a_callback_that_exits_ends_nobody_else(self, concurrent: Executor) -> None:
        for number in range(concurrent.capacity()):
            concurrent.submit(FakeJob(number, seconds=0.05)).add_done_callback(lambda _: sys.exit(3))
        assert concurrent.submit(FakeJob(9)).result(30).number == 9

    def test_many_threads_submit(self, executor: Executor) -> None:
        with ThreadPoolExecutor(4) as pool:
            futures = list(pool.map(lambda n: executor.submit(FakeJob(n)), range(200)))
        assert sorted(future.result(60).number for future in futures) == list(range(200))

    # Giving up --------------------------------------------------------------------------------

    def test_cancel_stops_all_and_leaves_it_usable(self, concurrent: Executor) -> None:
        jobs = [FakeJob(next(_numbers), does="hang") for _ in range(3 * concurrent.capacity())]
        futures = [concurrent.submit(job) for job in jobs]
        assert _until(lambda: any(processes_of(job.number) for job in jobs), 20)
        concurrent.cancel()
        assert not wait(futures, self.prompt_s).not_done
        assert all(f.cancelled() or f.result().status == "cancelled" for f in futures)
        assert _until(lambda: not any(processes_of(job.number) for job in jobs), self.prompt_s)
        assert concurrent.submit(FakeJob(1)).result(30).status == "ok"

    def test_cancel_some(self, concurrent: Executor) -> None:
        hang = [FakeJob(next(_numbers), does="hang") for _ in range(2)]
        hanging = [concurrent.submit(job) for job in hang]
        fine = [concurrent.submit(FakeJob(n, seconds=0.01)) for n in range(10)]
        concurrent.cancel(hanging)
        assert [future.result(30).number for future in fine] == list(range(10))
        assert not wait(hanging, self.prompt_s).not_done
        assert _until(lambda: not any(processes_of(job.number) for job in hang), self.prompt_s)

    def test_a_future_that_its_owner_cancels(self, concurrent: Executor) -> None:
        busy = [concurrent.submit(FakeJob(n, seconds=0.3)) for n in range(concurrent.capacity())]
        waiting = [concurrent.submit(FakeJob(n)) for n in range(20)]
        cancelled = [future for future in waiting if future.cancel()]
        assert not wait([*busy, *waiting], 30).not_done
        assert all(future.cancelled() for future in cancelled)

    def test_an_interrupted_submission_gives_up_what_it_had(self, concurrent: Executor) -> None:
        job = FakeJob(next(_numbers), does="hang")

        def jobs() -> Iterator[FakeJob]:
            yield job
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_all(concurrent, jobs())
        assert _until(lambda: not processes_of(job.number), self.prompt_s)
        assert concurrent.submit(FakeJob(1)).result(30).status == "ok"

    # Closing ----------------------------------------------------------------------------------

    def test_close_waits(self, executor: Executor) -> None:
        futures = [executor.submit(FakeJob(n, seconds=0.05)) for n in range(6)]
        executor.close()
        assert all(future.result(0).status == "ok" for future in futures)
        executor.close()
        with pytest.raises(RuntimeError):
            executor.submit(FakeJob(1))

    def test_close_with_cancel_is_prompt(self, concurrent: Executor) -> None:
        jobs = [FakeJob(next(_numbers), does="hang") for _ in range(4)]
        futures = [concurrent.submit(job) for job in jobs]
        assert _until(lambda: any(processes_of(job.number) for job in jobs), 20)
        start = time.monotonic()
        concurrent.close(cancel=True)
        assert time.monotonic() - start < self.prompt_s + 1
        assert all(future.done() for future in futures)
        assert _until(lambda: not any(processes_of(job.number) for job in jobs), self.prompt_s)

    def test_an_exception_closes_with_cancel(self, concurrent: Executor) -> None:
        future = concurrent.submit(FakeJob(next(_numbers), does="hang"))
        with pytest.raises(KeyError), concurrent:
            raise KeyError
        assert future.done()
        with pytest.raises(RuntimeError):
            concurrent.submit(FakeJob(1))

    def test_nothing_stays_behind(self) -> None:
        def usage() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), threading.active_count()

        self._use()  # what is loaded and opened once
        before = usage()
        self._use()
        assert _until(lambda: usage() <= before, 5), f"{before} descriptors and threads became {usage()}"

    def _use(self) -> None:
        with self.make() as executor:
            run_all(executor, [FakeJob(n) for n in range(5)])


def _here(job: FakeJob, folder: Path) -> FakeResult:
    from simtune.execution.base import Site

    return job.run(Site(folder, threading.Event()))


def _until(condition: object, seconds: float) -> bool:
    """Waits until `condition()` holds; returns whether it ever did."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
