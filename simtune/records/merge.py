# SPDX-License-Identifier: Apache-2.0
"""Merging stores of several machines into one.

Rows are named by content (simulations, traces, workloads) or by random ids (runs, with their trials),
so rows of different stores meet only where they are about the same thing. Of two versions of a row the
one stays that `simtune.records.resolution` puts first, whatever the order of the stores: merging is
associative, commutative and idempotent in content, and a merge that was interrupted is simply done
again. Two versions that contradict each other are a conflict: one stays all the same, and the report
says which, why, and what the other one said.

The sources are read at one moment each and are not written to; they may be in use. Their rows are
checked first and put together in a scratch store beside the target, then go into the target in one
transaction: it is as it was or complete, also after kill -9, and other processes that write to it
wait for that last step only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from simtune.errors import RecordError
from simtune.records import resolution, tables
from simtune.records.database import connect, snapshot, translated
from simtune.records.files import scratch_beside, sync_folder
from simtune.records.tables import Row, Table

#: Told after every few hundred rows: rows done, rows in all, what is done with them.
Progress = Callable[[int, int, str], None]

_CHUNK = 400


@dataclass(frozen=True)
class Conflict:
    """Two versions of one row that contradict each other.

    Attributes:
        kept, lost: the store with the version that stays, and that of the other.
        reason: why it stays.
        differs: column or counter to its values in the two versions, the kept one first.
    """

    table: str
    row: str
    kept: str
    lost: str
    reason: str
    differs: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Refused:
    """A damaged row, or the rest of a table (then `row` is empty), that was left out."""

    store: str
    table: str
    row: str
    problem: str
    advice: str


@dataclass
class MergeReport:
    """What a merge did to the target, by table.

    Attributes:
        added: rows that it did not have, or had damaged.
        replaced: rows of which a source had the version that stays.
        same: rows of the sources that it had, in the same or the better version.
        total: rows that it holds now.
        conflicts, refused: what to look at.
    """

    added: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, int] = field(default_factory=dict)
    same: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)


def merge(
    sources: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    progress: Progress = lambda done, total, what: None,
) -> MergeReport:
    """Merges stores into `target`, which is created when it is not there.

    Damaged rows of a source are left out and reported; an intact version of a damaged row of the
    target takes its place.

    Raises:
        RecordError: a source is missing, foreign, from a newer simtune, or too damaged to be opened; the
            target cannot be written. The target is then as it was.
    """
    into = Path(target)
    if not into.parent.is_dir():
        raise RecordError(f"the folder of {into} does not exist", f"mkdir -p {into.parent}")
    report = MergeReport()
    try:
        with scratch_beside(into, "merge") as scratch, ExitStack() as opened:
            stores = [
                _Source(Path(source), opened.enter_context(snapshot(Path(source), scratch / f"{number}.db")))
                for number, source in enumerate(sources)
            ]
            fresh = scratch / "fresh.db"
            _gather(stores, fresh, report, progress)
            if into.exists():
                _add(stores, fresh, into, report, progress)
            else:
                _publish(fresh, into, report)
    except OSError as error:
        raise RecordError(
            f"cannot merge into {into}: {error.strerror or error}",
            "merging needs room for a copy of the sources beside the target, in a folder where you may write",
        ) from error
    return report


class _Source:
    """A store that is read: its intact rows, and where a version came from."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection

    def size(self) -> int:
        return sum(_size(self.connection, table) for table in tables.TABLES)

    def rows(self, table: Table, refused: list[Refused]) -> Iterator[Row]:
        """The intact rows of a table; the others are added to `refused`."""
        store = str(self.path)
        salvage = (
            f"save what is intact and merge that: simtune records salvage --records {store} -o salvaged.db"
        )
        try:
            # NOT INDEXED: a damaged index must not hide rows of a sound table.
            for row in self.connection.execute(f"SELECT {table.select} FROM {table.name} NOT INDEXED"):
                if table.intact(row):
                    yield row
                else:
                    problem = "its checksum does not fit its content"
                    advice = f"see what else is damaged: simtune records check --records {store}"
                    refused.append(Refused(store, table.name, table.name_of(row), problem, advice))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter from a damaged column name
            refused.append(Refused(store, table.name, "", f"cannot be read to its end: {error}", salvage))

    def has(self, table: Table, row: Row) -> bool:
        """Whether this version of a row is from here."""
        try:
            return row[-1] in (found[-1] for found in _lookup(self.connection, table, [row]).values())
        except sqlite3.DatabaseError:
            return False


