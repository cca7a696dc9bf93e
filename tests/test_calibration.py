# SPDX-License-Identifier: Apache-2.0
"""`simtune calibrate`, `resimulate` and `breakeven` on real, small collections of this host."""

from __future__ import annotations

import json
import math
import shutil
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from learning_helpers import planted_counters
from measure_helpers import QUICK, native_machine

import simtune
from simtune.breakeven import Board, overall, sides
from simtune.calibration.experiment import Case, Experiment, choose, prepare
from simtune.calibration.fit import INTERRUPTED, Fitter, every_third, score, split
from simtune.calibration.parameters import RULES, Parameter, changed, free_parameters, value_of
from simtune.cli.main import cli
from simtune.counters import Counters
from simtune.dataset import load_dataset
from simtune.errors import ConfigurationError
from simtune.machines.dump import commented_toml
from simtune.machines.load import list_machines, load_machine
from simtune.machines.model import Machine
from simtune.records.store import RecordStore
from simtune.tuning.collect import collect

SMALL = ("matmul:m=24,n=32,k=16", "conv2d:n=1,c=4,h=8,o=8,k=3,s=1,p=1", "dense:m=1,n=64,k=64")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, qemu: Any) -> Path:
    """Three small workloads, five candidates each and the reference, measured on this host."""
    path = tmp_path_factory.mktemp("collected") / "records.db"
    collect(SMALL, native_machine(), 5, records=path, settings=QUICK, count=("pipeline",))
    return path


def invoke(*arguments: Any, code: int | None = 0) -> str:
    result = CliRunner().invoke(cli, [str(item) for item in arguments])
    if code is not None:
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result.stdout


# Parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_machines())
def test_every_move_of_a_free_number_makes_a_machine_or_none(name: str) -> None:
    machine = load_machine(name)
    assert changed(machine, {}).digest() == machine.digest()  # type: ignore[union-attr]
    used = set()
    for parameter in free_parameters(machine):
        value = value_of(machine, parameter.path)
        assert parameter.low <= value <= parameter.high
        for move in parameter.moves(value, 0.5):
            other = changed(machine, {parameter.path: move})
            assert other is None or value_of(other, parameter.path) == move
            used.add(parameter.path)
    assert {"memory.latency_ns", "caches.l2.latency", "pipeline.mispredict_penalty"} <= used
    assert not any("size" in path or "ways" in path or "width" in path for path in used)


@given(
    value=st.integers(0, 500),
    low=st.integers(0, 100),
    scale=st.sampled_from([0.5, 0.25, 0.12, 0.06]),
    whole=st.booleans(),
)
def test_moves_stay_inside_the_bounds(value: int, low: int, scale: float, whole: bool) -> None:
    parameter = Parameter("x", low, low + 100, whole)
    moves = parameter.moves(value, scale)
    assert all(low <= move <= low + 100 and move != value for move in moves)
    if whole:
        assert all(float(move).is_integer() for move in moves)
    if low < value < low + 100:
        assert any(move > value for move in moves)
        assert any(move < value for move in moves)


def test_what_is_not_executed_or_switched_off_is_not_free() -> None:
    machine = load_machine("sifive-u74")
    seen = Counters({"instructions": 100.0, "insn.load": 30.0, "insn.int_alu": 70.0}, "made up")
    paths = [parameter.path for parameter in free_parameters(machine, [seen])]
    assert "pipeline.classes.load.latency" in paths
    assert not any("fp_div" in path for path in paths)
    off = replace(machine, memory_unit=replace(machine.memory_unit, misses=0))
    assert "memory_unit.misses" not in [p.path for p in free_parameters(off)]
    assert [p.path for p in free_parameters(machine, only=["memory.*"])] == [
        "memory.latency_ns",
        "memory.line_interval_ns",
    ]
    with pytest.raises(ConfigurationError, match="no free parameter"):
        free_parameters(machine, only=["caches.l1d.size"])
    assert changed(machine, {"caches.l2.latency": 1}) is None  # nearer than the L1
    assert all(rule.high >= rule.low for rule in RULES)


