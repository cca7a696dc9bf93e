# SPDX-License-Identifier: Apache-2.0
"""Tunes one workload for one machine, in simulation, resumably: `simtune.tune(...)`."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import Builder
from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.evaluate import Evaluation
from simtune.execution.base import Executor
from simtune.jobs import Limits, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.measure.base import Settings, Timing, require
from simtune.measure.base import Target as Place
from simtune.measure.parse import parse_target
from simtune.measure.top import top_count
from simtune.predictors.base import Predictor
from simtune.predictors.storage import load_predictor
from simtune.records.model import Run, RunState, Trial, config_digest
from simtune.records.model import Workload as WorkloadRow
from simtune.records.store import RecordStore, default_store_path
from simtune.runner import SimulatorRunner
from simtune.simulators.base import Simulator
from simtune.tuning.interrupt import interruptible
from simtune.tuning.natively import NativeTimes, measure_top_trials
from simtune.tuning.recorder import RecordTrials, make_trial, trace_json
from simtune.tuning.workloads import Workload, parse

ms = tvm_setup.load()


@dataclass(frozen=True)
class Search:
    """What the search does; part of a run's identity, since it decides which candidates come up.

    Attributes:
        batch: candidates per round; a round is built, then simulated, then learned from.
        population, generations: of the evolution between rounds.
        threads: of the evolution. With one, a seed always gives the same candidates; with more, TVM's
            threads race for random numbers.
    """

    batch: int = 32
    population: int = 128
    generations: int = 3
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:  # TVM would abort deep inside the search
                raise ConfigurationError(f"the search's {name} is {value}, but must be at least 1")


class Observer:
    """What a caller can watch; all methods do nothing by default."""

    def on_start(self, run: Run, stored: int, trials: int) -> None:
        """A run starts or is taken up again; `stored` of `trials` are already done."""

    def on_stage(self, text: str) -> None:
        """Something that takes a while begins."""

    def on_candidate(self, evaluation: Evaluation) -> None:
        """A simulation ended; called from the thread that ran it."""

    def on_trial(self, trial: Trial) -> None:
        """A trial was stored."""

    def on_measured(self, trial: Trial, timing: Timing) -> None:
        """A trial was measured natively."""


@dataclass(frozen=True)
class TuneResult:
    """What a tuning run gave.

    Attributes:
        run: id of the run in the store.
        best: the best trial, None when every candidate failed; with `measure_top` the best of those
            that were measured.
        reference: TVM's default schedule, as a trial.
        trials, failures, resumed: how many trials the run has, failed, and had from before.
        timings: wall seconds of this sitting by stage.
        database: MetaSchedule database with the successful trials; with `measure_top` only those that
            were measured, with their measured times.
        measured: trials with native times, the reference among them.
    """

    run: str
    best: Trial | None
    reference: Trial | None
    trials: int
    failures: int
    resumed: int
    timings: dict[str, float] = field(default_factory=dict)
    database: Any = None
    measured: tuple[Trial, ...] = ()

    @property
    def gain(self) -> float | None:
        """How many times better the best trial is than TVM's default schedule; measured, if both are."""
        if self.best and self.reference and self.best.measured_s and self.reference.measured_s:
            return self.reference.measured_s / self.best.measured_s
        if self.best is None or self.reference is None or not self.best.value or self.reference.value is None:
            return None
        return self.reference.value / self.best.value


def tune(
    workload: str | Workload | Any,
    machine: str | Path | Machine,
    trials: int = 64,
    *,
    records: str | Path | RecordStore | None = None,
    simulator: str | Simulator = "qemu",
    predictor: Predictor | str | Path | None = None,
    objective: Any = "latency",
    seed: int = 0,
    search: Search | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
    count: tuple[str, ...] = (),
    warmup: int = 0,
    straggler_factor: float | None = 10.0,
    cost_model: Any = None,
    builder: Any = None,
    work_dir: str | Path | None = None,
    fresh: bool = False,
    measure_top: int | float | str | None = None,
    target: str | Place = "host",
    settings: Settings | None = None,
    observer: Observer | None = None,
) -> TuneResult:
    """Tunes a workload until its run has `trials` trials.

    An earlier run with the same workload, machine, seed and options is taken up where it ended;
    simulations that any run finished are never repeated.

    Args:
        workload: name or parametric form (see `simtune workloads list`), a `Workload`, or an
            unscheduled IRModule with one PrimFunc.
        machine: name, path of a machine file, "host", or a `Machine`.
        trials: in the whole run, those of earlier sittings included.
        work_dir: for logs and failed candidates; ``simtune-runs/<run>`` by default.
        fresh: start a new run even if there is one to take up.
        measure_top: after the search, measure so many of the best predictions natively (``5``, or
            ``"3%"`` of the trials) beside TVM's default schedule, and return the best measured one.
        target, settings: where and how to measure, see `simtune.measure`.
        observer: is told what happens.
        records, simulator, predictor, objective, seed, jobs, executor, limits, count, warmup,
            straggler_factor: see `SimulatorRunner`.
        cost_model: a MetaSchedule cost model; `BoostedTrees` by default.
        builder: a MetaSchedule builder, left open; by default a `simtune.Builder` of its own.

    Raises:
        SimtuneError: unknown names, a simulator that does not work here, a damaged store.
    """
    if trials < 1:
        raise ConfigurationError(f"trials is {trials}, but must be at least 1")
    if seed < 0 or warmup < 0:
        raise ConfigurationError(f"seed is {seed} and warmup is {warmup}, but neither may be negative")
    loaded = machine if isinstance(machine, Machine) else load_machine(machine)
    if isinstance(predictor, str | Path):
        predictor = load_predictor(predictor, loaded)
    store = records if isinstance(records, RecordStore) else RecordStore(records or default_store_path())
    place = None
    try:
        if measure_top is not None:
            top_count(measure_top, trials)
            if objective != "latency":
                raise ConfigurationError(
                    f"the objective is {objective}, and measuring gives run times",
                    "leave one of measure_top and objective out",
                )
            place = parse_target(target) if isinstance(target, str) else target
            require(place, loaded.isa.name)
        session = _Session(workload, loaded, store, search or Search(), seed, observer or Observer())
        return session.run(
            trials,
            fresh,
            work_dir,
            cost_model,
            builder,
            dict(
                simulator=simulator,
                predictor=predictor,
                objective=objective,
                seed=seed,
                jobs=jobs,
                executor=executor,
                limits=limits,
                count=count,
                warmup=warmup,
                straggler_factor=straggler_factor,
            ),
            None if place is None or measure_top is None else (measure_top, place, settings or Settings()),
        )
    finally:
        if place is not None and place is not target:
            place.close()
        if store is not records:
            store.close()


