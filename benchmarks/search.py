# SPDX-License-Identifier: Apache-2.0
"""Tuner in the loop: search by simulation against search by native measurement, on this computer.

Both arms search the same space with the same strategy, cost model, seed and number of trials. The one
ranks by simulation and prediction, and then measures the best 3 % natively (`simtune.tune` with
`measure_top`). The other measures every trial with TVM's LocalRunner at its defaults, as TVM users do.
The two winners are then built alike and timed by the same harness in turns, A B A B, so that a drift of
the computer's clock strikes both.

    python benchmarks/search.py --records predictors.db    # 5 workloads x 3 seeds; about an hour
    python benchmarks/search.py --quick                    # one small workload: two minutes

With --records the predictor is trained for each workload on all others in that store (never on the
workload itself); without, the untrained cycle model predicts. Run nothing else beside it.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from conditions import conditions, emit, parser

from simtune import tvm_setup
from simtune.build.artifact import load
from simtune.build.builder import Builder
from simtune.build.codegen import signature
from simtune.build.reference import Reference
from simtune.dataset import load_dataset, workload_key
from simtune.jobs import Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.measure.base import Program, Settings
from simtune.measure.host import HostTarget
from simtune.predictors.trained import TrainedPredictor, train
from simtune.records.model import Trial
from simtune.records.model import Workload as WorkloadRow
from simtune.records.store import RecordStore, open_existing
from simtune.tuning.cost_model import BoostedTrees
from simtune.tuning.model import Search
from simtune.tuning.natively import rebuild
from simtune.tuning.recorder import trace_json
from simtune.tuning.tune import tune
from simtune.tuning.workloads import parse

ms = tvm_setup.load()

from tvm.ir.utils import derived_object  # noqa: E402
from tvm.s_tir import Schedule  # noqa: E402
from tvm.target import Target  # noqa: E402

WORKLOADS = (
    "conv2d:n=1,c=64,h=14,o=64,k=3,s=1,p=1",
    "conv2d_nhwc:n=1,c=32,h=28,o=32,k=3,s=1,p=1",
    "resnet18.conv5_ds",
    "mobilenet.dw3",
    "matmul:m=192,n=192,k=192",
)
QUICK = ("matmul:m=96,n=96,k=96",)
#: Goals: within this share of the native result, with at most this share of its measurements.
WITHIN, MEASURED = 0.02, 0.05


@dataclass(frozen=True)
class Arm:
    """What one search came to.

    Attributes:
        trace: of the winner; empty when every candidate failed.
        trials: candidates that were tried.
        measured: native measurements among them, that of TVM's default schedule included.
        native_s: wall seconds of these.
        wall_s: of the whole search.
    """

    trace: str
    trials: int
    measured: int
    native_s: float
    wall_s: float


@derived_object
class TimedRunner(ms.runner.PyRunner):  # type: ignore[misc, name-defined]
    """TVM's LocalRunner, with a count of what it measures and how long that takes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ms.runner.LocalRunner()
        self.number, self.seconds = 0, 0.0

    def run(self, runner_inputs: list[Any]) -> list[Any]:
        """Called by MetaSchedule; the LocalRunner measures before it returns."""
        start = time.perf_counter()
        futures = self.inner.run(runner_inputs)
        self.seconds += time.perf_counter() - start
        self.number += len(runner_inputs)
        return futures


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--quick", action="store_true", help="one small workload, one seed, few trials")
    made.add_argument("--workloads", nargs="*")
    made.add_argument("--seeds", type=int, help="number of seeds  [3]")
    made.add_argument("--trials", type=int, help="of either arm  [128, or 64 with --quick]")
    made.add_argument("--records", type=Path, help="store of benchmarks/predictors.py, to train on")
    made.add_argument("--model", default="ensemble", help="family to train")
    made.add_argument("--measure-top", default="3%")
    made.add_argument("--rounds", type=int, help="of the final comparison  [5, or 2 with --quick]")
    made.add_argument("--count", nargs="*", default=["pipeline"], help="simulator models to switch on")
    args = made.parse_args()
    logging.getLogger("tvm").setLevel(logging.ERROR)
    machine = load_machine("host")
    trials = args.trials or (64 if args.quick else 128)
    result: dict[str, Any] = {"conditions": conditions(), "seed": args.seed, "trials": trials, "runs": []}
    for name in args.workloads or (QUICK if args.quick else WORKLOADS):
        predictor = trained(args.records, machine, name, args.model) if args.records else None
        for seed in range(args.seed, args.seed + (args.seeds or (1 if args.quick else 3))):
            rounds = args.rounds or (2 if args.quick else 5)
            row = compare(name, machine, seed, trials, args.measure_top, predictor, tuple(args.count), rounds)
            result["runs"].append(row)
            say(name, row)
    result |= summary(result["runs"])
    for goal in result["goals"]:
        print(f"{'reached' if goal['ok'] else 'missed '}  {goal['goal']}: {goal['reached']:.4f}")
    emit(result, args.output)


