# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand fake jobs with faults of every kind, through the Dask executor into a record store.

A scheduler and two workers run as processes of their own on loopback. Of the jobs, 2 % each fail, raise,
fail of the machine once, crash, hang, leave processes behind, flood their output, write too large a file;
the rest takes no time. Every so many seconds the process of a worker is killed. Jobs that kill their worker
are few, half of them each time and half of them once: a killed worker takes seconds to come back, so that 2 %
of them would measure nothing else.

Goals: every job ends in exactly one record, with the result that it has without faults; descriptors and
memory of driver, scheduler and workers do not grow; no process and no scratch file is left.

    python benchmarks/soak.py                  # 100,000 jobs
    python benchmarks/soak.py --quick          # 2,000 jobs
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil
from conditions import conditions, emit, parser
from scale import LoopbackCluster

from simtune.execution.dask import DaskExecutor
from simtune.execution.scratch import sweep
from simtune.jobs import Limits, Status
from simtune.records import RecordStore, Trial, Workload
from simtune.records.check import check
from simtune.testing.jobs import FakeJob, FakeResult

#: What a job may do, and how it then ends.
FAULTS = {
    "fail": "failed",
    "raise": "raised",
    "transient": "ok",  # once
    "crash": "failed",
    "hang": "failed",
    "orphans": "ok",
    "flood": "failed",
    "big_file": "failed",
}
SHARE = 0.02
#: Number of the first job: processes are known by it, and another soak may run on this machine.
BASE = os.getpid() * 1_000_000
POISON = 0.0002
WORKERS = 2
#: Jobs under way at once, and records of a commit.
WINDOW, GROUP = 2000, 200
LIMITS = Limits(wall_s=0.3, cpu_s=5.0, grace_s=0.1, output_bytes=1 << 16, file_bytes=1 << 20)
STATUSES = {
    "ok": Status.OK,
    "failed": Status.CRASHED,
    "raised": Status.INVALID,
    "lost": Status.INFRASTRUCTURE,
}


class SoakCluster(LoopbackCluster):
    """Workers as users start them: each with a guard that starts it again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._environment["SIMTUNE_CACHE"] = str(folder / "cache")

    def add_worker(self, slots: int) -> None:
        self.workers.append(
            self._start(
                "simtune.cli.main", "worker", self.address, "--jobs", str(slots), "--host", "127.0.0.1"
            )
        )

    def processes(self) -> list[psutil.Process]:
        """Those that run the jobs."""
        found = []
        for worker in self.workers:
            try:
                found += psutil.Process(worker.pid).children()
            except psutil.NoSuchProcess:
                continue
        return found


def plan(place: int, jobs: int, rng: random.Random, state: Path) -> tuple[FakeJob, str]:
    """A job, and how it must end."""
    number, draw = BASE + place, rng.random()
    if draw < POISON or place == jobs // 3:
        return FakeJob(number, does="poison"), "lost"
    if draw < 2 * POISON or place == jobs // 2:
        return FakeJob(number, does="poison", times=1, state=state), "ok"
    kind = int((draw - 2 * POISON) / SHARE)
    if kind >= len(FAULTS):
        return FakeJob(number), "ok"
    does, end = list(FAULTS.items())[kind]
    if does == "transient":
        return FakeJob(number, does=does, times=1, state=state), end
    return FakeJob(number, does=does, limits=LIMITS), end


class Samples:
    """Descriptors and resident bytes of the processes, once a second."""

    def __init__(self, cluster: SoakCluster, kill_s: float, rng: random.Random) -> None:
        self._cluster, self._kill_s, self._rng = cluster, kill_s, rng
        self._young_s = kill_s / 3
        self.rows: list[dict[str, tuple[int, float]]] = []
        self.killed = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(1.0):
            row: dict[str, tuple[int, float]] = {"driver": _sample(psutil.Process())}
            row["scheduler"] = _sample(psutil.Process(self._cluster.scheduler.pid))
            workers = self._cluster.processes()
            for number, process in enumerate(workers):
                try:
                    if (
                        time.time() - process.create_time() > self._young_s
                    ):  # not those that have just started
                        row[f"worker {number}"] = _sample(process)
                except psutil.Error:
                    continue
            self.rows.append(row)
            if workers and time.monotonic() - last > self._kill_s:
                last = time.monotonic()
                self.killed += 1
                try:
                    self._rng.choice(workers).kill()
                except psutil.Error:
                    continue

    def end(self) -> dict[str, Any]:
        """Medians of the second and of the last quarter, by process."""
        self._ended.set()
        self._thread.join()
        quarter = max(1, len(self.rows) // 4)
        names = {name for row in self.rows for name in row}
        result = {}
        for name in sorted(names):
            known = [row[name] for row in self.rows if name in row]
            early, late = known[quarter : 2 * quarter] or known, known[-quarter:]
            result[name] = {
                "descriptors": [statistics.median(fds for fds, _ in part) for part in (early, late)],
                "resident_mb": [
                    round(statistics.median(rss for _, rss in part), 1) for part in (early, late)
                ],
            }
        return result


def _sample(process: psutil.Process) -> tuple[int, float]:
    return process.num_fds(), process.memory_info().rss / 1e6


class Records:
    """Writes one trial per job, many at a time."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self.run = store.start_run(
            store.put_workload(Workload("soak", [])), "none", "none", config={"kind": "soak"}
        )
        self._buffer: list[Trial] = []

    def put(self, number: int, end: str, value: str, reason: str) -> None:
        self._buffer.append(
            Trial(
                self.run.id,
                number,
                value or f"job {number}",
                STATUSES[end],
                stage="soak",
                error=reason[-500:],
            )
        )
        if len(self._buffer) >= GROUP:
            self.flush()

    def flush(self) -> None:
        self._store.put_trials(self._buffer)
        self._buffer = []


