# SPDX-License-Identifier: Apache-2.0
"""Batches: every kind of job with the real simulator, what is run again and what is not, bad input."""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from batch_helpers import (
    MATMULS,
    by_name,
    copy_object,
    run_batch,
    spinner,
    tar_of,
    trials_of,
    tuning_records,
    work_directory,
)
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from process_helpers import shell

import simtune
from simtune.batching.find import find
from simtune.batching.identity import Digests, file_candidate
from simtune.batching.model import Finished, Observer
from simtune.batching.progress import Progress
from simtune.build.image import Tensor
from simtune.cli.main import cli
from simtune.errors import ConfigurationError, InputFileError, SimtuneError
from simtune.execution.view import View, WorkerView
from simtune.jobs import Status
from simtune.lengths import Lengths
from simtune.machines.model import Machine
from simtune.records import Conditions, RecordStore, Run
from simtune.records.model import Trial
from simtune.records.origins import Origin, origin_of
from simtune.records.tvm_format import RECORD_FILE

ARGS = next(iter(MATMULS.values()))
Build = Callable[[str, Machine], Path]


@pytest.fixture
def objects(tmp_path: Path, build_default: Build, u74: Machine) -> Path:
    """Four objects in a folder with a folder inside."""
    folder = tmp_path / "objects"
    for number, workload in enumerate(MATMULS):
        inside = folder / "deep" if number == 3 else folder
        copy_object(build_default(workload, u74), inside / f"c{number}.o")
    return folder


class Seen(Observer):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.jobs: list[Finished] = []
        self.found = self.settled = self.duplicates = 0

    def on_start(self, run: Run, jobs: int) -> None:
        self.found = jobs

    def on_settled(self, status: Status) -> None:
        self.settled += 1

    def on_duplicate(self) -> None:
        self.duplicates += 1

    def on_job(self, finished: Finished) -> None:
        self.jobs.append(finished)


# ---- every kind of job -------------------------------------------------------------------------


def test_a_folder_of_everything(tmp_path: Path, objects: Path, qemu: Any, u74: Machine) -> None:
    tar_of(objects / "c0.o", objects / "tvm.tar")
    copy_object(objects / "c1.o", objects / "copy_of_c1.o")
    (objects / "damaged.o").write_bytes((objects / "c1.o").read_bytes()[:300])
    (objects / "garbage.tar").write_bytes(b"no tar at all" * 100)
    spinner(objects, "program", 10_000)
    (objects / "notes.txt").write_text("not a job")
    (objects / ".hidden.o").write_bytes(b"")
    shutil.copy("/bin/true", objects / "true")
    records, lines = tmp_path / "r.db", tmp_path / "lines.jsonl"
    found = run_batch(
        objects, "-m", "sifive-u74", "--args", ARGS, "--records", records, "--json-lines", lines, code=1
    )
    assert found["statuses"] == {"ok": 6, "invalid": 2}
    assert (found["jobs"], found["duplicates"], found["simulated"]) == (8, 1, 6)
    skipped = {"files of other kinds": 1, "hidden files": 1, "programs and libraries that are not static": 1}
    assert found["skipped"] == skipped
    trials = by_name(trials_of(records, found["run"]))
    assert {name for name, trial in trials.items() if not trial.ok} == {"damaged.o", "garbage.tar"}
    # The same as when each one is simulated alone.
    with RecordStore(records) as store:
        for name in ("c0.o", "tvm.tar", "program"):
            arguments = [
                str(objects / name),
                "-m",
                "sifive-u74",
                *(["--args", ARGS] if name == "tvm.tar" else []),
            ]
            alone = CliRunner().invoke(cli, ["simulate", *arguments, "--json"])
            assert alone.exit_code == 0, alone.output
            simulation = store.simulation(trials[name].simulation or "")
            assert simulation is not None
            assert dict(simulation.outcome.counters or {}) == json.loads(alone.stdout)["counters"]
            assert trials[name].predicted_s == json.loads(alone.stdout)["predicted_s"]
    # One line for each job that ended, and a command that says the same again.
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sorted(line["trial"] for line in told) == sorted(f"{t.run}:{t.index}" for t in trials.values())
    (damaged,) = (line for line in told if line["path"].endswith("damaged.o"))
    again = shell(damaged["command"], tmp_path)
    assert again.returncode == 2
    assert "cut off" in again.stderr
    assert "cut off" in damaged["error"]


