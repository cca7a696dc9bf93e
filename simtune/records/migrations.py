# SPDX-License-Identifier: Apache-2.0
"""The schema of the store, as the ordered steps that led to it.

Step N takes a store from version N-1 to N (SQLite's ``user_version``). Steps are never edited
after a release: a change of the schema is a new step.

Notes on the tables:
- Every row starts with a checksum over its other columns (`simtune.records.rows`): SQLite notices
  a broken page structure, but not a flipped bit inside a value. NULLs do not enter it, so a later
  step may add nullable columns without touching old rows.
- Traces are stored once per content, apart from the trials, so that trial rows stay small and a
  resume scan does not have to read them.
- A REAL column holds NaN as the text ``nan``, since SQLite would turn it into NULL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from simtune.errors import RecordError

#: "simt": marks the file as ours, see SQLite's application_id.
APPLICATION_ID = 0x73696D74

Step = tuple[str, ...]

MIGRATIONS: tuple[Step, ...] = (
    (
        """CREATE TABLE workload (
            checksum BLOB NOT NULL,
            id TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            arguments TEXT NOT NULL,
            tvm_json BLOB NOT NULL)""",
        """CREATE TABLE run (
            checksum BLOB NOT NULL,
            id TEXT NOT NULL UNIQUE,
            workload TEXT NOT NULL REFERENCES workload (id),
            machine TEXT NOT NULL,
            machine_digest TEXT NOT NULL,
            target TEXT NOT NULL,
            config TEXT NOT NULL,
            config_digest TEXT NOT NULL,
            versions TEXT NOT NULL,
            started REAL NOT NULL,
            finished REAL,
            state TEXT NOT NULL)""",
        """CREATE TABLE simulation (
            checksum BLOB NOT NULL,
            key TEXT NOT NULL UNIQUE,
            object_sha256 TEXT NOT NULL,
            simulator TEXT NOT NULL,
            simulator_version TEXT NOT NULL,
            machine_digest TEXT NOT NULL,
            arguments TEXT NOT NULL,
            seed INTEGER NOT NULL,
            count_options TEXT NOT NULL,
            schema_version INTEGER NOT NULL,
            status TEXT NOT NULL,
            stage TEXT NOT NULL,
            instruction_limit INTEGER,
            wall_s REAL NOT NULL,
            cpu_s REAL NOT NULL,
            peak_rss INTEGER NOT NULL,
            created REAL NOT NULL,
            counters TEXT,
            counters_simulator TEXT NOT NULL,
            replacement TEXT NOT NULL,
            counters_version INTEGER NOT NULL,
            output TEXT NOT NULL,
            error TEXT NOT NULL,
            command TEXT NOT NULL,
            blocks BLOB)""",
        """CREATE TABLE trace (
            checksum BLOB NOT NULL,
            id TEXT NOT NULL UNIQUE,
            json BLOB NOT NULL)""",
        """CREATE TABLE trial (
            checksum BLOB NOT NULL,
            run TEXT NOT NULL REFERENCES run (id),
            idx INTEGER NOT NULL,
            candidate TEXT NOT NULL,
            status TEXT NOT NULL,
            value REAL,
            simulation TEXT REFERENCES simulation (key),
            is_reference INTEGER NOT NULL,
            trace TEXT REFERENCES trace (id),
            predicted_s REAL,
            measured_s REAL,
            build_s REAL NOT NULL,
            link_s REAL NOT NULL,
            simulate_s REAL NOT NULL,
            created REAL NOT NULL,
            stage TEXT NOT NULL,
            error TEXT NOT NULL,
            command TEXT NOT NULL,
            UNIQUE (run, idx))""",
        """CREATE TABLE measurement (
            checksum BLOB NOT NULL,
            simulation TEXT NOT NULL REFERENCES simulation (key),
            target TEXT NOT NULL,
            seconds TEXT NOT NULL,
            median REAL NOT NULL,
            spread REAL NOT NULL,
            conditions TEXT NOT NULL,
            created REAL NOT NULL,
            UNIQUE (simulation, target, created))""",
        "CREATE INDEX run_resume ON run (workload, machine_digest, config_digest)",
    ),
)


def migrate(connection: sqlite3.Connection, name: str, steps: Sequence[Step] = MIGRATIONS) -> None:
    """Brings the store to the newest version; each step is one transaction.

    The connection must be in autocommit mode (``isolation_level=None``).

    Raises:
        RecordError: the file is a foreign database, or was written by a newer simtune.
    """
    while refuse_foreign(connection, name, steps) < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have done the step while this one waited for the lock.
            version = refuse_foreign(connection, name, steps)
            if version < len(steps):
                for statement in steps[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def refuse_foreign(connection: sqlite3.Connection, name: str, steps: Sequence[Step] = MIGRATIONS) -> int:
    """The schema version of the store; 0 for an empty file.

    Raises:
        RecordError: the file is a foreign database, or was written by a newer simtune.
    """
    own = not connection.in_transaction
    if own:
        connection.execute("BEGIN")  # one look: another process may just be creating the store
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        foreign = application != APPLICATION_ID and (
            application or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        )
    finally:
        if own and connection.in_transaction:
            connection.execute("ROLLBACK")
    if foreign:
        raise RecordError(
            f"{name} is an SQLite database of another program, not a simtune record store",
            "give another file with --records, or set SIMTUNE_RECORDS",
        )
    if version > len(steps):
        raise RecordError(
            f"{name} has record schema version {version}, this simtune knows up to version {len(steps)}",
            "use the simtune that wrote it or a newer one: pip install --upgrade simtune",
        )
    return version
