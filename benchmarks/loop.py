# SPDX-License-Identifier: Apache-2.0
"""A whole tuning run by stage: where the wall time goes, how busy the simulators keep the cores,
what the framework costs per job, and the same run with TVM's default builder.

Goals: cores at least 90 % busy with jobs between a batch's first and last job; at most 5 ms CPU per
job beside linking (at most 10 ms) and simulating; at most half the wall time of TVM's builder; and
building at most 1.2 times the wall time of bare lowering and code generation in a warm process.

    python benchmarks/loop.py                 # about 10 minutes on 2 cores
    python benchmarks/loop.py --trials 32 --skip-tvm
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from conditions import conditions, emit, parser
from kernels import sampled

import simtune
from simtune.execution.capacity import usable_cores
from simtune.machines.load import load_machine
from simtune.records.store import RecordStore
from simtune.tuning.tune import tune
from simtune.tuning.workloads import parse


def cpu_seconds() -> float:
    """CPU of this process and of all children that it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def whole_run(
    workload: str, machine: str, trials: int, seed: int, folder: Path, builder: Any
) -> dict[str, Any]:
    """One tuning run; `builder` replaces simtune's when given."""
    with RecordStore(folder / "records.db") as store:
        start = time.perf_counter()
        result = tune(workload, machine, trials, records=store, seed=seed, work_dir=folder, builder=builder)
        wall = time.perf_counter() - start
        done = [trial for trial in store.trials(result.run) if not trial.is_reference]
        simulations = [store.simulation(trial.simulation) for trial in done if trial.simulation]
    simulate = sum(trial.simulate_s + trial.link_s for trial in done)
    timings = result.timings
    return {
        "trials": len(done),
        "failed": sum(not trial.ok for trial in done),
        "wall_s": round(wall, 2),
        "build_s": round(timings["build"], 2),
        "run_s": round(timings["run"], 2),
        "search_s": round(timings["search"], 2),
        "cores_busy": round(simulate / (timings["run"] * usable_cores()), 3),
        "simulate_cpu_ms": round(
            1e3 * sum(s.outcome.cpu_s for s in simulations if s) / max(1, len(simulations)), 1
        ),
        "best_s": result.best.value if result.best else None,
        "default_s": result.reference.value if result.reference else None,
    }


def overhead(machine: str, jobs: int) -> dict[str, float]:
    """CPU per job beside the simulator's own, over many runs of one small kernel."""
    from tvm.ir import save_json
    from tvm.target import Target

    from simtune.build import codegen
    from simtune.build.artifact import load, write_side_file
    from simtune.build.link import linker
    from simtune.candidates import Candidate
    from simtune.evaluate import Evaluator
    from simtune.predictors.analytical import AnalyticalPredictor
    from simtune.predictors.objective import resolve_objective
    from simtune.simulators.base import get_simulator

    loaded = load_machine(machine)
    target = Target(dict(loaded.target))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "candidate.o"
        with target:
            info = codegen.emit(save_json(parse("matmul:m=64,n=64,k=64").module()), target, str(path))
        write_side_file(path, info)
        artifact = load(path, Path(scratch))
        link, plan = linker(artifact.isa).link, artifact.plan()
        before = cpu_seconds()
        for _ in range(jobs):
            link(artifact.objects, plan, Path(scratch) / "k.elf")
        linking = (cpu_seconds() - before) / jobs
        with RecordStore(Path(scratch) / "records.db") as store:
            evaluator = Evaluator(
                loaded, get_simulator("qemu"), AnalyticalPredictor(), resolve_objective("latency"), store
            )
            evaluator.evaluate(Candidate(path))  # warms up
            before = cpu_seconds()
            simulated = 0.0
            for seed in range(jobs):
                evaluator.seed = 1 + seed  # another key each time, so that nothing comes from the store
                outcome = evaluator.submit(Candidate(path)).result().outcome
                assert outcome is not None
                simulated += outcome.cpu_s
            total = (cpu_seconds() - before) / jobs
            evaluator.close()
    return {
        "jobs": jobs,
        "link_cpu_ms": round(1e3 * linking, 2),
        "simulate_cpu_ms": round(1e3 * simulated / jobs, 2),
        "framework_cpu_ms": round(1e3 * (total - simulated / jobs - linking), 2),
    }


def build_ratio(workload: str, machine: str, candidates: int, seed: int) -> dict[str, float]:
    """Wall time per candidate of the builder, with one worker, against the bare calls in a warm process."""
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock
    from tvm.target import Target
    from tvm.tirx import build

    from simtune.tvm_setup import load

    ms = load()
    loaded = load_machine(machine)
    target = Target(dict(loaded.target))
    modules = sampled(parse(workload).module(), loaded, candidates, seed)
    with target, tempfile.TemporaryDirectory() as scratch:
        builder = simtune.Builder(1)
        builder.build([ms.builder.BuilderInput(modules[0], target)])
        bare = ours = 0.0
        # In turns, so that drifting machine speed hits both alike.
        for module in modules:
            start = time.perf_counter()
            library = build(RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module), target=target)
            (library.mod if hasattr(type(library), "mod") else library).write_to_file(
                f"{scratch}/bare.o", "o"
            )
            bare += time.perf_counter() - start
            start = time.perf_counter()
            builder.build([ms.builder.BuilderInput(module, target)])
            ours += time.perf_counter() - start
        builder.close()
    return {
        "candidates": len(modules),
        "bare_s": round(bare, 2),
        "builder_s": round(ours, 2),
        "ratio": round(ours / bare, 3),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--workload", default="resnet18.conv4_ds")
    options.add_argument("--machine", default="sifive-u74")
    options.add_argument("--trials", type=int, default=128)
    options.add_argument("--skip-tvm", action="store_true", help="leave out the run with TVM's builder")
    args = options.parse_args()
    result: dict[str, Any] = {
        "conditions": conditions(),
        "workload": args.workload,
        "machine": args.machine,
        "seed": args.seed,
    }
    result["overhead"] = overhead(args.machine, 100)
    result["building"] = build_ratio(args.workload, args.machine, 24, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        result["simtune"] = whole_run(args.workload, args.machine, args.trials, args.seed, Path(folder), None)
    if not args.skip_tvm:
        from simtune.tvm_setup import load

        ms = load()

        local = ms.builder.LocalBuilder(timeout_sec=300)
        with tempfile.TemporaryDirectory() as folder:
            result["tvm_builder"] = whole_run(
                args.workload, args.machine, args.trials, args.seed, Path(folder), local
            )
        result["wall_ratio"] = round(result["simtune"]["wall_s"] / result["tvm_builder"]["wall_s"], 3)
    emit(result, args.output)


if __name__ == "__main__":
    main()