def _gather(sources: Sequence[_Source], fresh: Path, report: MergeReport, progress: Progress) -> None:
    """Puts the sources together in the new store `fresh`."""
    done, total = 0, sum(source.size() for source in sources)
    with closing(_open(fresh)) as store, translated(str(fresh)):
        store.execute("PRAGMA synchronous = OFF")  # nobody needs it after a power cut
        for source in sources:

            def conflict(table: Table, old: Row, new: Row, source: _Source = source) -> None:
                _note(report, table, old, _origin(sources, table, old), new, str(source.path))

            for table in tables.TABLES:
                store.execute("BEGIN")
                for rows in _chunks(source.rows(table, report.refused)):
                    _fold(store, table, rows, conflict)
                    done += len(rows)
                    progress(done, total, f"read {source.path.name}")
                store.execute("COMMIT")


def _add(
    sources: Sequence[_Source], fresh: Path, into: Path, report: MergeReport, progress: Progress
) -> None:
    """Adds what was gathered to an existing store in one transaction."""
    with (
        closing(_open(into)) as store,
        closing(sqlite3.connect(fresh, isolation_level=None)) as gathered,
        translated(str(into)),
    ):
        done, total = 0, sum(_size(gathered, table) for table in tables.TABLES)

        def conflict(table: Table, old: Row, new: Row) -> None:
            _note(report, table, old, str(into), new, _origin(sources, table, new))

        store.execute("BEGIN IMMEDIATE")
        try:
            for table in tables.TABLES:
                counts = [0, 0, 0]
                for rows in _chunks(gathered.execute(f"SELECT {table.select} FROM {table.name}")):
                    counts = [a + b for a, b in zip(counts, _fold(store, table, rows, conflict), strict=True)]
                    done += len(rows)
                    progress(done, total, f"write {into.name}")
                report.added[table.name], report.replaced[table.name], report.same[table.name] = counts
                report.total[table.name] = _size(store, table)
            store.execute("COMMIT")
        except BaseException:
            if store.in_transaction:
                store.execute("ROLLBACK")
            raise


def _publish(fresh: Path, into: Path, report: MergeReport) -> None:
    """Makes what was gathered the new store `into`."""
    with closing(_open(fresh)) as store, translated(str(fresh)):
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for table in tables.TABLES:
            number = _size(store, table)
            report.added[table.name] = report.total[table.name] = number
            report.replaced[table.name] = report.same[table.name] = 0
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(fresh, into)  # unlike a rename, never over a store that came up meanwhile
    except FileExistsError:
        raise RecordError(
            f"{into} was created by another process meanwhile", "run the same command again: it adds to it"
        ) from None
    sync_folder(into.parent)


def _fold(
    store: sqlite3.Connection,
    table: Table,
    rows: Sequence[Row],
    conflict: Callable[[Table, Row, Row], None],
) -> tuple[int, int, int]:
    """Puts intact rows into a table; how many were added, replaced, and changed nothing."""
    present = _lookup(store, table, rows)
    written: dict[Row, Row] = {}
    added = replaced = 0
    for row in rows:
        key = table.key_of(row)
        old = present.get(key)
        if old == row:
            continue
        if old is None or not table.intact(old):
            added += 1
        else:
            if resolution.contradictions(table, old, row):
                conflict(table, old, row)
            if not resolution.decide(table, row, old)[0]:
                continue
            replaced += 1
        present[key] = written[key] = row
    store.executemany(table.replace, written.values())
    return added, replaced, len(rows) - added - replaced


def _note(report: MergeReport, table: Table, old: Row, old_from: str, new: Row, new_from: str) -> None:
    new_stays, reason = resolution.decide(table, new, old)
    kept, lost = (new, old) if new_stays else (old, new)
    stores = (new_from, old_from) if new_stays else (old_from, new_from)
    differs = resolution.contradictions(table, kept, lost)
    report.conflicts.append(Conflict(table.name, table.name_of(kept), *stores, reason, differs))


def _origin(sources: Sequence[_Source], table: Table, row: Row) -> str:
    """Conflicts are rare: where a version came from is looked up then, instead of kept for all rows."""
    return next((str(source.path) for source in sources if source.has(table, row)), "")


def _open(path: Path) -> sqlite3.Connection:
    connection = connect(path, create=True, readonly=False, timeout=30.0)
    # As in `salvage`: a trial is worth keeping when the simulation that it refers to was refused.
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def _lookup(connection: sqlite3.Connection, table: Table, rows: Sequence[Row]) -> dict[Row, Row]:
    """The rows of a store with the keys of these."""
    marks = ", ".join([f"({', '.join('?' * len(table.key))})"] * len(rows))
    same = " AND ".join(f"{table.name}.{column} = wanted.{column}" for column in table.key)
    found = connection.execute(
        # A join, since SQLite takes no index for "(run, idx) IN (VALUES …)".
        f"WITH wanted ({', '.join(table.key)}) AS (VALUES {marks})"
        f" SELECT {table.select} FROM wanted CROSS JOIN {table.name} ON {same}",
        [value for row in rows for value in table.key_of(row)],
    )
    return {table.key_of(row): row for row in found}


def _size(connection: sqlite3.Connection, table: Table) -> int:
    number: int = connection.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0]
    return number


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
