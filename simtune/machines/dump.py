# SPDX-License-Identifier: Apache-2.0
"""A `Machine` as the text of a machine file: for machines that no file here describes any more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from simtune.machines.model import Machine


def as_toml(machine: Machine) -> str:
    """Text that `load_machine` reads back as the same machine, with the same digest."""
    return "".join(f"{line}\n" for line in _lines(machine.as_dict(), ""))


def _lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in table.items():
        full = f"{path}.{json.dumps(key)}" if path else json.dumps(key)
        if isinstance(value, Mapping):
            yield from _lines(value, full)
        else:
            # JSON's numbers, texts, booleans and arrays are TOML's, too.
            yield f"{full} = {json.dumps(value, ensure_ascii=False)}"
