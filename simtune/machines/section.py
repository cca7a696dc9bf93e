# SPDX-License-Identifier: Apache-2.0
"""Reading one table of a machine file, with errors that name file, key, value and allowed values."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from simtune.errors import MachineFileError

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Section:
    """One table of a file. Keys count as known once they were asked for; see `close`.

    Args:
        file: shown in errors.
        data: the table.
        path: full key of the table, empty for the whole file.
    """

    def __init__(self, file: Path | str, data: Mapping[str, Any], path: str = "") -> None:
        self.file = file
        self.data = data
        self.path = path
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def full_key(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, allowed: str) -> NoReturn:
        """Complains about the value of `key`; `allowed` says what it may be."""
        raise MachineFileError(
            f"{self.file}: {self.full_key(key)} is {_show(self.data.get(key))}; allowed: {allowed}",
            f"correct {self.full_key(key)}",
        )

    def missing(self, key: str, allowed: str) -> NoReturn:
        raise MachineFileError(
            f"{self.file}: {self.full_key(key)} is missing; allowed: {allowed}", f"add {self.full_key(key)}"
        )

    def get(self, key: str, allowed: str, default: Any = None) -> Any:
        """The raw value; without a default the key must exist."""
        self._known.append(key)
        if key in self.data:
            return self.data[key]
        if default is None:
            self.missing(key, allowed)
        return default

    def text(self, key: str, allowed: str = "text", default: str | None = None) -> str:
        value = self.get(key, allowed, default)
        if not isinstance(value, str):
            self.wrong(key, allowed)
        return value

    def choice(self, key: str, options: Sequence[str], default: str | None = None) -> str:
        allowed = " or ".join(f'"{option}"' for option in options)
        value = self.text(key, allowed, default)
        if value not in options:
            self.wrong(key, allowed)
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        allowed = f"an integer from {low} to {high}"
        value = self.get(key, allowed, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(key, allowed)
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        self._known.append(key)
        if not isinstance(value, bool):
            self.wrong(key, "true or false")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        allowed = f"a number from {low:g} to {high:g}"
        value = self.get(key, allowed)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.wrong(key, allowed)
        return float(value)  # 2 and 2.0 in the file are the same machine, with the same digest

    def size(self, key: str, low: int, high: int) -> int:
        """Bytes, as an integer or as text such as "32K" or "2M"."""
        allowed = f'bytes from {low} to {high}, as an integer or as text such as "32K" or "2M"'
        value = self.get(key, allowed)
        if isinstance(value, str):
            match = re.fullmatch(r"([0-9]{1,15})([KMG]?)(?:i?B)?", value.strip())
            if match is None:
                self.wrong(key, allowed)
            value = int(match[1]) * _SIZE_UNITS[match[2]]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(key, allowed)
        return value

    def names(
        self, key: str, allowed: str, options: Sequence[str] = (), default: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """A list of distinct words, from `options` if given."""
        value = self.get(key, allowed, default)
        if (
            not isinstance(value, list | tuple)
            or not all(isinstance(word, str) and re.fullmatch(r"[\w.+-]+", word) for word in value)
            or len(set(value)) != len(value)
            or (options and not set(value) <= set(options))
        ):
            self.wrong(key, allowed)
        return tuple(value)

    def section(self, key: str, *, optional: bool = False) -> Section:
        value = self.get(key, "a table", {} if optional else None)
        if not isinstance(value, dict):
            self.wrong(key, f"a table, written as [{self.full_key(key)}]")
        return Section(self.file, value, self.full_key(key))

    def close(self, also: Iterable[str] = ()) -> None:
        """Complains about a key that nobody asked for (and that is not in `also`)."""
        known = sorted({*self._known, *also})
        for key in self.data:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                raise MachineFileError(
                    f"{self.file}: {self.full_key(key)} is not a known key; allowed: {', '.join(known)}",
                    f"did you mean '{self.full_key(close[0])}'?" if close else "remove it",
                )


def power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _show(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