@pytest.mark.parametrize("name", list_machines())
def test_a_commented_file_is_the_same_machine(name: str, tmp_path: Path) -> None:
    machine = load_machine(name)
    comments = {"caches.l2.latency": "fitted: 1 -> 2", "clock_hz": "fitted too"}
    text = commented_toml(machine, comments, "a head\nof two lines")
    path = tmp_path / f"{machine.name}.toml"
    path.write_text(text)
    assert load_machine(path).digest() == machine.digest()
    assert tomllib.loads(text)["caches"]["l2"]["latency"] == machine.caches["l2"].latency
    assert text.count("  # fitted") == 2
    assert text.startswith("# a head\n# of two lines\n")


# Fitting --------------------------------------------------------------------------------------


def test_score_by_hand() -> None:
    none = Counters({"instructions": 1.0}, "made up")
    cases = [Case("a", f"r:{i}", Path(), (), float(t), none) for i, t in enumerate((1, 2, 4))]
    cases += [Case("b", f"s:{i}", Path(), (), float(t), none) for i, t in enumerate((1, 2))]
    found = score(cases, np.array([2.0, 4.0, 8.0, 2.0, 1.0]))
    assert found.workloads["a"] == pytest.approx((math.log(2), 1.0))
    assert found.workloads["b"] == pytest.approx((math.log(2), -1.0))
    assert found.loss == pytest.approx(math.log(2) + 0.5)
    assert score(cases, np.array([1.0, 2.0, 4.0, np.nan, np.nan])).loss == math.inf
    fitted, held = split(cases, ["b"])
    assert {case.workload for case in fitted} == {"a"}
    assert {case.workload for case in held} == {"b"}
    with pytest.raises(ConfigurationError, match="no measurements of c"):
        split(cases, ["c"])
    with pytest.raises(ConfigurationError, match="all workloads are held out"):
        split(cases, ["a", "b"])
    assert every_third(["a", "b", "c", "d", "e"]) == ["b", "e"]
    assert every_third(["a", "b"]) == []


def test_planted_numbers_are_found_again(records: Path, tmp_path: Path, qemu: Any) -> None:
    """Times are those of another machine in the same simulator: the fit has to find its numbers."""
    start = load_machine(native_machine())
    truth = changed(start, {"clock_hz": start.clock_hz * 0.7})
    assert truth is not None
    builder = simtune.Builder()
    try:
        with RecordStore(records) as store:
            data = load_dataset(store, [start])
            assert len(choose(data.groups[0], 4, math.inf)) == 4
            cases = prepare(store, data, 3, tmp_path, builder)
    finally:
        builder.close()
    experiment = Experiment(qemu, ("pipeline",))
    measured = experiment.seconds(truth, cases)
    cases = [replace(case, seconds=float(t)) for case, t in zip(cases, measured, strict=True)]
    fitted, held = split(cases, [SMALL[1]])
    only = ["clock_hz", "memory.latency_ns"]
    parameters = free_parameters(start, [case.counters for case in fitted], only)
    fit = Fitter(experiment, start, parameters, fitted, held, 60, scales=(0.5, 0.25, 0.12)).run()
    assert fit.before.error > 0.25
    assert fit.after.error < 0.08
    assert fit.held_before is not None
    assert fit.held_after is not None
    assert fit.held_after.error < fit.held_before.error / 2
    found = {change.path: change.new for change in fit.changes}
    assert found["clock_hz"] == pytest.approx(truth.clock_hz, rel=0.1)
    assert all(change.gain > 0 for change in fit.changes)
    assert fit.ended == "nothing helps any more"
    before = experiment.runs
    experiment.seconds(fit.machine, fitted)
    assert experiment.runs == before  # known already


class Formula:
    """Times that follow from three numbers of a machine, in the place of simulations."""

    runs = 0

    def seconds(self, machine: Machine, cases: Sequence[Case]) -> Any:
        self.runs += len(cases)
        latency = machine.pipeline.classes["load"].latency
        cycles = [row["instructions"] + latency * row["loads"] for row in (case.counters for case in cases)]
        lines = [case.counters["l1d.read_misses"] for case in cases]
        return np.array(cycles) / machine.clock_hz + 1e-9 * machine.memory.latency_ns * np.array(lines)


