# SPDX-License-Identifier: Apache-2.0
"""From a record store to a trained predictor: what is read, the commands, the runner."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from learning_helpers import U74, add_run, planted_counters, planted_seconds, planted_store

from simtune.cli.main import cli
from simtune.counters import Counters
from simtune.dataset import load_dataset
from simtune.errors import ConfigurationError
from simtune.jobs import Outcome, Status
from simtune.machines.load import load_machine
from simtune.predictors.storage import load_predictor
from simtune.records import Conditions, Measurement, RecordStore, Trial


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "records.db"
    planted_store(path)
    return path


def test_dataset_of_a_store(records: Path) -> None:
    with RecordStore(records) as store:
        data = load_dataset(store, [U74])
        only = load_dataset(store, [U74], workloads="*2")
    assert [group.name for group in data.groups] == [f"workload{n}" for n in range(4)]
    assert [group.name for group in only.groups] == ["workload2"]
    assert len(data) == 160
    assert data.target == "host"
    for group in data.groups:
        assert group.has_reference
        assert group.trials[0].endswith(":0")
        truth = [planted_seconds(row) for row in group.counters]
        np.testing.assert_allclose(group.seconds, truth)
        np.testing.assert_allclose(group.halves, np.array([truth, truth]).T)


def test_runs_of_a_workload_pool_and_candidates_count_once() -> None:
    with RecordStore(":memory:") as store:
        rows = planted_counters(10, 0)
        add_run(store, 0, rows)
        again = add_run(store, 0, rows)  # the same simulations
        key = next(store.trials(again.id)).simulation
        assert key is not None
        store.put_measurement(Measurement(key, "host", [1.0, 3.0], 2.0, 1.0))
        (group,) = load_dataset(store, [U74]).groups
    assert len(group) == 10
    # The measurement row of the run, and one more of two repeats: median of all repeats.
    assert group.seconds[0] == pytest.approx(planted_seconds(rows[0]))
    assert group.halves[0][1] > 0


def test_a_candidate_of_two_simulator_versions_counts_once() -> None:
    """Twins would be in training and test of a split within workloads."""
    with RecordStore(":memory:") as store:
        rows = planted_counters(6, 0)
        add_run(store, 0, rows)
        run = add_run(store, 0, rows)
        for trial in list(store.trials(run.id)):
            conditions = Conditions(f"0-{trial.index}", "made up", "2", U74.digest())
            key = store.put_simulation(conditions, Outcome(Status.OK, counters=rows[trial.index]))
            store.put_trial(replace(trial, simulation=key))
            store.put_measurement(Measurement(key, "host", [2.0], 2.0, 0.0))
        (group,) = load_dataset(store, [U74]).groups
    assert group.seconds.tolist() == [2.0] * 6
    assert all(trial.startswith(run.id) for trial in group.trials)


def test_a_later_simulation_without_the_scoreboard_does_not_take_its_place() -> None:
    plain = planted_counters(6, 0)
    full = [Counters({**row, "pipeline_cycles": 1e6 + n}) for n, row in enumerate(plain)]
    with RecordStore(":memory:") as store:
        add_run(store, 0, full)
        run = add_run(store, 0, full)
        for trial in list(store.trials(run.id)):
            conditions = Conditions(f"0-{trial.index}", "made up", "2", U74.digest())
            key = store.put_simulation(conditions, Outcome(Status.OK, counters=plain[trial.index]))
            store.put_trial(replace(trial, simulation=key))
            store.put_measurement(Measurement(key, "host", [2.0], 2.0, 0.0))
        data = load_dataset(store, [U74])
    assert data.pipeline
    assert [row["pipeline_cycles"] for row in data.groups[0].counters] == [1e6 + n for n in range(6)]


def test_what_cannot_be_used_is_left_out_and_counted() -> None:
    with RecordStore(":memory:") as store:
        run = add_run(store, 0, planted_counters(6, 0))
        bad: list[tuple[Outcome, list[float] | None]] = [
            (Outcome(Status.CRASHED), [1.0]),
            (Outcome(Status.OK, counters=Counters({"instructions": 9.0})), None),
            (Outcome(Status.OK, counters=Counters({"instructions": 9.0})), [math.nan, -1.0]),
            (Outcome(Status.OK, counters=Counters({"loads": 9.0})), [1.0]),
            (Outcome(Status.OK, counters=Counters({"instructions": math.nan})), [1.0]),
            (Outcome(Status.OK, counters=Counters({"instructions": 9.0})), [math.nan, 2.0]),
        ]
        for index, (outcome, seconds) in enumerate(bad, start=6):
            key = store.put_simulation(Conditions(f"bad{index}", "s", "1", "d"), outcome)
            store.put_trial(Trial(run.id, index, f"b{index}", outcome.status, simulation=key))
            if seconds is not None:
                store.put_measurement(Measurement(key, "host", seconds, seconds[0], 0.0))
        store.put_trial(Trial(run.id, 20, "unbuilt", Status.BUILD_FAILED))
        data = load_dataset(store, [U74])
    assert len(data) == 7
    assert data.groups[0].seconds[6] == 2.0
    assert math.isnan(data.groups[0].halves[6][0])
    assert data.skipped == {
        "candidate that failed": 2,
        "candidate that was not measured": 1,
        "candidate whose time is no positive number": 1,
        "candidate without counters to predict from": 2,
    }


def test_targets_and_machines_are_not_mixed() -> None:
    other = load_machine("cortex-a72")
    with RecordStore(":memory:") as store:
        add_run(store, 0, planted_counters(5, 0), target="host")
        add_run(store, 1, planted_counters(5, 1), target="ssh:board")
        with pytest.raises(ConfigurationError, match="several targets: host, ssh:board"):
            load_dataset(store, [U74])
        assert [g.name for g in load_dataset(store, [U74], "ssh:board").groups] == ["workload1"]
        with pytest.raises(ConfigurationError, match="no measured candidates of cortex-a72"):
            load_dataset(store, [other], "host")
        add_run(store, 0, planted_counters(5, 0), machine=other)
        groups = load_dataset(store, [U74, other], "host").groups
    assert [(g.name, g.machine.name) for g in groups] == [
        ("workload0", "sifive-u74"),
        ("workload0", "cortex-a72"),
    ]
    assert groups[0].key == groups[1].key


# Commands -------------------------------------------------------------------------------------


def test_train_evaluate_explain(records: Path, tmp_path: Path) -> None:
    file = tmp_path / "u74.predictor"
    text = invoke("train", "--records", records, "-m", "sifive-u74", "--model", "ridge-res", "-o", file)
    assert "160 candidates of 4 workloads" in text
    assert load_predictor(file, U74).card.target == "host"
    facts = json.loads(invoke("train", "--records", records, "-m", "sifive-u74", "-o", file, "--json"))
    assert facts["model"] == "ensemble"
    assert facts["base"] == "analytical"

    plots = tmp_path / "plots"
    arguments = ("--records", records, "--model", "instructions", "--model", "ridge", "--resamples", 20)
    text = invoke("evaluate", *arguments, "--plots", plots)
    assert "noise ceiling" in text
    assert "workload3" in text
    assert sorted(p.name for p in plots.iterdir()) == [
        "importance-ridge.png",
        "predicted-ridge.png",
        "rank-curves.png",
    ]
    figures = json.loads(invoke("evaluate", *arguments, "--split", "within", "--window", "dynamic", "--json"))
    assert figures["split"] == "within"
    value, low, high = figures["models"]["ridge"]["mean"]["tau_b"]
    assert 0.9 < low <= value <= high
    assert figures["noise_ceiling"]["mean"]["tau_b"][0] == 1
    assert set(figures["models"]["instructions"]["workloads"]) == {f"workload{n}" for n in range(4)}

    with RecordStore(records) as store:
        run = store.runs()[0].id
    text = invoke("explain", f"{run}:3", "--records", records, "--predictor", file)
    assert "predicted by ensemble" in text
    assert "what makes the difference" in text
    facts = json.loads(invoke("explain", f"{run}:3", "--records", records, "--json", "--predictor", file))
    ratio = facts["predicted_s"] / facts["against_predicted_s"]
    assert math.prod(cause["factor"] for cause in facts["causes"]) == pytest.approx(ratio)
    best = json.loads(invoke("explain", f"{run}:best", "--records", records, "--json"))
    assert best["against"] == f"{run}:0"  # the best itself is compared with TVM's default schedule
    assert facts["against"] == best["record"]
    result = CliRunner().invoke(cli, ["explain", f"{run}:3", "--records", str(records), "--top", "0"])
    assert result.exit_code == 2


def test_help_lists_models() -> None:
    assert "extra-trees-res" in invoke("train", "--records", "x.db", "-m", "host", "--model", "list")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "-m", "cortex-a72", "-o", "x"], "no measured candidates of cortex-a72"),
        (["train", "-m", "sifive-u74", "--model", "oracle", "-o", "x"], "model 'oracle' is unknown"),
        (["evaluate", "--model", "oracle"], "model 'oracle' is unknown"),
        (["evaluate", "--window", "broken"], "window 'broken'"),
        (["evaluate", "--workloads", "nothing*"], "no measured candidates"),
        (["explain", "zzz:1"], "no run 'zzz'"),
        (["explain", "zzz"], "names no candidate"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, records: Path) -> None:
    result = CliRunner().invoke(cli, [*arguments, "--records", str(records)])
    assert isinstance(result.exception, Exception)
    assert message in str(result.exception)


# The runner -----------------------------------------------------------------------------------


def test_the_runner_ranks_by_a_predictor_file(records: Path, tmp_path: Path, qemu: Any) -> None:
    """Real candidates: what TVM sees are the session's predictions, whatever finished first."""
    import simtune
    from simtune import tvm_setup
    from simtune.tuning.workloads import parse

    ms = tvm_setup.load()
    from tvm.target import Target

    file = tmp_path / "u74.predictor"
    invoke("train", "--records", records, "-m", "sifive-u74", "--model", "ridge-res", "-o", file)
    module = parse("matmul:m=8,n=8,k=8").module()
    builder = simtune.Builder(1)
    runner = simtune.SimulatorRunner(
        "sifive-u74", predictor=str(file), records=":memory:", workloads=[module]
    )
    try:
        target = Target(dict(U74.target))
        built = builder.build([ms.builder.BuilderInput(module, target)] * 3)
        infos = ms.arg_info.ArgInfo.from_entry_func(module)
        inputs = [ms.runner.RunnerInput(item.artifact_path, "llvm", infos) for item in built]
        futures = runner.run(inputs)
        seconds = [float(future.result().run_secs[0]) for future in futures]
        counters = [runner.evaluations[str(i.artifact_path)].outcome.counters for i in inputs]
        assert all(e.predicted_s == e.value for e in runner.evaluations.values())
    finally:
        runner.close()
        builder.close()
    predictor = load_predictor(file, U74)
    np.testing.assert_allclose(seconds, predictor.session().predict_batch(counters, U74))
    with pytest.raises(ConfigurationError, match="trained for sifive-u74"):
        simtune.SimulatorRunner("cortex-a72", predictor=file, records=":memory:")


