# SPDX-License-Identifier: Apache-2.0
"""Getting every intact row out of a damaged record store.

First SQLite reads what it can. Where it gives up, the pages of the file are read directly: the
checksum in each row says which table it belongs to and that nothing in it changed, so neither
the header nor the tree above the rows has to be whole. File format: https://sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simtune.errors import RecordError
from simtune.records import tables
from simtune.records.database import TOLERANT_TEXT, connect, translated
from simtune.records.files import scratch_beside

_BATCH = 1000
_MAX_PAYLOAD = 256 << 20


@dataclass
class SalvageReport:
    """What a salvage brought: rows saved per table, rows seen but damaged, and unreadable tables."""

    saved: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def salvage(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> SalvageReport:
    """Copies every intact row of `path`, which is not touched, into the new store `out`.

    Raises:
        RecordError: `path` is missing, `out` exists, or `out` cannot be written.
    """
    source, target = Path(path), Path(out)
    if not source.is_file():
        raise RecordError(f"there is no record store at {source}", "give the damaged file with --records")
    if target.exists():
        raise RecordError(f"{target} exists already", "give another file with -o")
    if not target.parent.is_dir():
        raise RecordError(f"the folder of {target} does not exist", f"mkdir -p {target.parent}")
    report = SalvageReport()
    # Same folder as the result: it is known to have room, and the rename at the end is atomic.
    with scratch_beside(target, "salvage") as scratch:
        copies = _copy(source, scratch)
        fresh = scratch / "fresh.db"
        with translated(str(target)), closing(_new_store(fresh)) as store:
            sound = _by_sqlite(copies[0], store, report)
            if not sound:
                for pages in Pages.readings(copies[1], copies[2]):
                    _save(store, rows_in_pages(pages), lambda table: f"{table.insert} ON CONFLICT DO NOTHING")
            for table in tables.TABLES:
                found = store.execute(f"SELECT count(*) FROM {table.name}").fetchone()
                report.saved[table.name] = found[0]
        fresh.rename(target)
    return report


def _copy(source: Path, scratch: Path) -> tuple[Path, Path, Path]:
    """A copy for SQLite, which will change it, and one of the raw file and its log."""
    work, raw, log = scratch / "work.db", scratch / "raw.db", scratch / "raw.db-wal"
    wal = Path(f"{source}-wal")
    try:
        shutil.copyfile(source, raw)
        if wal.exists():
            shutil.copyfile(wal, log)
            shutil.copyfile(wal, scratch / "work.db-wal")
        shutil.copyfile(source, work)
    except OSError as error:
        raise RecordError(
            f"cannot copy {source} to {scratch.parent}: {error.strerror}",
            "salvage needs twice the size of the store free beside the result",
        ) from None
    return work, raw, log


def _new_store(path: Path) -> sqlite3.Connection:
    connection = connect(path, create=True, readonly=False, timeout=5.0)
    # A trial is worth keeping when the simulation that it refers to is lost.
    connection.execute("PRAGMA foreign_keys = OFF")
    return connection


def _by_sqlite(path: Path, store: sqlite3.Connection, report: SalvageReport) -> bool:
    """Saves what SQLite can read; False when there may be more than that."""
    with closing(sqlite3.connect(path, isolation_level=None)) as damaged:
        damaged.text_factory = TOLERANT_TEXT
        try:
            # Lets SQLite open a file that is shorter than its header says.
            damaged.execute("PRAGMA writable_schema = ON")
        except sqlite3.DatabaseError:
            report.unreadable = [table.name for table in tables.TABLES]
            return False
        for table in tables.TABLES:
            records = _until_error(damaged, table, report)
            _save(store, ((table, record) for record in records), lambda table: table.replace)
        # A broken tree can also hide rows without an error.
        try:
            sound = damaged.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
        except sqlite3.DatabaseError:
            sound = False
        return sound and not report.unreadable


def _until_error(
    connection: sqlite3.Connection, table: tables.Table, report: SalvageReport
) -> Iterator[tuple[Any, ...]]:
    try:
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
        if not names:
            report.unreadable.append(table.name)
            return
        for record in connection.execute(f"SELECT * FROM {table.name} NOT INDEXED"):
            row = table.from_record(record)
            if table.intact(row):
                yield row
            else:
                report.damaged[table.name] = report.damaged.get(table.name, 0) + 1
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # the latter from a damaged column name
        report.unreadable.append(table.name)


def _save(
    store: sqlite3.Connection,
    found: Iterable[tuple[tables.Table, tuple[Any, ...]]],
    statement: Callable[[tables.Table], str],
) -> None:
    store.execute("BEGIN")
    for number, (table, row) in enumerate(found, 1):
        store.execute(statement(table), row)
        if number % _BATCH == 0:
            store.execute("COMMIT")
            store.execute("BEGIN")
    store.execute("COMMIT")


class Pages:
    """The pages of a database file, with those in its write-ahead log laid over them."""

    def __init__(self, data: memoryview, log: memoryview, size: int) -> None:
        self._data, self.size = data, size
        self._newer: dict[int, memoryview] = {}
        frame = 24 + size
        for start in range(32, len(log) - frame + 1, frame):
            (number,) = struct.unpack_from(">I", log, start)
            self._newer[number] = log[start + 24 : start + frame]

    @classmethod
    def readings(cls, path: Path, log: Path) -> Iterator[Pages]:
        """The file by each size that its pages may have; rows read by a wrong one are not intact."""
        data = memoryview(path.read_bytes())
        wal = memoryview(log.read_bytes() if log.exists() else b"")
        sizes = set(_USUAL_SIZES)
        if len(data) >= 18:
            sizes.update(struct.unpack_from(">H", data, 16))
        if len(wal) >= 12:
            sizes.update(struct.unpack_from(">I", wal, 8))
        for size in sorted(sizes & _SIZES, reverse=True):
            yield cls(data, wal, size)

    def __getitem__(self, number: int) -> memoryview:
        """The page with this number, from 1; shorter than a page at a cut end."""
        if number in self._newer:
            return self._newer[number]
        return self._data[(number - 1) * self.size : number * self.size]

    def numbers(self) -> Iterator[int]:
        whole = -(-len(self._data) // self.size)
        yield from range(1, whole + 1)
        yield from (number for number in self._newer if number > whole)


_SIZES = frozenset(1 << bits for bits in range(9, 16))
#: What simtune's stores are made with, now and at first; the headers that say it may be damaged.
_USUAL_SIZES = (8192, 4096)


def rows_in_pages(pages: Pages) -> Iterator[tuple[tables.Table, tuple[Any, ...]]]:
    """Every intact sealed row in the leaves of any table."""
    for number in pages.numbers():
        page = pages[number]
        start = 100 if number == 1 else 0  # the file header
        if len(page) < start + 8 or page[start] != 0x0D:
            continue
        (cells,) = struct.unpack_from(">H", page, start + 3)
        for index in range(cells):
            try:
                (cell,) = struct.unpack_from(">H", page, start + 8 + 2 * index)
                record = _record(_payload(pages, page, cell))
            except (IndexError, struct.error, ValueError):
                continue
            yield from _belongs(record)


def _belongs(record: tuple[Any, ...]) -> Iterator[tuple[tables.Table, tuple[Any, ...]]]:
    if not record or not isinstance(record[0], bytes) or len(record[0]) != 8:
        return
    for table in tables.TABLES:
        row = table.from_record(record)
        if table.intact(row):
            yield table, row
            return


def _payload(pages: Pages, page: memoryview, cell: int) -> bytes:
    """A cell's record; what does not fit the page continues in a chain of overflow pages."""
    length, cell = _varint(page, cell)
    _, cell = _varint(page, cell)  # the rowid
    if length > _MAX_PAYLOAD:
        raise ValueError("not a cell")
    local = length
    if length > pages.size - 35:
        least = (pages.size - 12) * 32 // 255 - 23
        local = least + (length - least) % (pages.size - 4)
        if local > pages.size - 35:
            local = least
    payload = bytearray(page[cell : cell + local])
    if local < length:
        (following,) = struct.unpack_from(">I", page, cell + local)
        while len(payload) < length:
            overflow = pages[following]
            if not following or len(overflow) <= 4:
                raise ValueError("the chain is broken")
            (following,) = struct.unpack_from(">I", overflow, 0)
            payload += overflow[4 : 4 + length - len(payload)]
    if len(payload) != length:
        raise ValueError("the cell is cut")
    return bytes(payload)


def _record(payload: bytes) -> tuple[Any, ...]:
    end, position = _varint(payload, 0)
    kinds = []
    while position < end:
        kind, position = _varint(payload, position)
        kinds.append(kind)
    values: list[Any] = []
    position = end
    for kind in kinds:
        size = _WIDTHS[kind] if kind < 12 else (kind - 12) // 2
        data = payload[position : position + size]
        position += size
        if kind in (0, 8, 9):
            values.append({0: None, 8: 0, 9: 1}[kind])
        elif kind == 7:
            values.append(struct.unpack(">d", data)[0])
        elif kind < 7:
            values.append(int.from_bytes(data, "big", signed=True))
        else:
            values.append(data if kind % 2 == 0 else TOLERANT_TEXT(data))
    return tuple(values)


#: Bytes of a value by its kind; 10 and 11 are reserved and appear only in damaged records.
_WIDTHS = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = 0
    for length in range(8):
        byte = data[position + length]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + length + 1
    return value << 8 | data[position + 8], position + 9
