# SPDX-License-Identifier: Apache-2.0
"""A store cut at every byte of its tail opens with whole transactions only, or says what to salvage."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import records_helpers as helpers

from simtune.counters import Counters
from simtune.errors import RecordError
from simtune.jobs import Status
from simtune.records import RecordStore, Simulation, Trial
from simtune.records.check import check
from simtune.records.salvage import salvage

Contents = dict[str, list[Any]]

#: Small pages make a transaction a few thousand bytes, so that every one of them can be cut at.
PAGE = 512


@dataclass(frozen=True)
class Cut:
    """A store as a killed driver leaves it.

    Attributes:
        main, log: bytes of the file and of its write-ahead log.
        commits: size of the log after each transaction, and what the store held then.
    """

    main: bytes
    log: bytes
    commits: list[tuple[int, Contents]]

    def contents_at(self, cut: int) -> Contents:
        """What the log tells up to a cut; nothing before the run is there."""
        empty: Contents = {table: [] for table in self.commits[0][1]}
        return next((contents for size, contents in reversed(self.commits) if size <= cut), empty)


def write(path: Path, page: int, commits: int) -> Cut:
    """Transactions of one simulation and its trial each; then the process is gone."""
    with closing(sqlite3.connect(path, isolation_level=None)) as empty:
        empty.execute(f"PRAGMA page_size = {page}")
        empty.execute("VACUUM")
    log = Path(f"{path}-wal")
    sizes = []
    with RecordStore(path) as store:
        run = helpers.fill(store, 0)
        for number in range(commits):
            sizes.append((log.stat().st_size, helpers.contents(store)))
            outcome = helpers.ok(counters=Counters({"loads": number}, "qemu 7.2.22"))
            simulation = Simulation(helpers.conditions(number), outcome)
            trace = f'[["Tile", {number}]]' * 5
            trial = Trial(run.id, number, "c", Status.OK, trace, simulation.key, value=1.0)
            store.put_results([simulation], [trial])
        sizes.append((log.stat().st_size, helpers.contents(store)))
        return Cut(path.read_bytes(), log.read_bytes(), sizes)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return write(tmp_path_factory.mktemp("small") / "r.db", PAGE, 6)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Thousands of small files: in memory where the system has that."""
    room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=room) as name:
        yield Path(name)


def read(path: Path, readonly: bool) -> Contents | None:
    """What a store holds, or None when it refuses, which must come with advice to salvage."""
    try:
        with RecordStore(path, create=False, readonly=readonly) as store:
            return helpers.contents(store)
    except RecordError as error:
        if "salvage" not in str(error):
            raise
        return None


def place(path: Path, main: bytes, log: bytes) -> None:
    """A copy of a store, without the index of another log."""
    path.write_bytes(main)
    Path(f"{path}-wal").write_bytes(log)
    Path(f"{path}-shm").unlink(missing_ok=True)


def assert_only_written_rows(found: Contents, written: Contents) -> None:
    """A trial keeps its numbers when its trace, a row of its own, is lost."""
    trials = [*written["trials"], *(replace(trial, trace_json="") for trial in written["trials"])]
    for table, rows in found.items():
        for row in rows:
            assert row in (trials if table == "trials" else written[table])


def test_a_log_cut_at_every_byte_of_its_last_transaction(small: Cut, folder: Path) -> None:
    path = folder / "r.db"
    (before, previous), (end, last) = small.commits[-2:]
    assert 2000 < end - before < 4000
    assert len(last["trials"]) == len(previous["trials"]) + 1
    [run] = last["runs"]
    for cut in range(end, before - 1, -1):
        place(path, small.main, small.log[:cut])
        expected = last if cut == end else previous
        with RecordStore(path, create=False, readonly=True) as store:
            assert list(store.simulations()) == expected["simulations"], f"cut at {cut}"
            assert len(list(store.trial_briefs(run.id))) == len(expected["trials"])


@pytest.mark.parametrize("page", [PAGE, 8192])
def test_a_cut_log_is_written_on_and_salvaged(folder: Path, page: int) -> None:
    """Before, at, after the beginning of every frame, and inside it; with pages of either size."""
    store = write(folder / "whole.db", page, 5)
    end, last = store.commits[-1]
    frame = 24 + page
    steps = {edge + step for edge in range(32, end + 1, frame) for step in (-1, 0, 1, frame // 2)}
    opened = set()
    for number, cut in enumerate(sorted(steps)):
        path, out = folder / "r.db", folder / "out.db"
        place(path, store.main, store.log[:cut])
        expected = store.contents_at(cut)
        if number % 5 == 0:
            salvage(path, out)
            with RecordStore(out, create=False) as saved:
                held = helpers.contents(saved)
            assert_only_written_rows(held, last)
            for table, rows in expected.items():
                assert all(row in held[table] for row in rows)
            out.unlink()
        # A reader makes no tables: before the first transaction there is nothing that it could read.
        assert read(path, readonly=number % 2 == 0 and cut >= store.commits[0][0]) == expected
        opened.add(len(expected["trials"]))
        with RecordStore(path, create=False) as taken_up:
            taken_up.put_simulation(helpers.conditions(99), helpers.ok())
        assert check(path) == []
    assert opened == set(range(6))


def test_a_file_cut_at_every_byte_of_its_last_pages(small: Cut, folder: Path) -> None:
    path = folder / "r.db"
    place(path, small.main, small.log)
    contents = read(path, readonly=False)  # closing it leaves everything in the file
    main = path.read_bytes()
    assert not Path(f"{path}-wal").exists()
    assert contents == small.commits[-1][1]
    everywhere = {edge + step for edge in range(PAGE, len(main), PAGE) for step in (-1, 0, 1, PAGE // 2)}
    cuts = sorted({*range(len(main) - 2 * PAGE, len(main)), *everywhere}, reverse=True)
    for cut in cuts:
        os.truncate(path, cut)
        assert read(path, readonly=True) is None, f"cut at {cut} of {len(main)}"
    for cut in cuts[:: len(cuts) // 30]:
        path.write_bytes(main[:cut])
        assert f"salvage --records {path}" in check(path)[0].advice
        salvage(path, folder / f"{cut}.db")
        with RecordStore(folder / f"{cut}.db", create=False) as saved:
            assert_only_written_rows(helpers.contents(saved), contents)


def test_a_cut_file_with_its_log_still_there(small: Cut, folder: Path) -> None:
    """As after a power cut in the middle of a checkpoint: the log has what the file lacks."""
    path = folder / "r.db"
    place(path, small.main, small.log)
    read(path, readonly=False)
    main, last = path.read_bytes(), small.commits[-1][1]
    for cut in range(len(main), 0, -197):
        place(path, main[:cut], small.log)
        assert read(path, readonly=True) == last


def test_a_file_cut_inside_an_index_is_refused(folder: Path) -> None:
    """SQLite would find nothing under some keys, without an error."""
    path = folder / "r.db"
    for commits in range(1, 40):
        write(path, PAGE, commits)
        main = path.read_bytes()
        if main[-PAGE] == 0x0A:
            break
        path.unlink()
    assert main[-PAGE] == 0x0A, "no store whose last page is the leaf of an index"
    for cut in range(len(main) - PAGE + 1, len(main), 16):
        path.write_bytes(main[:cut])
        for readonly in (False, True):
            assert read(path, readonly) is None
