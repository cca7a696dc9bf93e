# SPDX-License-Identifier: Apache-2.0
"""Tuning a template space into the record store: nothing lost, done twice, or measured in vain."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from template_helpers import BEST, SPACE, VALID, ToyTask, cost

from simtune.errors import ConfigurationError
from simtune.jobs import Status
from simtune.records import RecordStore, RunState
from simtune.records.check import check as find_damage
from simtune.records.export import export_csv
from simtune.records.points import config_of, point_of, reason_of
from simtune.report import collect, save
from simtune.templates import TUNERS
from simtune.tuning.model import Observer
from simtune.tuning.template import tune_template


@pytest.fixture
def store(tmp_path):
    with RecordStore(tmp_path / "records.db") as opened:
        yield opened


def points(store: RecordStore, run: str) -> list[int | None]:
    return [point_of(trial) for trial in store.trials(run)]


def test_a_run_holds_every_trial_with_its_knobs_result_and_reason(store, tmp_path) -> None:
    task = ToyTask()
    result = tune_template(task, 60, tuner="random", records=store, work_dir=tmp_path)
    trials = list(store.trials(result.run))
    assert [trial.index for trial in trials] == list(range(1, 61))
    assert len(set(points(store, result.run))) == 60
    for trial in trials:
        config = config_of(trial)
        assert config == SPACE.config(point_of(trial))
        if trial.ok:
            assert trial.value == pytest.approx(cost(config) * 1e-6)
            stored = store.simulation(trial.simulation)
            assert stored.outcome.counters["vta.gemm.uops"] == config["x"] * config["y"]
        else:
            assert trial.status is Status.INVALID
            assert trial.stage == "lower"
            assert trial.simulation is None
            assert trial.error == f"{reason_of(trial)}: does not fit"
    assert result.failures == sum(not trial.ok for trial in trials) == sum(result.reasons.values())
    assert result.config == config_of(result.best)
    assert store.run(result.run).state is RunState.FINISHED
    timings = json.loads((tmp_path / "timings.json").read_text())
    assert timings["total"] == pytest.approx(timings["run"] + timings["search"], abs=0.01)
    assert find_damage(store.path) == []


@pytest.mark.parametrize("name", TUNERS)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(name: str, store, tmp_path) -> None:
    options = {"tuner": name, "batch": 5, "work_dir": tmp_path}
    if name == "initialised":
        options["options"] = {"limit": 120}
    whole = ToyTask()
    expected = points(store, tune_template(whole, 90, records=store, fresh=True, **options).run)
    with RecordStore(tmp_path / "other.db") as other:
        broken = ToyTask(break_after=42)
        with pytest.raises(KeyboardInterrupt):
            tune_template(broken, 90, records=other, **options)
        run = other.runs()[0].id
        assert other.run(run).state is RunState.INTERRUPTED
        assert len(points(other, run)) == 40  # whole batches, each committed before it was told
        rest = ToyTask()
        result = tune_template(rest, 90, records=other, **options)
        assert result.run == run
        assert result.resumed == 40
        assert broken.evaluated + rest.evaluated == whole.evaluated
        assert points(other, run) == expected


def test_more_trials_go_on_from_the_same_run_wherever_it_ended(store, tmp_path) -> None:
    options = {"tuner": "validity", "batch": 8, "records": store, "work_dir": tmp_path}
    task = ToyTask()
    short = tune_template(task, 13, **options)  # in the middle of a batch
    assert short.trials == 13
    assert tune_template(task, 13, **options).trials == 13
    assert len(task.evaluated) == 13
    longer = tune_template(task, 40, **options)
    assert longer.run == short.run
    assert len(task.evaluated) == 40
    assert task.evaluated == tune_into_memory(40, tmp_path)


def tune_into_memory(trials: int, folder: Path) -> list[int]:
    task = ToyTask()
    with RecordStore(":memory:") as store:
        tune_template(task, trials, tuner="validity", batch=8, records=store, work_dir=folder)
    return task.evaluated


def test_what_any_run_has_simulated_is_never_simulated_again(store, tmp_path) -> None:
    first, second = ToyTask(), ToyTask()
    one = tune_template(first, 40, tuner="random", records=store, work_dir=tmp_path)
    two = tune_template(second, 40, tuner="random", records=store, work_dir=tmp_path, fresh=True)
    assert one.run != two.run
    assert points(store, one.run) == points(store, two.run)
    # Only what failed before running is asked for again: that is not a simulation.
    assert not set(second.evaluated) & set(VALID)
    cached = [trial for trial in store.trials(two.run) if trial.ok]
    assert all(trial.simulate_s == 0.0 for trial in cached)
    assert {t.value for t in cached} == {t.value for t in store.trials(one.run) if t.ok}


def test_exact_constraints_measure_nothing_invalid_and_find_the_optimum(store, tmp_path) -> None:
    task = ToyTask()
    result = tune_template(task, 24, tuner="validity", records=store, work_dir=tmp_path)
    assert result.failures == 0
    assert result.compile_calls == 0
    assert result.config == BEST
    asking = ToyTask("toy:other")
    result = tune_template(asking, 40, tuner="validity", judge="compiler", records=store, work_dir=tmp_path)
    assert result.failures == 0
    assert result.compile_calls == asking.compiled > 40


def test_a_space_that_is_used_up_ends_the_run(store, tmp_path) -> None:
    task = ToyTask()
    result = tune_template(
        task, 10_000, tuner="grid", judge="exact", batch=16, records=store, work_dir=tmp_path
    )
    assert result.trials == len(VALID) == len(task.evaluated)
    again = tune_template(
        task, 10_000, tuner="grid", judge="exact", batch=16, records=store, work_dir=tmp_path
    )
    assert again.trials == len(VALID) == len(task.evaluated)


def test_observers_hear_of_everything_once(store, tmp_path) -> None:
    heard: list[object] = []

    class Ear(Observer):
        def on_start(self, run, stored, trials) -> None:
            heard.append((len(stored), trials))

        def on_trial(self, trial) -> None:
            heard.append(trial.index)

    for trials in (6, 9):
        tune_template(ToyTask(), trials, records=store, work_dir=tmp_path, observer=Ear())
    assert heard == [(0, 6), *range(1, 7), (6, 9), 7, 8, 9]


def test_mistakes_leave_no_run_behind(store, tmp_path) -> None:
    for arguments, words in [
        ({"tuner": "validty"}, "did you mean"),
        ({"tuner": "validity", "options": {"firts": 3}}, "no option 'firts'"),
        ({"judge": "oracle"}, "judge is 'oracle'"),
        ({"tuner": "genetic", "judge": "compiler"}, "does not ask the compiler"),
        ({"tuner": "initialised", "judge": "none"}, "given no oracle"),
        ({"trials": 0}, "at least 1"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            tune_template(ToyTask(), **{"records": store, "work_dir": tmp_path, **arguments})
    assert store.runs() == []


def test_report_shows_reasons_and_a_map_also_where_the_target_is_unknown(store, tmp_path) -> None:
    result = tune_template(ToyTask(), 120, tuner="annealing", records=store, work_dir=tmp_path)
    report = collect(store, result.run)
    assert {reason: len(indices) for reason, indices in report.reasons.items()} == result.reasons
    assert report.codes == ()  # "toy" is no target of this package
    page, *figures = save(report, tmp_path / "report.html", tmp_path / "figures")
    assert {file.stem for file in figures} >= {"progress", "map", "failures", "time"}
    text = page.read_text()
    assert "CAPACITY" in text
    assert "threads 2" in text or "threads 1" in text
    assert "TVM’s default" not in text
    assert "is not known here" in text


def test_tables_hold_knobs_and_accelerator_counters(store, tmp_path) -> None:
    tune_template(ToyTask(), 30, tuner="random", records=store, work_dir=tmp_path)
    assert export_csv(store, tmp_path / "trials.csv") == 30
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        knobs = json.loads(row["configuration"])
        assert set(knobs) == set(BEST)
        if row["status"] == "ok":
            assert json.loads(row["accelerator_counters"]) == {"vta.gemm.uops": knobs["x"] * knobs["y"]}
