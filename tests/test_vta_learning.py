# SPDX-License-Identifier: Apache-2.0
"""`simtune evaluate` and `simtune train` on trials of the accelerator VTA, simulated for the purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from learning_helpers import U74, add_run, planted_counters, planted_group

from simtune.cli.main import cli
from simtune.counters import Counters
from simtune.crossvalidate import baselines
from simtune.dataset import Dataset, load_dataset
from simtune.errors import ConfigurationError
from simtune.inputs import inputs_of
from simtune.machines.load import load_machine
from simtune.metrics import all_metrics
from simtune.predictors.storage import load_predictor, save_predictor
from simtune.predictors.trained import TrainedPredictor, train
from simtune.records import RecordStore
from simtune.report.accuracy import importance
from simtune.tuning.template import tune_template
from simtune.tuning.vta_task import VtaTask
from simtune.vta import load_machine as load_vta
from simtune.vta.counters import TIMED
from simtune.vta.learning import INPUTS, PREFIX, extract

MACHINE = "vta-pynq"
LAYERS = ("resnet18.c11", "resnet18.c10", "deepbench.face3")
PYNQ = load_vta(MACHINE)


def add_layer(path: Path, layer: str, trials: int = 40, seed: int = 0) -> None:
    tune_template(
        VtaTask(layer, MACHINE),
        trials,
        tuner="random",
        judge="exact",
        records=path,
        seed=seed,
        work_dir=path.parent,
    )


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid points of three layers, and one workload of a CPU."""
    path = tmp_path_factory.mktemp("records") / "records.db"
    for layer in LAYERS:
        add_layer(path, layer)
    with RecordStore(path) as store:
        for seed in (0, 1):
            add_run(store, seed, planted_counters(10, seed))
    return path


@pytest.fixture(scope="module")
def data(records: Path) -> Dataset:
    with RecordStore(records) as store:
        return load_dataset(store, [PYNQ])


@pytest.fixture(scope="module")
def predictor(data: Dataset) -> TrainedPredictor:
    return train(data.groups[:-1], "ridge-res", target=data.target)


