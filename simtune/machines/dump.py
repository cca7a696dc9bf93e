# SPDX-License-Identifier: Apache-2.0
"""A `Machine` as the text of a machine file: for machines that no file here describes (any more)."""

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


def commented_toml(machine: Machine, comments: Mapping[str, str], head: str = "") -> str:
    """The same by sections, for people: `comments` go behind the dotted keys that they are about."""
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    tables: list[tuple[str, Mapping[str, Any]]] = [("", machine.as_dict())]
    while tables:
        path, table = tables.pop(0)
        plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
        inner = {key: value for key, value in table.items() if isinstance(value, Mapping) and value}
        if plain and path:
            lines += ["", f"[{path}]"]
        elif plain and lines:
            lines.append("")
        for key, value in plain.items():
            comment = comments.get(f"{path}.{key}" if path else key)
            text = f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}"
            lines.append(f"{text}  # {comment}" if comment else text)
        found = [(f"{path}.{_key(key)}" if path else _key(key), value) for key, value in inner.items()]
        tables = found + tables
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    """Bare where TOML allows it."""
    bare = text and all(c.isascii() and (c.isalnum() or c in "-_") for c in text)
    return text if bare else json.dumps(text, ensure_ascii=False)
