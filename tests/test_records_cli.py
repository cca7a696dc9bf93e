# SPDX-License-Identifier: Apache-2.0
"""`simtune records`: every verb for people and with --json, and its errors."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import records_helpers as helpers
from click.testing import CliRunner, Result

from simtune.cli.records import command
from simtune.jobs import Status
from simtune.records import RecordStore, Trial


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.db"
    with RecordStore(path) as store:
        run = helpers.fill(store)
        store.put_trial(
            Trial(
                run.id, 20, "b", Status.BUILD_FAILED, stage="build", error="x\nLLVM [died]", command="rebuild"
            )
        )
    return path


def run_id(path: Path) -> str:
    with RecordStore(path, create=False) as store:
        return store.runs()[0].id


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def call_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(call(*arguments, "--json", code=code).output)


def test_list(path: Path) -> None:
    output = call("list", "--records", path).output
    for part in (run_id(path), "matmul", "sifive-u74", "20", "5", "2 ms", "20 ms", "running"):
        assert part in output
    [row] = call_json("list", "--records", path)["runs"]
    assert (row["trials"], row["failures"], row["config"]) == (20, 5, {"seed": 7})
    assert row["best"] == pytest.approx(2e-3)


def test_list_of_an_empty_store(tmp_path: Path) -> None:
    RecordStore(tmp_path / "r.db").close()
    assert "no runs yet" in call("list", "--records", tmp_path / "r.db").output


def test_default_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMTUNE_RECORDS", str(path))
    assert "matmul" in call("list").output


def test_show_run(path: Path) -> None:
    run = run_id(path)
    output = call("show", run[:5], "--records", path).output
    for part in ("TENSOR float32 [16, 16]", "config.seed", "versions.tvm", f"{run}:18", "LLVM [died]"):
        assert part in output
    data = call_json("show", run, "--records", path)
    assert data["statuses"] == {"ok": 16, "crashed": 4, "build_failed": 1}
    assert data["best"]["index"] == 18
    assert len(data["failures"]) == 5
    assert data["failures"][0] == {"index": 4, "status": "crashed", "stage": "simulate", "error": "SIGSEGV"}


def test_show_trial(path: Path) -> None:
    run = run_id(path)
    output = call("show", f"{run}:best", "--records", path).output
    for part in ("insn.vec_fp_fma", "qemu 7.2.22", "output.checksum", "2 ms"):
        assert part in output
    output = call("show", f"{run}:4", "--records", path).output
    assert "SIGSEGV" in output
    assert "qemu x" in output
    output = call("show", f"{run}:20", "--records", path).output
    assert "build_failed in build" in output
    assert "rebuild" in output
    data = call_json("show", f"{run}:18", "--records", path)
    assert data["simulation"]["counters"]["counts"]["loads"] == helpers.COUNTERS["loads"]
    assert data["simulation"]["conditions"]["machine_digest"] == "0f3a"


def test_check_and_salvage(path: Path, tmp_path: Path) -> None:
    assert "is sound" in call("check", "--records", path).output
    assert call_json("check", "--records", path)["findings"] == []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE trial SET value = 1 WHERE idx = 3")
    assert "checksum" in call("check", "--records", path, code=1).output
    [finding] = call_json("check", "--records", path, code=1)["findings"]
    assert finding["row"].endswith(":3")
    report = call_json("salvage", "--records", path, "-o", tmp_path / "out.db")
    assert (report["saved"]["trial"], report["damaged"]) == (20, {"trial": 1})
    assert "20" in call("salvage", "--records", path, "-o", tmp_path / "out2.db").output
    call("check", "--records", tmp_path / "out.db")


def test_export(path: Path, tmp_path: Path) -> None:
    output = call("export", "--records", path, "--format", "csv", "-o", tmp_path / "t.csv").output
    assert "21 trials" in output
    data = call_json("export", "--records", path, "--format", "tvm", "-o", tmp_path / "work")
    assert (data["trials"], data["skipped"]) == (16, {"it failed": 4, "it has no trace": 1})
    data = call_json("export", "--records", path, "--format", "tvm", "--failures", "-o", tmp_path / "work")
    assert data["trials"] == 20
    arguments = (
        "export",
        "--records",
        path,
        "--run",
        run_id(path),
        "--format",
        "csv",
        "-o",
        tmp_path / "t.csv",
    )
    assert call_json(*arguments)["trials"] == 21


@pytest.mark.parametrize("verb", ["list", "show", "check", "salvage", "export"])
def test_help_has_an_example(verb: str) -> None:
    assert f"Example: simtune records {verb}" in call(verb, "--help").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "no record store"),
        (["check"], "no record store"),
        (["show", "ab"], "no record store"),
        (["export", "--format", "csv", "-o", "x.csv"], "no record store"),
        (["salvage", "-o", "x.db"], "no record store"),
    ],
)
def test_a_missing_store_is_exit_2_and_is_not_created(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    for extra in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "simtune.cli.main", "records", *arguments, *extra],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            env={"PYTHONPATH": helpers.PYTHONPATH, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert "next:" in done.stderr
        if extra:
            assert json.loads(done.stdout)["error"]["kind"] == "RecordError"
    assert list(tmp_path.iterdir()) == []


def test_unknown_run_and_trial(path: Path) -> None:
    for what in ("zz", f"{run_id(path)}:99", f"{run_id(path)}:x"):
        result = CliRunner().invoke(command, ["show", what, "--records", str(path)])
        assert "simtune records" in str(result.exception)


def test_wrong_output_kind(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for kind, out in (("tvm", "file"), ("csv", ".")):
        arguments = ["export", "--records", str(path), "--format", kind, "-o", str(tmp_path / out)]
        assert "-o" in str(CliRunner().invoke(command, arguments).exception)
