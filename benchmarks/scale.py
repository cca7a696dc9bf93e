# SPDX-License-Identifier: Apache-2.0
"""What running many jobs costs the driver, and how many machines it can keep busy.

1. Driver CPU per job of the local executor, with fake jobs that sleep.
2. The same on a Dask cluster on loopback: scheduler and workers are processes of their own, their slots
   sleep, so hundreds fit on this machine. Two chunk lengths tell the cost of a job from that of a chunk.
3. Jobs per second and slots busy against the number of workers, measured.
4. Clusters of up to 8,000 slots, simulated (`simulated_cluster.py`) around the real dispatcher with the
   costs of step 2 of the same run, with and without worker losses. The cases of step 3 are simulated,
   too: that is how far the simulation can be trusted.

Goals: at most 5 ms of driver CPU per job; 95 % of slots busy with jobs of 0.5 s up to 1,000 slots; at
most 0.05 ms of the dispatcher's own CPU per job with 1,000 workers and 100,000 waiting jobs.

    python benchmarks/scale.py                        # about 10 minutes
    python benchmarks/scale.py --quick --plot scale.png
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
from conditions import conditions, emit, parser
from simulated_cluster import Costs, SimulatedCluster

from simtune.counters import SCHEMA, Counters
from simtune.execution.blobs import Library
from simtune.execution.courier import Order
from simtune.execution.dask import DaskExecutor
from simtune.execution.dispatch import Policy
from simtune.execution.local import LocalExecutor
from simtune.jobs import Outcome, Status
from simtune.machines.load import load_machine
from simtune.simulation import Simulated, SimulationJob
from simtune.simulators.base import get_simulator
from simtune.testing.jobs import FakeJob, FakeResult

#: Seconds between driver, scheduler and workers, each way: half a millisecond of network, and what
#: Dask waits to send several messages at once (2 ms at most).
LATENCY = 0.0015

#: Bytes of a candidate's object, of which every job has its own.
OBJECT = 24 << 10

LENGTHS = (0.05, 0.1, 0.5, 1.0, 10.0)
SLOTS = (64, 256, 512, 1000, 1504, 2000, 4000, 8000)


class LoopbackCluster:
    """A scheduler, and workers that are added one by one; all in one scratch folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self._log = open(folder / "log", "w+b")  # noqa: SIM115
        self._environment = {**os.environ, "TMPDIR": str(folder)}
        self.workers: list[subprocess.Popen[bytes]] = []
        here = ["--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
        self.scheduler = self._start("distributed.cli.dask_scheduler", *here)
        _until(lambda: _listens(port), "the scheduler does not start", self.log)

    def add_worker(self, slots: int) -> None:
        options = json.dumps({"address": self.address, "slots": slots})
        self.workers.append(self._start("simtune.execution.dask.worker", str(os.getpid()), options))

    def log(self) -> str:
        """What scheduler and workers wrote last."""
        self._log.seek(0)
        return self._log.read()[-4000:].decode(errors="replace")

    def cpu(self) -> tuple[float, float]:
        """CPU seconds of the scheduler, and of all workers."""
        return _cpu(self.scheduler), sum(map(_cpu, self.workers))

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.terminate()
        for process in (*self.workers, self.scheduler):
            process.wait(20)
        self._log.close()

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=self._environment,
            stdout=self._log,
            stderr=self._log,
        )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(condition: Callable[[], bool], complaint: str, log: Callable[[], str]) -> None:
    """Waits for up to two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{complaint}:\n{log()}")
        time.sleep(0.05)


def _cpu(process: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def loopback_cluster() -> Iterator[LoopbackCluster]:
    with tempfile.TemporaryDirectory(prefix="simtune-scale-") as folder:
        cluster = LoopbackCluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.close()


def fake_jobs(
    count: int, seconds: float, seed: int, folder: Path | None = None, **more: Any
) -> list[FakeJob]:
    """Jobs of half to one and a half times this length; with `folder` each has a file of its own there."""
    rng = random.Random(seed)
    jobs = []
    for number in range(count):
        took = seconds * rng.uniform(0.5, 1.5)
        job = FakeJob(number, took, weight=1e8 * took * rng.lognormvariate(0.0, 0.15), **more)
        if folder is not None:
            file = folder / str(number)
            file.write_bytes(rng.randbytes(OBJECT))
            job = replace(job, file=file)
        jobs.append(job)
    return jobs


# Local --------------------------------------------------------------------------------------------


def local(seconds: float, count: int, seed: int, **more: Any) -> dict[str, Any]:
    """Runs fake jobs on the local executor."""
    jobs = fake_jobs(count, seconds, seed, **more)
    with LocalExecutor() as executor:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, start = time.process_time(), time.perf_counter()
        wait([executor.submit(job) for job in jobs])
        wall, own = time.perf_counter() - start, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        slots = executor.capacity()
    spent = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    return {
        "job_s": seconds,
        "as": more.get("does", "thread that sleeps"),
        "jobs": count,
        "slots": slots,
        "driver_cpu_ms_per_job": round(1e3 * own / count, 3),
        "processes_cpu_ms_per_job": round(1e3 * spent / count, 3),
        "jobs_per_s": round(count / wall, 1),
        "busy": round(sum(job.seconds for job in jobs) / (slots * wall), 4),
    }


# Dask ---------------------------------------------------------------------------------------------


def dask(cluster: LoopbackCluster, jobs: Sequence[FakeJob], slots: int, policy: Policy) -> dict[str, float]:
    """Runs jobs on the cluster; CPU and wall seconds of all parts, after some jobs that do not count."""
    with DaskExecutor(cluster.address, policy=policy) as executor:
        _until(lambda: executor.capacity() >= slots, "the workers do not come", cluster.log)
        wait([executor.submit(replace(job, number=-1 - n)) for n, job in enumerate(jobs[:slots])])
        chunks = executor.view().chunks
        scheduler, workers = cluster.cpu()
        cpu, own, start = time.process_time(), time.thread_time(), time.perf_counter()
        futures = [executor.submit(job) for job in jobs]
        submit = time.thread_time() - own
        wait(futures)
        wall, driver = time.perf_counter() - start, time.process_time() - cpu
        scheduler_after, workers_after = cluster.cpu()
        chunks = executor.view().chunks - chunks
        assert all(future.result().status == "ok" for future in futures)
    return {
        "jobs": len(jobs),
        "chunks": chunks,
        "wall_s": wall,
        "submit_s": submit,
        "driver_s": driver,
        "scheduler_s": scheduler_after - scheduler,
        "workers_s": workers_after - workers,
    }


def idle(cluster: LoopbackCluster, seconds: float) -> float:
    """CPU seconds that a connected driver takes per second without any job."""
    with DaskExecutor(cluster.address):
        time.sleep(1.0)
        before = time.process_time()
        time.sleep(seconds)
        return (time.process_time() - before) / seconds


def costs(one: dict[str, float], many: dict[str, float]) -> Costs:
    """Costs of a job and of a chunk from a run with chunks of one job and one with chunks of many."""

    def split(key: str) -> tuple[float, float]:
        a, b = (run[key] / run["jobs"] for run in (one, many))
        x, y = (run["chunks"] / run["jobs"] for run in (one, many))
        chunk = (a - b) / (x - y)
        return max(0.0, b - chunk * y), chunk

    job, chunk = split("driver_s")
    task_job, task = split("scheduler_s")
    submit = many["submit_s"] / many["jobs"]
    slot = many["workers_s"] / many["jobs"]
    return Costs(submit, max(0.0, job - submit), chunk, task, task_job, slot, LATENCY)


def overhead(seed: int, quick: bool) -> tuple[list[dict[str, Any]], dict[str, Costs], float]:
    """What jobs and chunks cost with and without a file of their own, the least of some runs, since
    other work on the machine can only add; and what the driver costs per second without any job."""
    rows, found = [], {}
    few, lots, repeats = (200, 2000, 1) if quick else (1000, 5000, 2)
    with loopback_cluster() as cluster:
        cluster.add_worker(slots=8)
        for name, with_file in (("no file", False), ("24 KiB each", True)):
            runs: dict[int, dict[str, float]] = {}
            for length, count in ((1, few), (50, lots)):
                policy = Policy(chunk_jobs=length)
                for repeat in range(repeats):
                    with tempfile.TemporaryDirectory(prefix="simtune-scale-") as folder:
                        jobs = fake_jobs(count, 0.0, seed + repeat, Path(folder) if with_file else None)
                        run = dask(cluster, jobs, 8, policy)
                    best = runs.setdefault(length, run)
                    runs[length] = {key: min(value, best[key]) for key, value in run.items()}
                rows.append({"file": name, "jobs_per_chunk": round(count / runs[length]["chunks"], 1)})
                for part in ("driver", "scheduler", "workers"):
                    rows[-1][f"{part}_cpu_ms_per_job"] = round(1e3 * runs[length][f"{part}_s"] / count, 3)
            found[name] = costs(runs[1], runs[50])
        nothing = idle(cluster, 2.0 if quick else 10.0)
    return rows, found, nothing


def real_job_extra() -> dict[str, float]:
    """CPU seconds that a real simulation job takes beyond a fake one: to pack it, to look whether its
    common files (harness, machine, expected output) have changed, to read its result."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(OBJECT))
        file.flush()
        path, library = Path(file.name), Library()
        machine, simulator = load_machine("sifive-u74"), get_simulator("qemu")
        real = SimulationJob((path,), None, machine, simulator, "7.2", instructions=1e7)
        fake = FakeJob(1, weight=1.0, file=path)
        outcome = Outcome(Status.OK, counters=Counters(dict.fromkeys(SCHEMA, 123456.0), "qemu"))
        results = [
            json.dumps(SimulationJob.encode_result(Simulated(outcome, 0.01, 0.5))),
            json.dumps(FakeJob.encode_result(FakeResult(1, "0123456789abcdef"))),
        ]
        read = [SimulationJob.decode_result, FakeJob.decode_result]
        submit = [_each(lambda job=job: Order.of(job, Future())) for job in (real, fake)]  # type: ignore[misc]
        result = [_each(lambda n=n: read[n](json.loads(results[n]))) for n in (0, 1)]  # type: ignore[misc]
        return {
            "submit": submit[0] - submit[1],
            "result": result[0] - result[1] + 3 * _each(lambda: library.digest(path)),
        }