def test_lists_of_programs_with_arguments(tmp_path: Path, objects: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    spinner(tmp_path, "my program", 10_000)
    Path("list.txt").write_text(
        "# what to run\n\n'my program' one 'two words'\nmy program\n"
        "objects/deep\n'my program' one 'two words'\n"
    )
    found = run_batch("list.txt", "-m", "sifive-u74", "--records", "r.db")
    assert (found["statuses"], found["duplicates"]) == ({"ok": 3}, 1)
    trials = {str(origin_of(trial)): trial for trial in trials_of(Path("r.db"), found["run"])}
    long, short = trials[f"'{tmp_path}/my program' one 'two words'"], trials[f"'{tmp_path}/my program'"]
    # The program runs as long as its command line has words: three against one.
    assert long.predicted_s == pytest.approx(3 * (short.predicted_s or 0), rel=0.05)
    # The same by standard input; what was there is not run again.
    again = run_batch("-", "-m", "sifive-u74", "--records", "r.db", stdin="objects/c1.o\nmy program\n")
    assert (again["statuses"], again["cached"], again["simulated"]) == ({"ok": 2}, 1, 1)


def test_a_tvm_work_directory(tmp_path: Path, qemu: Any) -> None:
    folder, records = work_directory(tmp_path / "work", 0), tmp_path / "r.db"
    lines = tuning_records()[:3]
    broken = json.loads(lines[2])
    broken[1][0][0] = broken[1][0][0][1:]  # the first instruction, on which the others build
    lines[2] = json.dumps(broken)
    packed = folder / f"{RECORD_FILE}.xz"
    packed.write_bytes(lzma.compress("\n".join([*lines, lines[0]]).encode()))
    arguments = (tmp_path, "-m", "sifive-u74", "--records", records)
    found = run_batch(*arguments, code=1)
    assert (found["statuses"], found["duplicates"]) == ({"ok": 2, "build_failed": 1}, 1)
    assert found["failed"][0]["job"] == f"{folder}, line 3"
    assert "--keep-failed" in found["failed"][0]["command"]
    trials = trials_of(records, found["run"])
    with RecordStore(records) as store:
        # Compared with the reference of the workload, not just run.
        outputs = [store.simulation(t.simulation).outcome.output for t in trials if t.simulation]  # type: ignore[union-attr]
    assert all("max_abs_error" in output for output in outputs)
    packed.write_bytes(lzma.compress("\n".join([lines[1], *lines]).encode()))
    again = run_batch(*arguments, code=1)  # other lines, the same candidates
    assert (again["settled_before"], again["simulated"], again["cached"]) == (3, 0, 0)


def test_the_library_alone(objects: Path, qemu: Any, u74: Machine) -> None:
    seen = Seen()
    with RecordStore(":memory:") as store, simtune.InlineExecutor() as executor:
        result = simtune.batch([objects], u74, records=store, executor=executor, observer=seen)
        assert result.ok
        assert (seen.found, len(seen.jobs)) == (4, 4)
        assert all(finished.instructions > 1_000 for finished in seen.jobs)
        assert [named.origin for named in result.fastest][0] == str(objects / "c0.o")
        assert result.slowest == tuple(reversed(result.fastest))  # of four, all are among the five of each
        assert executor.submit  # still the caller's: not closed
        again = simtune.batch([objects], u74, records=store, executor=executor, observer=seen)
        assert (again.run, again.tally.settled, seen.settled, len(seen.jobs)) == (result.run, 4, 4, 4)
        fresh = simtune.batch([objects], u74, records=store, executor=executor, fresh=True)
        assert fresh.run != result.run
        assert (fresh.tally.cached, fresh.tally.simulated) == (4, 0)
        other = simtune.batch([objects], u74, records=store, executor=executor, count=())
        assert other.run not in (result.run, fresh.run)


# ---- what is run again -------------------------------------------------------------------------


def test_only_what_is_missing_runs(tmp_path: Path, objects: Path, qemu: Any) -> None:
    arguments = (objects, "-m", "sifive-u74", "--records", tmp_path / "r.db")
    assert run_batch(*arguments, "--dry-run")["would_run"] == 4
    assert not (tmp_path / "r.db").exists()
    first = run_batch(*arguments)
    kept, moved = objects / "c0.o", objects / "elsewhere" / "c1.o"
    copy_object(objects / "c1.o", moved)
    (objects / "c1.o").unlink()
    copy_object(objects / "c2.o", objects / "another.o")
    dry = run_batch(*arguments, "--dry-run")
    assert (dry["run"], dry["would_run"], dry["settled_before"], dry["duplicates"]) == (
        first["run"],
        0,
        {"ok": 4},
        1,
    )
    # A file with other content is another job, even if size and time of the old one are kept.
    times = kept.stat()
    data = bytearray(kept.read_bytes())
    data[15] ^= 1  # padding, which changes nothing else
    kept.write_bytes(data)
    os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = run_batch(*arguments)
    assert (second["run"], second["settled_before"], second["simulated"]) == (first["run"], 3, 1)
    assert len(trials_of(tmp_path / "r.db", first["run"])) == 5


def test_failures_are_retried_when_asked_for(tmp_path: Path, qemu: Any) -> None:
    program = spinner(tmp_path / "bin", "program", 1_000_000)
    arguments = (program, "-m", "sifive-u74", "--records", tmp_path / "r.db")
    cut = run_batch(*arguments, "--max-instructions", 1000, code=1)
    assert cut["statuses"] == {"timeout": 1}
    assert f"--max-instructions {1000}" in cut["failed"][0]["command"]
    left = run_batch(*arguments, code=1)
    assert (left["settled_before"], left["simulated"]) == (1, 0)
    retried = run_batch(*arguments, "--retry-failed")
    assert retried["statuses"] == {"ok": 1}
    (trial,) = trials_of(tmp_path / "r.db", cut["run"])
    assert trial.ok


def test_what_the_machine_is_to_blame_for_is_tried_again(tmp_path: Path, objects: Path, qemu: Any) -> None:
    hidden = shutil.move(objects / "c0.o", tmp_path / "away.o")
    (objects / "c0.o").symlink_to("nowhere")
    arguments = (objects, "-m", "sifive-u74", "--records", tmp_path / "r.db")
    first = run_batch(*arguments, code=1)
    assert first["statuses"] == {"ok": 3, "infrastructure": 1}
    assert "cannot read" in first["failed"][0]["error"]
    (objects / "c0.o").unlink()
    shutil.move(hidden, objects / "c0.o")
    second = run_batch(*arguments)
    assert (second["settled_before"], second["simulated"]) == (3, 1)
    trials = trials_of(tmp_path / "r.db", first["run"])  # the record of the failure was replaced
    assert sorted(trial.index for trial in trials) == [0, 1, 2, 3]
    assert all(trial.ok for trial in trials)


def test_a_pipe_is_no_job_that_anybody_waits_for(tmp_path: Path, objects: Path, qemu: Any) -> None:
    os.mkfifo(objects / "pipe.o")
    found = run_batch(objects, "-m", "sifive-u74", "--records", tmp_path / "r.db", code=1)
    assert found["statuses"] == {"ok": 4, "infrastructure": 1}
    assert found["failed"][0]["error"] == f"cannot read {objects / 'pipe.o'}: it is no regular file"


def test_failed_candidates_are_kept(tmp_path: Path, objects: Path, qemu: Any) -> None:
    (objects / "c0.o").write_bytes(b"\x7fELF garbage")
    (objects / "gone.o").symlink_to("nowhere")  # cannot be kept, and stops nothing
    kept = tmp_path / "kept"
    found = run_batch(
        objects, "-m", "sifive-u74", "--records", tmp_path / "r.db", "--keep-failed", kept, code=1
    )
    assert found["statuses"] == {"ok": 3, "invalid": 1, "infrastructure": 1}
    (failure,) = (one for one in found["failed"] if one["status"] == "invalid")
    assert str(kept) in failure["command"]
    assert shell(failure["command"], tmp_path).returncode == 2


# ---- what the store shows ----------------------------------------------------------------------


def test_records_and_report_show_a_batch(tmp_path: Path, objects: Path, qemu: Any) -> None:
    (objects / "damaged.o").write_bytes(b"\x7fELF")
    records = tmp_path / "r.db"
    found = run_batch(objects, "-m", "sifive-u74", "--records", records, code=1)

    def simtune_says(*arguments: object) -> str:
        result = CliRunner().invoke(cli, [*map(str, arguments), "--records", str(records)])
        assert result.exit_code == 0, result.output
        return result.output

    assert str(objects) in simtune_says("records", "list")
    assert "damaged.o" in simtune_says("records", "show", found["run"])
    assert "c0.o" in simtune_says("records", "show", f"{found['run']}:best")
    shown = json.loads(simtune_says("records", "show", found["run"], "--json"))
    assert shown["failures"][0]["job"] == str(objects / "damaged.o")
    simtune_says("report", found["run"], "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "damaged.o" in page
    assert "target" not in simtune_says("records", "show", found["run"])  # objects were built for theirs
    assert "TVM’s default" not in page
    assert simtune_says("records", "export", "--format", "csv", "-o", tmp_path / "t.csv").startswith(
        "5 trials"
    )


def test_what_is_printed(tmp_path: Path, objects: Path, qemu: Any) -> None:
    (objects / "damaged.o").write_bytes(b"\x7fELF")
    arguments = ["batch", str(objects), "-m", "sifive-u74", "--records", str(tmp_path / "r.db")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "c0.o" in result.stdout
    assert "again: simtune simulate" in result.stdout
    assert "4 simulated" in result.stdout
    assert "5 jobs" in result.stderr
    assert "all results of the run" in result.stdout
    assert result.stdout.count("c0.o") == 1  # each once
    lines = CliRunner().invoke(cli, [*arguments, "--json-lines", "-", "--fresh"])
    assert len([json.loads(line) for line in lines.stdout.splitlines()]) == 5


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("missing.o\n", "line 1: cannot read missing.o"),
        ("# fine\n'no end", "line 2: No closing quotation"),
        ("folder with-argument\n", "line 1: folder is a folder and takes no arguments"),
        ("list.txt\n", "line 1: list.txt is no object"),
        ("a\0b\n", "line 1: .*null"),
    ],
)
def test_lists_with_errors(tmp_path: Path, monkeypatch: Any, listed: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("list.txt").write_text(listed)
    with pytest.raises(InputFileError, match=message):
        find(["list.txt"])


def test_nothing_to_do_and_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such|No such"):
        find([tmp_path / "missing"])
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(InputFileError, match="no list of them either"):
        find([tmp_path / "binary"])
    os.mkfifo(tmp_path / "pipe")  # would never answer
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes").write_text("x")
    result = CliRunner().invoke(cli, ["batch", str(tmp_path / "empty"), "-m", "sifive-u74"])
    assert isinstance(result.exception, ConfigurationError)
    assert "nothing to simulate" in str(result.exception)
    assert "1 files of other kinds" in str(result.exception)
    assert len(find([tmp_path])) == 0
    assert not (Path.cwd() / "simtune-records.db").exists()


def test_an_unreadable_folder(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputFileError, match="cannot read the folder"):
            find([tmp_path])
    finally:
        (tmp_path / "closed").chmod(stat.S_IRWXU)


def test_options_that_contradict(tmp_path: Path) -> None:
    arguments = ["batch", str(tmp_path), "-m", "sifive-u74", "--json", "--json-lines", "-"]
    assert isinstance(CliRunner().invoke(cli, arguments).exception, ConfigurationError)
    arguments = ["batch", str(tmp_path), "-m", "sifive-u74", "--scheduler", "tcp://x:1"]
    assert isinstance(CliRunner().invoke(cli, arguments).exception, ConfigurationError)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="./"), max_size=60))  # else it searches the whole disk
