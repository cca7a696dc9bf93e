# SPDX-License-Identifier: Apache-2.0
"""The local executors: order, cancellation, closing, and what their death leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from execution_helpers import MARK, Call, fresh_mark, marked, wait_for

from simtune.errors import ConfigurationError
from simtune.execution.base import Executor, Job, Site, run_all
from simtune.execution.capacity import usable_cores
from simtune.execution.local import InlineExecutor, LocalExecutor
from simtune.execution.supervise import Command, Completed, Ending, run

#: Daemonises a grandchild into a session of its own, and ignores TERM.
STUBBORN = "trap '' TERM; (setsid sh -c 'sleep 1000 & wait' &); while :; do sleep 1; done"


def simulate(script: str, mark: str, cancel: threading.Event) -> Completed:
    return run(Command(("sh", "-c", script), env={**os.environ, MARK: mark}), cancel)


def nap(result: int, cancel: threading.Event) -> int:
    cancel.wait(0.02)
    return result


def fail(cancel: threading.Event) -> int:
    raise ValueError("from the task")


def leave(cancel: threading.Event) -> int:
    raise SystemExit(3)


@pytest.fixture(params=[lambda: LocalExecutor(2), InlineExecutor], ids=["local", "inline"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param()


def test_results_in_order(executor: Executor) -> None:
    with executor:
        assert run_all(executor, [Call(partial(nap, i)) for i in range(20)]) == list(range(20))


def test_an_error_goes_into_the_future(executor: Executor) -> None:
    with executor:
        assert isinstance(executor.submit(Call(fail)).exception(), ValueError)
        assert executor.submit(Call(partial(nap, 1))).result() == 1


def test_submit_after_close(executor: Executor) -> None:
    executor.close()
    executor.close()
    with pytest.raises(RuntimeError, match="close"):
        executor.submit(Call(fail))


def test_exit_inside_a_task() -> None:
    with LocalExecutor(1) as executor:
        assert isinstance(executor.submit(Call(leave)).exception(), SystemExit)
        assert executor.submit(Call(partial(nap, 1))).result() == 1
    with pytest.raises(SystemExit), InlineExecutor() as inline:
        inline.submit(Call(leave))


def test_as_many_at_once_as_slots() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def task(cancel: threading.Event) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    with LocalExecutor() as executor:
        run_all(executor, [Call(task)] * 20)
        assert most == executor.capacity()
        assert len([t for t in threading.enumerate() if t.name.startswith("simtune-job")]) == most


def test_jobs_bound_the_capacity() -> None:
    assert LocalExecutor(jobs=1).capacity() == 1
    assert LocalExecutor(memory_per_job=1 << 60).capacity() == 1
    with pytest.raises(ConfigurationError, match="jobs is 0"):
        LocalExecutor(jobs=0)


def test_cancel_leaves_the_executor_usable() -> None:
    mark = fresh_mark()
    with LocalExecutor(2) as executor:
        futures = [executor.submit(Call(partial(simulate, STUBBORN, mark))) for _ in range(6)]
        running = executor.capacity()
        assert wait_for(lambda: all(f.running() for f in futures[:running]), 5)
        executor.cancel()
        assert all(f.result(2).ending is Ending.CANCELLED for f in futures[:running])
        assert all(f.cancelled() for f in futures[running:])
        assert executor.submit(Call(partial(nap, 5))).result() == 5
    assert marked(mark) == []


def test_cancel_of_many_is_prompt() -> None:
    with LocalExecutor(1) as executor:
        futures = [executor.submit(Call(partial(nap, i))) for i in range(20_000)]
        started = time.monotonic()
        executor.cancel(futures)
        assert time.monotonic() - started < 1.0


def test_close_with_cancel_is_prompt() -> None:
    mark = fresh_mark()
    executor = LocalExecutor(2)
    futures = [executor.submit(Call(partial(simulate, STUBBORN, mark))) for _ in range(50)]
    assert wait_for(lambda: len(marked(mark)) >= 2 * executor.capacity(), 5)
    started = time.monotonic()
    executor.close(cancel=True)
    assert time.monotonic() - started < 2
    assert all(future.done() for future in futures)
    assert marked(mark) == []


def test_an_exception_closes_with_cancel() -> None:
    started = time.monotonic()
    executor = LocalExecutor(1)
    executor.submit(Call(partial(simulate, STUBBORN, fresh_mark())))
    with pytest.raises(KeyError), executor:
        raise KeyError
    assert time.monotonic() - started < 2


def test_descriptors_and_threads_stay_flat() -> None:
    def usage() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    task = Call(partial(simulate, "exit 0", fresh_mark()))
    before = usage()
    with LocalExecutor(4) as executor:
        assert all(done.ok for done in run_all(executor, [task] * 500))
        assert len(os.listdir("/proc/self/fd")) == before[0]
    assert usage() == before


# ---- scripts of their own: affinity, signals and death concern whole processes ----------------

SCRIPT = """
import os, sys, threading, time
from dataclasses import dataclass
from functools import partial
from simtune.execution.base import run_all
from simtune.execution.capacity import usable_cores
from simtune.execution.local import LocalExecutor
from simtune.execution.supervise import Command, run
from execution_helpers import Call
"""

RUNNING = (
    SCRIPT
    + f"""
