# SPDX-License-Identifier: Apache-2.0
"""Import of TVM databases: candidates rebuilt and simulated, their times kept as measurements."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from learning_helpers import U74

from simtune.cli.main import cli
from simtune.dataset import load_dataset
from simtune.errors import InputFileError
from simtune.records import RecordStore
from simtune.records.tvm_format import RECORD_FILE as RECORDS
from simtune.records.tvm_format import WORKLOAD_FILE as WORKLOADS
from simtune.tuning.imported import import_tvm

DATA = Path(__file__).resolve().parents[1] / "benchmarks" / "data" / "gem5" / "u74-like-minor"


def lines(name: str) -> list[str]:
    return lzma.decompress((DATA / f"{name}.xz").read_bytes()).decode().splitlines()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Three candidates of a matmul; the last one failed where it was measured."""
    folder = tmp_path / "tvm"
    folder.mkdir()
    (folder / WORKLOADS).write_text("\n".join(lines(WORKLOADS)))
    records = [json.loads(line) for line in lines(RECORDS) if line.startswith("[4,")][:3]
    records[2][1][1] = [1e10]
    (folder / f"{RECORDS}.xz").write_bytes(lzma.compress("\n".join(map(json.dumps, records)).encode()))
    return folder


def test_import_simulates_and_keeps_the_times(database: Path, tmp_path: Path, qemu: Any) -> None:
    arguments = ["records", "import", str(database), "-m", "sifive-u74", "--target", "gem5:minor"]
    store_path = tmp_path / "records.db"
    result = CliRunner().invoke(
        cli, [*arguments, "--records", str(store_path), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    (imported,) = json.loads(result.stdout)["workloads"]
    assert {name: imported[name] for name in ("workload", "trials", "failures", "timed")} == {
        "workload": "tvm.4",
        "trials": 3,
        "failures": 0,
        "timed": 2,
    }
    with RecordStore(store_path) as store:
        (group,) = load_dataset(store, [U74]).groups
        simulations = len(list(store.simulations()))
        first = json.loads(next(line for line in lines(RECORDS) if line.startswith("[4,")))
        assert group.seconds[0] == pytest.approx(first[1][1][0])
        assert [counters["instructions"] > 1e5 for counters in group.counters] == [True, True]
        again = import_tvm(database, U74, store, target="gem5:minor")
        assert again[0].run == imported["run"]
        assert len(list(store.simulations())) == simulations


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    with RecordStore(":memory:") as store:
        with pytest.raises(InputFileError, match="cannot be read"):
            import_tvm(tmp_path, U74, store, target="x")
        (tmp_path / WORKLOADS).write_text("[]\n")
        (tmp_path / RECORDS).write_text('[7, "x"]\n')
        with pytest.raises(InputFileError, match="line 1 is no tuning record"):
            import_tvm(tmp_path, U74, store, target="x")