def ending(future: Future[FakeResult]) -> tuple[str, str, str]:
    """How a job ended, its value, and why."""
    error = future.exception()
    if error is not None:
        return "raised", "", str(error)
    result = future.result()
    return result.status, result.value, result.reason


def work(executor: DaskExecutor, jobs: Iterator[FakeJob], records: Records) -> None:
    """Keeps so many jobs under way, and records each that ends."""
    ended: SimpleQueue[tuple[int, Future[FakeResult]]] = SimpleQueue()
    under_way = 0
    more = True
    while more or under_way:
        while more and under_way < WINDOW:
            job = next(jobs, None)
            if job is None:
                more = False
                break
            under_way += 1
            future = executor.submit(job)
            future.add_done_callback(lambda done, place=job.number - BASE: ended.put((place, done)))
        if under_way:
            place, future = ended.get()
            under_way -= 1
            records.put(place, *ending(future))
    records.flush()


def verdict(path: Path, run: str, expected: list[str]) -> dict[str, Any]:
    """Compares the records with what must be there."""
    with RecordStore(path, create=False) as store:
        trials = list(store.trials(run))
    indices = Counter(trial.index for trial in trials)
    wrong = [
        {
            "job": trial.index,
            "expected": expected[trial.index],
            "found": str(trial.status),
            "error": trial.error,
        }
        for trial in trials
        if trial.status is not STATUSES[expected[trial.index]]
    ]
    values = {trial.index: trial.candidate for trial in trials if trial.status in (Status.OK, Status.CRASHED)}
    return {
        "records": len(trials),
        "wrong_values": sum(value != value_of(BASE + place) for place, value in values.items()),
        "missing": sum(number not in indices for number in range(len(expected))),
        "twice": sum(number > 1 for number in indices.values()),
        "statuses": dict(Counter(str(trial.status) for trial in trials)),
        "wrong": len(wrong),
        "first_wrong": wrong[:5],
        "damage": len(check(path)),
    }


def value_of(number: int) -> str:
    """The result of a fake job of that number that nothing happens to."""
    return hashlib.sha256(b"%d " % number).hexdigest()[:16]


def orphans() -> int:
    """Processes that fake jobs have started and that are still there."""
    found = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                names = re.findall(rb"5117(\d{12,})7115", (folder / "cmdline").read_bytes())
                found += any(int(name) // 1_000_000 == os.getpid() for name in names)
            except OSError:
                continue
    return found


def scratch(temporary: Path) -> tuple[int, list[str]]:
    """What is left there: how many, and what of it after the next process has tidied up."""

    def names() -> list[str]:
        return sorted(path.name for path in temporary.iterdir() if path.name.startswith("simtune"))

    before = len(names())
    kept, tempfile.tempdir = tempfile.tempdir, str(temporary)
    try:
        sweep()
    finally:
        tempfile.tempdir = kept
    return before, names()


def soak(jobs: int, seed: int, kill_s: float) -> dict[str, Any]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="simtune-soak-") as name:
        folder = Path(name)
        state, temporary = folder / "state", folder / "tmp"
        state.mkdir()
        temporary.mkdir()
        expected: list[str] = []

        def planned() -> Iterator[FakeJob]:
            for place in range(jobs):
                job, end = plan(place, jobs, rng, state)
                expected.append(end)
                yield job

        cluster = SoakCluster(temporary)
        try:
            for _ in range(WORKERS):
                cluster.add_worker(1)
            path = folder / "records.db"
            cpu, start = time.process_time(), time.monotonic()
            with RecordStore(path) as store, DaskExecutor(cluster.address) as executor:
                samples = Samples(cluster, kill_s, random.Random(seed))
                records = Records(store)
                work(executor, planned(), records)
                view = executor.view()
                resources = samples.end()
            wall, cpu = time.monotonic() - start, time.process_time() - cpu
        finally:
            cluster.close()
        killed_left, left = scratch(temporary)
        return {
            "jobs": jobs,
            "wall_s": round(wall, 1),
            "jobs_per_s": round(jobs / wall, 1),
            "driver_cpu_ms_per_job": round(1e3 * cpu / jobs, 3),
            "workers_killed_from_outside": samples.killed,
            "retried": view.retried,
            "doubled": view.doubled,
            "lost": view.lost,
            "expected": dict(Counter(expected)),
            **verdict(path, records.run.id, expected),
            "resources_second_and_last_quarter": resources,
            "orphans": orphans(),
            "scratch_of_killed_workers": killed_left,
            "scratch_left": left,
        }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="2,000 jobs")
    options.add_argument("--jobs", type=int, default=100_000)
    options.add_argument("--kill-every", type=float, default=60.0, metavar="S", help="kill a worker so often")
    chosen = options.parse_args()
    jobs = 2000 if chosen.quick else chosen.jobs
    result = soak(jobs, chosen.seed, 10.0 if chosen.quick else chosen.kill_every)
    emit({"conditions": conditions(), "seed": chosen.seed, "faults_share": SHARE, **result}, chosen.output)


if __name__ == "__main__":
    main()