stubborn = Command(("sh", "-c", {STUBBORN!r}))
run(Command(("true",)))
print("ready", flush=True)
"""
)


def python(script: str, mark: str = "") -> subprocess.Popen[str]:
    env = {**os.environ, MARK: mark, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_capacity_honours_affinity() -> None:
    script = SCRIPT + "print(LocalExecutor(memory_per_job=1 << 20).capacity())"
    assert int(python(script).communicate(timeout=30)[0]) == usable_cores()
    script = script.replace("print", "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print", 1)
    assert python(script).communicate(timeout=30)[0] == "1\n"


FOUR_JOBS = """
threads = [threading.Thread(target=run, args=(stubborn,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("whole_group", [False, True])
def test_kill_9_leaves_no_orphan(whole_group: bool) -> None:
    mark = fresh_mark()
    with python(RUNNING + FOUR_JOBS, mark) as process:
        # Python, and for each job launcher, shell, sleep, daemonised shell and its sleep.
        assert wait_for(lambda: len(marked(mark)) >= 1 + 4 * 5, 10), marked(mark)
        (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
        assert wait_for(lambda: not marked(mark), 3), marked(mark)


def test_kill_9_at_any_moment() -> None:
    """While jobs are just starting, some processes are still to be forked."""
    for step in range(12):
        mark = fresh_mark()
        with python(RUNNING + FOUR_JOBS, mark) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(step * 0.002)
            process.kill()
            assert wait_for(lambda mark=mark: not marked(mark), 3), marked(mark)


MAIN_WAITS = """
with LocalExecutor(2) as executor:
    run_all(executor, [Call(partial(run, stubborn))] * 10)
"""
NEVER_CLOSED = """
executor = LocalExecutor(2)
futures = [executor.submit(Call(partial(run, stubborn))) for _ in range(10)]
futures[0].result()
"""
CLOSE_WAITS = """
with LocalExecutor(2) as executor:
    futures = [executor.submit(Call(partial(run, stubborn))) for _ in range(10)]
"""
INLINE = "run(stubborn)"


@pytest.mark.parametrize("script", [MAIN_WAITS, NEVER_CLOSED, CLOSE_WAITS, INLINE])
def test_ctrl_c_ends_a_script(script: str) -> None:
    mark = fresh_mark()
    with python(RUNNING + script, mark) as process:
        assert wait_for(lambda: len(marked(mark)) >= 1 + 5, 10)
        os.killpg(process.pid, signal.SIGINT)
        started = time.monotonic()
        process.wait(5)
        assert time.monotonic() - started < 2
        assert process.stderr is not None
        assert "KeyboardInterrupt" in process.stderr.read()
        assert wait_for(lambda: not marked(mark), 1), marked(mark)


def test_the_end_of_a_script_that_forgot_to_close() -> None:
    mark = fresh_mark()
    script = """
executor = LocalExecutor(2)
future = executor.submit(Call(partial(run, stubborn)))
time.sleep(0.5)
"""
    with python(RUNNING + script, mark) as process:
        assert process.wait(10) == 0
        assert wait_for(lambda: not marked(mark), 1), marked(mark)


def test_the_longest_of_those_that_wait_starts_first() -> None:
    started: list[float] = []
    gate = threading.Event()

    def note(length: float, cancel: threading.Event) -> None:
        started.append(length)

    with LocalExecutor(1) as executor:
        executor.submit(Call(lambda cancel: gate.wait(5)))
        futures = [executor.submit(Call(partial(note, x), x)) for x in (1.0, 3.0, 0.0, 2.0, 3.5)]
        gate.set()
        for future in futures:
            future.result()
    assert started == [0.0, 3.5, 3.0, 2.0, 1.0]


def test_cancel_of_some_leaves_the_others_of_a_shared_executor() -> None:
    gate = threading.Event()
    with LocalExecutor(1) as executor:
        running = executor.submit(Call(lambda cancel: gate.wait(5)))
        mine, other = (executor.submit(Call(partial(nap, i))) for i in range(2))
        executor.cancel([mine])
        gate.set()
        assert mine.cancelled()
        assert running.result() is True
        assert other.result() == 1


def test_a_job_has_an_empty_folder_that_is_removed() -> None:
    @dataclass(frozen=True)
    class Writes(Job[Path]):
        def run(self, site: Site) -> Path:
            assert list(site.folder.iterdir()) == []
            (site.folder / "file").write_text("x")
            return site.folder

    with LocalExecutor(2) as executor:
        folders = run_all(executor, [Writes()] * 5)
        assert len(set(folders)) == 5
        assert not any(folder.exists() for folder in folders)
        assert folders[0].parent.exists()
        shutil.rmtree(folders[0].parent)  # somebody tidies up the folder for temporary files
        assert not executor.submit(Writes()).result().exists()
    assert not folders[0].parent.exists()
