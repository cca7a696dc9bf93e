# SPDX-License-Identifier: Apache-2.0
"""Batches that are killed, interrupted, or started twice: nothing lost, nothing done twice."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_helpers import copy_object, run_batch, spinner, trials_of, work_directory
from cluster_helpers import mounted
from execution_helpers import fresh_mark, marked, wait_for
from process_helpers import SIMTUNE, environment, processes_about, scratch_entries

from simtune.machines.model import Machine
from simtune.records import RecordStore, Trial
from simtune.records.origins import origin_of

JOBS = 20


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list of jobs of a tenth of a second and more."""
    program = spinner(tmp_path / "bin", "spin", 3_000_000)
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{program} {n}{' x' * (n % 4)}\n" for n in range(JOBS)))
    return path


class Driver:
    """`simtune batch` as a process of its own."""

    def __init__(self, listed: Path) -> None:
        self.folder, self.mark = listed.parent, fresh_mark()
        self.records, self.temporary = self.folder / "r.db", self.folder / "tmp"
        self.arguments = [str(listed), "-m", "sifive-u74", "--records", str(self.records)]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [*SIMTUNE, "batch", *self.arguments],
            env=environment(self.temporary, self.mark),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def recorded(self) -> int:
        try:
            connection = sqlite3.connect(f"file:{self.records}?mode=ro", uri=True)
            try:
                return int(connection.execute("SELECT count(*) FROM trial").fetchone()[0])
            finally:
                connection.close()
        except sqlite3.Error:
            return 0

    def wait_for_records(self, number: int) -> None:
        assert wait_for(lambda: self.recorded() >= number, 60), "no job ended"


@pytest.fixture
def driver(listed: Path) -> Iterator[Driver]:
    driver = Driver(listed)
    yield driver
    if driver.process is not None and driver.process.poll() is None:
        driver.process.kill()
        driver.process.communicate()


def values(trials: list[Trial]) -> dict[str, tuple[str, float | None]]:
    return {str(origin_of(trial)): (str(trial.status), trial.predicted_s) for trial in trials}


def test_a_killed_batch_goes_on(driver: Driver, tmp_path: Path) -> None:
    killed = 0
    for wanted in (3, 7):
        process = driver.start()
        driver.wait_for_records(wanted)
        process.kill()
        process.communicate()
        assert wait_for(lambda: not processes_about(driver.temporary, driver.mark), 3)
        killed += 1
    before = driver.recorded()
    with RecordStore(driver.records) as store:
        simulated = len(list(store.simulations()))
    assert before <= simulated < JOBS  # none is recorded that is not stored
    resumed = run_batch(*driver.arguments)
    assert (resumed["settled_before"], resumed["cached"]) == (before, simulated - before)
    assert resumed["simulated"] == JOBS - simulated
    assert resumed["statuses"] == {"ok": JOBS}
    trials = trials_of(driver.records, resumed["run"])
    assert sorted(trial.index for trial in trials) == list(range(JOBS))
    # Equal to a run that nothing happened to.
    undisturbed = run_batch(*driver.arguments[:3], "--records", tmp_path / "other.db")
    assert values(trials) == values(trials_of(tmp_path / "other.db", undisturbed["run"]))
    assert scratch_entries(driver.temporary) != [] or killed == 0  # kill -9 leaves files …
    last = subprocess.run(
        [*SIMTUNE, "batch", *driver.arguments],
        env=environment(driver.temporary),
        check=False,
        capture_output=True,
    )
    assert last.returncode == 0
    assert scratch_entries(driver.temporary) == []  # … which the next one removes


def test_two_drivers_and_an_interrupt(driver: Driver) -> None:
    process = driver.start()
    driver.wait_for_records(2)
    process.send_signal(signal.SIGSTOP)  # or it ends before the second one has begun
    second = subprocess.run(
        [*SIMTUNE, "batch", *driver.arguments],
        env=environment(driver.temporary),
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert "under way in another process" in second.stderr
    process.send_signal(signal.SIGCONT)
    assert process.poll() is None  # the first one did not notice
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - start < 2
    assert process.returncode == 130
    assert "run the same command to go on" in errors
    assert processes_about(driver.temporary, driver.mark) == []
    assert scratch_entries(driver.temporary) == []
    before = driver.recorded()
    assert 2 <= before < JOBS
    resumed = run_batch(*driver.arguments)
    assert resumed["settled_before"] == before
    assert len(trials_of(driver.records, resumed["run"])) == JOBS


def test_an_interrupt_while_candidates_are_built(driver: Driver, tmp_path: Path) -> None:
    work = work_directory(tmp_path / "work", 40)
    driver.arguments[0] = str(work)
    process = driver.start()
    # The process that imports TVM is there, and it has not come far.
    assert wait_for(lambda: any("simtune.build.zygote" in line for line in marked(driver.mark)), 30)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - start < 2
    assert process.returncode == 130
    assert wait_for(lambda: not processes_about(driver.temporary, driver.mark), 3)


def test_a_full_disk_says_nothing_of_candidates(
    tmp_path: Path, build_default: Callable[[str, Machine], Path], u74: Machine, qemu: object
) -> None:
    copy_object(build_default("matmul:m=8,n=16,k=16", u74), tmp_path / "c.o")
    driver = Driver(tmp_path / "c.o")
    with mounted(tmp_path / "tmp", 1) as driver.temporary:
        fill = driver.temporary / "fill"
        with contextlib.suppress(OSError), fill.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with fill.open("r+b") as file:
            file.truncate(fill.stat().st_size - 8192)  # two pages, for folders
        output, _ = driver.start().communicate(timeout=60)
    assert "infrastructure in link" in output
    assert "No space left on device" in output
    assert run_batch(*driver.arguments)["statuses"] == {"ok": 1}
