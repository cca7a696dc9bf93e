# SPDX-License-Identifier: Apache-2.0
"""Predictor files: a zip of ``card.json`` and ``model.npz``, never a pickle.

A model is plain arrays, so a file from others can at worst predict nonsense: numpy reads it with
`allow_pickle=False`, and the families check what native code would follow blindly.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from simtune.errors import ConfigurationError
from simtune.inputs import AnyMachine, inputs_of
from simtune.predictors.families import create
from simtune.predictors.trained import Card, TrainedPredictor

FORMAT = "simtune predictor 1"
_LIMIT = 1 << 30  # bytes when unpacked; real files have a few megabytes


class PredictorFileError(ConfigurationError):
    """A predictor file is damaged, foreign, or does not fit this simtune."""


def save_predictor(predictor: TrainedPredictor, path: str | os.PathLike[str]) -> None:
    """Writes a predictor; equal predictors give equal files, and a file is there whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **predictor.model.state())  # type: ignore[arg-type]  # numpy's stub wants a bool
    model = buffer.getvalue()
    head = {
        "format": FORMAT,
        "sha256": hashlib.sha256(model).hexdigest(),
        "features": list(predictor.inputs.features),
        "card": asdict(predictor.card),
    }
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            # ZipInfo's date is fixed, unlike that of a file name.
            for name, content in (("card.json", json.dumps(head, indent=1)), ("model.npz", model)):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def load_predictor(
    path: str | os.PathLike[str], machine: AnyMachine | None = None, *, allow_other_machine: bool = False
) -> TrainedPredictor:
    """Reads a predictor that `simtune train` or `save_predictor` wrote.

    Args:
        machine: what it will be used for, to be refused now rather than at the first prediction.
        allow_other_machine: use it for machines that it was not trained for all the same.

    Raises:
        PredictorFileError: the file is missing, damaged, or of another version.
        ConfigurationError: the predictor is for another machine.
    """
    try:
        head, model = _read(Path(path))
        card = _card(Path(path), head)
    except OSError as error:
        raise PredictorFileError(
            f"{path} cannot be read: {error.strerror or error}", "write one: simtune train -o FILE"
        ) from None
    if hashlib.sha256(model).hexdigest() != head.get("sha256"):
        raise _damaged(path, "its content does not match its checksum")
    fitted = create(card.family, card.seed)
    try:
        with np.load(io.BytesIO(model), allow_pickle=False) as arrays:
            fitted.restore({name: arrays[name] for name in arrays.files})
    except (ValueError, KeyError, TypeError, IndexError, zipfile.BadZipFile) as error:
        raise _damaged(path, f"its model cannot be restored ({error})") from None
    predictor = TrainedPredictor(card, fitted, allow_other_machine)
    if machine is not None:
        predictor.check_machine(machine)
    return predictor


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > _LIMIT:
                raise _damaged(path, "it would unpack to more than a gigabyte")
            head = json.loads(archive.read("card.json"))
            model = archive.read("model.npz")
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, PredictorFileError):
            raise
        raise _damaged(path, f"it is not a predictor file ({error})") from None
    except Exception as error:  # zlib raises its own kind for damaged streams
        if isinstance(error, OSError):
            raise
        raise _damaged(path, f"it cannot be unpacked ({error})") from None
    if not isinstance(head, dict):
        raise _damaged(path, "its head is no table")
    return head, model


def _card(path: Path, head: dict[str, Any]) -> Card:
    if head.get("format") != FORMAT:
        raise PredictorFileError(
            f"{path} has format '{head.get('format')}', this simtune reads '{FORMAT}'",
            "train it again with this version: simtune train",
        )
    try:
        values = dict(head["card"])
        inputs = inputs_of(values.get("accelerator", ""))
        for what, mine in (("schema_version", inputs.schema_version), ("features_version", inputs.version)):
            if values.get(what) != mine:
                raise PredictorFileError(
                    f"{path} was trained with {what} {values.get(what)}, this simtune has {mine}",
                    "train it again: simtune train",
                )
        if head["features"] != list(inputs.features):
            raise PredictorFileError(
                f"{path} was trained on other features than this simtune has", "train it again: simtune train"
            )
        for name in ("low", "high", "optional"):
            values[name] = tuple(values[name])
        card = Card(**values)
        sizes = {len(card.low), len(card.high), len(inputs.features)}
        if len(sizes) != 1 or not isinstance(card.machines, dict) or not float(card.scale) > 0:
            raise ValueError("its card contradicts itself")
        np.array([card.low, card.high], float)
        return card
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise _damaged(path, f"its head is incomplete ({error})") from None


def _damaged(path: str | os.PathLike[str], why: str) -> PredictorFileError:
    return PredictorFileError(f"{path} is damaged: {why}", "train it again: simtune train")
