# SPDX-License-Identifier: Apache-2.0
"""What is stored comes back, the rules of reuse, queries, several threads and processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import records_helpers as helpers
from hypothesis import given, settings

from simtune.errors import RecordError
from simtune.jobs import Outcome, Status
from simtune.records import (
    Conditions,
    Measurement,
    RecordStore,
    Run,
    RunState,
    Simulation,
    Trial,
    Workload,
    config_digest,
    simulation_key,
)

LIMIT = 1000


def same(left: object, right: object) -> bool:
    """Equality in which NaN equals itself, at any depth."""
    return repr(left) == repr(right)


@pytest.fixture
def store():
    with RecordStore(":memory:") as opened:
        yield opened


# Round trips --------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(helpers.simulations)
def test_simulation_round_trip(simulation: Simulation) -> None:
    with RecordStore(":memory:") as store:
        store.put_simulations([simulation])
        back = store.simulation(simulation.key)
        assert back is not None
        assert same(_no_negative_zero(back), _no_negative_zero(simulation))
        assert same(list(store.simulations()), [back])


@settings(max_examples=150, deadline=None)
@given(helpers.trials)
def test_trial_round_trip(trial: Trial) -> None:
    with RecordStore(":memory:") as store:
        workload = store.put_workload(Workload("w", []))
        store.put_run(Run("run", workload, "m", "d"))
        store.put_trial(trial)
        back = store.trial("run", trial.index)
        assert back is not None
        assert same(_no_negative_zero(back), _no_negative_zero(trial))


def _no_negative_zero(value):
    """SQLite does not keep the sign of zero in a column."""
    if isinstance(value, Simulation):
        outcome = value.outcome
        outcome = replace(outcome, wall_s=outcome.wall_s + 0.0, cpu_s=outcome.cpu_s + 0.0)
        return replace(value, outcome=outcome, created=value.created + 0.0)
    names = ("value", "predicted_s", "measured_s", "build_s", "link_s", "simulate_s", "created")
    changes = {n: getattr(value, n) + 0.0 for n in names if getattr(value, n) is not None}
    return replace(value, **changes)


@settings(max_examples=100, deadline=None)
@given(helpers.wild_texts)
def test_undecodable_text_is_kept_readable(text: str) -> None:
    with RecordStore(":memory:") as store:
        key = store.put_simulation(helpers.conditions(), Outcome(Status.CRASHED, error=text, command=text))
        back = store.simulation(key)
        assert back is not None
        assert back.outcome.error == text.encode("utf-8", "backslashreplace").decode()


def test_long_error_keeps_its_tail(store: RecordStore) -> None:
    key = store.put_simulation(helpers.conditions(), Outcome(Status.CRASHED, error="é" * 50_000 + "the end"))
    back = store.simulation(key)
    assert back is not None
    assert back.outcome.error.endswith("éthe end")
    assert len(back.outcome.error.encode()) < 20_000


def test_workload_run_and_measurement_round_trip(store: RecordStore) -> None:
    run = helpers.fill(store)
    assert store.run(run.id) == run
    assert store.run(run.id[:6]) == run
    assert store.workload(run.workload) == Workload("matmul", [helpers.TENSOR] * 3, '["123", "QUUA"]')
    [measured] = store.measurements(helpers.conditions(3).key, target="host")
    assert measured.seconds == [1e-3, 2e-3]
    assert list(store.measurements(target="board")) == []


# Keys and reuse -----------------------------------------------------------------------------------


def test_key_covers_every_condition() -> None:
    base = helpers.conditions()
    changed = [
        replace(base, object_sha256="1"),
        replace(base, simulator="gem5"),
        replace(base, simulator_version="8"),
        replace(base, machine_digest="1"),
        replace(base, arguments=("--seed", "8")),
        replace(base, seed=8),
        replace(base, count=()),
        replace(base, schema_version=base.schema_version + 1),
        # Nothing runs together between neighbours.
        replace(base, simulator="qem", simulator_version="u7.2.22"),
    ]
    assert len({base.key, *(conditions.key for conditions in changed)}) == len(changed) + 1


def test_key_is_stable_and_ignores_order_of_count() -> None:
    one = simulation_key("ab", "qemu", "7", "0f", ["x"], 1, ["branch", "blocks"], 1)
    assert one == simulation_key("ab", "qemu", "7", "0f", ("x",), 1, ("blocks", "branch"), 1)
    # A changed key would make every stored result useless.
    assert one == "063ce2d3a5c87634968f70ff9f8d73c2"


@pytest.mark.parametrize(
    ("status", "stored", "asked", "reused"),
    [
        (Status.OK, None, None, True),
        (Status.OK, LIMIT, None, True),
        (Status.CRASHED, None, LIMIT, True),
        (Status.WRONG_OUTPUT, LIMIT, 2 * LIMIT, True),
        (Status.TIMEOUT, LIMIT, LIMIT, True),
        (Status.TIMEOUT, LIMIT, LIMIT - 1, True),
        (Status.TIMEOUT, LIMIT, LIMIT + 1, False),
        (Status.TIMEOUT, LIMIT, None, False),
        (Status.TIMEOUT, None, None, True),
        (Status.TIMEOUT, None, LIMIT, True),
        (Status.INFRASTRUCTURE, None, None, False),
    ],
)
def test_reuse(
    store: RecordStore, status: Status, stored: int | None, asked: int | None, reused: bool
) -> None:
    key = store.put_simulation(helpers.conditions(), Outcome(status), instruction_limit=stored)
    assert (store.get_simulation(key, asked) is not None) is reused
    assert store.simulation(key) is not None


def test_a_lesser_outcome_does_not_displace_a_result(store: RecordStore) -> None:
    conditions = helpers.conditions()

    def put(status: Status, limit: int | None = None) -> tuple[Status, int | None]:
        key = store.put_simulation(conditions, Outcome(status), limit)
        stored = store.simulation(key)
        assert stored is not None
        return stored.outcome.status, stored.instruction_limit

    assert put(Status.INFRASTRUCTURE) == (Status.INFRASTRUCTURE, None)
    assert put(Status.TIMEOUT, 10) == (Status.TIMEOUT, 10)
    assert put(Status.INFRASTRUCTURE) == (Status.TIMEOUT, 10)
    assert put(Status.TIMEOUT, 5) == (Status.TIMEOUT, 10)
    assert put(Status.TIMEOUT, 20) == (Status.TIMEOUT, 20)
    assert put(Status.OK, 40) == (Status.OK, 40)
    assert put(Status.TIMEOUT, 80) == (Status.OK, 40)
    assert put(Status.CRASHED) == (Status.CRASHED, None)


# Runs, trials and queries -------------------------------------------------------------------------


def test_find_run_for_resume(store: RecordStore) -> None:
    run = helpers.fill(store)
    digest = config_digest({"seed": 7})
    assert store.find_run(run.workload, "0f3a", digest) == run
    assert store.find_run(run.workload, "0f3a", config_digest({"seed": 8})) is None
    assert store.find_run(run.workload, "other", digest) is None
    finished = store.finish_run(run.id)
    assert finished.state is RunState.FINISHED
    assert finished.finished is not None
    assert store.find_run(run.workload, "0f3a", digest) == finished
    again = store.reopen_run(run.id)
    assert (again.state, again.finished) == (RunState.RUNNING, None)


def test_briefs_tell_what_resume_needs(store: RecordStore) -> None:
    run = helpers.fill(store, 5000)
    briefs = list(store.trial_briefs(run.id))
    assert [brief.index for brief in briefs] == list(range(5000))
    assert briefs[4].status is Status.CRASHED
    assert briefs[0].is_reference
    assert store.trial(run.id, 7).value == briefs[7].value  # type: ignore[union-attr]


def test_best_trial(store: RecordStore) -> None:
    run = helpers.fill(store)
    best = store.best_trial(run=run.id)
    assert best is not None
    assert best.index == 18  # 19 failed
    assert store.best_trial(run=run.id, reference=True).index == 0  # type: ignore[union-attr]
    assert store.best_trial(workload=run.workload, machine_digest="0f3a") == best
    assert store.best_trial(machine_digest="other") is None
    assert store.best_trial(by="measured_s") is None
    with pytest.raises(ValueError, match="measured_s"):
        store.best_trial(by="speed")


def test_best_trial_ignores_what_is_not_a_number(store: RecordStore) -> None:
    run = helpers.fill(store, 2)
    for index, value in enumerate([float("nan"), float("-inf"), float("inf"), None, 5.0, 5.0], 10):
        store.put_trial(Trial(run.id, index, "c", Status.OK, value=value))
    store.put_trial(Trial(run.id, 1, "c", Status.CRASHED, value=0.0))
    assert store.best_trial(run=run.id).index == 14  # type: ignore[union-attr]


def test_counts_summaries_and_filters(store: RecordStore) -> None:
    run = helpers.fill(store)
    assert store.status_counts(run.id) == {Status.OK: 16, Status.CRASHED: 4}
    assert store.status_counts() == store.status_counts(run.id)
    [summary] = store.summaries()
    assert (summary.run, summary.workload, summary.trials, summary.failures) == (run, "matmul", 19, 4)
    assert summary.best == pytest.approx(2e-3)
    assert summary.reference == pytest.approx(20e-3)
    assert len(list(store.simulations(status=Status.CRASHED))) == 4
    assert list(store.simulations(simulator="gem5")) == []
    assert len(list(store.simulations(machine_digest="0f3a"))) == 20
    assert len(list(store.trials(run.id, status=Status.OK))) == 16


def test_put_trial_replaces_one_with_its_index(store: RecordStore) -> None:
    run = helpers.fill(store)
    trial = store.trial(run.id, 3)
    assert trial is not None
    store.put_trial(replace(trial, measured_s=0.5))
    assert store.trial(run.id, 3) == replace(trial, measured_s=0.5)
    assert len(list(store.trials(run.id))) == 20


def test_unknown_and_ambiguous_runs(store: RecordStore) -> None:
    workload = store.put_workload(Workload("w", []))
    store.put_run(Run("ab1", workload, "m", "d"))
    store.put_run(Run("ab2", workload, "m", "d"))
    with pytest.raises(RecordError, match="more than one"):
        store.run("ab")
    for unknown in ("x", "", "%", "a_1"):
        with pytest.raises(RecordError, match="run"):
            store.run(unknown)


def test_references_must_exist(store: RecordStore) -> None:
    run = helpers.fill(store, 1)
    with pytest.raises(RecordError, match="refers to one that is not stored"):
        store.put_trial(Trial(run.id, 9, "c", Status.OK, simulation="missing"))
    with pytest.raises(RecordError, match="refers to"):
        store.put_measurement(Measurement("missing", "host", [], 0.0, 0.0))


def test_batch_is_all_or_nothing(store: RecordStore) -> None:
    run = helpers.fill(store, 1)

    def interrupted() -> None:
        with store.batch():
            store.put_simulation(helpers.conditions(77), helpers.ok())
            store.put_trial(Trial(run.id, 9, "c", Status.OK))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.simulation(helpers.conditions(77).key) is None
    assert store.trial(run.id, 9) is None
    with store.batch():
        store.put_trial(Trial(run.id, 9, "c", Status.OK))
    assert store.trial(run.id, 9) is not None


# Threads and processes ----------------------------------------------------------------------------


def test_threads_share_a_store(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:

        def write(thread: int) -> None:
            for number in range(50):
                key = store.put_simulation(helpers.conditions(1000 * thread + number), helpers.ok())
                assert store.get_simulation(key) is not None

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(store.simulations())) == 200


WRITER = """
import sys
from simtune.records import RecordStore
import records_helpers as helpers
with RecordStore(sys.argv[1]) as store:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        store.put_simulation(helpers.conditions(number), helpers.ok())
        print(number, flush=True)
