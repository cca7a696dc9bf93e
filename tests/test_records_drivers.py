# SPDX-License-Identifier: Apache-2.0
"""Two drivers on one store: every job of every run ends in exactly one record, whoever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import records_helpers as helpers

from simtune.errors import ConfigurationError
from simtune.jobs import Status
from simtune.records import RecordStore
from simtune.records.check import check
from simtune.records.lease import lease

JOBS = 200

#: Takes up its run, simulates what no run has simulated yet, and commits in groups; prints what it simulated.
DRIVER = """
import sys, time
import records_helpers as helpers
from simtune.records import RecordStore, Trial, Workload, config_digest
from simtune.records.lease import lease
path, seed, jobs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with RecordStore(path) as store:
    workload = store.put_workload(Workload("batch", []))
    config = {"seed": seed}
    run = store.find_run(workload, "0f3a", config_digest(config))
    run = run or store.start_run(workload, "sifive-u74", "0f3a", config=config)
    with lease(path, run.id):
        done = {brief.index for brief in store.trial_briefs(run.id)}
        left = [index for index in range(jobs) if index not in done]
        for first in range(0, len(left), 7):
            simulations, trials = [], []
            for index in left[first : first + 7]:
                known = store.get_simulation(helpers.conditions(index).key)
                if known is None:
                    known = helpers.simulation(index)
                    simulations.append(known)
                status = known.outcome.status
                trials.append(Trial(run.id, index, f"c{index}", status, simulation=known.key, value=index))
            store.put_results(simulations, trials)
            print(len(trials), flush=True)
"""

HOLDER = """
import os, sys
from pathlib import Path
from simtune.errors import ConfigurationError
from simtune.records.lease import lease
inside = Path(sys.argv[1] + ".inside")
held = 0
while held < int(sys.argv[2]):
    try:
        with lease(sys.argv[1], "abc"):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails when somebody else is inside
            inside.unlink()
            held += 1
    except ConfigurationError:
        pass
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": helpers.PYTHONPATH},
    )


def results(path: Path) -> dict[object, list[object]]:
    """Per run what its jobs ended in, without what is of a sitting."""
    with RecordStore(path, create=False) as store:
        return {
            run.config["seed"]: [
                (trial.index, trial.candidate, trial.status, trial.simulation, trial.value)
                for trial in store.trials(run.id)
            ]
            for run in store.runs()
        }


def test_two_drivers_of_which_one_is_killed_and_started_again(tmp_path: Path) -> None:
    path, calm = tmp_path / "r.db", tmp_path / "calm.db"
    drivers = [start(DRIVER, path, seed, JOBS) for seed in (1, 2)]
    killed = drivers[0]
    assert killed.stdout is not None
    for _ in range(3):
        assert killed.stdout.readline()
    killed.kill()
    reported = 3 * 7 + sum(map(int, killed.stdout.read().split()))  # what was read ahead, too
    killed.communicate(timeout=60)
    assert drivers[1].communicate(timeout=60)[1] == ""
    with RecordStore(path, create=False) as store:
        [run] = [run for run in store.runs() if run.config["seed"] == 1]
        stored = len(list(store.trial_briefs(run.id)))
        assert reported <= stored <= reported + 7, "what it reported was on the disk"
    assert start(DRIVER, path, 1, JOBS).communicate(timeout=60)[1] == ""
    for seed in (1, 2):
        assert start(DRIVER, calm, seed, JOBS).communicate(timeout=60)[1] == ""
    assert results(path) == results(calm)
    assert [len(trials) for trials in results(path).values()] == [JOBS, JOBS]
    with RecordStore(path, create=False) as store:
        assert {item.key for item in store.simulations()} == {helpers.conditions(n).key for n in range(JOBS)}
        assert store.status_counts() == {Status.OK: 2 * JOBS * 4 // 5, Status.CRASHED: 2 * JOBS // 5}
    assert check(path) == []


def test_a_second_driver_of_the_same_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    assert start(DRIVER, path, 1, 20).communicate(timeout=60)[1] == ""
    with RecordStore(path, create=False) as store:
        [run] = store.runs()
    with lease(str(path), run.id):
        second = start(DRIVER, path, 1, JOBS)
        error = second.communicate(timeout=60)[1]
        assert second.returncode != 0
        assert f"run {run.id} of {path} is under way in another process" in error
        assert "--fresh" in error
        assert start(DRIVER, path, 2, 20).communicate(timeout=60)[1] == "", "another run goes on"
        with pytest.raises(ConfigurationError, match="under way"), lease(str(path), run.id):
            pass
    assert [len(trials) for trials in results(path).values()] == [20, 20]


def test_a_lease_has_one_holder_however_often_it_changes_hands(tmp_path: Path) -> None:
    """Each removes its lock file at the end, maybe just after another one opened it."""
    holders = [start(HOLDER, tmp_path / "r.db", 400) for _ in range(3)]
    for holder in holders:
        assert holder.communicate(timeout=60)[1] == ""
    assert list(tmp_path.iterdir()) == []


def test_many_that_create_one_store_at_once(tmp_path: Path) -> None:
    """None of them may take the half of a look at it for another program's database."""
    for number in range(60):
        barrier = threading.Barrier(4)

        def create(number: int = number, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(10)
            RecordStore(tmp_path / f"{number}.db").close()

        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(create) for _ in range(4)]:
                done.result()