def compare(
    name: str,
    machine: Machine,
    seed: int,
    trials: int,
    top: str,
    predictor: TrainedPredictor | None,
    count: tuple[str, ...],
    rounds: int,
) -> dict[str, Any]:
    """Both arms of one workload and seed, and their winners side by side."""
    module = parse(name).module()
    # Which arm comes first alternates: the second one finds a warm computer.
    order = ("simulated", "native") if seed % 2 == 0 else ("native", "simulated")
    arms: dict[str, Arm] = {}
    for arm in order:
        print(f"{name}, seed {seed}: searching, {arm}", file=sys.stderr)
        if arm == "native":
            arms[arm] = native_search(module, machine, trials, seed)
        else:
            arms[arm] = simulated_search(name, machine, trials, seed, top, predictor, count)
    times = final(module, machine, [arms["simulated"].trace, arms["native"].trace], rounds)
    simulated, native = (median(values) if values else math.nan for values in times)
    return {
        "workload": name,
        "seed": seed,
        "predictor": predictor.name if predictor else "untrained",
        **{arm: {k: v for k, v in vars(found).items() if k != "trace"} for arm, found in arms.items()},
        "simulated_best_s": known(simulated),
        "native_best_s": known(native),
        "ratio": known(simulated / native),
        "process_times_s": times,
    }


def simulated_search(
    name: str,
    machine: Machine,
    trials: int,
    seed: int,
    top: str,
    predictor: TrainedPredictor | None,
    count: tuple[str, ...],
) -> Arm:
    """Search by simulation and prediction; the best few are measured."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, RecordStore(":memory:") as store:
        found = tune(
            name,
            machine,
            trials,
            records=store,
            predictor=predictor,
            seed=seed,
            count=count,
            measure_top=top,
            work_dir=folder,
        )
        wall = time.perf_counter() - start
        walls = [float(m.conditions.get("wall_s", 0.0)) for m in store.measurements()]
    return Arm(found.best.trace_json if found.best else "", found.trials, len(walls), sum(walls), wall)


def native_search(module: Any, machine: Machine, trials: int, seed: int) -> Arm:
    """The same search, each candidate measured by TVM's LocalRunner."""
    start, search = time.perf_counter(), Search()
    target = Target(dict(machine.target))
    quiet = logging.getLogger("simtune.benchmark")
    quiet.propagate = False
    runner = TimedRunner()
    database = ms.database.MemoryDatabase()
    with tempfile.TemporaryDirectory() as folder, target:
        context = ms.TuneContext(
            mod=module,
            target=target,
            space_generator="post-order-apply",
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=search.population,
                genetic_num_iters=search.generations,
                init_min_unmeasured=min(50, search.population // 2),
            ),
            task_name="native",
            rand_state=1 + (seed * 7919) % (2**31 - 2),
            num_threads=search.threads,
            logger=quiet,
        )
        ms.tune.tune_tasks(
            tasks=[context],
            task_weights=[1.0],
            work_dir=folder,
            max_trials_global=trials,
            num_trials_per_iter=search.batch,
            builder="local",
            runner=runner,
            database=database,
            cost_model=BoostedTrees(seed),
        )
        records = database.get_top_k(database.commit_workload(module), 1)
        trace = ""
        if records:
            schedule = Schedule(module)
            records[0].trace.apply_to_schedule(schedule, remove_postproc=False)
            trace = trace_json(schedule)
    return Arm(trace, runner.number, runner.number, runner.seconds, time.perf_counter() - start)


