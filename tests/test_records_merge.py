# SPDX-License-Identifier: Apache-2.0
"""Merging stores: a semilattice in content, contradictions reported, the target whole at any moment."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import records_helpers as helpers
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.cli.records import command
from simtune.counters import Counters
from simtune.errors import RecordError
from simtune.jobs import Outcome, Status
from simtune.records import (
    Measurement,
    RecordStore,
    Run,
    RunState,
    Simulation,
    Trial,
    Workload,
    migrations,
    rows,
    tables,
)
from simtune.records.check import check
from simtune.records.merge import MergeReport, merge

WORKLOAD = Workload("matmul", [helpers.TENSOR], '["123", "QUUA"]')
EARLY, LATE = 1.0, 2.0


def content(path: Path) -> list[str]:
    """Every row of a store as text, in an order of its own; equal for stores with equal content."""
    with closing(sqlite3.connect(path)) as store:
        found = []
        for table in tables.TABLES:
            for row in store.execute(f"SELECT {table.select} FROM {table.name}"):
                assert table.intact(row)
                packed = [value if not isinstance(value, bytes) else rows.unpack(value) for value in row[:-1]]
                found.append(f"{table.name} {packed}")
        return sorted(found)


@dataclass
class Contents:
    """What a generated store holds."""

    runs: Sequence[Run] = ()
    simulations: Sequence[Simulation] = ()
    trials: Sequence[Trial] = ()
    measurements: Sequence[Measurement] = ()

    def write(self, path: Path) -> Path:
        with RecordStore(path) as store, store.batch():
            store.put_workload(WORKLOAD)
            for run in self.runs:
                store.put_run(run)
            store.put_results(self.simulations, self.trials)
            for measurement in self.measurements:
                store.put_measurement(measurement)
        return path


def run(number: int = 0, **changes: object) -> Run:
    values = {"started": 1.0, "config": {"seed": 7}} | changes
    return Run(f"run{number}", WORKLOAD.id, "sifive-u74", "0f3a", **values)  # type: ignore[arg-type]


def simulation(
    number: int = 0, outcome: Outcome | None = None, limit: int | None = None, created: float = EARLY
) -> Simulation:
    return Simulation(helpers.conditions(number), outcome or helpers.ok(), limit, created)


def trial(index: int = 0, status: Status = Status.OK, **changes: object) -> Trial:
    values = {"created": EARLY, "value": 1.0} | changes
    return Trial("run0", index, "c", status, **values)  # type: ignore[arg-type]


def merged(folder: Path, *contents: Contents) -> tuple[Path, MergeReport]:
    stores = [one.write(folder / f"{number}.db") for number, one in enumerate(contents)]
    return folder / "all.db", merge(stores, folder / "all.db")


def both_ways(folder: Path, one: Contents, other: Contents) -> tuple[Path, list[MergeReport]]:
    """Merges in both orders, checks that the content is the same, and gives both reports."""
    (folder / "ab").mkdir()
    (folder / "ba").mkdir()
    there, first = merged(folder / "ab", one, other)
    back, second = merged(folder / "ba", other, one)
    assert content(there) == content(back)
    assert check(there) == []
    return there, [first, second]


# The laws -----------------------------------------------------------------------------------------

moments = st.sampled_from([EARLY, LATE, float("nan"), float("inf"), float("-inf"), 0.0])
numbers = st.sampled_from([None, 0.0, 1.0, 2.5, float("nan"), float("inf")])
keys = st.integers(0, 2)
few_counters = st.builds(
    Counters,
    st.dictionaries(st.sampled_from(["loads", "stores"]), st.sampled_from([1, 1.0, 2.5, float("nan")])),
)
few_outcomes = st.builds(
    Outcome,
    status=st.sampled_from([Status.OK, Status.CRASHED, Status.TIMEOUT, Status.INFRASTRUCTURE]),
    counters=st.none() | few_counters,
    output=st.dictionaries(st.sampled_from(["checksum", "seconds.0"]), st.sampled_from(["1", "2"])),
    wall_s=st.sampled_from([0.0, 1.0]),
    error=st.sampled_from(["", "died"]),
)
few_simulations = st.builds(
    Simulation,
    keys.map(helpers.conditions),
    st.one_of(few_outcomes, helpers.outcomes),
    st.sampled_from([None, 0, 10, 2**53, 2**53 + 1]),
    moments,
)
few_runs = st.builds(
    run,
    keys,
    started=st.sampled_from([1.0, 2.0]),
    finished=st.none() | moments,
    state=st.sampled_from(RunState),
)
few_trials = st.builds(
    Trial,
    run=st.just("run0"),
    index=keys,
    candidate=st.sampled_from(["c", "d"]),
    status=st.sampled_from([Status.OK, Status.TIMEOUT, Status.INFRASTRUCTURE]),
    trace_json=st.sampled_from(["", "[1]", "[2]"]),
    value=numbers,
    measured_s=numbers,
    created=moments,
)
few_measurements = st.builds(
    Measurement,
    simulation=keys.map(lambda number: helpers.conditions(number).key),
    target=st.just("host"),
    seconds=st.sampled_from([[1.0], [2.0]]),
    median=st.sampled_from([1.0, float("nan")]),
    spread=st.just(0.0),
    created=moments,
)


def _complete(runs: Iterable[Run], simulations: Iterable[Simulation], trials, measurements) -> Contents:
    """Adds what the rows refer to; what only fills a gap is the same in every store."""
    runs, simulations = [run(), *runs], list(simulations)
    there = {simulation.key for simulation in simulations}
    fill = [simulation(n) for n in range(3) if helpers.conditions(n).key not in there]
    return Contents(runs, simulations + fill if measurements else simulations, trials, measurements)


contents = st.builds(
    _complete,
    st.lists(few_runs, max_size=3),
    st.lists(few_simulations, max_size=4),
    st.lists(few_trials, max_size=4),
    st.lists(few_measurements, max_size=2),
)


@settings(max_examples=30, deadline=None)
@given(contents, contents, contents)
def test_merging_is_associative_commutative_and_idempotent(a: Contents, b: Contents, c: Contents) -> None:
    # Many small files: in memory where the system has that.
    room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=room) as name:
        folder = Path(name)
        one, two, three = (x.write(folder / f"{n}.db") for n, x in enumerate((a, b, c)))
        made = 0

        def join(*stores: Path) -> Path:
            nonlocal made
            made += 1
            target = folder / f"merged{made}.db"
            merge(stores, target)
            return target

        together = content(join(one, two, three))
        assert content(join(join(one, two), three)) == together
        assert content(join(one, join(two, three))) == together
        assert content(join(three, two, one)) == together
        # Into an existing store, one after the other, and once more.
        target = folder / "target.db"
        shutil.copyfile(two, target)
        merge([three], target)
        merge([one, two], target)
        assert content(target) == together
        again = merge([one, two, three], target)
        assert content(target) == together
        assert not any(again.added.values())
        assert not any(again.replaced.values())
        assert content(join(one)) == content(one)


@pytest.mark.parametrize("limits", [(None, None), (10, 20), (None, 20)])
def test_merging_ranks_outcomes_as_storing_does(
    tmp_path: Path, limits: tuple[int | None, int | None]
) -> None:
    """What put_simulation lets displace another, whatever came first, is what a merge keeps."""
    number = 0
    for one in (Status.OK, Status.CRASHED, Status.TIMEOUT, Status.INFRASTRUCTURE):
        for other in (Status.TIMEOUT, Status.INFRASTRUCTURE):
            number += 1
            first, second = (
                simulation(number, helpers.ok() if status is Status.OK else Outcome(status), limit, created)
                for status, limit, created in ((one, limits[0], LATE), (other, limits[1], EARLY))
            )
            kept = []
            for order in ((first, second), (second, first)):
                with RecordStore(":memory:") as store:
                    for item in order:
                        store.put_simulations([item])
                    kept.append(store.simulation(first.key))
            if kept[0] != kept[1]:
                continue  # equals: storing keeps the later one
            folder = tmp_path / str(number)
            folder.mkdir()
            path, [report, _] = both_ways(folder, Contents((), [first]), Contents((), [second]))
            with RecordStore(path) as store:
                assert list(store.simulations()) == kept[:1]
            assert report.conflicts == []
    assert number == 8


# What is a conflict, and what is not --------------------------------------------------------------


def test_one_simulation_on_two_machines_is_no_conflict(tmp_path: Path) -> None:
    quick = helpers.ok(wall_s=0.1, command="/a/qemu x", output={"checksum": "ab", "seconds.0": "1"})
    slow = helpers.ok(wall_s=0.9, command="/b/qemu x", output={"checksum": "ab", "seconds.0": "2"})
    path, reports = both_ways(
        tmp_path,
        Contents((), [simulation(0, slow, created=LATE)]),
        Contents((), [simulation(0, quick, created=EARLY)]),
    )
    assert [report.conflicts for report in reports] == [[], []]
    with RecordStore(path) as store:
        assert [item.outcome.wall_s for item in store.simulations()] == [0.1], "the one stored first"


def test_other_counters_for_the_same_key_are_a_conflict(tmp_path: Path) -> None:
    counts = dict(helpers.COUNTERS.counts) | {"loads": 5}
    other = helpers.ok(counters=Counters(counts, "qemu 7.2.22"), output={"checksum": "cd"})
    path, reports = both_ways(
        tmp_path,
        Contents((), [simulation(created=EARLY)]),
        Contents((), [simulation(0, other, created=LATE)]),
    )
    for report, names in zip(reports, (("0.db", "1.db"), ("1.db", "0.db")), strict=True):
        [conflict] = report.conflicts
        assert (conflict.table, conflict.row) == ("simulation", helpers.conditions().key)
        assert conflict.differs == {"counters.loads": (100.0, 5), "output.checksum": ("ab", "cd")}
        assert (Path(conflict.kept).name, Path(conflict.lost).name) == names
        assert conflict.reason == "it was stored first"
    with RecordStore(path) as store:
        assert [item.outcome.counters for item in store.simulations()] == [helpers.COUNTERS]


def test_conflicts_with_the_target_name_both_stores(tmp_path: Path) -> None:
    target, _ = merged(tmp_path, Contents((), [simulation(created=LATE)]))
    other = Contents((), [simulation(0, Outcome(Status.CRASHED), created=EARLY)]).write(tmp_path / "o.db")
    better = Contents((), [simulation(0, helpers.ok(output={}), created=EARLY)]).write(tmp_path / "b.db")
    report = merge([other], target)
    [conflict] = report.conflicts
    assert (conflict.kept, conflict.lost, conflict.reason) == (str(target), str(other), "it is ok")
    assert conflict.differs["status"] == ("ok", "crashed")
    assert report.replaced["simulation"] == 0
    report = merge([better], target)
    [conflict] = report.conflicts
    assert (conflict.kept, conflict.lost, conflict.reason) == (
        str(better),
        str(target),
        "it was stored first",
    )
    assert (report.replaced["simulation"], report.total["simulation"]) == (1, 1)


def test_a_trial_is_measured_later_and_an_infrastructure_failure_repeated(tmp_path: Path) -> None:
    measured = trial(0, measured_s=0.5)
    path, reports = both_ways(
        tmp_path,
        Contents([run()], (), [trial(0), trial(1, Status.INFRASTRUCTURE, value=None)]),
        Contents([run()], (), [measured, trial(1, created=LATE)]),
    )
    assert [report.conflicts for report in reports] == [[], []]
    with RecordStore(path) as store:
        assert list(store.trials("run0")) == [measured, trial(1, created=LATE)]


def test_two_candidates_with_the_same_index_are_a_conflict(tmp_path: Path) -> None:
    other = replace(trial(), candidate="d", value=2.0, created=LATE)
    _, reports = both_ways(tmp_path, Contents([run()], (), [trial()]), Contents([run()], (), [other]))
    for report in reports:
        [conflict] = report.conflicts
        assert (conflict.table, conflict.row) == ("trial", "run0:0")
        assert conflict.differs == {"candidate": ("c", "d"), "value": (1.0, 2.0)}


def test_runs_that_are_running_stay_so_and_the_one_that_got_further_stays(tmp_path: Path) -> None:
    ended = run(0, state=RunState.FINISHED, finished=9.0)
    path, reports = both_ways(tmp_path, Contents([run(0), run(1)]), Contents([ended, run(2)]))
    assert [report.conflicts for report in reports] == [[], []]
    with RecordStore(path) as store:
        assert {one.id: one.state for one in store.runs()} == {
            "run0": RunState.FINISHED,
            "run1": RunState.RUNNING,
            "run2": RunState.RUNNING,
        }


def test_one_run_id_with_two_configurations_is_a_conflict(tmp_path: Path) -> None:
    _, [report, _] = both_ways(tmp_path, Contents([run()]), Contents([run(config={"seed": 8})]))
    [conflict] = report.conflicts
    assert sorted(conflict.differs["config"]) == ['{"seed":7}', '{"seed":8}']


# Sources ------------------------------------------------------------------------------------------


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_sources_are_not_touched_and_nothing_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "sources"
    folder.mkdir()
    helpers.filled_file(folder / "closed.db")
    with RecordStore(tmp_path / "live.db") as store:
        helpers.fill(store)
        for ending in ("", "-wal"):  # as after a kill: everything is in the log
            shutil.copyfile(f"{tmp_path / 'live.db'}{ending}", f"{folder / 'killed.db'}{ending}")
    before = bytes_of(folder)
    report = merge([folder / "closed.db", folder / "killed.db"], tmp_path / "all.db")
    assert report.total["trial"] == 40
    after = bytes_of(folder)
    after.pop("killed.db-shm", None)  # the log's index, which any reader makes
    assert after == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["all.db", "live.db", "sources"]


def test_a_source_without_write_permission(tmp_path: Path) -> None:
    with helpers.open_folder() as folder:
        (folder / "sources").mkdir()
        contents = helpers.filled_file(folder / "sources" / "r.db")
        (folder / "sources" / "r.db").chmod(0o444)
        (folder / "sources").chmod(0o555)
        (folder / "out").mkdir(mode=0o777)
        (folder / "out").chmod(0o777)
        code = "print(merge([sys.argv[1]], sys.argv[2]).total['trial'])"
        done = helpers.as_user(code, folder / "sources" / "r.db", folder / "out" / "all.db")
        assert done.stdout.strip() == "20", done.stderr
        with RecordStore(folder / "out" / "all.db", create=False) as store:
            assert helpers.contents(store) == contents
        (folder / "sources").chmod(0o755)
        refused = "try: merge([sys.argv[1]], sys.argv[2])\nexcept RecordError as error: print(error)"
        done = helpers.as_user(refused, folder / "sources" / "r.db", folder / "all.db")
        assert "cannot merge into" in done.stdout, done.stderr


def test_a_source_of_an_older_schema_is_brought_up_to_date_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.db"
    contents = helpers.filled_file(old)
    before = old.read_bytes()
    steps = (
        *migrations.MIGRATIONS,
        ("ALTER TABLE measurement ADD COLUMN note TEXT", "CREATE TABLE more (x)"),
    )
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    monkeypatch.setattr(migrations.refuse_foreign, "__defaults__", (steps,))
    monkeypatch.setattr(migrations.migrate, "__defaults__", (steps,))
    helpers.filled_file(tmp_path / "new.db", 5)
    report = merge([old, tmp_path / "new.db"], tmp_path / "all.db")
    assert (report.total["run"], report.refused) == (2, [])
    assert old.read_bytes() == before
    merge([old], tmp_path / "one.db")
    with RecordStore(tmp_path / "one.db", create=False) as store:
        assert helpers.contents(store) == contents


def test_damaged_rows_are_left_out_and_the_rest_is_merged(tmp_path: Path) -> None:
    sound, broken, target = tmp_path / "sound.db", tmp_path / "broken.db", tmp_path / "all.db"
    helpers.filled_file(sound)
    shutil.copyfile(sound, broken)
    with closing(sqlite3.connect(broken, isolation_level=None)) as connection:
        connection.execute("UPDATE trial SET value = 1e-9 WHERE idx = 6")
        connection.execute(
            "UPDATE simulation SET counters = '{}' WHERE key = ?", (helpers.conditions(3).key,)
        )
    report = merge([broken], target)
    assert {(item.table, item.row.split(":")[-1]) for item in report.refused} == {
        ("simulation", helpers.conditions(3).key),
        ("trial", "6"),
    }
    assert all("simtune records" in item.advice and item.store == str(broken) for item in report.refused)
    assert (report.total["simulation"], report.total["trial"]) == (19, 19)
    assert [(item.table, item.problem.split()[2]) for item in check(target)] == [
        ("trial", "simulation"),  # the trial of the simulation that was refused keeps its numbers
        ("measurement", "simulation"),
    ]
    # A target heals: the sound version takes the place of the damaged one.
    shutil.copyfile(broken, target)
    report = merge([sound], target)
    assert (report.added["simulation"], report.added["trial"], report.conflicts) == (1, 1, [])
    assert content(target) == content(sound)


def test_a_source_that_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    helpers.filled_file(path, 200)
    data = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'trial'")
        [(size,)] = connection.execute("PRAGMA page_size")
    data[(root - 1) * size : (root - 1) * size + 8] = b"\xff" * 8
    path.write_bytes(data)
    report = merge([path], tmp_path / "all.db")
    assert [(item.table, item.row) for item in report.refused] == [("trial", "")]
    assert "salvage" in report.refused[0].advice
    assert (report.total["simulation"], report.total["measurement"]) == (200, 200)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no record store"),
        (lambda path: path.write_bytes(b"run,index"), "not a record store"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096]), "salvage"),
        (lambda path: newer(path), "version 99"),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_source_that_cannot_be_opened_leaves_the_target_alone(
    tmp_path: Path, spoil: Callable[[Path], object], message: str, existing: bool
) -> None:
    for name in ("a.db", "b.db", *(["all.db"] if existing else [])):
        helpers.filled_file(tmp_path / name, 3)
    spoil(tmp_path / "b.db")
    before = bytes_of(tmp_path)
    with pytest.raises(RecordError) as caught:
        merge([tmp_path / "a.db", tmp_path / "b.db"], tmp_path / "all.db")
    assert message in str(caught.value)
    after = bytes_of(tmp_path)
    for ending in ("-wal", "-shm"):  # SQLite does not tidy up after a reader of a damaged file
        after.pop(f"b.db{ending}", None)
    assert after == before


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 99")


def test_a_target_that_is_no_store_or_in_no_folder(tmp_path: Path) -> None:
    helpers.filled_file(tmp_path / "a.db", 3)
    (tmp_path / "text").write_text("run,index\n")
    with pytest.raises(RecordError, match="not a record store"):
        merge([tmp_path / "a.db"], tmp_path / "text")
    assert (tmp_path / "text").read_text() == "run,index\n"
    with pytest.raises(RecordError, match="does not exist"):
        merge([tmp_path / "a.db"], tmp_path / "no" / "all.db")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "text"]


def test_a_store_merged_into_itself_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    contents = helpers.filled_file(path)
    report = merge([path, path], path)
    assert report.conflicts == []
    assert not any(report.added.values())
    with RecordStore(path, create=False) as store:
        assert helpers.contents(store) == contents


# Kill and concurrency -----------------------------------------------------------------------------

MERGER = """
import sys
from simtune.records.merge import merge
merge(sys.argv[2:], sys.argv[1], lambda done, total, what: print(what, done, flush=True))
print("done", flush=True)
"""

DRIVER = """
import sys
import records_helpers as helpers
from simtune.records import RecordStore, Trial
with RecordStore(sys.argv[1]) as store:
    run = helpers.fill(store, 0)
    print(run.id, flush=True)
    for number in range(int(sys.argv[2])):
        simulation = helpers.simulation(number)
        trial = Trial(run.id, number, "c", simulation.outcome.status, simulation=simulation.key)
        store.put_results([simulation], [trial])
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": helpers.PYTHONPATH},
    )