class _Session:
    """One sitting of a run."""

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
        run = self._open_run(fresh, options)
        stored = list(self.store.trials(run.id))
        done = [trial for trial in stored if not trial.is_reference]
        self.observer.on_start(run, len(done), trials)
        folder = Path(work_dir) if work_dir else Path("simtune-runs") / run.id
        folder.mkdir(parents=True, exist_ok=True)
        failed = runner.evaluator.keep_failed = folder / "failed"
        own_builder = None if builder is not None else Builder(options["jobs"], keep_failed=failed)
        builder = builder or own_builder
        state = RunState.FAILED
        timings: dict[str, float] = {}
        try:
            reference = next((trial for trial in stored if trial.is_reference), None)
            if reference is None:
                self.observer.on_stage("simulating TVM's default schedule")
                reference = self._reference(run.id, builder, runner)
            self._remember(stored, runner)
            database = ms.database.MemoryDatabase()
            with self.target:  # TVM registers RVV intrinsics for the target in scope
                if len(done) < trials:
                    with interruptible():
                        self._search(run, done, trials, builder, runner, database, cost_model, folder)
                else:
                    self._restore(done, database)
            if runner.evaluator.contextual:
                database = self._predict_again(run.id, options)
            measured = self._measure(run.id, builder, *measuring) if measuring else ()
            state = RunState.FINISHED
            timings = _split(time.perf_counter() - start, builder, runner)
        except KeyboardInterrupt:
            state = RunState.INTERRUPTED
            raise
        finally:
            runner.close(cancel=state is not RunState.FINISHED)
            if own_builder is not None:
                own_builder.close()
            self.store.finish_run(run.id, state)
            _add_timings(folder / "timings.json", timings)
        counts = self.store.status_counts(run.id)
        total = sum(counts.values()) - 1
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
            total,
            total + 1 - counts.get(Status.OK, 0),
            len(done),
            timings,
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
            return self.store.reopen_run(known.id)
        versions = {name: version(name) for name in ("simtune", *tvm_setup.PINNED)}
        return self.store.start_run(
            workload=workload_id,
            machine=self.machine.name,
            machine_digest=self.machine.digest(),
            target=json.dumps(dict(self.machine.target)),
            config=config,
            versions=versions,
        )

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
            logger=_file_logger(folder / "search.log"),
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
        """Gives a trained predictor the candidates of earlier sittings back."""
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


def _split(total: float, builder: Any, runner: Any) -> dict[str, float]:
    """Wall seconds of building, running (linking and simulating), and the rest: the search."""
    build = getattr(builder, "wall_s", 0.0)  # other builders have no stopwatch
    rest = max(0.0, total - build - runner.wall_s)
    return {"build": build, "run": runner.wall_s, "search": rest, "total": total}


def _workload_json(module: Any) -> str:
    shash, graph = ms.database.Workload(module).as_json()
    return json.dumps([str(shash), str(graph)])


def _file_logger(path: Path) -> logging.Logger:
    """TVM's tables and messages go to a file; the terminal is for progress."""
    logger = logging.getLogger(f"simtune.search.{path.parent.name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.FileHandler(path))
    return logger


def _add_timings(path: Path, timings: dict[str, float]) -> None:
    """Sums the stages over the sittings of a run."""
    known = json.loads(path.read_text()) if path.exists() else {}
    summed = {name: round(known.get(name, 0.0) + seconds, 3) for name, seconds in timings.items()}
    if summed:
        path.write_text(json.dumps(summed))
