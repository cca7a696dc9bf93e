# SPDX-License-Identifier: Apache-2.0
"""Store files that are damaged, foreign, old, new, read-only or not there."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import records_helpers as helpers

from simtune.counters import Counters
from simtune.errors import RecordError
from simtune.jobs import Outcome, Status
from simtune.records import RecordStore, migrations
from simtune.records.check import check
from simtune.records.files import whole_file
from simtune.records.migrations import APPLICATION_ID, MIGRATIONS, migrate
from simtune.records.salvage import salvage
from simtune.records.store import default_store_path, open_existing

Contents = dict[str, list[object]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Contents]:
    """A store file of some 30 pages, with rows that fill overflow pages, and what is in it."""
    path = tmp_path_factory.mktemp("sound") / "r.db"
    helpers.filled_file(path, 60)
    with RecordStore(path) as store:
        store.put_simulation(helpers.conditions(99), Outcome(Status.CRASHED, error="x" * 15_000))
        contents = helpers.contents(store)
    return path.read_bytes(), contents


def test_a_sound_store_has_no_findings(tmp_path: Path, sound: tuple[bytes, Contents]) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(sound[0])
    assert check(path) == []


# Opening ------------------------------------------------------------------------------------------


def test_reading_never_creates(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    for attempt in (open_existing, check, lambda p: RecordStore(p, create=False)):
        with pytest.raises(RecordError, match="no record store"):
            attempt(path)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="folder does not exist") as caught:
        RecordStore(tmp_path / "no" / "r.db")
    assert caught.value.hint.startswith("mkdir -p")


def test_text_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_text("run,index\n")
    with pytest.raises(RecordError, match="not a record store"):
        RecordStore(path)
    assert path.read_text() == "run,index\n"
    assert [file.name for file in tmp_path.iterdir()] == ["r.db"]


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot read"):
        RecordStore(tmp_path)


def test_empty_file_becomes_a_store_only_when_it_may(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.touch()
    with pytest.raises(RecordError, match="not a record store"):
        RecordStore(path, create=False)
    with RecordStore(path) as store:
        assert store.runs() == []


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE trial (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"]
)
def test_foreign_database_is_refused_and_left_alone(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "r.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute(statement)
    before = path.read_bytes()
    with pytest.raises(RecordError, match="another program"):
        RecordStore(path)
    assert path.read_bytes() == before


def test_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    helpers.filled_file(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RecordError, match=rf"version 99.*version {len(MIGRATIONS)}") as caught:
        RecordStore(path)
    assert "newer" in caught.value.hint
    with pytest.raises(RecordError, match="99"):
        check(path)


def test_read_only_folder() -> None:
    with helpers.open_folder() as folder:
        path = folder / "r.db"
        helpers.filled_file(path)
        path.chmod(0o444)
        folder.chmod(0o555)
        read = helpers.as_user("print(len(list(open_existing(sys.argv[1]).simulations())))", path)
        assert read.stdout.strip() == "20", read.stderr
        write = helpers.as_user(
            "try: RecordStore(sys.argv[1]).put_simulation(helpers.conditions(), helpers.ok())\n"
            "except RecordError as error: print(error)",
            path,
        )
        assert "not writable" in write.stdout, write.stderr
        create = helpers.as_user(
            "try: RecordStore(sys.argv[1])\nexcept RecordError as error: print(error)", folder / "new.db"
        )
        assert "not writable" in create.stdout, create.stderr


def test_default_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMTUNE_RECORDS", raising=False)
    assert default_store_path() == Path("simtune-records.db")
    monkeypatch.setenv("SIMTUNE_RECORDS", "/x/y.db")
    assert default_store_path() == Path("/x/y.db")


# Migrations ---------------------------------------------------------------------------------------

FAKE_STEPS = (
    ("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)"),
    ("ALTER TABLE a ADD COLUMN y",),
    ("CREATE TABLE b (z)", "INSERT INTO b SELECT x FROM a"),
)


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


@pytest.mark.parametrize("start", range(4))
def test_every_older_version_becomes_the_newest(start: int) -> None:
    with closing(memory()) as connection:
        migrate(connection, "x", FAKE_STEPS[:start])
        migrate(connection, "x", FAKE_STEPS)
        assert connection.execute("SELECT z FROM b").fetchall() == [(1,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_failing_step_changes_nothing() -> None:
    with closing(memory()) as connection:
        migrate(connection, "x", FAKE_STEPS[:2])
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, "x", (*FAKE_STEPS[:2], ("CREATE TABLE b (z)", "nonsense")))
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
        assert not connection.in_transaction


def test_a_nullable_column_added_later_keeps_old_rows_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a next step is most likely to do must not turn every stored row into damage."""
    path = tmp_path / "r.db"
    contents = helpers.filled_file(path)
    steps = (*MIGRATIONS, ("ALTER TABLE measurement ADD COLUMN note TEXT",))
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, "x", steps)
    monkeypatch.setattr(migrations.refuse_foreign, "__defaults__", (steps,))
    monkeypatch.setattr(migrations.migrate, "__defaults__", (steps,))
    with RecordStore(path) as store:
        assert helpers.contents(store) == contents