"""


def start_writer(path: Path, first: int, end: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(end)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": helpers.PYTHONPATH},
    )


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.db"  # neither finds it: they also create it at the same time
    writers = [start_writer(path, 0, 200), start_writer(path, 100, 300)]
    for writer in writers:
        writer.communicate(timeout=120)
        assert writer.returncode == 0
    with RecordStore(path, create=False) as store:
        assert len(list(store.simulations())) == 300


def test_a_killed_writer_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"{number}.db"
        writer = start_writer(path, 0, 1_000_000)
        assert writer.stdout is not None
        reported = [int(writer.stdout.readline()) for _ in range(50 + 37 * number)]
        writer.kill()
        reported += [int(line) for line in writer.stdout.read().splitlines() if line]
        writer.wait()
        writer.stdout.close()
        with RecordStore(path, create=False) as store:
            assert all(store.get_simulation(helpers.conditions(n).key) for n in reported)
            store.put_simulation(helpers.conditions(10_000_000), helpers.ok())


def test_use_after_close_and_after_fork(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "r.db")
    child = os.fork()
    if child == 0:
        try:
            store.runs()
        except RecordError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    store.close()
    store.close()
    with pytest.raises(RecordError, match="closed"):
        store.runs()


def test_locked_for_too_long(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with RecordStore(path, timeout=0.1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RecordError, match="locked") as caught:
            store.put_simulation(helpers.conditions(), helpers.ok())
        assert "fuser" in caught.value.hint
        other.execute("ROLLBACK")
        other.close()
        store.put_simulation(helpers.conditions(), helpers.ok())


def test_disk_full(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "r.db") as store:
        key = store.put_simulation(helpers.conditions(), helpers.ok())
        store.query("PRAGMA max_page_count = 1")  # SQLite raises it to the present size
        with pytest.raises(RecordError, match="disk is full") as caught:
            store.put_simulations(Simulation(helpers.conditions(n), helpers.ok()) for n in range(1, 100))
        assert "free some space" in caught.value.hint
        assert store.get_simulation(key) is not None
        store.query("PRAGMA max_page_count = 100000")
        store.put_simulation(helpers.conditions(2), helpers.ok())


def test_conditions_default_to_the_current_schema() -> None:
    assert Conditions("a", "b", "c", "d").key == simulation_key("a", "b", "c", "d")
