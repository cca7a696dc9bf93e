# SPDX-License-Identifier: Apache-2.0
"""Simulates stored candidates anew, for another machine file or with other models switched on.

A candidate is built again from its trace. When that gives the code that was measured, its native
times go with it, since they do not depend on what a simulator counts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import Builder
from simtune.errors import ConfigurationError
from simtune.machines.model import Machine
from simtune.records.model import Run, RunState, Trial, config_digest
from simtune.records.store import RecordStore
from simtune.runner import SimulatorRunner
from simtune.simulators.base import get_simulator, models_to_count
from simtune.tuning.interrupt import interruptible
from simtune.tuning.natively import as_built, rebuild
from simtune.tuning.recorder import make_trial

ms = tvm_setup.load()

#: Candidates that are built, and then simulated, at a time.
_BATCH = 64


@dataclass(frozen=True)
class Resimulated:
    """One run that was taken over.

    Attributes:
        trials, failures: candidates, and those that could not be built or simulated.
        timed: candidates whose native times could be taken over.
    """

    workload: str
    run: str
    trials: int
    failures: int
    timed: int


def resimulate(
    source: RecordStore,
    name: str,
    machine: Machine,
    store: RecordStore,
    *,
    simulator: str = "qemu",
    count: Sequence[str] | None = None,
    jobs: int | None = None,
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Resimulated]:
    """Takes over every run for the machine called `name`; the same call again does only what is missing.

    Args:
        source: where the candidates are.
        name: of the machine that they were simulated for.
        machine: to simulate them for.
        store: where the new simulations go; may be `source`.
        simulator, count, jobs: see `SimulatorRunner`.

    Raises:
        ConfigurationError: `source` has no such runs.
    """
    runs = [run for run in source.runs() if run.machine == name and run.config.get("kind") != "resimulate"]
    if not runs:
        raise ConfigurationError(
            f"{source.path} has no runs for {name}", "see: simtune records list --records FILE"
        )
    builder = Builder(jobs)
    try:
        models = models_to_count(get_simulator(simulator), count)
        options = {"simulator": simulator, "count": tuple(sorted(set(models))), "jobs": jobs}
        return [_run(source, run, machine, store, builder, options, progress) for run in runs]
    finally:
        builder.close()


def _run(
    source: RecordStore,
    old: Run,
    machine: Machine,
    store: RecordStore,
    builder: Any,
    options: dict[str, Any],
    progress: Callable[[str], None],
) -> Resimulated:
    workload = source.workload(old.workload)
    if not workload.tvm_json:
        raise ConfigurationError(
            f"run {old.id}: {workload.name} was stored without its module",
            "leave it out: it did not come from TVM",
        )
    module = ms.database.Workload.from_json(json.loads(workload.tvm_json)).mod
    seed, warmup = int(old.config.get("seed", 0)), int(old.config.get("warmup", 0))
    run = _open(store, store.put_workload(workload), machine, old, options, seed, warmup)
    known = {trial.index: trial for trial in store.trials(run.id)}
    missing = [t for t in source.trials(old.id) if t.ok and t.trace_json and t.index not in known]
    progress(f"{workload.name}: {len(missing)} candidates")
    runner = SimulatorRunner(
        machine,
        records=store,
        workloads=[module],
        seed=seed,
        warmup=warmup,
        straggler_factor=None,  # slow candidates are data, too
        **options,
    )
    infos = ms.arg_info.ArgInfo.from_entry_func(module)
    state = RunState.FAILED
    try:
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            built = rebuild(module, as_built(machine, old), batch, builder)
            ready = [str(path) for path, _ in built if path is not None]
            with interruptible():
                for future in runner.run([ms.runner.RunnerInput(path, "llvm", infos) for path in ready]):
                    future.result()
            for trial, (path, error) in zip(batch, built, strict=True):
                known[trial.index] = _store(source, trial, run, path, error, runner, store)
                if path is not None:
                    shutil.rmtree(path.parent, ignore_errors=True)
            progress(f"{workload.name}: {start + len(batch)}/{len(missing)} simulated")
        state = RunState.FINISHED
    except KeyboardInterrupt:
        state = RunState.INTERRUPTED
        raise
    finally:
        runner.close(cancel=state is not RunState.FINISHED)
        store.finish_run(run.id, state)
    trials = list(known.values())
    timed = sum(trial.measured_s is not None for trial in trials)
    return Resimulated(workload.name, run.id, len(trials), sum(not t.ok for t in trials), timed)


def _open(
    store: RecordStore,
    workload: str,
    machine: Machine,
    old: Run,
    options: dict[str, Any],
    seed: int,
    warmup: int,
) -> Run:
    config = {
        "kind": "resimulate",
        "from": old.id,
        "seed": seed,
        "warmup": warmup,
        "simulator": options["simulator"],
        "count": list(options["count"]),
    }
    known = store.find_run(workload, machine.digest(), config_digest(config))
    if known is not None:
        return store.reopen_run(known.id)
    return store.start_run(
        workload,
        machine.name,
        machine.digest(),
        target=json.dumps(dict(machine.target)),
        config=config,
        versions={name: version(name) for name in ("simtune", *tvm_setup.PINNED)},
    )


def _store(
    source: RecordStore, old: Trial, run: Run, path: Path | None, error: str, runner: Any, store: RecordStore
) -> Trial:
    """Commits one candidate, with its native times if its code is still the same."""
    evaluation = runner.evaluations.pop(str(path)) if path is not None else None
    trial = make_trial(run.id, old.index, old.trace_json, evaluation, error, old.is_reference)
    before = source.simulation(old.simulation) if old.simulation else None
    with store.batch():
        same = evaluation is not None and before and evaluation.digest == before.conditions.object_sha256
        if trial.ok and trial.simulation and before and same:
            taken = {(m.target, m.created) for m in store.measurements(trial.simulation)}
            for measurement in source.measurements(before.key):
                if (measurement.target, measurement.created) not in taken:
                    store.put_measurement(replace(measurement, simulation=trial.simulation))
            trial = replace(trial, measured_s=old.measured_s)
        store.put_trial(trial)
    return trial
