# SPDX-License-Identifier: Apache-2.0
"""Tuning a template space: the tuner asks, the store remembers.

A run is taken up by playing it again: the tuner is a function of its seed and of what it was told, so
it asks for the same points, and those that are stored are answered from the store. A run that was
killed therefore goes on exactly as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.execution.capacity import usable_cores
from simtune.jobs import Outcome, Status
from simtune.records.lease import lease
from simtune.records.model import (
    Conditions,
    Run,
    RunState,
    Simulation,
    Trial,
    Workload,
    canonical_json,
    config_digest,
)
from simtune.records.points import config_of, point_of, reason_of, trace
from simtune.records.store import RecordStore, default_store_path
from simtune.templates import TUNERS, Result, Tuner, create
from simtune.tuning import timings
from simtune.tuning.model import Observer
from simtune.tuning.template_task import BEFORE_RUNNING, Evaluated, Task

Judge = Literal["exact", "compiler", "none"]

#: How each tuner learns of validity unless it is told otherwise; the published ones as published.
JUDGES: Mapping[str, Judge] = {"validity": "exact", "initialised": "compiler"}


@dataclass(frozen=True)
class TemplateResult:
    """What a search gave.

    Attributes:
        best: the best trial, None when every one failed; `config` are its knobs.
        trials, failures, resumed: how many trials the run has, failed, and had from before.
        reasons: failures by code.
        compile_calls: questions to the compiler before measuring.
        timings: wall seconds of this sitting by stage.
    """

    run: str
    best: Trial | None
    config: Mapping[str, int] | None
    trials: int
    failures: int
    resumed: int
    reasons: Mapping[str, int]
    compile_calls: int
    timings: Mapping[str, float] = field(default_factory=dict)


def tune_template(
    task: Task,
    trials: int = 64,
    *,
    tuner: str = "validity",
    options: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    records: str | Path | RecordStore | None = None,
    seed: int = 0,
    batch: int = 4,
    jobs: int | None = None,
    work_dir: str | Path | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
) -> TemplateResult:
    """Searches a template space until its run has `trials` trials, or no point is left.

    Args:
        task: the layer and the machine.
        trials: in the whole run, those of earlier sittings included.
        tuner, options: see `simtune.templates`.
        judge: what tells invalid points before they are evaluated: "exact" constraints, the
            "compiler" as oracle, or "none". Each tuner has a default of its own.
        seed: of the search.
        batch: points per question to the tuner; it learns after each.
        jobs: evaluations at once; all usable cores by default.
        work_dir: for `timings.json`; ``simtune-runs/<run>`` by default.
        fresh: start a new run even if there is one to take up.

    Raises:
        SimtuneError: an unknown tuner or option, a damaged store.
    """
    if trials < 1 or batch < 1:
        raise ConfigurationError(f"trials is {trials} and batch is {batch}, but both must be at least 1")
    judge = judge or JUDGES.get(tuner, "none")
    config = {
        "kind": "template",
        "tuner": tuner,
        "options": dict(options or {}),
        "judge": judge,
        "seed": seed,
        "batch": batch,
        "objective": "latency",
        "simulator": task.simulator,
        "settings": list(task.settings),
        "space": [[knob.name, list(knob.values)] for knob in task.space.knobs],
    }
    # First, because it checks the options: a typing error must not leave an empty run behind.
    made = _make(task, tuner, judge, seed, options)
    store = records if isinstance(records, RecordStore) else RecordStore(records or default_store_path())
    try:
        run = _open_run(store, task, config, fresh)
        with lease(store.path, run.id):
            sitting = _Sitting(task, made, store, run, batch, jobs or usable_cores(), observer or Observer())
            return sitting.run_until(trials, Path(work_dir) if work_dir else Path("simtune-runs") / run.id)
    finally:
        if store is not records:
            store.close()


def _make(task: Task, name: str, judge: str, seed: int, options: Mapping[str, Any] | None) -> Tuner:
    if judge not in ("exact", "compiler", "none"):
        raise ConfigurationError(f"judge is '{judge}'", "one of exact, compiler, none")
    if judge == "compiler" and name in TUNERS and name not in JUDGES:
        raise ConfigurationError(
            f"the tuner '{name}' does not ask the compiler",
            f"judge exact or none, or one of the tuners {', '.join(JUDGES)}",
        )
    return create(
        name,
        task.space,
        seed=seed,
        oracle=task.compile if judge == "compiler" else None,
        constraints=task.codes() if judge == "exact" else None,
        features=task.features,
        prior=task.prior,
        **dict(options or {}),
    )


def _open_run(store: RecordStore, task: Task, config: Mapping[str, Any], fresh: bool) -> Run:
    workload = store.put_workload(Workload(task.name, task.arguments))
    known = None if fresh else store.find_run(workload, task.machine_digest, config_digest(config))
    if known is not None:
        return known
    return store.start_run(
        workload=workload,
        machine=task.machine,
        machine_digest=task.machine_digest,
        target=json.dumps(task.simulator),
        config=config,
        versions={"simtune": version("simtune"), task.simulator: task.simulator_version},
    )


class _Sitting:
    """One sitting of a run that nobody else works on."""

    def __init__(
        self,
        task: Task,
        tuner: Tuner,
        store: RecordStore,
        run: Run,
        batch: int,
        jobs: int,
        observer: Observer,
    ) -> None:
        self.task, self.tuner, self.store, self.batch, self.jobs = task, tuner, store, batch, jobs
        self.run, self.observer = store.reopen_run(run.id), observer
        self.evaluate_s = 0.0

    def run_until(self, trials: int, folder: Path) -> TemplateResult:
        start = time.perf_counter()
        stored = list(self.store.trials(self.run.id))
        done = {point: trial for trial in stored if (point := point_of(trial)) is not None}
        resumed = len(done)
        self.observer.on_start(self.run, stored, trials)
        self.observer.on_stage(f"searching {self.task.space.size:,} points with '{self.tuner.name}'")
        state = RunState.FAILED
        spent: dict[str, float] = {}
        try:
            self._search(done, trials)
            state = RunState.FINISHED
        except KeyboardInterrupt:
            state = RunState.INTERRUPTED
            raise
        finally:
            self.store.finish_run(self.run.id, state)
            folder.mkdir(parents=True, exist_ok=True)
            total = time.perf_counter() - start
            spent = {"run": self.evaluate_s, "search": total - self.evaluate_s, "total": total}
            timings.add(folder / "timings.json", spent)
        best = self.store.best_trial(self.run.id)
        failed = [trial for trial in done.values() if not trial.ok]
        return TemplateResult(
            self.run.id,
            best,
            None if best is None else config_of(best),
            len(done),
            len(failed),
            resumed,
            dict(Counter(map(reason_of, failed)).most_common()),
            self.tuner.oracle_calls,
            spent,
        )

    def _search(self, done: dict[int, Trial], trials: int) -> None:
        next_index = 1 + max((trial.index for trial in done.values()), default=0)
        known = dict(done)  # of earlier sittings, until the tuner asks for them
        while len(done) < trials or known:
            points = self.tuner.ask(self.batch)
            if not points:
                break
            new = [point for point in points if point not in done][: max(0, trials - len(done))]
            for trial in self._evaluate(new, next_index):
                point = point_of(trial)
                assert point is not None
                done[point] = trial
                next_index += 1
            answered = [point for point in points if point in done]
            self.tuner.tell(_result(point, done[point]) for point in answered)
            for point in answered:
                known.pop(point, None)
            if len(answered) < len(points):
                break
        if known:  # stored by another version, whose tuner asked for other points
            self.tuner.tell(_result(point, trial) for point, trial in known.items())

    def _evaluate(self, points: Sequence[int], first: int) -> list[Trial]:
        """Evaluates points, or takes what any run has found before; stores and shows the trials."""
        before = time.perf_counter()
        space = self.task.space
        keys = {point: self._conditions(point) for point in points}
        found: dict[int, Evaluated] = {}
        for point, conditions in keys.items():
            simulation = self.store.get_simulation(conditions.key)
            if simulation is not None:
                found[point] = _from_store(simulation)
        cached = set(found)
        missing = [point for point in points if point not in found]
        results = self.task.evaluate([space.config(point) for point in missing], self.jobs) if missing else []
        found |= dict(zip(missing, results, strict=True))
        self.evaluate_s += time.perf_counter() - before
        simulations = [
            Simulation(keys[point], self._outcome(point, found[point]))
            for point in missing
            if found[point].stage not in BEFORE_RUNNING
        ]
        simulated = cached | {point for point in missing if found[point].stage not in BEFORE_RUNNING}
        trials = [
            self._trial(
                first + place,
                point,
                found[point],
                keys[point].key if point in simulated else None,
                0.0 if point in cached else found[point].wall_s,
            )
            for place, point in enumerate(points)
        ]
        self.store.put_results(simulations, trials)
        for trial in trials:
            self.observer.on_trial(trial)
        return trials

    def _conditions(self, point: int) -> Conditions:
        text = canonical_json([self.task.name, self.task.arguments, self.task.space.config(point)])
        return Conditions(
            hashlib.sha256(text.encode()).hexdigest(),
            self.task.simulator,
            self.task.simulator_version,
            self.task.machine_digest,
            self.task.settings,
        )

    def _outcome(self, point: int, result: Evaluated) -> Outcome:
        name = f"{self.task.simulator} {self.task.simulator_version}"
        output = dict(result.output)
        if result.seconds is not None:
            output["seconds"] = repr(result.seconds)
        if result.code:
            output["code"] = result.code
        return Outcome(
            result.status,
            result.stage,
            Counters(dict(result.counters), name, "none") if result.counters else None,
            output,
            _message(result),
            self.task.command(self.task.space.config(point)),
            result.wall_s,
        )

    def _trial(
        self, index: int, point: int, result: Evaluated, simulation: str | None, wall_s: float
    ) -> Trial:
        space = self.task.space
        text = trace(space.name, point, space.config(point))
        ok = result.status is Status.OK
        return Trial(
            self.run.id,
            index,
            hashlib.sha256(text.encode()).hexdigest()[:16],
            result.status,
            text,
            simulation,
            "" if ok else result.stage,
            "" if ok else _message(result),
            "" if ok else self.task.command(space.config(point)),
            result.seconds,
            result.seconds,
            None,
            simulate_s=wall_s,
        )


def _message(result: Evaluated) -> str:
    return f"{result.code}: {result.message}" if result.code else result.message


def _result(point: int, trial: Trial) -> Result:
    if trial.ok:
        return Result(point, trial.value)
    return Result(point, None, trial.stage, reason_of(trial))


def _from_store(simulation: Simulation) -> Evaluated:
    outcome = simulation.outcome
    code = outcome.output.get("code", "")
    seconds = outcome.output.get("seconds")
    return Evaluated(
        outcome.status,
        outcome.stage,
        code,
        outcome.error.removeprefix(f"{code}: ") if code else outcome.error,
        None if seconds is None else float(seconds),
        dict(outcome.counters or {}),
        outcome.output,
        outcome.wall_s,
    )
