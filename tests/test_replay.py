# SPDX-License-Identifier: Apache-2.0
"""Replaying recorded simulations: as they were, and disturbed on demand."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_helpers import planted_counters

from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.evaluate import Candidate, Evaluator
from simtune.jobs import Limits, Outcome, SimJob, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import resolve_objective
from simtune.records.model import Conditions
from simtune.records.store import RecordStore
from simtune.simulators.base import models_to_count
from simtune.simulators.replay import Disturbance, ReplaySimulator

U74 = load_machine("sifive-u74")
ROWS = planted_counters(400, 1)


def conditions(index: int, simulator: str = "qemu") -> Conditions:
    return Conditions(f"object{index}", simulator, "1", U74.digest())


@pytest.fixture(scope="module")
def store() -> RecordStore:
    made = RecordStore(":memory:")
    for index, row in enumerate(ROWS):
        made.put_simulation(conditions(index), Outcome(Status.OK, counters=row, wall_s=0.2))
    made.put_simulation(conditions(1000), Outcome(Status.CRASHED, error="killed by SIGSEGV"))
    made.put_simulation(conditions(1001), Outcome(Status.TIMEOUT, error="too slow"), 5000)
    made.put_simulation(conditions(1002), Outcome(Status.INFRASTRUCTURE, error="no memory"))
    return made


def job(index: int, **options: Any) -> SimJob:
    return SimJob(Path("gone.elf"), U74, content=conditions(index).content, **options)


def test_answers_are_those_that_were_recorded(store: RecordStore) -> None:
    replay = ReplaySimulator(store)
    capability = replay.probe(U74)
    assert capability.available
    assert "instructions" in capability.counters
    for index in (0, 17, 399):
        outcome = replay.run(job(index))
        assert outcome.ok
        assert outcome.counters == ROWS[index]
    assert replay.run(job(1000)).status is Status.CRASHED
    assert replay.run(job(1001)).status is Status.TIMEOUT


def test_what_was_not_recorded_is_an_infrastructure_failure(store: RecordStore) -> None:
    replay = ReplaySimulator(store)
    for index in (1002, 5000):
        assert replay.run(job(index)).status is Status.INFRASTRUCTURE
    assert replay.run(SimJob(Path("gone.elf"), U74)).status is Status.INFRASTRUCTURE
    other = replay.probe(load_machine("cortex-a53"))
    assert not other.available
    assert "cortex-a53" in other.reason
    assert ReplaySimulator(store, simulator="spike").probe().available is False


def test_records_that_have_at_least_the_models_that_are_asked_for() -> None:
    with RecordStore(":memory:") as made:
        for counted, count in ((("branch", "pipeline"), 2), (("branch",), 1)):
            row = Counters({"instructions": count}, "qemu")
            made.put_simulation(replace(conditions(0), count=counted), Outcome(Status.OK, counters=row))
        replay = ReplaySimulator(made)
        found = [
            replay.run(job(0, count=count))
            for count in ((), ("branch",), ("branch", "blocks"), ("pipeline",), ("prefetch",))
        ]
    assert [outcome.counters and outcome.counters["instructions"] for outcome in found] == [1, 1, 1, 2, None]
    assert found[-1].error.endswith("of this candidate and machine with prefetch")


@given(st.floats(0.001, 0.5), st.integers(0, 1 << 30), st.integers(0, 398))
@settings(max_examples=40, deadline=None)
def test_noise_depends_on_candidate_and_seed_only(noise: float, seed: int, index: int) -> None:
    with RecordStore(":memory:") as small:
        for place in (index, index + 1):
            small.put_simulation(conditions(place), Outcome(Status.OK, counters=ROWS[place]))
        one, two = (ReplaySimulator(small, Disturbance(noise=noise, seed=seed)) for _ in range(2))
        first, second = one.run(job(index)), two.run(job(index))
        assert first.counters == second.counters
        assert first.counters is not None
        assert all(value >= 0 and value == int(value) for value in first.counters.values())
        assert "noise" in first.counters.simulator
        assert one.probe().version == two.probe().version != ReplaySimulator(small).probe().version


def test_noise_has_the_size_that_was_asked_for(store: RecordStore) -> None:
    replay = ReplaySimulator(store, Disturbance(noise=0.1, seed=3))
    logs = []
    for index, row in enumerate(ROWS):
        counters = replay.run(job(index)).counters
        assert counters is not None
        logs.append(math.log(counters["instructions"] / row["instructions"]))
    mean = sum(logs) / len(logs)
    spread = math.sqrt(sum((value - mean) ** 2 for value in logs) / len(logs))
    assert abs(mean) < 0.02
    assert 0.09 < spread < 0.11


def test_failures_come_as_often_as_they_were_asked_for(store: RecordStore) -> None:
    replay = ReplaySimulator(store, Disturbance(failures={Status.CRASHED: 0.2, Status.TIMEOUT: 0.1}))
    statuses = [replay.run(job(index)).status for index in range(400)]
    assert 55 <= statuses.count(Status.CRASHED) <= 105
    assert 22 <= statuses.count(Status.TIMEOUT) <= 58
    assert statuses == [replay.run(job(index)).status for index in range(400)]


def test_delay_limits_and_cancelling(store: RecordStore) -> None:
    slow = ReplaySimulator(store, Disturbance(delay=0.05, slowdown=0.5))
    start = time.perf_counter()
    assert slow.run(job(0)).ok
    assert 0.14 < time.perf_counter() - start < 2
    assert slow.run(job(0, limits=Limits(wall_s=0.05))).status is Status.TIMEOUT
    assert ReplaySimulator(store).run(job(0, limits=Limits(instructions=10))).status is Status.TIMEOUT
    cancel = threading.Event()
    cancel.set()
    assert slow.run(job(0), cancel).status is Status.INFRASTRUCTURE


@pytest.mark.parametrize(
    "settings", ["noise=much", "noise=-1", "delay=nan", "broken=0.1", "crashed=2", "ok=0.5", "seed=x"]
)
def test_settings_that_make_no_sense(settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMTUNE_REPLAY", f"records.db?{settings}")
    with pytest.raises(ConfigurationError):
        ReplaySimulator()


def test_environment_names_store_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.db"
    with RecordStore(path) as made:
        made.put_simulation(conditions(0), Outcome(Status.OK, counters=ROWS[0]))
    monkeypatch.setenv("SIMTUNE_REPLAY", f"{path}?noise=0.5&crashed=1&seed=9")
    replay = ReplaySimulator()
    assert replay.disturbance == Disturbance(noise=0.5, failures={Status.CRASHED: 1.0}, seed=9)
    assert replay.run(job(0)).status is Status.CRASHED
    monkeypatch.setenv("SIMTUNE_REPLAY", str(tmp_path / "none.db"))
    missing = ReplaySimulator().probe()
    assert not missing.available
    assert "none.db" in missing.reason


def test_a_tuner_gets_the_same_values_from_the_records(
    qemu: Any, build_default: Callable[[str, Machine], Path], tmp_path: Path
) -> None:
    candidate = Candidate(build_default("matmul:m=16,n=16,k=16", U74))
    values = []
    with RecordStore(tmp_path / "first.db") as first, RecordStore(":memory:") as second:
        for simulator, where in ((qemu, first), (ReplaySimulator(first), second)):
            count = models_to_count(simulator, None)  # as the command line has it: QEMU's are not replay's
            evaluator = Evaluator(
                U74,
                simulator,
                AnalyticalPredictor(),
                resolve_objective("latency"),
                where,
                jobs=1,
                count=count,
            )
            evaluation = evaluator.evaluate(candidate)
            evaluator.close()
            assert evaluation.ok, evaluation.error
            assert not evaluation.cached
            values.append(evaluation.value)
    assert values[0] == values[1]
