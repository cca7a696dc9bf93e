# SPDX-License-Identifier: Apache-2.0
"""Finding machine files, extending them, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simtune.cli.machines import command
from simtune.errors import ConfigurationError, MachineFileError
from simtune.machines.load import list_machines, load_machine


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path."""
    monkeypatch.setenv("SIMTUNE_MACHINES", f"/nowhere:{tmp_path}")
    return tmp_path


def test_extends_overrides_single_keys(tmp_path: Path) -> None:
    path = tmp_path / "pi4-fast.toml"
    path.write_text('extends = "cortex-a72"\nclock_hz = 1.8e9\n[caches.l2]\nlatency = 24\n')
    machine, parent = load_machine(path), load_machine("cortex-a72")
    assert machine.name == "pi4-fast"
    assert machine.description == ""
    assert machine.clock_hz == 1.8e9
    assert machine.caches["l2"].latency == 24
    assert machine.caches["l2"].size == parent.caches["l2"].size
    assert machine.pipeline == parent.pipeline


def test_extends_a_chain_with_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boards").mkdir()
    (tmp_path / "base.toml").write_text('extends = "sifive-u74"\nclock_hz = 1.5e9\n')
    (tmp_path / "boards" / "mine.toml").write_text('extends = "../base.toml"\nname = "vf2"\n')
    monkeypatch.chdir(tmp_path)
    machine = load_machine("boards/mine.toml")
    assert (machine.name, machine.clock_hz) == ("vf2", 1.5e9)


def test_circular_extends(folder: Path) -> None:
    (folder / "a.toml").write_text('extends = "b"\n')
    (folder / "b.toml").write_text('extends = "a"\n')
    with pytest.raises(MachineFileError, match="circular"):
        load_machine("a")
    (folder / "self.toml").write_text('extends = "./self.toml"\n')
    with pytest.raises(MachineFileError, match="circular"):
        load_machine("self")


def test_a_user_file_may_replace_a_built_in_one(folder: Path) -> None:
    (folder / "cortex-a72.toml").write_text('extends = "cortex-a72"\nclock_hz = 2.0e9\n')
    assert load_machine("cortex-a72").clock_hz == 2.0e9
    assert list_machines()["cortex-a72"] == folder / "cortex-a72.toml"


@pytest.mark.parametrize("parent", ["3", '""', '"host"', '["cortex-a72"]'])
def test_extends_must_be_a_file(tmp_path: Path, parent: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"extends = {parent}\n")
    with pytest.raises(MachineFileError, match="extends"):
        load_machine(path)


def test_unknown_parent_names_the_child(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('extends = "cortex-a27"\n')
    with pytest.raises(
        MachineFileError, match=r"x\.toml: extends: there is no machine 'cortex-a27'"
    ) as caught:
        load_machine(path)
    assert "cortex-a72" in caught.value.hint


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(ConfigurationError, match="sifive-u74") as caught:
        load_machine("sifive-u47")
    assert caught.value.hint == "did you mean 'sifive-u74'?"


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"clock_hz = ", "is not TOML"), (b"\xff\xfe", "is not TOML"), (b"a = " + b"[" * 5000, "is not TOML")],
)
def test_garbage(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    with pytest.raises(MachineFileError, match=says) as caught:
        load_machine(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(MachineFileError, match="there is no machine file"):
            load_machine(str(path) + "/")


def test_list_shows_broken_user_files(folder: Path) -> None:
    (folder / "broken.toml").write_text('extends = "cortex-a72"\nclock = 1\n')
    result = CliRunner().invoke(command, ["list", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.output)["machines"]}
    assert "clock is not a known key" in rows["broken"]["error"]
    assert rows["sifive-u74"]["isa"] == "riscv64"
    assert "host" in rows
    text = CliRunner().invoke(command, ["list"])
    assert text.exit_code == 0
    assert "sifive-u74" in text.output


@pytest.mark.parametrize("machine", ["sifive-x280", "cortex-a72", "host"])
def test_show(machine: str) -> None:
    text = CliRunner().invoke(command, ["show", machine])
    assert text.exit_code == 0, text.output
    assert "l1d" in text.output
    data = json.loads(CliRunner().invoke(command, ["show", machine, "--json"]).output)
    assert data["name"] == machine
    assert data["digest"] == load_machine(machine).digest()


def test_show_raw_has_the_sources() -> None:
    result = CliRunner().invoke(command, ["show", "sifive-u74", "--raw"])
    assert "# sbc-bench JH7110: 20 cycles" in result.output


def test_check(tmp_path: Path) -> None:
    good = tmp_path / "good.toml"
    good.write_text('extends = "cortex-a53"\n')
    result = CliRunner().invoke(command, ["check", str(good), "--json"])
    assert json.loads(result.output)["valid"] is True
    good.write_text('extends = "cortex-a53"\n[caches.l1d]\nways = 3\n')
    result = CliRunner().invoke(command, ["check", str(good)])
    assert isinstance(result.exception, MachineFileError)


def test_help_has_an_example() -> None:
    for arguments in ([], ["list"], ["show"], ["check"]):
        assert "simtune machines" in CliRunner().invoke(command, [*arguments, "--help"]).output
