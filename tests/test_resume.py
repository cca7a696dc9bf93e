# SPDX-License-Identifier: Apache-2.0
"""Tuning runs that are killed or interrupted at any stage: nothing stays behind, nothing is lost, and the
same command goes on where it ended."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from execution_helpers import fresh_mark, wait_for
from process_helpers import SIMTUNE, environment, processes_about, scratch_entries, simtune

from simtune.records.store import RecordStore

#: Small, and long enough in the simulator to be met there: TVM's default schedule takes a second.
WORKLOAD = "matmul:m=80,n=80,k=80"
TRIALS, BATCH = 8, 4


class Sitting:
    """One `simtune tune` in a process group of its own, as a shell starts it, and what it is doing."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.mark, self.temporary = folder, fresh_mark(), folder / "tmp"
        self.errors = (folder / "stderr").open("w")
        arguments = ("-m", "sifive-u74", "-n", str(TRIALS), "--batch", str(BATCH), "--no-report", "--json")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*SIMTUNE, "tune", WORKLOAD, *arguments, *options],
            cwd=folder,
            env=environment(self.temporary, self.mark),
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )

    def rows(self, table: str, where: str = "1") -> int:
        """How many rows the store has, seen from another process."""
        path = self.folder / "simtune-records.db"
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
                return int(connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # it is not there yet

    def batches(self) -> int:
        return self.rows("trial", "NOT is_reference") // BATCH

    def reference_is_there(self) -> bool:
        return self.rows("trial", "is_reference") == 1

    def is_building(self) -> bool:
        """Candidates of a batch have their folders, and none of them is linked yet."""
        built = list(self.temporary.glob("simtune-*-build-*/*"))
        return len(built) >= BATCH and not self.is_simulating()

    def is_simulating(self) -> bool:
        return any("qemu-riscv64" in line for line in self.left())

    def left(self) -> list[str]:
        return processes_about(self.temporary, self.mark)

    def finish(self) -> dict[str, Any]:
        output, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, (self.folder / "stderr").read_text()
        result: dict[str, Any] = json.loads(output)
        return result


#: Where a run is caught: name -> condition
MOMENTS: dict[str, Callable[[Sitting], bool]] = {
    "starting": lambda s: bool(s.left()),
    "importing": lambda s: time.monotonic() - s.started > 0.5,
    "reference": lambda s: s.is_simulating(),
    "searching": lambda s: s.reference_is_there(),
    "building": lambda s: s.batches() == 1 and s.is_building(),
    "simulating": lambda s: s.batches() == 1 and s.is_simulating(),
}


@contextmanager
def caught(folder: Path, moment: str) -> Iterator[Sitting]:
    sitting = Sitting(folder)
    try:
        reached = wait_for(lambda: MOMENTS[moment](sitting) or sitting.process.poll() is not None, 60)
        assert reached
        assert sitting.process.poll() is None, "it ended before it could be caught"
        yield sitting
    finally:
        sitting.process.kill()
        sitting.process.communicate()
        sitting.errors.close()


def finished_simulations(folder: Path) -> dict[str, float]:
    """When each stored simulation was made."""
    path = folder / "simtune-records.db"
    if not path.exists():
        return {}
    with RecordStore(path) as store:
        return {simulation.key: simulation.created for simulation in store.simulations()}


def assert_resumes(folder: Path, trials: int = TRIALS) -> None:
    """Runs the same command again: it ends well, and what was simulated is not simulated again."""
    if (folder / "simtune-records.db").exists():
        check = simtune("records", "check", "--json", cwd=folder)
        assert check.returncode == 0, check.stdout
        assert json.loads(check.stdout)["findings"] == []
    before = finished_simulations(folder)
    sitting = Sitting(folder)
    stored = sitting.batches() * BATCH
    result = sitting.finish()
    assert (result["trials"], result["resumed"]) == (trials, stored)
    after = finished_simulations(folder)
    assert {key: after[key] for key in before} == before
    with RecordStore(folder / "simtune-records.db") as store:
        (run,) = store.runs()
        assert run.state == "finished"
        listed = list(store.trials(run.id))
        assert sorted(trial.index for trial in listed) == list(range(TRIALS + 1))
    assert sitting.left() == []
    assert scratch_entries(sitting.temporary) == []


def test_kill_9_again_and_again_and_resume(tmp_path: Path) -> None:
    """While it builds, then while it simulates, then with its whole process group."""
    for moment, whole_group in (("building", False), ("simulating", False), ("simulating", True)):
        with caught(tmp_path, moment) as sitting:
            (os.killpg if whole_group else os.kill)(sitting.process.pid, signal.SIGKILL)
            sitting.process.wait()
            assert wait_for(lambda sitting=sitting: not sitting.left(), 3), sitting.left()
        assert sitting.batches() == 1
    assert_resumes(tmp_path)


@pytest.mark.parametrize("moment", ["importing", "reference", "searching"])
def test_kill_9_early(moment: str, tmp_path: Path) -> None:
    """The build process imports TVM meanwhile, or its workers are just being forked."""
    with caught(tmp_path, moment) as sitting:
        sitting.process.kill()
        sitting.process.wait()
        assert wait_for(lambda: not sitting.left(), 3), sitting.left()
    if sitting.rows("run"):
        assert simtune("records", "check", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c(moment: str, tmp_path: Path) -> None:
    with caught(tmp_path, moment) as sitting:
        os.killpg(sitting.process.pid, signal.SIGINT)
        started = time.monotonic()
        sitting.process.wait(10)
        took = time.monotonic() - started
        assert wait_for(lambda: not sitting.left(), 1), sitting.left()
    errors = (tmp_path / "stderr").read_text()
    assert sitting.process.returncode == (130 if moment != "starting" else sitting.process.returncode), errors
    assert took < 3
    if moment != "starting":  # before simtune's first line, Python itself answers
        assert "Traceback" not in errors
        assert errors.rstrip().endswith(
            "interrupted; finished jobs are stored, run the same command to go on"
        )
    if moment == "simulating":
        assert_resumes(tmp_path)
    else:
        # What an abrupt end leaves in the folder for temporary files goes with the next start.
        sweep = "from simtune.execution.scratch import sweep; sweep()"
        subprocess.run([SIMTUNE[0], "-c", sweep], env=environment(sitting.temporary), check=True)
        assert scratch_entries(sitting.temporary) == []
        if sitting.rows("run"):
            assert simtune("records", "check", cwd=tmp_path).returncode == 0


def test_a_seed_gives_the_same_candidates_and_values(tmp_path: Path) -> None:
    from simtune.tuning.tune import Search, tune

    found = []
    for jobs in (1, 2):
        # TVM 0.27 cannot set up its loggers while a handler without a name is there, such as pytest's.
        logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()
        records, work_dir = tmp_path / f"{jobs}.db", tmp_path / str(jobs)
        search = Search(batch=BATCH, population=32, generations=2)
        result = tune(
            WORKLOAD,
            "sifive-u74",
            TRIALS,
            records=records,
            work_dir=work_dir,
            search=search,
            seed=5,
            jobs=jobs,
        )
        with RecordStore(records) as store:
            found.append([(t.index, t.candidate, t.status, t.value) for t in store.trials(result.run)])
    assert found[0] == found[1]
    assert len({candidate for _index, candidate, _status, _value in found[0]}) > TRIALS // 2
