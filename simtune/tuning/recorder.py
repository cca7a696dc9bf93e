# SPDX-License-Identifier: Apache-2.0
"""Joins what the search proposed with what became of it, and stores the trials."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import AGAIN
from simtune.candidates import Evaluation
from simtune.jobs import Status
from simtune.records.model import Trial
from simtune.records.store import RecordStore

ms = tvm_setup.load()

from tvm.ir.utils import derived_object  # noqa: E402


def trace_json(schedule: Any) -> str:
    """The schedule's trace as the JSON text that TVM's tuning records hold."""
    return json.dumps(_plain(schedule.trace.as_json()))


def candidate_name(trace: str) -> str:
    """The name of a candidate in the records, from its trace."""
    return hashlib.sha256(trace.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """TVM's containers as JSON values."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "__iter__"):
        return [_plain(item) for item in value]
    return value.value if hasattr(value, "value") else str(value)


@derived_object
class RecordTrials(ms.measure_callback.PyMeasureCallback):  # type: ignore[misc, name-defined]
    """Measure callback that commits each batch as trials of a run.

    Args:
        store, run: where they go.
        first: index of the next trial.
        evaluations: the runner's evaluations by artifact path.
        on_trial: called with each stored trial.
    """

    def __init__(
        self,
        store: RecordStore,
        run: str,
        first: int,
        evaluations: dict[str, Evaluation],
        on_trial: Callable[[Trial], None],
    ) -> None:
        super().__init__()
        self.store, self.run, self.next, self.evaluations, self.on_trial = (
            store,
            run,
            first,
            evaluations,
            on_trial,
        )

    def apply(
        self,
        task_scheduler: Any,
        task_id: int,
        measure_candidates: list[Any],
        builder_results: list[Any],
        runner_results: list[Any],
    ) -> None:
        """Stores one batch; called by MetaSchedule."""
        trials = []
        for candidate, built in zip(measure_candidates, builder_results, strict=True):
            trace = trace_json(candidate.sch)
            path = None if built.artifact_path is None else str(built.artifact_path)
            evaluation = self.evaluations.pop(path, None) if path else None
            trials.append(make_trial(self.run, self.next, trace, evaluation, str(built.error_msg or "")))
            self.next += 1
        self.store.put_trials(trials)
        for trial in trials:
            self.on_trial(trial)


def make_trial(
    run: str,
    index: int,
    trace: str,
    evaluation: Evaluation | None,
    build_error: str,
    is_reference: bool = False,
) -> Trial:
    """A trial row from an evaluation, or from the message of a failed build."""
    name = candidate_name(trace)
    if evaluation is None:
        error, _, command = build_error.partition(AGAIN)
        return Trial(
            run,
            index,
            name,
            Status.BUILD_FAILED,
            trace,
            stage="build",
            error=error or "the builder returned no artifact",
            command=command,
            is_reference=is_reference,
        )
    return evaluation.trial(run, index, name, trace, is_reference)
