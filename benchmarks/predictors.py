# SPDX-License-Identifier: Apache-2.0
"""Ground truth for predictors, from scratch: candidates with counters and native times of this computer.

Collects random candidates of eleven workloads (six convolutions, a depthwise one, matmul, two dense
layers' worth of memory traffic, softmax), simulates all, measures every one twice, and judges every
predictor by leaving whole workloads out: with 95 % intervals, beside the noise ceiling, with the
break-even K, and with a verdict per goal. Interrupt at any time: the same command goes on.

    python benchmarks/predictors.py                        # under an hour on 2 idle cores
    python benchmarks/predictors.py --quick                # under 3 minutes, to see that it works
    python benchmarks/predictors.py --records records.db   # judges an existing collection

Measuring wants a quiet computer: run nothing else beside the full one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import goals
import limits
from conditions import conditions, emit, parser

from simtune.breakeven import Board, overall, sides
from simtune.cli.accuracy import plain, print_tables, workload_table
from simtune.cli.output import print_out
from simtune.crossvalidate import BASELINES, Evaluation, evaluate
from simtune.dataset import Dataset, load_dataset
from simtune.execution.capacity import usable_cores
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.measure.base import Settings
from simtune.records.store import RecordStore, open_existing

WORKLOADS = (
    "conv2d:n=1,c=16,h=28,o=32,k=3,s=1,p=1",
    "conv2d:n=1,c=64,h=14,o=64,k=3,s=1,p=1",
    "conv2d:n=1,c=128,h=14,o=128,k=1,s=1,p=0",
    "conv2d:n=1,c=3,h=64,o=32,k=7,s=2,p=3",
    "conv2d_nhwc:n=1,c=32,h=28,o=32,k=3,s=1,p=1",
    "resnet18.conv3_ds",
    "resnet18.conv5_ds",
    "mobilenet.dw3",
    "matmul:m=192,n=192,k=192",
    "dense:m=1,n=1000,k=512",
    "bert.softmax",
)
QUICK = (
    "conv2d:n=1,c=16,h=14,o=16,k=3,s=1,p=1",
    "conv2d:n=1,c=32,h=14,o=32,k=1,s=1,p=0",
    "matmul:m=96,n=96,k=96",
    "depthwise:n=1,c=32,h=28,k=3,s=1,p=1",
)
QUICK_MODELS = ("instructions", "analytical", "pipeline", "ridge-res", "nnls", "extra-trees-res", "ensemble")
#: The trained model that the goals are about; chosen in advance, as the default of `simtune train`.
TRAINED = "ensemble"
#: A board for the second K: 15 repeats with half a second for cooling down (Pelke et al. pause, too).
BOARD = Board(repeats=15, cooldown_s=0.5)
#: Goal: the scoreboard costs so many times the CPU time of counting with caches.
COST = 2.0
#: Beside caches and issue.
COUNT = ("branch", "pipeline")


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--quick", action="store_true", help="few small workloads: 3 minutes")
    made.add_argument("--records", type=Path, help="judge this store; nothing is collected")
    made.add_argument("--store", type=Path, default=Path("predictors.db"), help="what is collected goes here")
    made.add_argument("--machine", default="host")
    made.add_argument("--target", help="where the times of --records were taken, if there are several")
    made.add_argument("--workloads", nargs="*", help="others than the benchmark's")
    made.add_argument("--candidates", type=int, help="per workload  [200, or 24 with --quick]")
    made.add_argument("--passes", type=int, help="measurements per candidate  [2, or 1 with --quick]")
    made.add_argument("--count", nargs="*", help="simulator models beside caches and issue")
    made.add_argument("--model", action="append", default=[], help="of the evaluation  [all]")
    made.add_argument("--resamples", type=int, help="of the bootstrap  [200, or 50 with --quick]")
    made.add_argument("--plots", type=Path, help="folder for figures")
    args = made.parse_args()
    start = time.perf_counter()
    result: dict[str, Any] = {"conditions": conditions(), "seed": args.seed}
    machine = load_machine(args.machine)
    if args.records is None:
        args.records = args.store
        result["collection"] = gather(args, machine)
        result["collected_s"] = round(time.perf_counter() - start, 1)
    with open_existing(args.records) as store:
        data = load_dataset(store, [machine], args.target)
        result["break_even"] = break_even(store, machine, data)
        cost = scoreboard_cost(store, data, 1 if args.quick else 3) if data.pipeline else None
    models = args.model or (usable(QUICK_MODELS, data) if args.quick else [])
    judged = evaluate(
        data,
        models,
        seed=args.seed,
        resamples=args.resamples if args.resamples is not None else 50 if args.quick else 200,
        jobs=usable_cores(),
        progress=lambda model: print(f"training and testing {model}", file=sys.stderr),
    )
    result |= report(judged, data)
    if cost is not None:
        result["scoreboard"] = cost
        ok = cost["ratio"] <= COST
        result["goals"].append({"goal": "cost of the scoreboard", "reached": cost["ratio"], "ok": ok})
        print(
            f"{'reached' if ok else 'missed '}  scoreboard: at most {COST} times the CPU time of counting "
            f"with caches; is {cost['ratio']:.2f}"
        )
    if args.plots:
        from simtune.report.accuracy import write_figures

        result["plots"] = [str(path) for path in write_figures(judged, data, args.plots)]
    result["wall_s"] = round(time.perf_counter() - start, 1)
    emit(result, args.output)


def gather(args: Any, machine: Machine) -> list[dict[str, Any]]:
    """Collects what is missing, workload by workload."""
    from simtune.tuning.collect import CollectObserver, collect

    began = time.perf_counter()

    class Lines(CollectObserver):
        def on_workload(self, name: str, run: Any, stored: int, candidates: int) -> None:
            seconds = time.perf_counter() - began
            print(f"[{seconds:6.0f} s] {name}: {stored} of {candidates} are stored", file=sys.stderr)

        def on_stage(self, text: str, total: int | None = None) -> None:
            print(f"[{time.perf_counter() - began:6.0f} s]   {text}", file=sys.stderr)

    quick = args.quick
    with RecordStore(args.store) as store:
        rows = collect(
            args.workloads or (QUICK if quick else WORKLOADS),
            machine,
            args.candidates or (24 if quick else 200),
            records=store,
            seed=args.seed,
            count=tuple(COUNT if args.count is None else args.count),
            passes=args.passes or (1 if quick else 2),
            settings=Settings(min_repeat_s=0.005, process_s=0.3) if quick else Settings(),
            observer=Lines(),
        )
    return [{**asdict(row), "break_even": row.break_even} for row in rows]


def break_even(store: RecordStore, machine: Machine, data: Dataset) -> dict[str, Any]:
    """K against this computer as it was measured, and against a board that cools down."""
    names = {group.name for group in data.groups}
    parts = [side for side in sides(store, machine, data.target, BOARD) if side.workload in names]
    total = overall(parts)
    print(
        f"break-even K: {total.k()} against {data.target} ({total.simulate_s:.3f} s to simulate, "
        f"{total.measure_s or 0:.3f} s to measure), {total.board_k()} against a board with {BOARD.repeats} "
        f"repeats and {BOARD.cooldown_s} s of cooling down each ({total.board_s:.1f} s); 3 % measured"
        f" all the same: {total.k(0.03)} and {total.board_k(0.03)}"
    )
    return {
        "board": asdict(BOARD),
        "workloads": [{**asdict(side), "k": side.k(), "board_k": side.board_k()} for side in (*parts, total)],
    }


def scoreboard_cost(store: RecordStore, data: Dataset, number: int) -> dict[str, float]:
    """CPU seconds of simulating some candidates with caches alone, and with the scoreboard."""
    from simtune.build.builder import Builder
    from simtune.calibration.experiment import Experiment, prepare
    from simtune.simulators.base import get_simulator

    builder = Builder()
    machine = data.groups[0].machine
    try:
        with tempfile.TemporaryDirectory() as folder:
            cases = prepare(store, data, number, Path(folder), builder)
            spent = {}
            for name, count in (("caches", ()), ("scoreboard", ("pipeline",))):
                experiment = Experiment(get_simulator("qemu"), count, jobs=1)
                experiment.counters(machine, cases)
                spent[name] = experiment.cpu_s
    finally:
        builder.close()
    return {"candidates": len(cases), **spent, "ratio": spent["scoreboard"] / spent["caches"]}


def usable(models: tuple[str, ...], data: Dataset) -> list[str]:
    return [name for name in models if name != "pipeline" or data.pipeline]


def report(judged: Evaluation, data: Dataset) -> dict[str, Any]:
    """Prints the tables and the verdicts; returns everything for JSON."""
    untrained = "pipeline" if data.pipeline else "analytical"
    print_tables(judged)
    shown = [name for name in (untrained, TRAINED) if name in judged.summaries]
    for name in shown:
        print_out(workload_table(name, judged))
    rows = goals.judge(goals.HOST, judged.summaries, TRAINED, untrained, judged.ceiling)
    print(goals.text(rows))
    limiting = [limits.limits(judged, name) for name in shown]
    for found in limiting:
        print(limits.text(found))
    for reason, number in data.skipped.items():
        print(f"{number} left out: {reason}")
    return {
        "target": data.target,
        "split": "leave-workload-out",
        "candidates": {label: len(group) for label, group in judged.groups.items()},
        "trained": TRAINED,
        "untrained": untrained,
        "goals": rows,
        "limits": limiting,
        "models": {name: plain(summary) for name, summary in judged.summaries.items()},
        "noise_ceiling": plain(judged.ceiling) if judged.ceiling else None,
        "untrained_models": [name for name in judged.summaries if name in BASELINES],
        "unavailable": dict(judged.unavailable),
        "skipped": dict(data.skipped),
    }


if __name__ == "__main__":
    main()
