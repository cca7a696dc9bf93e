# SPDX-License-Identifier: Apache-2.0
"""Finding damage in a record store: structure, row checksums, references, counters."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from simtune.counters import SCHEMA_VERSION
from simtune.errors import RecordError
from simtune.jobs import Status
from simtune.records import rows, tables
from simtune.records.model import Simulation
from simtune.records.store import RecordStore, open_existing

_RERUN = "nothing: it is not reused, and the next run that needs it simulates again"

#: (table, column, table it refers to, its key, what to do)
_REFERENCES = (
    ("run", "workload", "workload", "id", "the run can still be read, but not be exported to TVM"),
    ("trial", "run", "run", "id", "nothing refers to this trial any more; it is left out of listings"),
    ("trial", "simulation", "simulation", "key", "nothing: a resumed run simulates it again"),
    ("trial", "trace", "trace", "id", "the trial keeps its numbers, but is left out of TVM exports"),
    ("measurement", "simulation", "simulation", "key", "measure again once it is simulated again"),
)


@dataclass(frozen=True)
class Finding:
    """One problem: the table and row it is in, what is wrong, and what to do about it."""

    table: str
    row: str
    problem: str
    advice: str


def check(path: str | os.PathLike[str]) -> list[Finding]:
    """Everything that is wrong with a store; empty for a sound one.

    Raises:
        RecordError: the file is missing, foreign or from a newer simtune.
    """
    try:
        with open_existing(path) as store:
            return list(_findings(store))
    except RecordError as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError):
            return [Finding("", "", str(error.__cause__), _salvage(path))]
        raise


def _salvage(path: str | os.PathLike[str]) -> str:
    return f"copy the intact rows: simtune records salvage --records {os.fspath(path)} -o salvaged.db"


def _findings(store: RecordStore) -> Iterator[Finding]:
    yield from _structure(store)
    for table in tables.TABLES:
        try:
            yield from _rows(store, table)
        except RecordError as error:
            problem = f"cannot be read to its end: {error.__cause__}"
            yield Finding(table.name, "", problem, _salvage(store.path))
    for reference in _REFERENCES:
        try:
            yield from _dangling(store, *reference)
        except RecordError:
            return  # unreadable, which was reported above


def _structure(store: RecordStore) -> Iterator[Finding]:
    try:
        messages = [str(row[0]) for row in store.query("PRAGMA integrity_check(20)")]
    except RecordError as error:
        messages = [str(error.__cause__)]
    for message in messages:
        if message != "ok":
            yield Finding("", "", message, _salvage(store.path))


def _rows(store: RecordStore, table: tables.Table) -> Iterator[Finding]:
    # NOT INDEXED: a damaged index must not hide rows of a sound table.
    sql = f"SELECT rowid, {table.select} FROM {table.name} NOT INDEXED"
    for numbered in store.scan(sql, "rowid"):
        row = numbered[1:]
        name = table.name_of(row)
        if not table.intact(row):
            yield Finding(
                table.name,
                name,
                "its checksum does not fit its content",
                _RERUN if table is tables.SIMULATION else _salvage(store.path),
            )
            continue
        try:
            value = rows.DECODERS[table.name](row)
        except rows.DECODE_ERRORS as error:
            yield Finding(table.name, name, f"cannot be decoded: {error}", _salvage(store.path))
            continue
        if isinstance(value, Simulation):
            for problem, advice in _simulation_problems(value, name):
                yield Finding(table.name, name, problem, advice)


def _simulation_problems(simulation: Simulation, name: str) -> Iterator[tuple[str, str]]:
    if simulation.key != name:
        yield "its key is not the hash of its conditions", "report this: the row was not written by simtune"
    counters = simulation.outcome.counters
    if counters is None:
        if simulation.outcome.status is Status.OK:
            yield "is ok but has no counters", "report this, with the version of the simulator's adapter"
        return
    if counters.schema_version > SCHEMA_VERSION:
        yield (
            f"has counters of schema version {counters.schema_version}, known is {SCHEMA_VERSION}",
            "use a newer simtune to read it",
        )
    wrong = [counter for counter, value in counters.items() if not (math.isfinite(value) and value >= 0)]
    if wrong:
        yield (
            f"has impossible counts: {', '.join(f'{counter} = {counters[counter]}' for counter in wrong)}",
            "report this, with the version of the simulator's adapter",
        )


def _dangling(
    store: RecordStore, table: str, column: str, other: str, key: str, advice: str
) -> Iterator[Finding]:
    owner = next(candidate for candidate in tables.TABLES if candidate.name == table)
    found = store.query(
        f"SELECT {owner.select} FROM {table} WHERE {column} IS NOT NULL"
        f" AND NOT EXISTS (SELECT 1 FROM {other} WHERE {other}.{key} = {table}.{column})"
    )
    for row in found:
        missing = row[owner.columns.index(column)]
        yield Finding(table, owner.name_of(row), f"refers to {other} {missing}, which is not stored", advice)
