# SPDX-License-Identifier: Apache-2.0
"""Machine files as nested dicts that tests change one key at a time."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from simtune.machines.load import BUILT_IN
from simtune.machines.model import Machine
from simtune.machines.validate import build_machine

DELETE = object()


def content(name: str = "cortex-a72") -> dict[str, Any]:
    return tomllib.loads((BUILT_IN / f"{name}.toml").read_text())


def changed(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A deep copy with one dotted key set, or deleted."""
    data = copy.deepcopy(data)
    *tables, last = key.split(".")
    inner = data
    for table in tables:
        inner = inner.setdefault(table, {})
    if value is DELETE:
        del inner[last]
    else:
        inner[last] = value
    return data


def build(data: dict[str, Any]) -> Machine:
    return build_machine(data, file=Path("board.toml"), default_name="board")
