# SPDX-License-Identifier: Apache-2.0
"""`simtune collect` and `--measure-top`, end to end on this host and with targets that misbehave."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from measure_helpers import QUICK, native_machine

import simtune
from simtune.cli.main import cli as simtune_cli
from simtune.dataset import load_dataset
from simtune.errors import ConfigurationError, SimtuneError
from simtune.jobs import Status
from simtune.machines.load import load_machine
from simtune.measure.base import Closing, Probe, Program, Settings, Timing
from simtune.records.store import RecordStore
from simtune.tuning.collect import CollectObserver, collect

SMALL = "matmul:m=24,n=32,k=16"
QUICKLY = ("--repeat", "2", "--min-repeat-ms", "1", "--max-processes", "3")


class FakeTarget(Closing):
    """Gives the times that it is told, by how often it was asked, and notes what it was given."""

    name = "fake"

    def __init__(self, *timings: Timing | float) -> None:
        self.timings, self.programs = list(timings), []

    def probe(self) -> Probe:
        return Probe(True)

    def measure(self, program: Program, settings: Settings, cancel: threading.Event | None = None) -> Timing:
        timing = self.timings[min(len(self.programs), len(self.timings) - 1)]
        self.programs.append(program)
        return timing if isinstance(timing, Timing) else Timing(Status.OK, (timing,), {"fake": True})


@pytest.fixture(scope="module")
def builder() -> Any:
    made = simtune.Builder()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def cli(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "simtune.cli.main", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def collect_cli(folder: Path, *more: str, candidates: int = 6) -> tuple[int, Any, str]:
    process = cli(
        *("collect", "-w", SMALL, "-m", native_machine(), "-n", str(candidates), "-o", "records.db"),
        *(*QUICKLY, "--json", *more),
        folder=folder,
    )
    out, err = process.communicate(timeout=120)
    return process.returncode, json.loads(out) if out else None, err.decode()


def test_end_to_end_with_resume(tmp_path: Path, builder: Any) -> None:
    options: dict[str, Any] = {"records": tmp_path / "records.db", "builder": builder, "settings": QUICK}
    (only_simulated,) = collect(SMALL, native_machine(), 6, measure=False, **options)
    assert (only_simulated.trials, only_simulated.measured, only_simulated.break_even) == (6, 0, None)
    code, summary, err = collect_cli(tmp_path)
    assert code == 0, err
    (result,) = summary["workloads"]
    assert (result["trials"], result["failures"], result["measured"]) == (6, 0, 6)
    assert result["simulate_s"] > 0
    assert result["measure_s"] > 0
    assert summary["break_even"] == result["break_even"] >= 1
    with RecordStore(tmp_path / "records.db") as store:
        (run,) = store.runs()  # measuring took the simulated run up
        assert (run.config["kind"], run.config["target"], str(run.state)) == ("collect", "host", "finished")
        trials = list(store.trials(run.id))
        assert [(t.index, t.is_reference) for t in trials] == [(i, i == 0) for i in range(7)]
        assert all(t.predicted_s and t.measured_s and t.ok for t in trials)
        simulations = [store.simulation(t.simulation or "") for t in trials]
        assert len({s.conditions.object_sha256 for s in simulations if s}) == 7
        for trial in trials:
            (measurement,) = store.measurements(trial.simulation, target="host")
            assert measurement.median == trial.measured_s
            assert len(measurement.seconds) == 3
            assert measurement.conditions["core"] >= 0
    (more,) = collect(SMALL, native_machine(), 8, **options)
    assert more.measured == 8
    with RecordStore(tmp_path / "records.db") as store:
        assert list(store.trials(run.id))[:7] == trials  # added to, not changed
        assert len(list(store.measurements())) == 9


def test_killed_at_any_point_it_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """Kill -9 while it simulates, and while it measures."""
    arguments = ("collect", "-w", SMALL, "-m", native_machine(), "-n", "8", "-o", "records.db", *QUICKLY)
    for stop in ("SELECT count(*) FROM simulation", "SELECT count(*) FROM measurement"):
        process = cli(*arguments, folder=tmp_path)
        deadline = time.monotonic() + 60
        while _count(tmp_path / "records.db", stop) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = _rows(tmp_path / "records.db")
        assert before[stop]
    assert collect_cli(tmp_path, candidates=8)[0] == 0
    after = _rows(tmp_path / "records.db")
    for sql, rows in before.items():
        assert rows <= after[sql]  # with the times of their creation: nothing ran again
    assert len(after["SELECT count(*) FROM measurement"]) == 9
    with RecordStore(tmp_path / "records.db") as store:
        assert len(store.runs()) == 1


def _count(path: Path, sql: str) -> int:
    with contextlib.suppress(SimtuneError), RecordStore(path, create=False, readonly=True) as store:
        return int(store.query(sql)[0][0])
    return 0


def _rows(path: Path) -> dict[str, set[Any]]:
    with RecordStore(path) as store:
        return {
            "SELECT count(*) FROM simulation": set(store.query("SELECT key, created FROM simulation")),
            "SELECT count(*) FROM measurement": set(
                store.query("SELECT simulation, target, created FROM measurement")
            ),
        }


def test_candidates_follow_from_the_seed_on_every_isa(builder: Any) -> None:
    """Also with RVV, whose design space needs the target in scope."""
    for machine, seeds in (("spacemit-x60", (1, 1)), (native_machine(), (1, 2))):
        names = []
        for seed in seeds:
            with RecordStore(":memory:") as store:
                (result,) = collect(
                    SMALL, machine, 4, measure=False, records=store, seed=seed, builder=builder
                )
                names.append([t.candidate for t in store.trials(result.run)])
                assert (result.trials, result.failures) == (4, 0)
        assert (names[0] == names[1]) == (seeds[0] == seeds[1])
        assert names[0][0] == names[1][0]  # TVM's default schedule


def test_equal_code_comes_once(builder: Any) -> None:
    """A design space of one schedule."""
    with RecordStore(":memory:") as store:
        for _ in range(2):
            (result,) = collect(
                "add_relu:m=4,n=16", native_machine(), 5, measure=False, records=store, builder=builder
            )
            assert result.exhausted
            digests = [
                store.simulation(t.simulation or "").conditions.object_sha256  # type: ignore[union-attr]
                for t in store.trials(result.run)
            ]
            assert len(digests) == len(set(digests)) == result.trials + 1 <= 3


def test_a_second_pass_measures_all_again_after_all(tmp_path: Path, builder: Any) -> None:
    target = FakeTarget(*(0.001 * (1 + number) for number in range(8)))
    options: dict[str, Any] = {"records": tmp_path / "r.db", "builder": builder, "target": target}
    (first,) = collect(SMALL, native_machine(), 3, **options)
    (both,) = collect(SMALL, native_machine(), 3, passes=2, **options)
    assert first.measured == both.measured == 3
    assert len(target.programs) == 8
    with RecordStore(tmp_path / "r.db") as store:
        (group,) = load_dataset(store, [load_machine(native_machine())], "fake").groups
    # Candidate 0 took 1 ms and then 5 ms, candidate 1 took 2 ms and then 6 ms, and so on.
    assert group.halves.round(4).tolist() == [[0.001, 0.005], [0.002, 0.006], [0.003, 0.007], [0.004, 0.008]]
    assert group.seconds.round(4).tolist() == [0.003, 0.004, 0.005, 0.006]
    collect(SMALL, native_machine(), 3, passes=2, **options)
    assert len(target.programs) == 8
    with pytest.raises(ConfigurationError, match="passes is 0"):
        collect(SMALL, native_machine(), 3, passes=0, **options)


def test_native_failures_are_data_and_not_tried_again(builder: Any) -> None:
    bad = Timing(Status.WRONG_OUTPUT, error="wrong output: 3 elements")
    with RecordStore(":memory:") as store:
        target = FakeTarget(1e-6, bad, 3e-6)
        for _ in range(2):
            (result,) = collect(SMALL, native_machine(), 3, target=target, records=store, builder=builder)
            assert (result.failures, result.measured, result.measure_failures) == (0, 2, 1)
        assert len(target.programs) == 4
        failed = next(t for t in store.trials(result.run) if t.measured_s is None)
        assert (failed.stage, failed.ok) == ("measure", True)  # its counters and prediction stay valid
        assert "wrong_output on fake" in failed.error
        assert list(store.measurements(failed.simulation)) == []


def test_a_lost_target_stops_the_run_which_goes_on_later(builder: Any) -> None:
    lost = Timing(Status.INFRASTRUCTURE, error="no route")
    with RecordStore(":memory:") as store:
        with pytest.raises(SimtuneError, match="no route"):
            collect(SMALL, native_machine(), 3, target=FakeTarget(1e-6, lost), records=store, builder=builder)
        again = FakeTarget(2e-6)
        (result,) = collect(SMALL, native_machine(), 3, target=again, records=store, builder=builder)
        assert result.measured == 3
        assert len(again.programs) == 3  # the first one of four was measured before
        # Rebuilt from their traces: the very objects that were simulated.
        known = {s.conditions.object_sha256 for s in store.simulations()}
        assert {p.artifact.digest for p in again.programs} <= known


def test_a_drifting_target_is_noticed(builder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simtune.tuning.natively.DRIFT_EVERY", 2)
    with RecordStore(":memory:") as store:
        seen: list[Timing] = []
        observer = CollectObserver()
        observer.on_measured = lambda trial, timing: seen.append(timing)  # type: ignore[method-assign]
        target = FakeTarget(1e-6, 1e-6, 2e-6, 1e-6)  # the third call is the first candidate again
        collect(SMALL, native_machine(), 2, target=target, records=store, builder=builder, observer=observer)
        assert [bool(timing.notes) for timing in seen] == [False, False, True]
        assert "drift" in seen[-1].notes[0]


def test_what_cannot_work_is_said_first() -> None:
    foreign = "sifive-u74" if native_machine() != "sifive-u74" else "cortex-a72"
    for arguments, message in (
        (("collect", "-w", SMALL, "-m", foreign), "choose a machine that is"),
        (("collect", "-w", "resnet19", "-m", "host"), "did you mean"),
        (("collect", "-w", SMALL, "-m", "host", "--target", "ssh:"), "write it like ssh:"),
        (("collect", "-w", SMALL, "-m", "host", "--processes", "0"), "processes is 0"),
        (("tune", SMALL, "-m", "host", "--measure-top", "3x"), "how many to measure"),
        (("tune", SMALL, "-m", "host", "--measure-top", "3", "--objective", "energy"), "run times"),
    ):
        result = CliRunner().invoke(simtune_cli, arguments)
        assert isinstance(result.exception, SimtuneError), result.output
        assert message in str(result.exception)
    result = CliRunner().invoke(simtune_cli, ["collect", "-w", SMALL, "-m", "host", "--timeout", "0"])
    assert result.exit_code == 2
    assert "--timeout" in result.output


def test_measure_top_returns_a_measured_best(tmp_path: Path, builder: Any) -> None:
    options: dict[str, Any] = {
        "records": tmp_path / "records.db",
        "work_dir": tmp_path,
        "builder": builder,
        "settings": QUICK,
    }
    result = simtune.tune(SMALL, native_machine(), 12, measure_top="25%", **options)
    assert len(result.measured) == 4  # the default schedule, and three of twelve
    assert result.measured[0].is_reference
    assert result.best is not None
    assert result.best.measured_s == min(t.measured_s or 1.0 for t in result.measured[1:])
    assert result.gain == pytest.approx(result.measured[0].measured_s / result.best.measured_s)
    with RecordStore(tmp_path / "records.db") as store:
        trials = [t for t in store.trials(result.run) if not t.is_reference and t.ok]
        best_three = sorted(trials, key=lambda t: t.predicted_s or 1.0)[:3]
        assert {t.index for t in trials if t.measured_s is not None} == {t.index for t in best_three}
        count = len(list(store.measurements()))
    records = result.database.get_all_tuning_records()
    assert min(float(r.run_secs[0]) for r in records) == pytest.approx(
        min(result.best.measured_s, result.measured[0].measured_s)
    )
    again = simtune.tune(SMALL, native_machine(), 12, measure_top="25%", **options)
    assert again.best == result.best
    with RecordStore(tmp_path / "records.db") as store:
        assert len(list(store.measurements())) == count  # nothing was measured twice


def test_measure_top_passes_over_candidates_that_fail_natively(tmp_path: Path, builder: Any) -> None:
    bad = Timing(Status.CRASHED, error="killed by SIGILL")
    target = FakeTarget(9e-6, bad, 2e-6, 1e-6)
    result = simtune.tune(
        SMALL,
        native_machine(),
        6,
        measure_top=2,
        target=target,
        records=tmp_path / "records.db",
        work_dir=tmp_path,
        builder=builder,
    )
    assert len(target.programs) == 4
    assert result.best is not None
    assert result.best.measured_s == 1e-6
    assert [t.measured_s for t in result.measured] == [9e-6, 2e-6, 1e-6]


def test_measure_top_needs_times() -> None:
    with pytest.raises(ConfigurationError, match="run times"):
        simtune.tune(SMALL, native_machine(), 2, measure_top=1, objective="energy", records=":memory:")
