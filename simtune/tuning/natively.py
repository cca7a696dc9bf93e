# SPDX-License-Identifier: Apache-2.0
"""Measures stored trials natively: rebuilds them from their traces, times them, stores the times."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.artifact import load
from simtune.build.codegen import signature
from simtune.build.image import Tensor
from simtune.build.reference import Reference
from simtune.errors import InputFileError, SimtuneError
from simtune.execution.scratch import scratch_folder
from simtune.jobs import Status
from simtune.machines.model import Machine
from simtune.measure.base import Program, Settings, Target, Timing
from simtune.records.model import Measurement, Run, Trial
from simtune.records.store import RecordStore

ms = tvm_setup.load()

#: Where a trial failed that was right in simulation, but not on hardware.
STAGE = "measure"

#: The first candidate of a sitting is measured again after so many others, to see the target drift.
DRIFT_EVERY = 25
DRIFT = 0.05

#: Candidates that are built at a time.
_BATCH = 32


def rebuild(
    module: Any, machine: Machine, trials: Sequence[Trial], builder: Any
) -> list[tuple[Path | None, str]]:
    """Builds trials anew from their traces: the path of each artifact, or None and why.

    Args:
        module: the unscheduled IRModule that they are schedules of.
        builder: a MetaSchedule builder; the artifacts live as long as it wants.
    """
    from tvm.target import Target as TvmTarget

    target = TvmTarget(dict(machine.target))
    workload = ms.database.MemoryDatabase().commit_workload(module)
    arguments = [info.as_json() for info in ms.arg_info.ArgInfo.from_entry_func(module)]
    inputs = []
    with target:  # TVM registers RVV intrinsics for the target in scope
        for trial in trials:
            fields = [json.loads(trial.trace_json), [1.0], dict(machine.target), arguments]
            record = ms.database.TuningRecord.from_json(fields, workload)
            inputs.append(ms.builder.BuilderInput(record.as_measure_candidate().sch.mod, target))
        results = builder.build(inputs)
    return [
        (Path(str(r.artifact_path)) if r.artifact_path is not None else None, str(r.error_msg or ""))
        for r in results
    ]


def as_built(machine: Machine, run: Run) -> Machine:
    """A machine with the TVM target that the candidates of a run were built for, for `rebuild`.

    That of the machine itself when the run's is for another instruction set.
    """
    target = json.loads(run.target or '""')
    same = isinstance(target, dict) and str(target.get("mtriple", "")).partition("-")[0] == machine.isa.name
    return replace(machine, target=target) if same else machine


class NativeTimes:
    """Native times of the trials of one workload, one after the other, nothing else running.

    Args:
        module: the unscheduled IRModule.
        machine: what the trials were built for.
        seed: of the kernels' inputs, as in their simulation.
        store: where the trials are.
        target, settings: where and how to measure.
        builder: a MetaSchedule builder for candidates whose objects are gone.
        on_measured: called with each trial as it is then stored, and its timing.
    """

    def __init__(
        self,
        module: Any,
        machine: Machine,
        seed: int,
        store: RecordStore,
        target: Target,
        settings: Settings,
        builder: Any,
        on_measured: Callable[[Trial, Timing], None],
    ) -> None:
        self.module, self.machine, self.seed, self.store = module, machine, seed, store
        self.target, self.settings, self.builder, self.on_measured = target, settings, builder, on_measured
        self._tensors: tuple[Tensor, ...] = tuple(signature(module.functions_items()[0][1]))

    def pending(self, trials: Sequence[Trial], passes: int = 1) -> list[Trial]:
        """Those that can be measured and were not yet `passes` times; times from other runs count, too."""
        open_trials = []
        keys = set()  # a search may come to the same code by two traces
        for trial in trials:
            if not trial.ok or trial.simulation is None or trial.stage == STAGE:
                continue
            known = list(self.store.measurements(trial.simulation, target=self.target.name))
            if len(known) < passes and trial.simulation not in keys:
                open_trials.append(trial)
                keys.add(trial.simulation)
            elif known and trial.measured_s is None:
                self.store.put_trial(replace(trial, measured_s=known[-1].median))
        return open_trials

    def measure(self, trials: Sequence[Trial], objects: Mapping[int, Path] | None = None) -> None:
        """Measures pending trials and stores each before the next one starts.

        Args:
            trials: of `pending`.
            objects: what of them is still there from the simulation, by index.

        Raises:
            SimtuneError: the target does not answer; what was measured until then is stored.
        """
        folder = scratch_folder("measure")
        try:
            self._measure(trials, objects or {}, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _measure(self, trials: Sequence[Trial], objects: Mapping[int, Path], folder: Path) -> None:
        reference = Reference(self.module, self.seed, folder)
        first: tuple[Trial, Program, float] | None = None
        drift = 1.0
        for start in range(0, len(trials), _BATCH):
            batch = trials[start : start + _BATCH]
            paths = self._objects(batch, objects)
            for number, trial in enumerate(batch, start):
                if first is not None and number % DRIFT_EVERY == 0:
                    again = self._time(first[1])
                    if again.median is not None:
                        drift = again.median / first[2]
                        self._put_times(first[0], again, drift)
                scratch = folder / str(trial.index)
                scratch.mkdir()
                try:
                    program = self._program(trial, *paths[trial.index], reference, scratch)
                except InputFileError as error:
                    self._put(trial, Timing(Status.INVALID, error=str(error)), drift)
                    continue
                timing = self._time(program)
                self._put(trial, timing, drift)
                if first is None and timing.median is not None:
                    first = trial, program, timing.median

    def _objects(
        self, batch: Sequence[Trial], objects: Mapping[int, Path]
    ) -> dict[int, tuple[Path | None, str]]:
        found: dict[int, tuple[Path | None, str]] = {
            trial.index: (objects[trial.index], "")
            for trial in batch
            if trial.index in objects and objects[trial.index].exists()
        }
        missing = [trial for trial in batch if trial.index not in found]
        if missing:
            built = rebuild(self.module, self.machine, missing, self.builder)
            found |= {trial.index: result for trial, result in zip(missing, built, strict=True)}
        return found

    def _program(
        self, trial: Trial, path: Path | None, error: str, reference: Reference, scratch: Path
    ) -> Program:
        if path is None:
            raise InputFileError(f"it could not be built again: {error}")
        artifact = load(path, scratch)
        simulation = self.store.simulation(trial.simulation or "")
        if simulation is None or artifact.digest != simulation.conditions.object_sha256:
            raise InputFileError("what was built from its trace is not what was simulated")
        constant = "--constant" in simulation.conditions.arguments
        return Program(
            artifact, artifact.plan(self._tensors), self.seed, constant, reference.expectation(constant)
        )

    def _time(self, program: Program) -> Timing:
        timing = self.target.measure(program, self.settings)
        if timing.status is Status.INFRASTRUCTURE:
            timing = self.target.measure(program, self.settings)
        if timing.status is Status.INFRASTRUCTURE:
            raise SimtuneError(
                f"target {self.target.name}: {timing.error}",
                "mend it and run the same command: it goes on where it ended",
            )
        return timing

    def _put(self, trial: Trial, timing: Timing, drift: float) -> None:
        if timing.ok:
            stored = replace(trial, measured_s=timing.median)
        else:  # it ran right in simulation, and its prediction stays valid
            stored = replace(
                trial, stage=STAGE, error=f"{timing.status} on {self.target.name}: {timing.error}"
            )
        with self.store.batch():
            timing = self._put_times(stored, timing, drift)
            self.store.put_trial(stored)
        self.on_measured(stored, timing)

    def _put_times(self, trial: Trial, timing: Timing, drift: float) -> Timing:
        """Stores the times, if there are any; returns the timing with a note when the target drifts."""
        label = timing.median
        if label is None:
            return timing
        if abs(drift - 1) > DRIFT:
            note = f"drift: the first candidate of this sitting takes {drift:.2f} times as long now"
            timing = replace(timing, notes=(*timing.notes, note))
        conditions = {**timing.conditions, "notes": timing.notes, "wall_s": timing.wall_s, "drift": drift}
        self.store.put_measurement(
            Measurement(
                trial.simulation or "",
                self.target.name,
                timing.seconds,
                label,
                timing.spread,
                conditions,
            )
        )
        return timing


def measure_top_trials(times: NativeTimes, run: str, count: int) -> list[Trial]:
    """Measures TVM's default schedule and the `count` best predictions of a run, and returns them.

    One that fails on the target is replaced by the next best.
    """
    while True:
        usable = [trial for trial in times.store.trials(run) if trial.ok and trial.stage != STAGE]
        ranked = sorted(
            (trial for trial in usable if not trial.is_reference and trial.value is not None),
            key=lambda trial: trial.value or 0.0,
        )
        chosen = [*(trial for trial in usable if trial.is_reference), *ranked[:count]]
        pending = times.pending(chosen)
        times.measure(pending)
        if not pending and all(trial.measured_s is not None for trial in chosen):
            return chosen