def _each(call: Callable[[], Any], times: int = 2000) -> float:
    call()
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def throughput(seed: int, quick: bool, cost: Costs) -> list[dict[str, Any]]:
    """Jobs per second against the number of workers, measured and simulated."""
    rows = []
    shapes = [(1, 4), (2, 4)] if quick else [(1, 4), (2, 4), (4, 4), (8, 4), (8, 16), (8, 64)]
    for each in dict.fromkeys(each for _, each in shapes):
        with loopback_cluster() as cluster:
            for workers, _ in (shape for shape in shapes if shape[1] == each):
                while len(cluster.workers) < workers:
                    cluster.add_worker(each)
                for seconds in (0.05, 0.5) if quick else LENGTHS:
                    if each > 4 and (seconds > 1 or workers * each / seconds > 1100):
                        continue  # nothing new, or more than the workers' share of this machine can do
                    rows.append(measured(cluster, workers, each, seconds, seed, 3.0 if quick else 6.0))
                    rows[-1]["simulated_busy"] = simulated(
                        cost, workers, each, seconds, int(rows[-1]["jobs"]), seed
                    )["busy"]
    return rows


def measured(
    cluster: LoopbackCluster, workers: int, each: int, seconds: float, seed: int, lasts: float
) -> dict[str, Any]:
    slots = workers * each
    jobs = fake_jobs(int(slots * max(2, lasts / seconds)), seconds, seed)
    run = dask(cluster, jobs, slots, Policy())
    return {
        "workers": workers,
        "slots": slots,
        "job_s": seconds,
        "jobs": len(jobs),
        "jobs_per_chunk": round(len(jobs) / run["chunks"], 1),
        "jobs_per_s": round(len(jobs) / run["wall_s"], 1),
        "driver_cpu_ms_per_job": round(1e3 * run["driver_s"] / len(jobs), 3),
        "busy": round(sum(job.seconds for job in jobs) / (slots * run["wall_s"]), 4),
    }


