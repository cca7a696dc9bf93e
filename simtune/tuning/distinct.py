# SPDX-License-Identifier: Apache-2.0
"""Simulates candidates of a run in order, and stores those whose code the run does not have yet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.artifact import load
from simtune.errors import InputFileError
from simtune.records.model import Trial
from simtune.records.store import RecordStore
from simtune.tuning.interrupt import interruptible
from simtune.tuning.recorder import candidate_name, make_trial

ms = tvm_setup.load()

from tvm.target import Target  # noqa: E402


class DistinctTrials:
    """Builds, simulates and stores candidates.

    Args:
        module: the unscheduled IRModule.
        target: TVM's target.
        builder, runner: MetaSchedule builder and `SimulatorRunner`.
        store, run: where trials go.
        known: trials that the run has.
        on_trial: called with each stored trial.
    """

    def __init__(
        self,
        module: Any,
        target: Target,
        builder: Any,
        runner: Any,
        store: RecordStore,
        run: str,
        known: list[Trial],
        on_trial: Callable[[Trial], None],
    ) -> None:
        self._target, self._builder, self._runner = target, builder, runner
        self._store, self._run, self._on_trial = store, run, on_trial
        self._arguments = ms.arg_info.ArgInfo.from_entry_func(module)
        #: Index of the next trial.
        self.next = 1 + max((trial.index for trial in known), default=0)
        #: What was built and simulated, by index of the trial.
        self.objects: dict[int, Path] = {}
        self._names = {trial.candidate for trial in known}
        simulations = [store.simulation(trial.simulation) for trial in known if trial.simulation]
        self._digests = {s.conditions.object_sha256 for s in simulations if s is not None}

    @interruptible()
    def add(self, candidates: list[tuple[Any, str]], is_reference: bool = False) -> None:
        """Adds (module, trace) pairs; each trial is stored before the next one's result is awaited."""
        fresh = {candidate_name(trace): (module, trace) for module, trace in candidates}
        pairs = [pair for name, pair in fresh.items() if name not in self._names]
        self._names |= set(fresh)
        with self._target:  # TVM registers RVV intrinsics for the target in scope
            built = self._builder.build([ms.builder.BuilderInput(m, self._target) for m, _ in pairs])
        distinct = [
            (trace, result)
            for (_, trace), result in zip(pairs, built, strict=True)
            if result.artifact_path is None or self._is_new(Path(str(result.artifact_path)))
        ]
        paths = [str(result.artifact_path) for _, result in distinct if result.artifact_path is not None]
        futures = iter(
            self._runner.run([ms.runner.RunnerInput(path, "llvm", self._arguments) for path in paths])
        )
        for trace, result in distinct:
            index, evaluation = 0 if is_reference else self.next, None
            if result.artifact_path is not None:
                next(futures).result()
                self.objects[index] = Path(str(result.artifact_path))
                evaluation = self._runner.evaluations.pop(str(result.artifact_path))
            error = str(result.error_msg or "")
            trial = make_trial(self._run, index, trace, evaluation, error, is_reference)
            self._store.put_trial(trial)
            self.next += not is_reference
            self._on_trial(trial)

    def _is_new(self, path: Path) -> bool:
        """Whether the run has no such code; forgets the artifact otherwise."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                digest = load(path, Path(scratch)).digest
            except InputFileError:
                return True  # what is wrong with it will be the trial's failure
        if digest in self._digests:
            shutil.rmtree(path.parent, ignore_errors=True)
            return False
        self._digests.add(digest)
        return True
