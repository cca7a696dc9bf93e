# SPDX-License-Identifier: Apache-2.0
"""Takes over a TVM database: rebuilds its candidates, simulates them, stores its times as measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import Builder
from simtune.machines.model import Machine
from simtune.records.model import Measurement, Run, RunState, Trial, config_digest
from simtune.records.model import Workload as WorkloadRow
from simtune.records.store import RecordStore
from simtune.runner import SimulatorRunner
from simtune.simulators.base import get_simulator, models_to_count
from simtune.tuning.interrupt import interruptible
from simtune.tuning.recorder import make_trial, trace_json
from simtune.tuning.tvm_database import StoredCandidate, TvmDatabase

ms = tvm_setup.load()

#: TVM notes a failed run as this many seconds.
_FAILED_S = 1e9


@dataclass(frozen=True)
class Imported:
    """One workload of the database.

    Attributes:
        trials, failures: candidates, and those that could not be built or simulated.
        timed: candidates with a time in the database and a simulation.
    """

    workload: str
    run: str
    trials: int
    failures: int
    timed: int


def import_tvm(
    folder: str | Path,
    machine: Machine,
    store: RecordStore,
    *,
    target: str,
    names: Mapping[int, str] | None = None,
    simulator: str = "qemu",
    count: tuple[str, ...] | None = None,
    warmup: int = 0,
    seed: int = 0,
    jobs: int | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Imported]:
    """Imports a MetaSchedule JSON database; the same call again simulates only what is missing.

    Every candidate is built by its trace for the TVM target of its record, since that is the code
    whose time was noted, and simulated on `machine`.

    Args:
        folder: holds the two files of the database, see `TvmDatabase`.
        target: what the times were measured on, such as ``rpc:pi4``; see `Measurement.target`.
        names: of the workloads, by their line in the file from 0; by default the database's folder
            and the line.
        simulator, count, warmup, seed, jobs: see `SimulatorRunner`.

    Raises:
        InputFileError: the files are missing or hold something else.
    """
    path = Path(folder)
    count = models_to_count(get_simulator(simulator), count)
    database = TvmDatabase(path)
    by_workload: dict[int, list[StoredCandidate]] = {}
    for candidate in database.candidates():
        by_workload.setdefault(candidate.workload, []).append(candidate)
    builder = Builder(jobs)
    try:
        results = []
        for number, chosen in by_workload.items():
            name = (names or {}).get(number, f"{path.name}.{number}")
            stored = database.workloads[number]
            row = WorkloadRow(name, chosen[0].arguments, json.dumps([str(stored[0]), stored[1]]))
            progress(name)
            config = {
                "kind": "import",
                "target": target,
                "simulator": simulator,
                "count": sorted(set(count)),
                "warmup": warmup,
                "seed": seed,
            }
            run = _open(store, row, machine, config, json.dumps(chosen[0].target))
            runner = SimulatorRunner(
                machine,
                records=store,
                simulator=simulator,
                workloads=[database.module(number)],
                count=count,
                warmup=warmup,
                seed=seed,
                jobs=jobs,
                straggler_factor=None,  # slow candidates are data, too
            )
            state = RunState.FAILED
            try:
                results.append(_workload(store, run, name, database, chosen, target, builder, runner))
                state = RunState.FINISHED
            finally:
                runner.close(cancel=state is not RunState.FINISHED)
                store.finish_run(run.id, state)
        return results
    finally:
        builder.close()


def _open(store: RecordStore, row: WorkloadRow, machine: Machine, config: dict[str, Any], target: str) -> Run:
    workload = store.put_workload(row)
    known = store.find_run(workload, machine.digest(), config_digest(config))
    if known is not None:
        return store.reopen_run(known.id)
    versions = {name: version(name) for name in ("simtune", *tvm_setup.PINNED)}
    return store.start_run(
        workload, machine.name, machine.digest(), target=target, config=config, versions=versions
    )


@interruptible()
def _workload(
    store: RecordStore,
    run: Run,
    name: str,
    database: TvmDatabase,
    chosen: list[StoredCandidate],
    target: str,
    builder: Any,
    runner: Any,
) -> Imported:
    from tvm.target import Target

    known = {trial.index: trial for trial in store.trials(run.id)}
    missing = [index for index in range(len(chosen)) if index not in known]
    infos = ms.arg_info.ArgInfo.from_entry_func(database.module(chosen[0].workload))
    with Target(chosen[0].target):  # TVM registers RVV intrinsics for the target in scope
        schedules = [database.schedule(chosen[index]) for index in missing]
        built = builder.build(
            [
                ms.builder.BuilderInput(schedule.mod, Target(chosen[index].target))
                for index, schedule in zip(missing, schedules, strict=True)
            ]
        )
    ready = [item for item in built if item.artifact_path is not None]
    futures = runner.run([ms.runner.RunnerInput(item.artifact_path, "llvm", infos) for item in ready])
    for future in futures:
        future.result()
    for index, schedule, item in zip(missing, schedules, built, strict=True):
        evaluation = runner.evaluations.pop(str(item.artifact_path)) if item.artifact_path else None
        trial = make_trial(run.id, index, trace_json(schedule), evaluation, str(item.error_msg or ""))
        known[index] = trial
        store.put_trial(trial)
        _put_time(store, trial, chosen[index].seconds, target)
    trials = list(known.values())
    timed = sum(
        any(store.measurements(trial.simulation, target=target)) for trial in trials if trial.simulation
    )
    return Imported(name, run.id, len(trials), sum(not trial.ok for trial in trials), timed)


def _put_time(store: RecordStore, trial: Trial, times: Any, target: str) -> None:
    seconds = [float(t) for t in times or [] if math.isfinite(float(t)) and 0 < float(t) < _FAILED_S]
    if trial.ok and trial.simulation and seconds:
        middle = median(seconds)
        spread = (max(seconds) - min(seconds)) / middle
        store.put_measurement(Measurement(trial.simulation, target, seconds, middle, spread))