# 14 chunks are read; when the target exists, as many are then written in one transaction.
@pytest.mark.parametrize(("existing", "moments"), [(False, (1, 9, 14, 15)), (True, (1, 15, 20, 28, 29))])
def test_kill_leaves_the_target_as_it_was_or_complete(
    tmp_path: Path, existing: bool, moments: tuple[int, ...]
) -> None:
    source, base, expected = tmp_path / "a.db", tmp_path / "base.db", tmp_path / "expected.db"
    helpers.filled_file(source, 1200)
    helpers.filled_file(base, 50)
    merge([source, base] if existing else [source], expected)
    outcomes = []
    for lines in moments:
        folder = tmp_path / str(lines)
        folder.mkdir()
        target = folder / "all.db"
        if existing:
            shutil.copyfile(base, target)
        process = start(MERGER, target, source)
        assert process.stdout is not None
        for _ in range(lines):
            if process.stdout.readline() in ("", "done\n"):
                break
        process.kill()
        process.wait()
        process.stdout.close()
        if target.exists():
            with RecordStore(target, create=False) as store:  # takes up the log that was left
                store.runs()
        found = content(target) if target.exists() else None
        assert found in (content(base) if existing else None, content(expected))
        outcomes.append(found == content(expected))
        merge([source], target)
        assert content(target) == content(expected)
        assert [file.name for file in folder.iterdir()] == ["all.db"], "scratch of the killed one is gone"
    assert not outcomes[0]
    assert outcomes[-1]