# Simulated ----------------------------------------------------------------------------------------


def simulated(
    cost: Costs, workers: int, each: int, seconds: float, count: int, seed: int, **more: Any
) -> dict[str, Any]:
    """One simulated batch."""
    jobs = fake_jobs(count, seconds, seed)
    cluster = SimulatedCluster(
        cost, workers, each, [job.seconds for job in jobs], [job.weight for job in jobs], seed=seed, **more
    )
    return {"job_s": seconds, **cluster.run()}


def sweep(cost: Costs, seed: int, quick: bool) -> list[dict[str, Any]]:
    """Clusters of 8 slots a worker, from 64 to 8,000 slots; batches of about a minute, or as many jobs
    as are enough to see the driver saturated."""
    slots, most = ((64, 1000, 4000), 20_000) if quick else (SLOTS, 120_000)
    return [
        simulated(cost, n // 8, 8, seconds, int(min(most, n * 60 / seconds)), seed)
        for seconds in LENGTHS
        for n in slots
    ]


def with_losses(cost: Costs, seed: int, quick: bool) -> list[dict[str, Any]]:
    """1,000 slots whose workers die every so often, and come back after 15 s."""
    return [
        {
            "worker_lives_s": life,
            **simulated(cost, 125, 8, seconds, 20_000 if quick else 120_000, seed, lifetime=life),
        }
        for seconds in (0.5, 1.0)
        for life in (3600.0, 600.0, 120.0)
    ]


def dispatcher_alone(seed: int) -> dict[str, Any]:
    """The dispatcher's own CPU with 1,000 workers and 100,000 jobs that wait from the start."""
    free = Costs(0.0, 0.0, 0.0, 0.0, latency=0.0)
    return simulated(free, 1000, 1, 0.5, 100_000, seed)


def saturation(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per job length the largest cluster of the sweep that is 95 % busy, and the most jobs per second."""
    found = []
    for seconds in sorted({row["job_s"] for row in rows}):
        these = [row for row in rows if row["job_s"] == seconds]
        found.append(
            {
                "job_s": seconds,
                "most_slots_95_busy": max((r["slots"] for r in these if _busy(r) >= 0.95), default=0),
                "most_jobs_per_s": max(row["jobs_per_s"] for row in these),
            }
        )
    return found


def _busy(row: dict[str, Any]) -> float:
    """While jobs wait, if they do so for a while."""
    return float(row["busy_steady"] if row["busy_steady"] is not None else row["busy"])


def plot(rows: list[dict[str, Any]], losses: list[dict[str, Any]], path: str) -> None:
    """Slots busy against the number of slots, a line per job length; points that are hollow are of the
    whole batch, start and end included, since its jobs never waited for long."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.5))
    for seconds in sorted({row["job_s"] for row in rows}):
        these = [row for row in rows if row["job_s"] == seconds]
        [line] = axes.plot(
            [r["slots"] for r in these], [100 * _busy(r) for r in these], label=f"{seconds:g} s"
        )
        for row in these:
            hollow = "white" if row["busy_steady"] is None else line.get_color()
            axes.plot(row["slots"], 100 * _busy(row), "o", color=line.get_color(), markerfacecolor=hollow)
    dying = [row for row in losses if row["job_s"] == 0.5 and row["worker_lives_s"] == 600]
    axes.plot(
        [r["slots"] for r in dying],
        [100 * r["busy"] for r in dying],
        "kx",
        label="0.5 s, workers live 10 min,\nuseful work of the whole batch",
    )
    axes.axhline(95, color="gray", linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    ticks = sorted({row["slots"] for row in rows})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=45, fontsize=8)
    axes.minorticks_off()
    axes.set_ylim(0, 101)
    axes.set_xlabel("slots (one driver, one Dask scheduler)")
    axes.set_ylabel("slots busy while jobs wait, % (hollow: whole batch)")
    axes.set_title("Simulated cluster around the real dispatcher, costs measured")
    axes.grid(alpha=0.3)
    axes.legend(title="job length", loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="a few small cases, to see that it works")
    options.add_argument("--plot", help="draw slots busy against slots, as PNG")
    chosen = options.parse_args()
    seed, quick = chosen.seed, chosen.quick
    where = conditions()
    locally = [local(0.0, 200 if quick else 5000, seed)]
    locally += [local(s, int(max(4, (2 if quick else 8) / s)), seed) for s in LENGTHS if not quick or s < 1]
    locally += [local(0.05, 20 if quick else 400, seed, does="process")]
    rows, cost, nothing = overhead(seed, quick)
    extra = real_job_extra()
    full = cost["24 KiB each"]
    full = replace(full, submit=full.submit + extra["submit"], job=full.job + extra["result"])
    scaling = throughput(seed, quick, cost["no file"])
    swept = sweep(full, seed, quick)
    losses = with_losses(full, seed, quick)
    alone = dispatcher_alone(seed)
    at_goal = [row for row in swept if row["job_s"] == 0.5 and row["slots"] <= 1000]
    per_job = [row["driver_cpu_ms_per_job"] for row in (*rows, *locally)]
    # Of few long jobs, what the driver does anyway would be the most.
    per_job += [row["driver_cpu_ms_per_job"] - 1e3 * nothing / row["jobs_per_s"] for row in scaling]
    result = {
        "conditions": where,
        "local": locally,
        "dask_overhead": rows,
        "dask_idle_driver_cpu_ms_per_s": round(1e3 * nothing, 3),
        "costs_ms": {
            name: {key: round(1e3 * value, 4) for key, value in asdict(found).items()}
            for name, found in {**cost, "24 KiB each, real job": full}.items()
        },
        "dask_throughput": scaling,
        "simulated": swept,
        "simulated_with_losses": losses,
        "saturation": saturation(swept),
        "dispatcher_alone": alone,
        "goals": {
            "driver CPU per job at most 5 ms": max(per_job) <= 5.0,
            # The batches of a quick run are too short to tell.
            "95 % busy at 0.5 s up to 1,000 slots": None if quick else min(map(_busy, at_goal)) >= 0.95,
            "dispatcher at most 0.05 ms per job": alone["dispatcher_cpu_ms_per_job"] <= 0.05,
        },
    }
    emit(result, chosen.output)
    if chosen.plot:
        plot(swept, losses, chosen.plot)


if __name__ == "__main__":
    main()