@pytest.mark.parametrize("seed", range(3))
def test_descent_finds_the_numbers_behind_a_formula(seed: int) -> None:
    random, start = np.random.default_rng(seed), load_machine("sifive-u74")
    planted = {
        "clock_hz": start.clock_hz * random.uniform(0.7, 1.5),
        "memory.latency_ns": start.memory.latency_ns * random.uniform(0.5, 2.5),
        "pipeline.classes.load.latency": int(random.integers(4, 9)),
    }
    truth = changed(start, planted)
    assert truth is not None
    cases = [
        Case(f"w{index % 4}", f"r:{index}", Path(), (), 1.0, row)
        for index, row in enumerate(planted_counters(48, seed))
    ]
    measured = Formula().seconds(truth, cases) * np.exp(random.normal(0, 0.01, len(cases)))
    cases = [replace(case, seconds=float(t)) for case, t in zip(cases, measured, strict=True)]
    fitted, held = split(cases, ["w3"])
    parameters = free_parameters(start, only=[*planted, "memory.*", "caches.l2.latency"])
    formula: Any = Formula()
    fit = Fitter(formula, start, parameters, fitted, held, 20).run()
    assert fit.after.error < 0.05
    assert fit.held_after is not None
    assert fit.held_after.error < 0.05
    assert fit.held_after.tau_b > 0.95
    assert "caches.l2.latency" not in {change.path for change in fit.changes}  # it decides nothing
    assert fit.sensitivity["caches.l2.latency"] == pytest.approx(0, abs=1e-9)

    def stop(text: str) -> None:
        if text.startswith("step"):
            raise KeyboardInterrupt

    stopped = Fitter(formula, start, parameters, fitted, held, 20, stop).run()
    assert stopped.ended == INTERRUPTED
    assert stopped.after.loss <= stopped.before.loss
    late = Fitter(formula, start, parameters, fitted, held, 0).run()
    assert late.ended == "the time was over"


def test_a_fit_tells_what_its_budget_does_not_bound() -> None:
    """The first simulation of every candidate is slow; a budget of nothing still takes that long."""

    class Slow(Formula):
        def seconds(self, machine: Machine, cases: Sequence[Case]) -> Any:
            time.sleep(0.0 if self.runs else 0.3)
            return super().seconds(machine, cases)

    start = load_machine("sifive-u74")
    cases = [Case("w", f"r:{n}", Path(), (), 1.0, row) for n, row in enumerate(planted_counters(6, 0))]
    slow: Any = Slow()
    told: list[str] = []
    fit = Fitter(slow, start, free_parameters(start), cases, (), 0.01, told.append).run()
    assert 0.3 <= fit.start_s < fit.wall_s
    assert "took 0.3 s, now come up to 0.01 s of trying" in told[0]
    assert fit.ended == "the time was over"