def test_tuning_by_a_predictor_file_is_resumed_and_ends_on_one_scale(
    records: Path, tmp_path: Path, qemu: Any
) -> None:
    import simtune

    file, store_path = tmp_path / "u74.predictor", tmp_path / "tuned.db"
    invoke("train", "--records", records, "-m", "sifive-u74", "--model", "ridge-res", "-o", file)
    options = {"records": store_path, "predictor": file, "work_dir": tmp_path / "work", "jobs": 2}
    workload = "matmul:m=16,n=16,k=16"
    first = simtune.tune(workload, "sifive-u74", 4, **options)
    second = simtune.tune(workload, "sifive-u74", 8, **options)
    assert second.run == first.run
    assert second.resumed == 4
    predictor = load_predictor(file, U74)
    with RecordStore(store_path) as store:
        trials = [trial for trial in store.trials(first.run) if trial.ok]
        counters = [store.simulation(str(t.simulation)).outcome.counters for t in trials]  # type: ignore[union-attr]
    np.testing.assert_allclose([t.value for t in trials], predictor.seconds(counters, U74))  # type: ignore[arg-type]
    assert second.best is not None
    assert second.best.value == min(t.value for t in trials if not t.is_reference)
    other = simtune.tune(workload, "sifive-u74", 4, records=store_path, work_dir=tmp_path / "work")
    assert other.run != first.run  # another predictor is another run
