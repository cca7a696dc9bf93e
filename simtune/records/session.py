# SPDX-License-Identifier: Apache-2.0
"""An open store file: one connection for all threads, transactions, reading in chunks."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from simtune.errors import RecordError
from simtune.records import rows
from simtune.records.database import connect, translated
from simtune.records.tables import Table

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CHUNK = 2000


class Session:
    """The part of `RecordStore` that knows about connections but not about what is stored."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        readonly: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self.path = os.fspath(path)
        self._lock = threading.RLock()
        self._depth = 0
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = connect(
            self.path, create=create, readonly=readonly, timeout=timeout
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; may be called more than once."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # Transactions ---------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Everything written inside is one transaction: all of it is stored, or nothing.

        Other threads wait for its end, so keep it short and never simulate inside.
        """
        with self.writing():
            yield

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self.path):
            connection = self._open()
            if self._depth == 0:
                connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield connection
                if self._depth == 1:
                    connection.execute("COMMIT")
            except BaseException:
                # Some errors, a full disk among them, have ended the transaction already.
                if self._depth == 1 and connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RecordError(f"{self.path} is closed", "open the store again")
        if os.getpid() != self._process:
            raise RecordError(
                f"{self.path} was opened before a fork", "open the store anew in the child process"
            )
        return self._connection

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a SELECT, for reports that no method here gives; see `migrations` for the tables."""
        with self._lock, translated(self.path):
            try:
                return self._open().execute(sql, parameters).fetchall()
            except UnicodeDecodeError as error:  # from a damaged column name, not from a value
                raise sqlite3.DatabaseError(f"malformed schema: {error}") from error

    def scan(self, sql: str, key: str, filters: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Rows of a SELECT in the order of the integer `key`, which must be its first column.

        Reads in chunks that continue after the last key, so that no read transaction stays open:
        one would keep the WAL from being checkpointed, and see changes of its own thread or not.
        """
        used = {column: value for column, value in (filters or {}).items() if value is not None}
        where = "".join(f" AND {column} = ?" for column in used)
        query = f"{sql} WHERE {key} > ?{where} ORDER BY {key} LIMIT {_CHUNK}"
        after = -(1 << 63)
        while True:
            chunk = self.query(query, (after, *used.values()))
            yield from chunk
            if len(chunk) < _CHUNK:
                return
            after = chunk[-1][0]

    def decode(self, table: Table, decode: Callable[[Any], T], row: Any) -> T:
        """The value of a sealed row; a damaged one is never taken for a result."""
        try:
            if table.intact(row):
                return decode(row)
        except rows.DECODE_ERRORS as error:
            _log.debug("%s: %r", self.path, error)
        raise self.damaged(f"{table.name} {table.name_of(row)}")

    def damaged(self, what: str) -> RecordError:
        return RecordError(
            f"{self.path}: {what} is damaged",
            f"see what else is: simtune records check --records {self.path}; then: simtune records salvage",
        )