def test_calibrate_writes_a_machine_that_loads(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    arguments = ("calibrate", "--records", records, "-m", native_machine(), "-o", out, "-n", 4)
    limits = ("--budget", 2, "--only", "clock_hz", "--only", "memory.*")
    facts = json.loads(invoke(*arguments, *limits, "--json", code=None))
    machine = load_machine(out)
    assert machine.name == "mine"
    assert facts["held_out"] == [SMALL[1]]
    assert len(facts["fitted"]) == 8
    assert facts["after"]["loss"] <= facts["before"]["loss"]
    assert facts["tried"] == 3
    text = out.read_text()
    assert text.count("  # fitted: ") == len(facts["changes"])
    assert "Workloads held out" in text
    for change in facts["changes"]:
        assert value_of(machine, change["path"]) == change["new"]
    words = invoke(*arguments, "--budget", 1, "--only", "memory.*", "--workloads", "matmul*")
    assert "fitted workloads:" in words
    assert "s for building and for simulating every candidate once" in words
    assert "held out" not in words


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "mine.txt"), "no name of a machine file"),
        (("-o", "mine.toml", "--only", "caches.l1d.size"), "no free parameter"),
        (("-o", "mine.toml", "--hold-out", "nothing"), "no measurements of nothing"),
        (("-o", "mine.toml", "--workloads", "nothing*"), "no measured candidates"),
    ],
)
def test_calibrate_refuses(
    arguments: tuple[str, ...], message: str, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fixed = ("calibrate", "--records", str(records), "-m", native_machine(), "-n", "4")
    result = CliRunner().invoke(cli, [*fixed, *arguments])
    assert message in str(result.exception)
    assert not list(tmp_path.glob("*.toml"))


# Resimulating ---------------------------------------------------------------------------------


def test_resimulate_keeps_the_times_and_repeats_nothing(records: Path, tmp_path: Path) -> None:
    machine = changed(load_machine(native_machine()), {"caches.l2.latency": 20}, name="other")
    assert machine is not None
    file, out = tmp_path / "other.toml", tmp_path / "again.db"
    file.write_text(commented_toml(machine, {}))
    arguments = ("resimulate", "--records", records, "--from", native_machine(), "-m", file, "-o", out)
    arguments += ("--count", "none")
    facts = json.loads(invoke(*arguments, "--json"))
    assert [run["trials"] for run in facts["runs"]] == [6, 6, 6]
    assert [run["timed"] for run in facts["runs"]] == [6, 6, 6]
    with RecordStore(records) as old, RecordStore(out) as new:
        before = load_dataset(old, [load_machine(native_machine())]).groups
        after = load_dataset(new, [machine]).groups
        simulations = len(list(new.simulations()))
    for a, b in zip(before, after, strict=True):
        assert a.key == b.key
        np.testing.assert_array_equal(a.seconds, b.seconds)
        assert a.counters[1]["instructions"] == b.counters[1]["instructions"]
        assert "pipeline_cycles" in a.counters[1]
        assert "pipeline_cycles" not in b.counters[1]  # it was switched off
    assert "6" in invoke(*arguments)
    with RecordStore(out) as new:
        assert len(list(new.simulations())) == simulations
    result = CliRunner().invoke(cli, ["resimulate", "--records", str(records), "--from", "cortex-a72"])
    assert "has no runs for cortex-a72" in str(result.exception)


def test_a_predictor_switches_on_what_it_was_trained_on(records: Path, tmp_path: Path) -> None:
    file, tuned = tmp_path / "x.predictor", tmp_path / "tuned.db"
    arguments = ("--records", records, "-m", native_machine(), "--model", "ridge-res", "-o", file)
    assert "the pipeline scoreboard" in invoke("train", *arguments)
    options: dict[str, Any] = {"records": tuned, "predictor": file, "work_dir": tmp_path / "work"}
    result = simtune.tune("matmul:m=8,n=8,k=8", native_machine(), 2, **options)
    assert result.best is not None
    with RecordStore(tuned) as store:
        rows = [store.simulation(str(t.simulation)) for t in store.trials(result.run) if t.ok]
    assert all(row and row.outcome.counters and row.outcome.counters["pipeline_cycles"] > 0 for row in rows)


# Break-even -----------------------------------------------------------------------------------


def test_break_even_from_stored_times(records: Path, tmp_path: Path) -> None:
    machine = load_machine(native_machine())
    with RecordStore(records) as store:
        parts = sides(store, machine, "host", Board(repeats=10, cooldown_s=0.5, setup_s=1.0))
    assert [part.workload for part in parts] == list(SMALL)
    for part in parts:
        assert part.board_s == pytest.approx(6.0, abs=0.1)  # 1 + 10 x (call + 0.5)
        assert part.measure_s is not None
        assert part.k() == math.ceil(part.simulate_s / part.measure_s)
        assert part.board_k() == 1
    total = overall(parts)
    assert total.candidates == 18
    assert total.simulate_s == pytest.approx(np.mean([part.simulate_s for part in parts]))
    board = Board(repeats=2, min_repeat_s=0.1, call_s=0.01)
    assert board.seconds(5.0) == pytest.approx(0.2)
    facts = json.loads(
        invoke(
            "breakeven", "--records", records, "-m", machine.name, "--call-ms", 0.01, "--repeats", 1, "--json"
        )
    )
    k, simulate = facts["workloads"][-1]["board_k"], facts["workloads"][-1]["simulate_s"]
    assert k == math.ceil(simulate / 1e-5)
    assert "K = " in invoke("breakeven", "--records", records, "-m", machine.name, "--measure-top", "3%")
    with pytest.raises(ConfigurationError, match="repeats"):
        Board(repeats=0)


def test_break_even_needs_simulations(records: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(records, copy)
    result = CliRunner().invoke(cli, ["breakeven", "--records", str(copy), "-m", "cortex-a53"])
    assert "no simulations for cortex-a53" in str(result.exception)
    result = CliRunner().invoke(
        cli, ["breakeven", "--records", str(copy), "-m", "host", "--measure-top", "x"]
    )
    assert result.exit_code == 2