def invoke(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert isinstance(result.exception, ConfigurationError)
    return str(result.exception)


def test_times_are_those_of_the_timing_simulator(records: Path, data: Dataset) -> None:
    assert data.target == "vta-tsim"
    assert [group.name for group in data.groups] == [f"vta:{layer}" for layer in LAYERS]
    with RecordStore(records) as store:
        for group in data.groups:
            for row, seconds in zip(group.trials, group.seconds, strict=True):
                run, _, index = row.partition(":")
                trial = store.trial(run, int(index))
                assert trial is not None
                assert seconds == trial.value
        with pytest.raises(ConfigurationError, match="no measured candidates of vta-pynq"):
            load_dataset(store, [PYNQ], target="ssh:board")


def test_a_layer_under_another_name_is_the_same_workload(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    add_layer(path, "resnet18.c11", 12)
    add_layer(path, VtaTask("resnet18.c11", MACHINE).layer.form, 12)
    with RecordStore(path) as store:
        (group,) = load_dataset(store, [PYNQ]).groups
    assert len(group) == 12  # the seed is the same, so the points are: each counts once


def test_commands_judge_learn_and_write(records: Path, tmp_path: Path) -> None:
    plots = tmp_path / "plots"
    judged = invoke(
        *("evaluate", "--records", records, "-m", MACHINE, "--model", "bounds", "--model", "bound.sum"),
        *("--model", "ridge", "--model", "extra-trees-res", "--resamples", 3, "--plots", plots),
    )
    assert judged["target"] == "vta-tsim"
    tau = {name: model["mean"]["tau_b"][0] for name, model in judged["models"].items()}
    assert tau["extra-trees-res"] > 0.9
    assert tau["ridge"] > 0.9
    assert tau["bounds"] > tau["bound.sum"]
    assert judged["noise_ceiling"] is None  # the simulator gives the same cycles every time
    assert {file.name for file in plots.iterdir()} >= {"rank-curves.png"}
    file = tmp_path / "vta.predictor"
    learned = invoke("train", "--records", records, "-m", MACHINE, "--model", "ridge-res", "-o", file)
    assert learned["base"] == "bounds"
    assert learned["workloads"] == {f"vta:{layer}": count for layer, count in sizes(judged).items()}
    assert load_predictor(file, PYNQ).card.accelerator == "vta"
    words = CliRunner().invoke(
        cli, ["train", "--records", str(records), "-m", MACHINE, "--model", "ridge", "-o", str(file)]
    )
    assert "times of vta-tsim" in words.output


def sizes(judged: dict[str, Any]) -> dict[str, int]:
    return {name.removeprefix("vta:"): count for name, count in judged["candidates"].items()}


def test_cpus_and_accelerators_do_not_mix(records: Path, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "x.predictor"
    message = refused("evaluate", "--records", records)
    assert "sifive-u74 (a CPU) and vta-pynq (VTA) have no counters in common" in message
    assert "--machine" in message
    assert "no counters in common" in refused(
        "train", "--records", records, "-m", MACHINE, "-m", "sifive-u74", "-o", out
    )
    assert "for VTA" in refused("train", "--records", records, "-m", MACHINE, "--features", "mca", "-o", out)
    assert "no default schedule" in refused(
        "train", "--records", records, "-m", MACHINE, "--normalise", "reference", "-o", out
    )
    assert "model 'analytical' is unknown" in refused(
        "evaluate", "--records", records, "-m", MACHINE, "--model", "analytical"
    )
    assert "tune vta:" in refused("train", "--records", records, "-m", "vta-ultra96", "-o", out)
    assert not out.exists()
    with pytest.raises(ConfigurationError, match="no counters in common"):
        train([*data.groups, planted_group(0)], "ridge")
    # One kind out of a store that has both.
    cpu = invoke("evaluate", "--records", records, "-m", "sifive-u74", "--model", "ridge", "--resamples", 0)
    assert set(cpu["candidates"]) == {"workload0", "workload1"}


def test_a_file_is_for_its_kind_of_machine(
    predictor: TrainedPredictor, data: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "vta.predictor"
    save_predictor(predictor, file)
    for other in (U74, load_machine("x86-64-v3")):
        with pytest.raises(ConfigurationError, match="trained for vta-pynq, not for"):
            load_predictor(file, other, allow_other_machine=True)
    with pytest.raises(ConfigurationError, match="not for vta-ultra96"):
        load_predictor(file, load_vta("vta-ultra96"))
    again = load_predictor(file, load_vta("vta-ultra96"), allow_other_machine=True)
    group = data.groups[-1]
    np.testing.assert_array_equal(
        again.seconds(group.counters, PYNQ), predictor.seconds(group.counters, PYNQ)
    )


def test_what_the_timed_run_counts_is_never_seen(predictor: TrainedPredictor, data: Dataset) -> None:
    """Other timed counters, or none, change no prediction; and a layer left out is ranked without them."""
    assert not any(name.startswith(TIMED) for name in (*INPUTS.features, *INPUTS.costs))
    group = data.groups[-1]
    usual = predictor.seconds(group.counters, PYNQ)
    for change in (lambda value: 3 * value + 1, lambda value: None):
        rows = [
            replace(row, counts={name: value for name, value in others.items() if value is not None})
            for row in group.counters
            for others in [{n: change(v) if n.startswith(PREFIX + TIMED) else v for n, v in row.items()}]
        ]
        np.testing.assert_array_equal(predictor.seconds(rows, PYNQ), usual)
    assert all_metrics(group.seconds, usual, 10)["tau_b"] > 0.9
    assert np.median(np.abs(np.log(usual / group.seconds))) < 0.2  # and nearly right in seconds, too


def test_bounds_are_the_base_and_explain_a_time(predictor: TrainedPredictor, data: Dataset) -> None:
    group = data.groups[-1]
    np.testing.assert_allclose(
        baselines(data)["bounds"](group), extract(group.counters, PYNQ).base_s, rtol=1e-12
    )
    counters = group.counters[0]
    longest, total = counters["vta.bound.max"], counters["vta.bound.sum"]
    base = predictor.features([counters], PYNQ).costs[0, 0]
    assert longest < base <= total
    session = predictor.session(group.name)
    parts = session.explain(counters, PYNQ)
    assert parts["bounds"] == pytest.approx(base)
    predicted = session.predict_batch(group.counters, PYNQ)
    assert len(predicted) == len(group)
    assert sum(predictor.explain(counters, PYNQ).values()) == pytest.approx(
        predictor.predict(counters, PYNQ) * PYNQ.clock_hz
    )
    with pytest.raises(ConfigurationError, match="no bounds"):
        predictor.predict(Counters({"vta.insns": 5.0}), PYNQ)


def test_what_a_model_learned_from_is_found(predictor: TrainedPredictor, data: Dataset) -> None:
    found = importance(predictor, data)
    assert set(found) == set(inputs_of("vta").columns)
    assert found["cycles"] == max(found.values()) > 0
