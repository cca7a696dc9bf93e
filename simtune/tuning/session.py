# SPDX-License-Identifier: Apache-2.0
"""One sitting of a tuning run; `simtune.tuning.tune` is its public face."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import Builder
from simtune.counters import Counters
from simtune.machines.model import Machine
from simtune.measure.base import Settings
from simtune.measure.base import Target as Place
from simtune.measure.top import top_count
from simtune.records.lease import lease
from simtune.records.model import Run, RunState, Trial, config_digest
from simtune.records.model import Workload as WorkloadRow
from simtune.records.store import RecordStore
from simtune.runner import SimulatorRunner
from simtune.tuning import timings
from simtune.tuning.interrupt import interruptible
from simtune.tuning.model import Observer, Search, TuneResult
from simtune.tuning.natively import NativeTimes, measure_top_trials
from simtune.tuning.recorder import RecordTrials, make_trial, trace_json
from simtune.tuning.workloads import Workload, parse

ms = tvm_setup.load()


class Session:
    """One sitting of a run: opens or takes it up, searches, measures, closes it."""

    def __init__(
        self,
        workload: Any,
        machine: Machine,
        store: RecordStore,
        search: Search,
        seed: int,
        observer: Observer,
    ) -> None:
        from tvm.target import Target

        if isinstance(workload, str):
            workload = parse(workload)
        named = isinstance(workload, Workload)
        self.name = workload.name if named else "custom"
        self.module = workload.module() if named else workload
        self.machine, self.store, self.search, self.seed, self.observer = (
            machine,
            store,
            search,
            seed,
            observer,
        )
        self.target = Target(dict(machine.target))
        self.arguments = [info.as_json() for info in ms.arg_info.ArgInfo.from_entry_func(self.module)]

    def run(
        self,
        trials: int,
        fresh: bool,
        work_dir: str | Path | None,
        cost_model: Any,
        builder: Any,
        options: dict[str, Any],
        measuring: tuple[int | float | str, Place, Settings] | None,
    ) -> TuneResult:
        start = time.perf_counter()
        # First, because it checks the options: a typing error must not leave an empty run behind.
        runner = SimulatorRunner(
            self.machine,
            records=self.store,
            workloads=[self.module],
            listener=lambda _path, evaluation: self.observer.on_candidate(evaluation),
            **options,
        )
        # A function has no name that tells it from another one, so its runs are never taken up.
        run = self._open_run(fresh or callable(options["objective"]), options)
        with lease(self.store.path, run.id):
            return self._sit(run, start, trials, work_dir, cost_model, builder, runner, options, measuring)

    def _sit(
        self,
        run: Run,
        start: float,
        trials: int,
        work_dir: str | Path | None,
        cost_model: Any,
        builder: Any,
        runner: Any,
        options: dict[str, Any],
        measuring: tuple[int | float | str, Place, Settings] | None,
    ) -> TuneResult:
        """Works on a run that nobody else works on."""
        run = self.store.reopen_run(run.id)
        stored = list(self.store.trials(run.id))
        done = [trial for trial in stored if not trial.is_reference]
        self.observer.on_start(run, stored, trials)
        folder = Path(work_dir) if work_dir else Path("simtune-runs") / run.id
        folder.mkdir(parents=True, exist_ok=True)
        failed = runner.evaluator.keep_failed = folder / "failed"
        own_builder = None
        if builder is None:
            own_builder = Builder(options["jobs"], keep_failed=failed, executor=options["executor"])
        builder = builder or own_builder
        state = RunState.FAILED
        measure_s = 0.0
        try:
            reference = next((trial for trial in stored if trial.is_reference), None)
            if reference is None:
                self.observer.on_stage("simulating TVM's default schedule")
                reference = self._reference(run.id, builder, runner)
            self._remember(stored, runner)
            database = ms.database.MemoryDatabase()
            with self.target:  # TVM registers RVV intrinsics for the target in scope
                if len(done) < trials:
                    with interruptible(), _file_logger(folder / "search.log") as logger:
                        self._search(run, done, trials, builder, runner, database, cost_model, folder, logger)
                else:
                    self._restore(done, database)
            if runner.evaluator.contextual:
                database = self._predict_again(run.id, options)
            before = time.perf_counter()
            measured = self._measure(run.id, builder, *measuring) if measuring else ()
            measure_s = time.perf_counter() - before if measuring else 0.0
            state = RunState.FINISHED
        except KeyboardInterrupt:
            state = RunState.INTERRUPTED
            raise
        finally:
            runner.close(cancel=state is not RunState.FINISHED)
            if own_builder is not None:
                own_builder.close()
            self.store.finish_run(run.id, state)
            spent = timings.split(time.perf_counter() - start, builder, runner, measure_s)
            timings.add(folder / "timings.json", spent)
        searched = [trial for trial in self.store.trials(run.id) if not trial.is_reference]
        best = self.store.best_trial(run.id)
        if measured:
            best = min(
                (trial for trial in measured if not trial.is_reference),
                key=lambda trial: trial.measured_s or 0.0,
                default=None,
            )
            reference = next((trial for trial in measured if trial.is_reference), reference)
            database = ms.database.MemoryDatabase()
            self._restore([replace(trial, value=trial.measured_s) for trial in measured], database)
        return TuneResult(
            run.id,
            best,
            reference,
            len(searched),
            sum(not trial.ok for trial in searched),
            len(done),
            spent,
            database,
            measured,
        )

    def _open_run(self, fresh: bool, options: dict[str, Any]) -> Run:
        simulator, objective = options["simulator"], options["objective"]
        config = {
            "seed": self.seed,
            "search": vars(self.search),
            "warmup": options["warmup"],
            "simulator": simulator if isinstance(simulator, str) else simulator.name,
            "objective": objective
            if isinstance(objective, str)
            else getattr(objective, "__name__", "function"),
            "count": list(options["count"]),
        }
        if options["predictor"] is not None:
            predictor = options["predictor"]
            config["predictor"] = [predictor.name, getattr(predictor, "digest", "")]
        row = WorkloadRow(self.name, self.arguments, _workload_json(self.module))
        workload_id = self.store.put_workload(row)
        known = (
            None if fresh else self.store.find_run(workload_id, self.machine.digest(), config_digest(config))
        )
        if known is not None:
            return known
        versions = {name: version(name) for name in ("simtune", *tvm_setup.PINNED)}
        return self.store.start_run(
            workload=workload_id,
            machine=self.machine.name,
            machine_digest=self.machine.digest(),
            target=json.dumps(dict(self.machine.target)),
            config=config,
            versions=versions,
        )

    @interruptible()
    def _reference(self, run: str, builder: Any, runner: Any) -> Trial:
        """Simulates TVM's default schedule: the unscheduled module as TVM compiles it."""
        from tvm.s_tir import Schedule

        built = builder.build([ms.builder.BuilderInput(self.module, self.target)])[0]
        evaluation = None
        if built.artifact_path is not None:
            infos = ms.arg_info.ArgInfo.from_entry_func(self.module)
            future = runner.run([ms.runner.RunnerInput(built.artifact_path, "llvm", infos)])[0]
            future.result()
            evaluation = runner.evaluations.pop(str(built.artifact_path))
        trial = make_trial(
            run, 0, trace_json(Schedule(self.module)), evaluation, str(built.error_msg or ""), True
        )
        self.store.put_trial(trial)
        self.observer.on_trial(trial)
        return trial

    def _search(
        self,
        run: Run,
        done: list[Trial],
        trials: int,
        builder: Any,
        runner: Any,
        database: Any,
        cost_model: Any,
        folder: Path,
        logger: logging.Logger,
    ) -> None:
        from simtune.tuning.cost_model import BoostedTrees

        # A resumed search must not draw the same first candidates again.
        context = ms.TuneContext(
            mod=self.module,
            target=self.target,
            space_generator="post-order-apply",
            search_strategy=ms.search_strategy.EvolutionarySearch(
                population_size=self.search.population,
                genetic_num_iters=self.search.generations,
                init_min_unmeasured=min(50, self.search.population // 2),
            ),
            task_name=self.name,
            rand_state=1 + (self.seed * 7919 + len(done)) % (2**31 - 2),
            num_threads=self.search.threads,
            logger=logger,
        )
        model = cost_model or BoostedTrees(self.seed)
        restored = self._restore(done, database)
        if restored:
            self.observer.on_stage(f"learning from {len(restored)} stored trials")
            candidates, results = zip(*restored, strict=True)
            model.update(context, list(candidates), list(results))
        recorder = RecordTrials(
            self.store,
            run.id,
            1 + max((t.index for t in done), default=0),
            runner.evaluations,
            self.observer.on_trial,
        )
        # The clean-up callback comes last: the others still look at the artifacts.
        add, update, remove = ms.measure_callback.MeasureCallback.create("default")
        self.observer.on_stage("searching")
        ms.tune.tune_tasks(
            tasks=[context],
            task_weights=[1.0],
            work_dir=str(folder),
            max_trials_global=trials - len(done),
            num_trials_per_iter=self.search.batch,
            builder=builder,
            runner=runner,
            database=database,
            cost_model=model,
            measure_callbacks=[recorder, add, update, remove],
        )

    def _measure(
        self, run: str, builder: Any, top: int | float | str, place: Place, settings: Settings
    ) -> tuple[Trial, ...]:
        """Measures the reference and the best predictions; nothing else runs any more."""
        trials = sum(not trial.is_reference for trial in self.store.trial_briefs(run))
        self.observer.on_stage(f"measuring the best {top_count(top, trials)} on {place.name}")
        times = NativeTimes(
            self.module,
            self.machine,
            self.seed,
            self.store,
            place,
            settings,
            builder,
            self.observer.on_measured,
        )
        return tuple(measure_top_trials(times, run, top_count(top, trials)))

    def _remember(self, stored: list[Trial], runner: Any) -> None:
        """Tells the runner of earlier sittings: the limit on stragglers and predictors look back."""
        known = [counters for trial in stored if (counters := self._counters(trial)) is not None]
        if known:
            runner.remember(known, ms.arg_info.ArgInfo.from_entry_func(self.module))

    def _predict_again(self, run: str, options: dict[str, Any]) -> Any:
        """Predicts all trials in the light of all others, and returns a database with that.

        During the search a trained predictor compares a candidate with those before it only, so that
        early and late values are not quite of one scale.
        """
        known = {t: c for t in self.store.trials(run) if (c := self._counters(t)) is not None}
        seconds = options["predictor"].seconds(list(known.values()), self.machine).tolist()
        latency = options["objective"] == "latency"
        trials = [
            replace(trial, predicted_s=predicted, value=predicted if latency else trial.value)
            for trial, predicted in zip(known, seconds, strict=True)
        ]
        self.store.put_trials(trials)
        database = ms.database.MemoryDatabase()
        self._restore([trial for trial in trials if not trial.is_reference], database)
        return database

    def _counters(self, trial: Trial) -> Counters | None:
        simulation = self.store.simulation(trial.simulation) if trial.ok and trial.simulation else None
        return simulation.outcome.counters if simulation else None

    def _restore(self, done: list[Trial], database: Any) -> list[tuple[Any, Any]]:
        """Puts stored trials into a MetaSchedule database; returns them as (candidate, result)."""
        workload = database.commit_workload(self.module)
        restored = []
        for trial in done:
            record = ms.database.TuningRecord.from_json(
                [
                    json.loads(trial.trace_json),
                    [trial.value if trial.ok else 1e10],
                    json.loads(json.dumps(dict(self.machine.target))),
                    self.arguments,
                ],
                workload,
            )
            if trial.ok:
                database.commit_tuning_record(record)
            candidate = record.as_measure_candidate()
            result = (
                ms.runner.RunnerResult([trial.value], None)
                if trial.ok
                else ms.runner.RunnerResult(None, trial.error or str(trial.status))
            )
            restored.append((candidate, result))
        return restored


def _workload_json(module: Any) -> str:
    shash, graph = ms.database.Workload(module).as_json()
    return json.dumps([str(shash), str(graph)])


@contextmanager
def _file_logger(path: Path) -> Iterator[logging.Logger]:
    """TVM's tables and messages go to a file; the terminal is for progress."""
    logger = logging.getLogger(f"simtune.search.{path.resolve()}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()
