# SPDX-License-Identifier: Apache-2.0
"""Tuning two tasks one after the other, and overlapped: one task's batch simulates while the next builds.

One build worker and one simulator slot each, so that either stage alone leaves a core idle. The search
replays random traces, so all runs have the same candidates; this is checked by their objects.

    python benchmarks/overlap.py --trials 64      # about 3 minutes on 2 cores
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

from conditions import conditions, emit, parser

import simtune
from simtune.build.artifact import side_file
from simtune.machines.load import load_machine
from simtune.tuning.workloads import parse
from simtune.tvm_setup import load

ms = load()

from tvm.ir.utils import derived_object  # noqa: E402
from tvm.target import Target  # noqa: E402


@derived_object
class TimedBuilder(ms.builder.PyBuilder):  # type: ignore[misc, name-defined]
    """simtune's builder; keeps when it built, and what."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.builder = simtune.Builder(workers)
        self.spans: list[tuple[float, float]] = []
        self.objects: set[str] = set()

    def build(self, build_inputs: list[Any]) -> list[Any]:
        start = time.perf_counter()
        results = self.builder.build(build_inputs)
        self.spans.append((start, time.perf_counter()))
        for result in results:
            if result.artifact_path:
                path = Path(str(result.artifact_path))
                assert side_file(path).exists()
                self.objects.add(hashlib.sha256(path.read_bytes()).hexdigest())
        return results


def tasks(workloads: list[str], target: Any, seed: int) -> list[Any]:
    return [
        ms.TuneContext(
            mod=parse(name).module(),
            target=target,
            space_generator="post-order-apply",
            search_strategy="replay-trace",
            task_name=name,
            rand_state=seed + 1,
            num_threads=1,
        )
        for name in workloads
    ]


def run(groups: list[list[str]], scheduler: Any, args: Any) -> dict[str, Any]:
    """Tunes each group of tasks in a call of its own."""
    target = Target(dict(load_machine(args.machine).target))
    finished: list[float] = []
    runner = simtune.SimulatorRunner(
        args.machine,
        records=":memory:",
        jobs=1,
        straggler_factor=None,
        listener=lambda _path, _evaluation: finished.append(time.perf_counter()),
    )
    builder = TimedBuilder(1)
    with target:
        contexts = [tasks(group, target, args.seed) for group in groups]
        # Starts the build process, and compiles the harness.
        builder.builder.build([ms.builder.BuilderInput(contexts[0][0].mod, target)])
        start = time.perf_counter()
        for group in contexts:
            with tempfile.TemporaryDirectory() as folder:
                ms.tune.tune_tasks(
                    tasks=group,
                    task_weights=[1.0] * len(group),
                    work_dir=folder,
                    max_trials_global=args.trials * len(group),
                    max_trials_per_task=args.trials,
                    num_trials_per_iter=args.batch,
                    builder=builder,
                    runner=runner,
                    database=ms.database.MemoryDatabase(),
                    cost_model="random",
                    task_scheduler=scheduler(),
                )
        wall = time.perf_counter() - start
    builder.builder.close()
    runner.close()
    return {
        "wall_s": round(wall, 2),
        "build_s": round(sum(end - begin for begin, end in builder.spans), 2),
        "run_s": round(runner.wall_s, 2),
        "simulations": len(finished),
        "finished_while_building": sum(any(a < t < b for a, b in builder.spans) for t in finished),
        "objects": sorted(builder.objects),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--machine", default="sifive-u74")
    options.add_argument(
        "--workloads", nargs=2, default=["matmul:m=128,n=128,k=128", "matmul:m=96,n=160,k=192"]
    )
    options.add_argument("--trials", type=int, default=64, help="per task")
    options.add_argument("--batch", type=int, default=16)
    args = options.parse_args()
    schedulers = {
        "one_after_the_other": ([[name] for name in args.workloads], lambda: "gradient"),
        "gradient": ([args.workloads], lambda: "gradient"),
        "round_robin": ([args.workloads], lambda: "round-robin"),
        "overlapping": ([args.workloads], simtune.OverlappingScheduler),
    }
    results = {name: run(*how, args) for name, how in schedulers.items()}
    objects = [result.pop("objects") for result in results.values()]
    emit(
        {
            "conditions": conditions(),
            "machine": args.machine,
            "workloads": args.workloads,
            "trials_per_task": args.trials,
            "batch": args.batch,
            "seed": args.seed,
            "same_candidates": all(one == objects[0] for one in objects),
            **results,
            "wall_ratio": round(
                results["overlapping"]["wall_s"] / results["one_after_the_other"]["wall_s"], 3
            ),
        },
        args.output,
    )


if __name__ == "__main__":
    main()
