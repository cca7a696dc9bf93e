# SPDX-License-Identifier: Apache-2.0
"""Sittings of a run: one at a time, functions as objectives, wall times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import simtune
from simtune.errors import ConfigurationError
from simtune.records.lease import lease
from simtune.tuning.model import Observer

WORKLOAD = "matmul:m=16,n=16,k=16"


def tune(folder: Path, **options: object) -> simtune.TuneResult:
    return simtune.tune(
        WORKLOAD, "sifive-u74", 2, records=folder / "r.db", work_dir=folder / "run", **options
    )


def test_a_run_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    first = tune(tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom simtune.records.lease import lease\n"
            "with lease(sys.argv[1], sys.argv[2]):\n    print('held', flush=True); time.sleep(60)",
            str(tmp_path / "r.db"),
            first.run,
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ConfigurationError, match="under way in another process"):
        tune(tmp_path)
    holder.kill()
    holder.wait()
    assert tune(tmp_path).run == first.run, "the kernel gives the lease of a killed process back"
    assert not list(tmp_path.glob("*.lock"))


def test_a_lease_ends_with_its_block(tmp_path: Path) -> None:
    store = str(tmp_path / "r.db")
    for _ in range(2):
        with lease(store, "abc"):
            pass
    with lease(":memory:", "abc"), lease(":memory:", "abc"):
        pass


def test_two_functions_are_two_objectives(tmp_path: Path) -> None:
    loads = tune(tmp_path, objective=lambda counters, machine: counters["loads"])
    stores = tune(tmp_path, objective=lambda counters, machine: counters["stores"])
    assert loads.run != stores.run
    assert loads.best is not None
    assert stores.best is not None
    assert loads.best.value != stores.best.value


def test_wall_times_add_up_over_sittings_and_survive_damage(tmp_path: Path) -> None:
    tune(tmp_path)
    path = tmp_path / "run" / "timings.json"
    once = json.loads(path.read_text())
    assert set(once) == {"build", "run", "search", "total"}
    tune(tmp_path)
    assert json.loads(path.read_text())["total"] > once["total"]
    path.write_text('{"build": 1')
    tune(tmp_path)
    assert json.loads(path.read_text())["total"] > 0


def test_an_interrupted_sitting_keeps_its_wall_times(tmp_path: Path) -> None:
    class Impatient(Observer):
        def on_stage(self, text: str) -> None:
            if text == "searching":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, observer=Impatient())
    assert json.loads((tmp_path / "run" / "timings.json").read_text())["total"] > 0