# Damage -------------------------------------------------------------------------------------------


def test_row_damage_is_found_and_never_reused(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    helpers.filled_file(path)
    damaged, key = helpers.conditions(3), helpers.conditions(3).key
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE simulation SET counters = replace(counters, '100', '101') WHERE key = ?", (key,)
        )
        connection.execute("UPDATE trial SET value = 1e-9 WHERE idx = 6")
    findings = check(path)
    assert {(finding.table, finding.row.split(":")[-1]) for finding in findings} == {
        ("simulation", key),
        ("trial", "6"),
    }
    assert all(finding.advice for finding in findings)
    with RecordStore(path) as store:
        assert store.get_simulation(key) is None
        with pytest.raises(RecordError, match="damaged"):
            store.best_trial()
        with pytest.raises(RecordError, match="damaged"):
            list(store.simulations())
        store.put_simulation(damaged, helpers.ok())
        assert store.get_simulation(key) is not None


def test_dangling_references_are_found(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    helpers.filled_file(path, 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM simulation WHERE key = ?", (helpers.conditions(2).key,))
        connection.execute("DELETE FROM trace WHERE rowid = 4")
        connection.execute("DELETE FROM workload")
    problems = sorted((finding.table, finding.problem.split()[2]) for finding in check(path))
    assert problems == [
        ("measurement", "simulation"),
        ("run", "workload"),
        ("trial", "simulation"),
        ("trial", "trace"),
    ]


def test_impossible_counters_are_found(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with RecordStore(path) as store:
        store.put_simulation(helpers.conditions(1), helpers.ok(counters=Counters({"loads": -1.0})))
        store.put_simulation(helpers.conditions(2), helpers.ok(counters=Counters({"loads": float("nan")})))
        newer = Counters({"loads": 1.0}, schema_version=99)
        store.put_simulation(helpers.conditions(3), helpers.ok(counters=newer))
        store.put_simulation(helpers.conditions(4), helpers.ok(counters=None))
    problems = " ".join(finding.problem for finding in check(path))
    for part in ("loads = -1.0", "loads = nan", "version 99", "no counters"):
        assert part in problems


def outcome_of_reading(path: Path) -> Contents | None:
    """What a store holds, or None when it says that it is damaged."""
    try:
        with RecordStore(path, create=False) as store:
            return helpers.contents(store)
    except RecordError as error:
        if not error.hint:
            raise
        return None


def test_bit_flips_are_found(tmp_path: Path, sound: tuple[bytes, Contents]) -> None:
    data, contents = sound
    chosen = random.Random(7)
    harmless = 0
    for number in range(300):
        position, bit = chosen.randrange(len(data)), chosen.randrange(8)
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        path = tmp_path / f"{number}.db"
        path.write_bytes(flipped)
        try:
            found = check(path)
        except RecordError:  # taken for a foreign or newer file
            continue
        if not found:
            # In unused space, or in SQLite's own bookkeeping: then nothing may be different.
            assert outcome_of_reading(path) == contents, f"byte {position}, bit {bit}"
            harmless += 1
    assert harmless < 150


def simulations_in(path: Path) -> list[object]:
    with RecordStore(path, create=False) as store:
        return list(store.simulations())


def test_a_cut_tail_opens_or_is_salvaged(tmp_path: Path, sound: tuple[bytes, Contents]) -> None:
    data, contents = sound
    page = 4096
    cuts = [len(data) - n for n in (1, 2, 100, page - 1, page, page + 1)] + list(
        range(1, len(data), 3 * page + 5)
    )
    for cut in cuts:
        path, out = tmp_path / f"{cut}.db", tmp_path / f"{cut}-out.db"
        path.write_bytes(data[:cut])
        read = outcome_of_reading(path)
        assert read is None or read == contents
        report = salvage(path, out)
        assert path.read_bytes()[:16] == data[:cut][:16]
        for simulation in simulations_in(out):
            assert simulation in contents["simulations"]
        assert report.saved["simulation"] <= len(contents["simulations"])
        if cut > len(data) - 100:
            assert report.saved["simulation"] >= len(contents["simulations"]) - 3


def test_salvage_of_a_sound_store_is_a_copy(tmp_path: Path) -> None:
    contents = helpers.filled_file(tmp_path / "r.db")
    report = salvage(tmp_path / "r.db", tmp_path / "out.db")
    with RecordStore(tmp_path / "out.db", create=False) as store:
        assert helpers.contents(store) == contents
    assert report.damaged == {}
    assert report.unreadable == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.db", "r.db"]


def test_salvage_reads_a_log_that_was_never_checkpointed(tmp_path: Path) -> None:
    path, copy = tmp_path / "r.db", tmp_path / "copy.db"
    with RecordStore(path) as store:
        helpers.fill(store)
        contents = helpers.contents(store)
        # As after a kill: rows are still in the log.
        shutil.copyfile(path, copy)
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    salvage(copy, tmp_path / "whole.db")
    with RecordStore(tmp_path / "whole.db", create=False) as store:
        assert helpers.contents(store) == contents
    # With its header gone, nothing but the pages is left to read.
    for file, header in ((copy, 100), (Path(f"{copy}-wal"), 32)):
        file.write_bytes(b"\0" * header + file.read_bytes()[header:])
    report = salvage(copy, tmp_path / "raw.db")
    assert report.unreadable
    with RecordStore(tmp_path / "raw.db", create=False) as store:
        found = helpers.contents(store)
    assert sorted(map(repr, found["simulations"])) == sorted(map(repr, contents["simulations"]))
    assert found["trials"] == contents["trials"]


def test_salvage_without_a_tree_finds_every_row(tmp_path: Path, sound: tuple[bytes, Contents]) -> None:
    data, contents = sound
    path, out = tmp_path / "r.db", tmp_path / "out.db"
    path.write_bytes(b"\0" * 4096 + data[4096:])
    salvage(path, out)
    with RecordStore(out, create=False) as store:
        found = helpers.contents(store)
    for table in ("simulations", "trials", "measurements"):
        assert sorted(map(repr, found[table])) == sorted(map(repr, contents[table]))


def test_salvage_of_random_bytes_never_fails(tmp_path: Path, sound: tuple[bytes, Contents]) -> None:
    chosen = random.Random(3)
    for number in range(30):
        data = bytearray(sound[0])
        for _ in range(200):
            position = chosen.randrange(len(data))
            data[position : position + 8] = chosen.randbytes(8)
        path, out = tmp_path / f"{number}.db", tmp_path / f"{number}-out.db"
        path.write_bytes(data)
        salvage(path, out)
        for simulation in simulations_in(out):
            assert simulation in sound[1]["simulations"]


def test_salvage_refuses_to_overwrite(tmp_path: Path) -> None:
    helpers.filled_file(tmp_path / "r.db", 1)
    with pytest.raises(RecordError, match="exists already"):
        salvage(tmp_path / "r.db", tmp_path / "r.db")
    with pytest.raises(RecordError, match="no record store"):
        salvage(tmp_path / "x.db", tmp_path / "y.db")
    with pytest.raises(RecordError, match="does not exist"):
        salvage(tmp_path / "r.db", tmp_path / "no" / "y.db")


# Whole files --------------------------------------------------------------------------------------


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    with whole_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    with pytest.raises(RecordError, match="cannot write"), whole_file(tmp_path / "no" / "x"):
        pass