def test_any_text_is_a_list_or_an_error(text: str) -> None:
    empty = all(line.strip() == "" or line.strip().startswith("#") for line in io.StringIO(text))
    with contextlib.ExitStack() as stack:
        if not empty:
            stack.enter_context(pytest.raises(SimtuneError, match="standard input, line"))
        assert not find(["-"], io.StringIO(text)).files


# ---- names, lengths, progress ------------------------------------------------------------------


def test_states_of_files_are_trusted_only_when_safe(tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(b"one")
    digests = Digests()
    first, state = digests.digest(str(path))
    assert state == ""  # just written: the next write may have the same time
    path.write_bytes(b"two")
    assert digests.digest(str(path))[0] != first
    path.with_suffix(".o.json").write_text(json.dumps({"kernels": {}, "build_s": 1.0}))
    with_tensors, _ = digests.digest(str(path))
    path.with_suffix(".o.json").write_text(json.dumps({"kernels": {}, "build_s": 2.0}))
    assert digests.digest(str(path))[0] == with_tensors
    path.with_suffix(".o.json").write_text(json.dumps({"kernels": {"main": []}}))
    assert digests.digest(str(path))[0] != with_tensors


def test_a_remembered_state_saves_reading(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(b"content")
    later = path.stat().st_ctime + 10
    monkeypatch.setattr("simtune.batching.identity.time.time", lambda: later)
    digest, state = Digests().digest(str(path))
    assert state
    fresh = Digests()
    fresh.remember(state, digest)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read again"))
    assert fresh.digest(str(path)) == (digest, state)


@given(st.lists(st.text()), st.lists(st.text()))
def test_names_differ_with_arguments(one: list[str], other: list[str]) -> None:
    assert (file_candidate("ab", one) == file_candidate("ab", other)) == (one == other)


@given(st.text(), st.lists(st.text()), st.none() | st.integers(0, 10**9))
def test_origins_survive_the_store(path: str, arguments: list[str], line: int | None) -> None:
    origin = Origin(path, tuple(arguments), line, "ab" * 32, "cd" * 12)
    assert Origin.from_json(origin.as_json()) == origin


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"origin": 3}', '{"origin": [1, 2]}', "nonsense"])
def test_other_traces_are_no_origins(text: str) -> None:
    assert Origin.from_json(text) is None


def test_lengths() -> None:
    def conditions(*arguments: str) -> Conditions:
        return Conditions("ab", "qemu", "7", "m", arguments)

    def matmul(n: int) -> Sequence[Tensor]:
        return [Tensor("float32", (n, n))] * 3

    lengths = Lengths()
    assert lengths.of(conditions("executable")) == 0
    assert lengths.of(conditions("big"), matmul(64)) == 8 * lengths.of(conditions("small"), matmul(32)) > 0
    lengths.note(conditions("k"), 3_000.0, matmul(10))
    lengths.note(conditions("k"), 5_000.0, matmul(10))
    assert lengths.of(conditions("k"), matmul(10)) == 4_000
    assert lengths.of(conditions("other"), matmul(20)) == pytest.approx(8 * 4_000)  # by what was seen
    assert lengths.of(conditions("executable", "x")) == 4_000  # the mean of all


def test_the_store_teaches_lengths(tmp_path: Path, objects: Path, qemu: Any, u74: Machine) -> None:
    order: list[str] = []

    class Recording(simtune.InlineExecutor):
        def submit(self, job: Any) -> Any:
            order.append(f"{job.length:.0f}")
            return super().submit(job)

    with RecordStore(":memory:") as store:
        first = simtune.batch([objects], u74, records=store, executor=Recording())
        guessed, order[:] = list(order), []
        assert len(guessed) == 4
        assert guessed[0] == f"{4 * (8 * 16 * 16 * 16 * 8 * 16) ** 0.5:.0f}"
        simtune.batch([objects], u74, records=store, executor=Recording(), count=("blocks",))
        exact = {
            f"{store.simulation(t.simulation).outcome.counters['instructions']:.0f}"  # type: ignore[index, union-attr]
            for t in store.trials(first.run)
        }
        assert set(order) == exact


def test_progress_counts_and_estimates() -> None:
    now = 100.0
    progress = Progress(lambda: now)
    run = Run("r", "w", "m", "d")
    progress.on_start(run, 100)
    assert progress.left_s is None
    for _ in range(20):
        progress.on_settled(Status.OK)
    progress.on_settled(Status.CRASHED)
    progress.on_duplicate()
    for number in range(10):
        now += 0.5
        status = Status.TIMEOUT if number == 3 else Status.OK
        progress.on_job(Finished(Trial("r", number, "c", status), Origin("x"), 1_000_000, cached=number == 4))
        progress.on_view(View((WorkerView("w", "h", 4, 3),)), 7)
    assert (progress.done, progress.under_way) == (32, 7)
    assert progress.failures == {"crashed": 1, "timeout": 1}
    assert progress.jobs_per_s == pytest.approx(2.0)
    assert progress.instructions_per_s == pytest.approx(9e6 / 5)
    assert progress.left_s == pytest.approx(34)
    now += 1000  # nothing ends any more: the rate is that of late
    for _ in range(3):
        now += 20
        progress.on_view(View(), 7)
    assert progress.jobs_per_s == 0
    assert progress.left_s is None


def test_local_executors_can_be_watched(u74: Machine) -> None:
    with simtune.LocalExecutor(2) as executor:
        (worker,) = executor.view().workers
        assert (worker.slots, worker.running) == (executor.capacity(), 0)
