# SPDX-License-Identifier: Apache-2.0
"""`simtune tune vta:...`: the search on the real accelerator model, by the command line."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simtune.cli.explain import command as explain_line
from simtune.cli.report import command as report_line
from simtune.cli.tune import command as command_line
from simtune.errors import ConfigurationError, SimtuneError
from simtune.records import RecordStore
from simtune.records.points import point_of, reason_of
from simtune.templates import Result, create
from simtune.tuning.targets import codes_of, load_task
from simtune.tuning.template import tune_template
from simtune.tuning.vta_task import VtaTask
from simtune.vta.counters import TIMED

LAYER, MACHINE = "vta:resnet18.c11", "vta-pynq"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "simtune.cli.main", *arguments]


def simtune(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, timeout=120, env={**os.environ}
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def tuned(folder: Path, *arguments: str) -> dict[str, Any]:
    found = json.loads(simtune(folder, "tune", LAYER, "-m", MACHINE, "--json", *arguments))
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def task() -> VtaTask:
    return VtaTask(LAYER, MACHINE)


@pytest.fixture(scope="module")
def table(task: VtaTask) -> dict[int, float]:
    """Seconds of all valid points."""
    valid = [point for point, code in enumerate(task.codes()) if not code]
    found = task.evaluate([task.space.config(point) for point in valid], 2)
    return {point: result.seconds for point, result in zip(valid, found, strict=True)}


def test_a_run_ends_with_report_figures_and_the_best_of_the_space(table, tmp_path) -> None:
    found = tuned(tmp_path, "--tuner", "validity", "-n", "30")
    assert found["failures"] == 0
    assert found["best"]["value"] <= 1.01 * min(table.values())
    report = Path(tmp_path / found["report"])
    text = report.read_text()
    for words in ("The space", "tile_h", "simulated time", "INP_PAD"):  # of points that were never tried
        assert words in text
    assert "TVM’s default" not in text
    figures = {file.stem for file in (report.parent / "figures").iterdir()}
    assert {"progress", "map", "counters", "time"} <= figures
    # The stored command gives the same cycles again.
    with RecordStore(tmp_path / "simtune-records.db") as store:
        simulation = store.simulation(found["best"]["simulation"])
    cycles = simulation.outcome.output["cycles"]
    words = shlex.split(simulation.outcome.command)
    again = simtune(tmp_path, *words[1:])
    assert re.search(rf"\b{int(cycles):,}\b|\b{cycles}\b", again)
    # Why a point is slow: all its cycles are accounted for.
    store_option = ["--records", str(tmp_path / "simtune-records.db")]

    def explain(point: str, *options: str) -> str:
        done = CliRunner().invoke(explain_line, [f"{found['run']}:{point}", *store_option, *options])
        assert done.exit_code == 0, done.output
        return done.output

    assert "times slower than trial" in explain("30")
    facts = json.loads(explain("30", "--json"))
    assert sum(cause["value"] for cause in facts["causes"]) == pytest.approx(facts["cycles"])
    ratio = facts["cycles"] / facts["against_cycles"]
    assert math.prod(cause["factor"] for cause in facts["causes"]) == pytest.approx(ratio)
    assert json.loads(explain("best", "--json"))["against_seconds"] >= found["best"]["value"]
    refused = CliRunner().invoke(explain_line, [f"{found['run']}:30", *store_option, "-m", "host"])
    assert "means nothing" in str(refused.exception)


@pytest.mark.parametrize("name", ["random", "grid", "genetic", "annealing", "initialised", "validity"])
def test_every_tuner_runs_and_failures_are_told_by_reason(name: str, task, table, tmp_path) -> None:
    options = {"limit": 150} if name == "initialised" else {}
    with RecordStore(tmp_path / "records.db") as store:
        found = tune_template(task, 70, tuner=name, options=options, records=store, work_dir=tmp_path)
        assert found.trials == (len(table) if name == "validity" else 70)
        assert sum(found.reasons.values()) == found.failures
        assert (found.failures == 0) == (name == "validity")
        assert found.compile_calls == (150 if name == "initialised" else 0)
        for trial in store.trials(found.run):
            point = point_of(trial)
            assert trial.ok == (point in table)
            assert trial.ok or reason_of(trial) == task.codes()[point]


def test_killed_at_any_moment_it_loses_and_repeats_nothing(tmp_path) -> None:
    arguments = ["--tuner", "annealing", "-n", "300", "--seed", "3", "--no-report"]
    whole = tuned(tmp_path, "--records", "whole.db", *arguments)
    with RecordStore(tmp_path / "whole.db") as store:
        expected = [point_of(trial) for trial in store.trials(whole["run"])]
    for number in (signal.SIGKILL, signal.SIGINT):
        # Not through a shell: the signal must reach the very process, whatever the test's parent ignores.
        process = subprocess.Popen(
            command("tune", LAYER, "-m", MACHINE, "--records", "cut.db", *arguments),
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        before = stored(tmp_path / "cut.db")
        deadline = time.monotonic() + 60
        while stored(tmp_path / "cut.db") < before + 40 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(timeout=10) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    cut = stored(tmp_path / "cut.db")
    assert cut >= 80
    rest = tuned(tmp_path, "--records", "cut.db", *arguments)
    assert rest["resumed"] == cut
    with RecordStore(tmp_path / "cut.db") as store:
        assert [point_of(trial) for trial in store.trials(rest["run"])] == expected


def stored(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        with RecordStore(path, create=False, readonly=True) as store:
            return sum(summary.trials for summary in store.summaries())
    except Exception:  # it is being made
        return 0


def test_features_and_prior_hold_nothing_of_the_timed_run(task, table) -> None:
    config = task.space.config(min(table))
    assert not [name for name in task.features(config) if name.startswith(TIMED) or f".{TIMED}" in name]
    # Another clock or DRAM changes cycles' meaning, never the compile-time plan.
    assert task.features(config)["tiles"] == VtaTask(LAYER, "vta-ultra96").features(config)["tiles"]


def test_the_estimate_ranks_layers_that_it_was_not_read_off(task, table) -> None:
    from scipy.stats import kendalltau

    rough = [task.prior(task.space.config(point)) for point in table]
    assert kendalltau(rough, list(table.values())).statistic > 0.9
    dense = VtaTask("vta:dense.4x256x128", MACHINE)
    points = [point for point, code in enumerate(dense.codes()) if not code]
    found = dense.evaluate([dense.space.config(point) for point in points], 2)
    rough = [dense.prior(dense.space.config(point)) for point in points]
    assert kendalltau(rough, [result.seconds for result in found]).statistic > 0.6


def test_validity_needs_a_tenth_of_the_trials_of_annealing(task, table) -> None:
    codes, good = task.codes(), 1.01 * min(table.values())

    def trials(name: str, seed: int, **given: Any) -> int:
        tuner, number = create(name, task.space, seed=seed, **given), 0
        while True:
            points = tuner.ask(4)
            for point in points:
                number += 1
                if table.get(point, good + 1) <= good:
                    return number
            tuner.tell(Result(p, table.get(p), "", codes[p]) for p in points)

    baseline = sorted(trials("annealing", seed) for seed in range(9))[4]
    ours = sorted(
        trials("validity", seed, constraints=codes, features=task.features, prior=task.prior)
        for seed in range(3)
    )[1]
    assert ours < 0.1 * baseline


def test_mistakes_get_a_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, words in [
        (["vta:resnet18.c22", "-m", MACHINE], "did you mean"),
        (["vta:resnet18.c2", "-m", "vta-pink"], "vta-pynq"),
        (["vta:resnet18.c2", "-m", "sifive-u74"], "sifive-u74"),
        (["vta:resnet18.c2", "-m", MACHINE, "--tuner", "valid"], "did you mean 'validity'"),
        (["vta:resnet18.c2", "-m", MACHINE, "--tuner-option", "first=x"], "takes a whole number, not 'x'"),
        (["vta:resnet18.c2", "-m", MACHINE, "--tuner-option", "fist=1"], "no option 'fist'"),
        (["vta:resnet18.c2", "-m", MACHINE, "--objective", "latency"], "--objective means nothing"),
        (["vta:resnet18.c2", "-m", MACHINE, "--tuner", "initialised", "--judge", "none"], "no oracle"),
        (["resnet18.conv2_x", "-m", "sifive-u74", "--tuner", "random"], "no template space"),
        (["resnet18.conv2_x", "-m", MACHINE], "is no CPU"),
    ]:
        done = CliRunner().invoke(command_line, arguments, catch_exceptions=True)
        assert isinstance(done.exception, SimtuneError)
        assert words in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_of_ones_own_gets_its_map_as_well(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = 'name = "mine"\ndescription = "x"\nclock_hz = 50e6\n[hardware]\npreset = "inp14"\n[timing]\n'
    (tmp_path / "mine.toml").write_text(mine + 'preset = "chisel-head"\n')
    layer = "vta:conv2d:h=14,ci=64,co=64,k=3,pad=1"
    done = CliRunner().invoke(command_line, [layer, "-m", "mine.toml", "-n", "6", "--work-dir", "work"])
    assert done.exit_code == 0, done.output
    assert "is not known here" not in (tmp_path / "work" / "report.html").read_text()
    for option, known in (["-m", "mine.toml"], True), ([], False):
        done = CliRunner().invoke(report_line, option)
        assert done.exit_code == 0, done.output
        assert ("is not known here" not in (tmp_path / "report.html").read_text()) == known


def test_targets_are_found_by_their_prefix() -> None:
    assert codes_of(LAYER, MACHINE, "of another file") == ()
    assert (
        len(codes_of(LAYER, MACHINE, VtaTask(LAYER, MACHINE).machine_digest))
        == load_task(LAYER, MACHINE).space.size
    )
    with pytest.raises(ConfigurationError, match="no template space"):
        load_task("resnet18.conv2_x", "sifive-u74")
