# SPDX-License-Identifier: Apache-2.0
"""Tunes one workload for one machine, in simulation, resumably: `simtune.tune(...)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simtune.errors import ConfigurationError
from simtune.execution.base import Executor
from simtune.jobs import Limits
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.measure.base import Settings, require
from simtune.measure.base import Target as Place
from simtune.measure.parse import parse_target
from simtune.measure.top import top_count
from simtune.predictors.base import Predictor
from simtune.predictors.storage import load_predictor
from simtune.records.store import RecordStore, default_store_path
from simtune.simulators.base import Simulator, get_simulator, models_to_count
from simtune.tuning.model import Observer, Search, TuneResult
from simtune.tuning.session import Session
from simtune.tuning.workloads import Workload

__all__ = ["Observer", "Search", "TuneResult", "tune"]


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
    count: tuple[str, ...] | None = None,
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
        builder: a MetaSchedule builder, left open; by default a `simtune.Builder` of its own, which builds
            where `executor` runs its jobs when one is given.

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
        session = Session(workload, loaded, store, search or Search(), seed, observer or Observer())
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
                count=models_to_count(
                    get_simulator(simulator) if isinstance(simulator, str) else simulator, count
                ),
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
