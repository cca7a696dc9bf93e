# SPDX-License-Identifier: Apache-2.0
"""Collects candidates with counters and native times, to train predictors: `simtune.collect(...)`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import Builder
from simtune.errors import ConfigurationError
from simtune.jobs import Limits
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.measure.base import Settings, Timing, require
from simtune.measure.base import Target as Place
from simtune.measure.cost import break_even
from simtune.measure.parse import parse_target
from simtune.predictors.base import Predictor
from simtune.records.model import Run, RunState, Trial, config_digest
from simtune.records.model import Workload as WorkloadRow
from simtune.records.store import RecordStore, default_store_path
from simtune.runner import SimulatorRunner
from simtune.simulators.base import Simulator, get_simulator, models_to_count
from simtune.tuning.distinct import DistinctTrials
from simtune.tuning.groups import expand
from simtune.tuning.natively import STAGE, NativeTimes
from simtune.tuning.recorder import trace_json
from simtune.tuning.sample import rounds
from simtune.tuning.workloads import Workload

ms = tvm_setup.load()

from tvm.s_tir import Schedule  # noqa: E402
from tvm.target import Target  # noqa: E402

#: A design space is taken for exhausted after so many rounds without a new candidate.
_BARREN_ROUNDS = 3


class CollectObserver:
    """What a caller can watch; all methods do nothing by default."""

    def on_workload(self, name: str, run: Run, stored: int, candidates: int) -> None:
        """A workload begins; `stored` of its candidates are there already."""

    def on_stage(self, text: str, total: int | None = None) -> None:
        """Something that takes a while begins, with so many steps if that is known."""

    def on_trial(self, trial: Trial) -> None:
        """A simulated candidate was stored."""

    def on_measured(self, trial: Trial, timing: Timing) -> None:
        """A native time, or the failure of one, was stored."""


@dataclass(frozen=True)
class Collected:
    """What one workload has in the store now, from all sittings.

    Attributes:
        trials: candidates, TVM's default schedule not among them.
        failures: of them, in building or simulation.
        measured, measure_failures: native times, and candidates that were right in simulation only.
        spread: median relative spread of the native times.
        simulate_s, measure_s: mean wall seconds of simulating and measuring one candidate.
        notes: what disturbed measurements, and how many.
        exhausted: the design space has fewer candidates than were asked for.
    """

    workload: str
    run: str
    trials: int
    failures: int
    measured: int
    measure_failures: int
    spread: float | None
    simulate_s: float | None
    measure_s: float | None
    notes: dict[str, int] = field(default_factory=dict)
    exhausted: bool = False

    @property
    def break_even(self) -> int | None:
        """Parallel simulators that keep up with the target, see `simtune.measure.cost`."""
        if self.simulate_s is None or self.measure_s is None:
            return None
        return break_even(self.simulate_s, self.measure_s)


def collect(
    workloads: str | Sequence[str | Workload],
    machine: str | Path | Machine,
    candidates: int = 200,
    *,
    target: str | Place = "host",
    measure: bool = True,
    settings: Settings | None = None,
    records: str | Path | RecordStore | None = None,
    simulator: str | Simulator = "qemu",
    predictor: Predictor | None = None,
    seed: int = 0,
    jobs: int | None = None,
    limits: Limits | None = None,
    count: tuple[str, ...] | None = None,
    warmup: int = 0,
    passes: int = 1,
    builder: Any = None,
    observer: CollectObserver | None = None,
) -> list[Collected]:
    """Samples random candidates of workloads, simulates all, then measures all, and stores both.

    The same call goes on where an earlier one ended, and adds candidates when it asks for more.
    Candidates are the same for a seed, and differ from one another in their code. TVM's default
    schedule comes first, as a reference.

    Args:
        workloads: a list as text (see `simtune.tuning.groups.expand`), or names and workloads.
        candidates: per workload, those of earlier sittings included.
        target: ``host``, ``ssh:...``, ``rpc:...`` or a target object (`simtune.measure.base`). Trials
            hold the times of one target, so it is a part of the run: name it even if `measure` is
            False, to measure later.
        measure: False only simulates.
        settings: of the measurements.
        passes: over all candidates of a workload, each measuring every one of them once: a second
            measurement, taken later, tells how far the first can be trusted.
        records, simulator, predictor, seed, jobs, limits, count, warmup: see `SimulatorRunner`.
        builder: a MetaSchedule builder, left open; by default a `simtune.Builder` of its own.

    Raises:
        SimtuneError: unknown names, a simulator or target that does not work, a damaged store.
    """
    if candidates < 1 or seed < 0 or passes < 1:
        raise ConfigurationError(
            f"candidates is {candidates}, seed is {seed}, passes is {passes}: at least 1, 0 and 1"
        )
    if isinstance(workloads, str):
        workloads = [workloads]
    chosen = [w for item in workloads for w in (expand(item) if isinstance(item, str) else [item])]
    loaded = machine if isinstance(machine, Machine) else load_machine(machine)
    place = parse_target(target) if isinstance(target, str) else target
    store = records if isinstance(records, RecordStore) else RecordStore(records or default_store_path())
    own_builder = None
    options = {
        "simulator": simulator,
        "predictor": predictor,
        "seed": seed,
        "jobs": jobs,
        "limits": limits,
        "count": models_to_count(
            get_simulator(simulator) if isinstance(simulator, str) else simulator, count
        ),
        "warmup": warmup,
    }
    try:
        if measure:
            require(place, loaded.isa.name)
        if builder is None:
            builder = own_builder = Builder(jobs)
        results = []
        for workload in chosen:
            session = _Session(
                workload, loaded, store, place, builder, options, observer or CollectObserver()
            )
            results.append(session.run(candidates, (settings or Settings()) if measure else None, passes))
        return results
    finally:
        if own_builder is not None:
            own_builder.close()
        if place is not target:
            place.close()
        if store is not records:
            store.close()


class _Session:
    """One workload in one sitting."""

    def __init__(
        self,
        workload: Workload,
        machine: Machine,
        store: RecordStore,
        target: Place,
        builder: Any,
        options: dict[str, Any],
        observer: CollectObserver,
    ) -> None:
        self.name, self.module = workload.name, workload.module()
        self.machine, self.store, self.target, self.builder = machine, store, target, builder
        self.options, self.observer, self.seed = options, observer, options["seed"]
        self.exhausted = False

    def run(self, candidates: int, settings: Settings | None, passes: int) -> Collected:
        run = self._open_run()
        state = RunState.FAILED
        objects: dict[int, Path] = {}
        try:
            known = list(self.store.trials(run.id))
            done = sum(not trial.is_reference for trial in known)
            self.observer.on_workload(self.name, run, min(done, candidates), candidates)
            if done < candidates or not any(trial.is_reference for trial in known):
                self._simulate(run.id, known, candidates, objects)
            if settings is not None:
                for number in range(1, passes + 1):
                    self._measure(run.id, settings, objects, number)
            state = RunState.FINISHED
        except KeyboardInterrupt:
            state = RunState.INTERRUPTED
            raise
        finally:
            for path in objects.values():  # each has a folder of its own, as TVM's builders make them
                shutil.rmtree(path.parent, ignore_errors=True)
            self.store.finish_run(run.id, state)
        return self._summary(run.id)

    def _open_run(self) -> Run:
        simulator = self.options["simulator"]
        config = {
            "kind": "collect",
            "seed": self.seed,
            "warmup": self.options["warmup"],
            "simulator": simulator if isinstance(simulator, str) else simulator.name,
            "count": list(self.options["count"]),
            "target": self.target.name,
        }
        shash, graph = ms.database.Workload(self.module).as_json()
        arguments = [info.as_json() for info in ms.arg_info.ArgInfo.from_entry_func(self.module)]
        row = WorkloadRow(self.name, arguments, json.dumps([str(shash), str(graph)]))
        workload = self.store.put_workload(row)
        known = self.store.find_run(workload, self.machine.digest(), config_digest(config))
        if known is not None:
            return self.store.reopen_run(known.id)
        return self.store.start_run(
            workload=workload,
            machine=self.machine.name,
            machine_digest=self.machine.digest(),
            target=json.dumps(dict(self.machine.target)),
            config=config,
            versions={name: version(name) for name in ("simtune", *tvm_setup.PINNED)},
        )

    # Simulating -------------------------------------------------------------------------------

    def _simulate(self, run: str, known: list[Trial], candidates: int, objects: dict[int, Path]) -> None:
        """Simulates what is missing; notes in `objects` what was built for it."""
        runner = SimulatorRunner(
            self.machine,
            records=self.store,
            workloads=[self.module],
            straggler_factor=None,  # slow candidates are data, too
            keep_failed=Path("simtune-runs") / run / "failed",
            **self.options,
        )
        target = Target(dict(self.machine.target))
        finished = False
        try:
            trials = DistinctTrials(
                self.module, target, self.builder, runner, self.store, run, known, self.observer.on_trial
            )
            if not any(trial.is_reference for trial in known):
                self.observer.on_stage("simulating TVM's default schedule")
                trials.add([(self.module, trace_json(Schedule(self.module)))], is_reference=True)
            self.observer.on_stage("simulating")
            barren = 0
            for schedules in rounds(self.module, self.machine, self.seed, self.name):
                waiting = [(schedule.mod, trace_json(schedule)) for schedule in schedules]
                before = trials.next
                while waiting and trials.next <= candidates:
                    size = candidates - trials.next + 1  # no more: what is built is simulated and stored
                    trials.add(waiting[:size])
                    waiting = waiting[size:]
                barren = 0 if trials.next > before else barren + 1
                self.exhausted = barren == _BARREN_ROUNDS
                if trials.next > candidates or self.exhausted:
                    break
            objects |= trials.objects
            finished = True
        finally:
            runner.close(cancel=not finished)

    # Measuring --------------------------------------------------------------------------------

    def _measure(self, run: str, settings: Settings, objects: dict[int, Path], passes: int) -> None:
        times = NativeTimes(
            self.module,
            self.machine,
            self.seed,
            self.store,
            self.target,
            settings,
            self.builder,
            self.observer.on_measured,
        )
        pending = times.pending(list(self.store.trials(run)), passes)
        if pending:
            again = f", pass {passes}" if passes > 1 else ""
            self.observer.on_stage(f"measuring {len(pending)} on {self.target.name}{again}", len(pending))
            times.measure(pending, objects)

    def _summary(self, run: str) -> Collected:
        trials = [trial for trial in self.store.trials(run) if not trial.is_reference]
        simulations = [self.store.simulation(t.simulation) for t in trials if t.ok and t.simulation]
        measured = [t for t in trials if t.measured_s is not None]
        latest = [
            list(self.store.measurements(t.simulation, target=self.target.name))[-1]
            for t in measured
            if t.simulation
        ]
        kinds = ({str(note).partition(":")[0] for note in m.conditions.get("notes", ())} for m in latest)
        notes = Counter(kind for of_one in kinds for kind in of_one)
        return Collected(
            self.name,
            run,
            trials=len(trials),
            failures=sum(not t.ok for t in trials),
            measured=len(measured),
            measure_failures=sum(t.ok and t.stage == STAGE for t in trials),
            spread=median(m.spread for m in latest) if latest else None,
            simulate_s=_mean(s.outcome.wall_s for s in simulations if s is not None),
            measure_s=_mean(float(m.conditions.get("wall_s", 0.0)) for m in latest),
            notes=dict(notes),
            exhausted=self.exhausted,
        )


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return mean(found) if found else None