def test_two_drivers_and_a_merge_in_one_store(tmp_path: Path) -> None:
    """Each driver has a run of its own; they simulate the same candidates, as runs of one workload do."""
    target, source = tmp_path / "all.db", tmp_path / "source.db"
    helpers.filled_file(source, 600)
    helpers.filled_file(target, 5)
    drivers = [start(DRIVER, target, 250) for _ in range(2)]
    mergers = [start(MERGER, target, source) for _ in range(2)]
    runs = []
    for process in drivers:
        assert process.stdout is not None
        runs.append(process.stdout.readline().strip())
    for process in (*drivers, *mergers):
        process.communicate(timeout=120)
        assert process.returncode == 0
    with RecordStore(target, create=False) as store:
        for run_id in runs:
            briefs = list(store.trial_briefs(run_id))
            assert [brief.index for brief in briefs] == list(range(250))
            assert {brief.status for brief in briefs} == {Status.OK, Status.CRASHED}
        assert len(list(store.simulations())) == 600
        assert len(store.runs()) == 4
    assert check(target) == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["all.db", "source.db"]


# The command --------------------------------------------------------------------------------------


def test_command(tmp_path: Path) -> None:
    one, other, target = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "all.db"
    helpers.filled_file(one)
    helpers.filled_file(other, 25)
    arguments = ["merge", str(one), str(other), "--into", str(target)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    row = next(line for line in result.output.splitlines() if "simulation" in line)
    assert row.split() == ["simulation", "25", "0", "0", "25"]
    assert f"merged into {target}" in result.output
    result = CliRunner().invoke(command, [*arguments, "--json"])
    report = json.loads(result.output)
    assert result.exit_code == 0
    assert (report["added"]["trial"], report["same"]["trial"], report["total"]["trial"]) == (0, 45, 45)
    assert (report["conflicts"], report["refused"]) == ([], [])


def test_command_lists_conflicts_and_what_was_left_out(tmp_path: Path) -> None:
    one, other, target = tmp_path / "a.db", tmp_path / "b.db", tmp_path / "all.db"
    helpers.filled_file(one)
    with RecordStore(other) as store:
        store.put_simulation(helpers.conditions(3), helpers.ok(output={"checksum": "[x]"}))
    with closing(sqlite3.connect(one, isolation_level=None)) as connection:
        connection.execute("UPDATE trial SET value = 1e-9 WHERE idx = 6")
    arguments = ["merge", str(one), str(other), "-o", str(target)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 1
    for part in ("output.checksum: ab, [x]", "it was stored first", "checksum does not fit", "records check"):
        assert part in result.output
    report = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).output)
    [conflict] = report["conflicts"]
    assert (conflict["kept"], conflict["lost"]) == (str(one), str(other))
    assert [item["store"] for item in report["refused"]] == [str(one)]
