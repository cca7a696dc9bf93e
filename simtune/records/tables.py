# SPDX-License-Identifier: Apache-2.0
"""The tables: their columns, SQL text, and the checksum of a row.

The columns that SQLite knows are in `simtune.records.migrations`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

Value = str | int | float | bytes | None
Row = tuple[Value, ...]

_pack_double = struct.Struct("<d").pack


@dataclass(frozen=True)
class Table:
    """A table: its columns but the checksum, and which of them name a row."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def select(self) -> str:
        return ", ".join(f"{self.name}.{column}" for column in (*self.columns, "checksum"))

    @property
    def insert(self) -> str:
        """Plain INSERT of a sealed row; callers add their conflict clause."""
        names = ", ".join((*self.columns, "checksum"))
        return f"INSERT INTO {self.name} ({names}) VALUES ({', '.join('?' * (len(self.columns) + 1))})"

    @property
    def replace(self) -> str:
        """INSERT that takes the place of a row with the same key."""
        fields = (*(column for column in self.columns if column not in self.key), "checksum")
        update = ", ".join(f"{column} = excluded.{column}" for column in fields)
        return f"{self.insert} ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {update}"

    def content(self, values: Sequence[Value]) -> bytes:
        """The table's name and every column that is not NULL; equal for equal values only.

        Equal numbers count as equal, since SQLite keeps a whole REAL as an integer on the disk.
        """
        parts = [self.name.encode()]
        for tag, value in zip(self._tags, values, strict=True):
            # Length, kind, content: one formatting each, since this runs for every value that is stored.
            if isinstance(value, str):
                data = value.encode("utf-8", "surrogatepass")
                parts.append(b"%b%d:s%b" % (tag, len(data) + 1, data))
            elif value is None:
                continue
            elif isinstance(value, bytes):
                parts.append(b"%b%d:b%b" % (tag, len(value) + 1, value))
            elif isinstance(value, float) and not value.is_integer():
                parts.append(b"%b9:f%b" % (tag, _pack_double(value)))
            else:
                data = b"i%d" % value
                parts.append(b"%b%d:%b" % (tag, len(data), data))
        return b"".join(parts)

    def checksum(self, values: Sequence[Value]) -> bytes:
        """8 bytes over the content."""
        return blake2b(self.content(values), digest_size=8).digest()

    @cached_property
    def _tags(self) -> tuple[bytes, ...]:
        return tuple(column.encode() + b"=" for column in self.columns)

    def seal(self, values: Row) -> Row:
        return (*values, self.checksum(values))

    def intact(self, row: Sequence[Any]) -> bool:
        """Whether a sealed row is what was written."""
        return len(row) == len(self.columns) + 1 and row[-1] == self.checksum(row[:-1])

    def from_record(self, record: Sequence[Any]) -> tuple[Any, ...]:
        """A sealed row from a row as it is on the disk, where the checksum is the first column.

        Columns that a later schema added are missing at the end of an old row, and NULL.
        """
        missing = len(self.columns) + 1 - len(record)
        return (*record[1:], *(None,) * missing, record[0])

    @cached_property
    def _key_places(self) -> tuple[int, ...]:
        return tuple(self.columns.index(column) for column in self.key)

    def key_of(self, row: Sequence[Value]) -> Row:
        """The values that name the row."""
        return tuple([row[place] for place in self._key_places])

    def name_of(self, row: Sequence[Value]) -> str:
        """The row's key for a message, such as ``3f2a…:17``."""
        return ":".join(map(str, self.key_of(row)))


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


WORKLOAD = Table("workload", ("id", "name", "arguments", "tvm_json"), ("id",))
RUN = Table(
    "run",
    _columns(
        "id workload machine machine_digest target config config_digest versions started finished state"
    ),
    ("id",),
)
SIMULATION = Table(
    "simulation",
    _columns(
        "key object_sha256 simulator simulator_version machine_digest arguments seed count_options"
        " schema_version status stage instruction_limit wall_s cpu_s peak_rss created counters"
        " counters_simulator replacement counters_version output error command blocks"
    ),
    ("key",),
)
TRACE = Table("trace", ("id", "json"), ("id",))
TRIAL = Table(
    "trial",
    _columns(
        "run idx candidate status value simulation is_reference trace predicted_s measured_s"
        " build_s link_s simulate_s created stage error command"
    ),
    ("run", "idx"),
)
MEASUREMENT = Table(
    "measurement",
    _columns("simulation target seconds median spread conditions created"),
    ("simulation", "target", "created"),
)

#: In the order in which rows may refer to one another.
TABLES: tuple[Table, ...] = (WORKLOAD, RUN, SIMULATION, TRACE, TRIAL, MEASUREMENT)
