# SPDX-License-Identifier: Apache-2.0
"""Opening SQLite files safely, and SQLite's errors in words that say what to do."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

from simtune.errors import RecordError
from simtune.records import migrations

MEMORY = ":memory:"

#: Damaged text must reach the checksum, which refuses it, instead of failing inside SQLite.
TOLERANT_TEXT = partial(str, encoding="utf-8", errors="surrogateescape")

_MAGIC = b"SQLite format 3\0"


def default_store_path() -> Path:
    """``$SIMTUNE_RECORDS``, or ``simtune-records.db`` in the current folder."""
    return Path(os.environ.get("SIMTUNE_RECORDS") or "simtune-records.db")


def connect(path: str | Path, *, create: bool, readonly: bool, timeout: float) -> sqlite3.Connection:
    """An open store of the newest schema, in autocommit mode.

    Raises:
        RecordError: the file cannot be used; see `translated`.
    """
    name = str(path)
    if name != MEMORY:
        _check_file(Path(name), create=create and not readonly)
    with translated(name):
        connection = _open(name, readonly, timeout)
        try:
            # First of all: only look, so that a foreign database is never touched.
            version = migrations.refuse_foreign(connection, name)
            _refuse_cut(connection, name)
            if readonly:
                if version < len(migrations.MIGRATIONS):
                    raise RecordError(
                        f"{name} has the older record schema version {version}",
                        "copy it to a folder where you may write: opening it there brings it up to date",
                    )
            else:
                _prepare_for_writing(connection, name, timeout)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def snapshot(path: Path, copy: Path) -> Iterator[sqlite3.Connection]:
    """A store as it is now, to read, whatever other processes write; the file is not changed.

    Args:
        copy: where an older store is copied to, and brought up to date.

    Raises:
        RecordError: the file cannot be read; see `translated`.
    """
    name = str(path)
    _check_file(path, create=False)
    with translated(name):
        connection = _open(name, readonly=True, timeout=30.0)
        try:
            version = migrations.refuse_foreign(connection, name)
            _refuse_cut(connection, name)
            if version < len(migrations.MIGRATIONS):
                with closing(connection) as older:
                    connection = sqlite3.connect(copy, isolation_level=None)
                    older.backup(connection)
                migrations.migrate(connection, name)
            connection.text_factory = TOLERANT_TEXT
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on it is fixed
            yield connection
        finally:
            connection.close()
            _remove_empty_log(name)


def _refuse_cut(connection: sqlite3.Connection, name: str) -> None:
    """Refuses a file that ends inside a page: SQLite takes the rest for zeros, and misses rows silently.

    A file that lacks whole pages is refused by SQLite itself. One that a power cut left in the middle
    of a checkpoint is whole together with its log.
    """
    if (
        name == MEMORY
        or Path(name).stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0] == 0
    ):
        return
    log = Path(f"{name}-wal")
    logged = log.exists() and log.stat().st_size > 0
    if not logged or connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("database disk image is malformed: the file ends inside a page")


def _remove_empty_log(name: str) -> None:
    """Readers leave an empty log behind. SQLite removes it when a writer closes, if nobody else is there."""
    log = Path(f"{name}-wal")
    with suppress(OSError, sqlite3.Error):
        if log.stat().st_size == 0:
            with closing(sqlite3.connect(f"file:{quote(name)}?mode=rw", uri=True)) as writer:
                writer.execute("PRAGMA user_version").fetchone()


def _check_file(path: Path, *, create: bool) -> None:
    """Refuses what SQLite would only complain about in the middle of the work, or would create."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except FileNotFoundError:
        if not create:
            raise RecordError(
                f"there is no record store at {path}",
                "check the path, or name another with --records FILE; `simtune tune` and `batch` create one",
            ) from None
        if not path.parent.is_dir():
            raise RecordError(
                f"cannot create {path}: its folder does not exist", f"mkdir -p {path.parent}"
            ) from None
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise RecordError(f"cannot create {path}: its folder is not writable", _WRITABLE_HINT) from None
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}", _WRITABLE_HINT) from None
    else:
        if head != _MAGIC and (head or not create):
            raise RecordError(
                f"{path} is not a record store: it does not start like an SQLite database",
                "give another file with --records; if it was one, try: simtune records salvage",
            )


_WRITABLE_HINT = "choose another place with --records FILE or SIMTUNE_RECORDS, or mend the permissions"


def _open(name: str, readonly: bool, timeout: float) -> sqlite3.Connection:
    def attempt(options: str) -> sqlite3.Connection:
        uri = name if name == MEMORY else f"file:{quote(os.path.abspath(name))}{options}"
        connection = sqlite3.connect(
            uri, uri=name != MEMORY, timeout=timeout, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = TOLERANT_TEXT
        try:
            connection.execute("PRAGMA user_version").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    if not readonly:
        return attempt("")
    try:
        return attempt("?mode=ro")
    except sqlite3.OperationalError:
        # WAL needs a shared-memory file beside the store; where that cannot be made (a folder
        # without write permission), the store can still be read as long as nothing is pending.
        wal = Path(name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return attempt("?immutable=1")


def _prepare_for_writing(connection: sqlite3.Connection, name: str, timeout: float) -> None:
    # Of a new file: two or three simulations to a page instead of one, a quarter less on the disk.
    connection.execute("PRAGMA page_size = 8192")
    # Switching to WAL wants the file for itself, and SQLite does not wait for it on its own.
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 2000")
    connection.execute("PRAGMA cache_size = -65536")
    migrations.migrate(connection, name)
    connection.execute("PRAGMA foreign_keys = ON")


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turns SQLite's errors into `RecordError`, each with what to do next."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(name, error) from error


def _no_room(name: str) -> bool:
    try:
        disk = os.statvfs(os.path.dirname(os.path.abspath(name)))
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 64 << 10


def _explain(name: str, error: sqlite3.Error) -> RecordError:
    text = str(error)
    # Without room for its files beside the store, SQLite says that input or output failed.
    if "disk is full" in text or ("disk I/O" in text and _no_room(name)):
        return RecordError(
            f"{name}: the disk is full; everything committed before is safe",
            "free some space and run the same command again: finished jobs do not rerun",
        )
    if "locked" in text or "busy" in text:
        return RecordError(
            f"{name}: another process kept the store locked for too long",
            f"see who holds it: fuser -v {name}; stores must not be on a network file system",
        )
    if "readonly" in text or "read-only" in text or "unable to open" in text:
        return RecordError(f"{name}: the store or its folder is not writable ({text})", _WRITABLE_HINT)
    if "malformed" in text or "not a database" in text or "disk I/O" in text:
        return RecordError(
            f"{name} is damaged ({text})",
            f"save what is intact: simtune records salvage --records {name} -o salvaged.db",
        )
    if "FOREIGN KEY" in text:
        return RecordError(
            f"{name}: a row refers to one that is not stored",
            "store the workload before its run, and the simulation before its trial",
        )
    return RecordError(f"{name}: {text}", f"look for damage: simtune records check --records {name}")
