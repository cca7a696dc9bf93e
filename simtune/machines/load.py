# SPDX-License-Identifier: Apache-2.0
"""Finding and reading machine files: by name, by path, or the computer we run on."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simtune.errors import MachineFileError
from simtune.machines.model import Machine
from simtune.machines.validate import build_machine

HOST = "host"
BUILT_IN = Path(__file__).parent / "files"
SEARCH_VARIABLE = "SIMTUNE_MACHINES"
_VTA = "vta-"  # accelerators have files of their own kind, see `simtune.vta.hwspec`

#: Keys that say what a file *is*; a file that extends another one does not inherit them.
_OWN_KEYS = ("name", "description")


def load_machine(name_or_path: str | os.PathLike[str]) -> Machine:
    """Reads and validates a machine.

    Args:
        name_or_path: a built-in name (``"sifive-u74"``), the name of a file in one of the
            folders of ``$SIMTUNE_MACHINES``, the path of a TOML file, or ``"host"`` for the
            computer this runs on.

    Raises:
        MachineFileError: the machine does not exist or its file is wrong; names file and key.
    """
    if name_or_path == HOST:
        from simtune.machines.host import detect_host

        return detect_host().machine
    path = find_machine(name_or_path)
    data = read_with_parents(path)
    return build_machine(data, file=path, default_name=path.stem)


def list_machines() -> dict[str, Path]:
    """Name to file of every machine found by name, in alphabetical order ("host" is extra)."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_machine(name_or_path: str | os.PathLike[str], *, beside: Path | None = None) -> Path:
    """The file of a machine; `beside` is a file whose folder relative paths start from.

    A user's file wins over a built-in one of the same name; `beside` never finds itself, so
    that a file may extend the built-in machine whose name it has.
    """
    text = os.fspath(name_or_path)
    if _is_path(text):
        path = Path(text).expanduser()
        path = beside.parent / path if beside else path
        if not path.is_file():
            raise MachineFileError(f"there is no machine file {path}", "check the path")
        return path
    for folder in _folders():
        path = folder / f"{text}.toml"
        if path.is_file() and not (beside and path.samefile(beside)):
            return path
    if text.startswith(_VTA):
        raise MachineFileError(
            f"'{text}' is no CPU: machines of the accelerator VTA run layers that are called vta:...",
            "such as: simtune tune vta:resnet18.c2 --machine vta-pynq; see docs/vta.md",
        )
    names = [*list_machines(), HOST]
    close = difflib.get_close_matches(text, names, n=1)
    raise MachineFileError(
        f"there is no machine '{text}'; known: {', '.join(names)}",
        f"did you mean '{close[0]}'?"
        if close
        else f"pass the path of a .toml file, or put its folder into ${SEARCH_VARIABLE}",
    )


def read_with_parents(path: Path) -> dict[str, Any]:
    """The content of a file, merged over that of the machines it extends.

    Raises:
        MachineFileError: a file is unreadable, or the chain of ``extends`` is circular.
    """
    layers: list[dict[str, Any]] = []
    chain: list[Path] = []
    current: Path | None = path
    while current is not None:
        if current.resolve() in chain:
            circle = " -> ".join(str(link) for link in [*chain, current.resolve()])
            raise MachineFileError(f"{path}: 'extends' is circular: {circle}", "remove one 'extends'")
        chain.append(current.resolve())
        layer = read_toml(current)
        parent = layer.pop("extends", None)
        if parent is not None and (not isinstance(parent, str) or not parent or parent == HOST):
            raise MachineFileError(
                f"{current}: extends is {parent!r}; allowed: the name or path of a machine file",
                'name the machine this one derives from, such as extends = "cortex-a72"',
            )
        if layers:
            layer = {key: value for key, value in layer.items() if key not in _OWN_KEYS}
        layers.append(layer)
        current = None if parent is None else _find_parent(parent, current)
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged = _merge(merged, layer)
    return merged


def read_toml(path: Path) -> dict[str, Any]:
    """Parses one TOML file.

    Raises:
        MachineFileError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MachineFileError(f"{path}: cannot be read: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MachineFileError(f"{path}: is not TOML: {error}", "correct the syntax there") from error


def _find_parent(parent: str, child: Path) -> Path:
    try:
        return find_machine(parent, beside=child)
    except MachineFileError as error:
        raise MachineFileError(f"{child}: extends: {error.what}", error.hint) from error


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _is_path(text: str) -> bool:
    return text.endswith(".toml") or os.sep in text or text.startswith("~")


def _folders() -> Iterator[Path]:
    """User folders first, so that a user can replace a built-in machine."""
    for entry in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep):
        if entry:
            yield Path(entry).expanduser()
    yield BUILT_IN