def final(module: Any, machine: Machine, traces: list[str], rounds: int) -> list[list[float]]:
    """Process times of each winner, built alike, checked, and timed in turns."""
    rows = [Trial("", i, "", Status.OK, trace_json=trace) for i, trace in enumerate(traces) if trace]
    times: list[list[float]] = [[] for _ in traces]
    builder, target = Builder(1), HostTarget()
    try:
        with tempfile.TemporaryDirectory() as folder:
            reference = Reference(module, 0, Path(folder))
            tensors = tuple(signature(module.functions_items()[0][1]))
            programs = {}
            for row, (path, error) in zip(rows, rebuild(module, machine, rows, builder), strict=True):
                if path is None:
                    print(f"a winner could not be built again: {error}", file=sys.stderr)
                    continue
                place = Path(folder, str(row.index))
                place.mkdir()
                artifact = load(path, place)
                constant = bool(artifact.info.get("prepacked"))
                plan = artifact.plan(tensors)
                programs[row.index] = Program(artifact, plan, 0, constant, reference.expectation(constant))
            for _ in range(rounds):
                for index, program in programs.items():
                    timing = target.measure(program, Settings())
                    if not timing.ok:
                        print(f"a winner failed: {timing.error}", file=sys.stderr)
                    times[index] += timing.seconds
    finally:
        builder.close()
        target.close()
    return times


def trained(records: Path, machine: Machine, name: str, model: str) -> TrainedPredictor:
    """A predictor that has never seen the workload."""
    module = parse(name).module()
    shash, graph = ms.database.Workload(module).as_json()
    row = WorkloadRow(name, [], json.dumps([str(shash), str(graph)]))
    with open_existing(records) as store:
        data = load_dataset(store, [machine])
    others = [group for group in data.groups if group.key != workload_key(row) and group.name != name]
    return train(others, model, target=data.target)


def summary(runs: list[dict[str, Any]], draws: int = 2000) -> dict[str, Any]:
    """Ratios of the winners' times (above 1: native search was better) and the shares of the costs."""
    ratios = [row["ratio"] for row in runs if row["ratio"] is not None]
    if not ratios:
        return {"goals": [], "error": "no run ended with two winners"}
    random = np.random.default_rng(0)
    logs = np.log(ratios)
    means = np.exp(logs[random.integers(len(logs), size=(draws, len(logs)))].mean(axis=1))
    share = sum(r["simulated"]["measured"] for r in runs) / sum(r["native"]["measured"] for r in runs)
    native = sum(r["simulated"]["native_s"] for r in runs) / sum(r["native"]["native_s"] for r in runs)
    wall = sum(r["simulated"]["wall_s"] for r in runs) / sum(r["native"]["wall_s"] for r in runs)
    mean = geometric_mean(ratios)
    by_workload: dict[str, list[float]] = {}
    for row in runs:
        if row["ratio"] is not None:
            by_workload.setdefault(row["workload"], []).append(row["ratio"])
    return {
        "ratio": {
            "geometric_mean": mean,
            "interval_95": [float(q) for q in np.quantile(means, (0.025, 0.975))],
            "worst": max(ratios),
            "best": min(ratios),
            "by_workload": {name: geometric_mean(values) for name, values in by_workload.items()},
        },
        "share_of_measurements": share,
        "share_of_native_seconds": native,
        "share_of_wall_seconds": wall,
        "goals": [
            {"goal": f"time of the best over native search's, mean, at most {1 + WITHIN}", "reached": mean,
             "ok": mean <= 1 + WITHIN},
            {"goal": f"share of its native measurements at most {MEASURED}", "reached": share,
             "ok": share <= MEASURED},
        ],
    }  # fmt: skip


def say(name: str, row: dict[str, Any]) -> None:
    simulated, native = row["simulated"], row["native"]
    ratio = "no result" if row["ratio"] is None else f"{row['ratio']:.3f} times the native search's best"
    print(
        f"{name}, seed {row['seed']}: {ratio}; native measurements {simulated['measured']} against "
        f"{native['measured']}, native seconds {simulated['native_s']:.1f} against {native['native_s']:.1f}, "
        f"wall seconds {simulated['wall_s']:.0f} against {native['wall_s']:.0f}",
        flush=True,
    )


def known(value: float) -> float | None:
    return None if math.isnan(value) else value


if __name__ == "__main__":
    main()
