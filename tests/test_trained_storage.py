# SPDX-License-Identifier: Apache-2.0
"""Predictor files: equal in another process, refused when damaged, foreign or for another machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_helpers import U74, planted_group, planted_groups
from records_helpers import PYTHONPATH

from simtune.errors import ConfigurationError
from simtune.machines.load import load_machine
from simtune.predictors.families import FAMILIES
from simtune.predictors.storage import PredictorFileError, load_predictor, save_predictor
from simtune.predictors.trained import TrainedPredictor, train

_CHILD = """
import sys
from learning_helpers import U74, planted_group
from simtune.predictors.storage import load_predictor
for path in sys.argv[1:]:
    print(*(s.hex() for s in load_predictor(path, U74).seconds(planted_group(9).counters, U74).tolist()))
"""


@pytest.fixture(scope="module")
def trained() -> TrainedPredictor:
    return train(planted_groups(3, number=25), "ensemble")


@pytest.fixture(scope="module")
def file(trained: TrainedPredictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictor") / "u74.predictor"
    save_predictor(trained, path)
    return path


def test_all_families_predict_the_same_in_another_process(tmp_path: Path) -> None:
    groups, paths, here = planted_groups(3, number=25), [], []
    for family in FAMILIES:
        predictor = train(groups, family)
        paths.append(tmp_path / f"{family}.predictor")
        save_predictor(predictor, paths[-1])
        here.append(" ".join(s.hex() for s in predictor.seconds(planted_group(9).counters, U74).tolist()))
    environment = os.environ | {"PYTHONPATH": PYTHONPATH}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, *paths], env=environment, capture_output=True, text=True, check=True
    )
    for family, mine, theirs in zip(FAMILIES, here, child.stdout.splitlines(), strict=True):
        values = [[float.fromhex(value) for value in line.split()] for line in (mine, theirs)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-12, err_msg=family)


def test_equal_predictors_give_equal_files(trained: TrainedPredictor, file: Path, tmp_path: Path) -> None:
    save_predictor(trained, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again"]
    loaded = load_predictor(file)
    assert loaded.card == trained.card


def test_nothing_in_the_file_is_a_pickle(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["card.json", "model.npz"]
        with np.load(io.BytesIO(archive.read("model.npz")), allow_pickle=False) as arrays:
            assert all(arrays[name].dtype.kind in "fiuV" for name in arrays.files)


def rewrite(file: Path, to: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A copy with changed card or arrays, and a checksum that fits."""
    import hashlib

    with zipfile.ZipFile(file) as archive:
        head = json.loads(archive.read("card.json"))
        with np.load(io.BytesIO(archive.read("model.npz"))) as stored:
            arrays = {name: stored[name] for name in stored.files}
    change(head, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    head["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr("card.json", json.dumps(head))
        archive.writestr("model.npz", buffer.getvalue())
    return to


def card(**values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda head, _arrays: head["card"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (card(schema_version=99), "schema_version 99"),
        (card(features_version=0), "features_version 0"),
        (lambda head, _: head.update(format="simtune predictor 9"), "format 'simtune predictor 9'"),
        (lambda head, _: head["features"].reverse(), "other features"),
        (lambda head, _: head.pop("card"), "incomplete"),
        (lambda head, _: head["card"].pop("scale"), "incomplete"),
        (card(scale=-1.0), "contradicts itself"),
        (card(low=[0.0]), "contradicts itself"),
        (card(low=["a"] * 3), "damaged"),
        (card(surplus=1), "incomplete"),
        (card(family="oracle"), "unknown"),
        (
            lambda _, arrays: arrays.pop(min(n for n in arrays if n.startswith("gp-res/"))),
            "cannot be restored",
        ),
        (lambda _, arrays: arrays.pop("extra-trees-res/nodes.3"), "cannot be restored"),
    ],
)
def test_foreign_files_are_refused_with_the_reason(
    change: Callable[..., None], message: str, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_predictor(rewrite(file, tmp_path / "changed", change))


def test_a_tree_that_points_elsewhere_is_refused(file: Path, tmp_path: Path) -> None:
    """Native code follows these indices unchecked."""
    for field, value in (("left_child", 10**6), ("right_child", 0), ("feature", 10**6)):

        def change(_head: Any, arrays: dict[str, Any], field: str = field, value: int = value) -> None:
            arrays["extra-trees-res/nodes.0"][field][0] = value

        with pytest.raises(PredictorFileError, match="do not form a tree"):
            load_predictor(rewrite(file, tmp_path / "changed", change))


def test_other_machines_are_refused_unless_allowed(file: Path) -> None:
    other = load_machine("cortex-a72")
    with pytest.raises(ConfigurationError, match="trained for sifive-u74, not for cortex-a72") as caught:
        load_predictor(file, other)
    assert "allow_other_machine" in caught.value.hint
    predictor = load_predictor(file, other, allow_other_machine=True)
    assert predictor.predict(planted_group(0).counters[0], other) > 0


def test_missing_and_foreign_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(PredictorFileError, match="cannot be read"):
        load_predictor(tmp_path / "absent")
    with pytest.raises(PredictorFileError, match="cannot be read"):
        load_predictor(tmp_path)
    for content in (b"", b"not a zip", b"\x80\x04pickle"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(PredictorFileError, match="not a predictor file"):
            load_predictor(tmp_path / "file")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("other", "x")
    with pytest.raises(PredictorFileError, match="not a predictor file"):
        load_predictor(tmp_path / "zip")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_found_wherever_it_is(
    file: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "file"
    path.write_bytes(bytes(content))
    try:
        loaded = load_predictor(path)
    except ConfigurationError:
        return
    # Some bytes of a zip, such as its time stamps, mean nothing.
    assert loaded.card == load_predictor(file).card


def test_a_file_is_written_whole_or_not_at_all(trained: TrainedPredictor, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        save_predictor(trained, tmp_path / "no" / "such" / "folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"."):
        save_predictor(trained, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
