# SPDX-License-Identifier: Apache-2.0
"""Everything a report shows, as plain values from the record store."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from simtune.counters import Counters
from simtune.errors import ConfigurationError, RecordError, SimtuneError
from simtune.jobs import Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import resolve_objective
from simtune.records.model import Run, Simulation, Trial, Workload
from simtune.records.origins import is_batch, origin_of
from simtune.records.points import config_of, is_template, reason_of
from simtune.records.store import RecordStore

#: Simulations that are read for plots; more points would only make the page heavy.
SAMPLE = 2000
TOP = 10
SHOWN_FAILURES = 8


@dataclass(frozen=True)
class Failure:
    """One failed trial with what is needed to look into it."""

    index: int
    status: Status
    stage: str
    error: str
    command: str
    is_reference: bool


@dataclass(frozen=True)
class Report:
    """The contents of a report.

    Attributes:
        objective, unit: what was minimised; the unit is empty when unknown.
        machine: None when it cannot be found or has changed since the run; `machine_note` says so.
        trials: candidates by index without their traces; the reference is not among them.
        best, reference: with their traces; the reference may have failed.
        counters: by trial index, of the reference too; of a sample of the trials in a large run.
        statuses: every status with its number of candidates, zero included.
        failures: the first few, each kind of failure before its repetitions.
        cycles: parts of the predicted cycles for "best" and "reference".
        timings: wall seconds by stage; empty when unknown.
        measured: native median seconds by trial index.
        simulators: names and versions that took part.
        knobs: of a template space: names and values; empty for a run of another kind.
        configs: of a template space: the configuration by trial index.
        codes: of a template space: "" or the code of every point, where they could be found out.
        jobs: of a batch: what the trials simulated, by trial index.
    """

    run: Run
    workload: Workload
    objective: str
    unit: str
    machine: Machine | None
    machine_note: str
    trials: tuple[Trial, ...]
    best: Trial | None
    reference: Trial | None
    counters: Mapping[int, Counters]
    statuses: Mapping[Status, int]
    failures: tuple[Failure, ...]
    cycles: Mapping[str, Mapping[str, float]]
    timings: Mapping[str, float]
    measured: Mapping[int, float]
    simulators: tuple[str, ...]
    knobs: tuple[tuple[str, tuple[int, ...]], ...] = ()
    configs: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    codes: tuple[str, ...] = ()
    jobs: Mapping[int, str] = field(default_factory=dict)

    @property
    def is_batch(self) -> bool:
        """Whether the run simulated given candidates instead of searching."""
        return is_batch(self.run)

    @property
    def is_template(self) -> bool:
        """Whether the run searched a template space."""
        return bool(self.knobs)

    @property
    def reasons(self) -> dict[str, list[int]]:
        """Trial indices of the failures by reason: by code in a template space, else by status."""
        found: dict[str, list[int]] = {}
        if self.is_template:
            for trial in self.trials:
                if not trial.ok:
                    found.setdefault(reason_of(trial), []).append(trial.index)
            return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))
        for status in Status:
            if status is not Status.OK and self.statuses[status]:
                found[str(status)] = [trial.index for trial in self.trials if trial.status is status]
        return found

    @property
    def is_latency(self) -> bool:
        return self.objective == "latency"

    @property
    def value_name(self) -> str:
        time = "simulated time" if self.is_template else "predicted time"
        return time if self.is_latency else self.objective

    @property
    def valid(self) -> list[Trial]:
        """Candidates with a result, in the order of the search."""
        return [trial for trial in self.trials if trial.ok and finite(trial.value)]

    @property
    def top(self) -> list[Trial]:
        """The best candidates, best first."""
        return sorted(self.valid, key=lambda trial: (value_of(trial), trial.index))[:TOP]

    @property
    def default_value(self) -> float | None:
        """The objective of TVM's default schedule, if it has one."""
        if self.reference is None or not self.reference.ok or not finite(self.reference.value):
            return None
        return self.reference.value

    @property
    def gain(self) -> float | None:
        """How many times better the best trial is than TVM's default schedule."""
        default = self.default_value
        if self.best is None or default is None or default <= 0 or value_of(self.best) <= 0:
            return None
        return default / value_of(self.best)

    def counters_of(self, trial: Trial | None) -> Counters | None:
        return None if trial is None else self.counters.get(trial.index)

    def total(self, stage: str) -> float:
        """Seconds of a stage ("build", "link", "simulate") summed over all trials."""
        trials = [*self.trials, *([self.reference] if self.reference else [])]
        seconds: list[float] = [getattr(trial, f"{stage}_s") for trial in trials]
        return sum(s for s in seconds if finite(s) and s > 0)


def finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def value_of(trial: Trial) -> float:
    """The objective of a trial that has one."""
    assert trial.value is not None
    return float(trial.value)


def collect(
    store: RecordStore,
    run_id: str,
    timings: Mapping[str, float] | None = None,
    machine: Machine | None = None,
    codes: Sequence[str] | None = None,
) -> Report:
    """Reads what a report needs.

    Args:
        run_id: or its beginning.
        timings: wall seconds by stage ("build", "run", "search", "total").
        machine: of the run, for machines that are not found by name.
        codes: of every point of a template space, where the machine is not found by name.

    Raises:
        RecordError: there is no such run, or the store is damaged.
    """
    run = store.run(run_id)
    stored = list(store.trials(run.id))
    template = is_template(run)
    configs = {trial.index: found for trial in stored if (found := config_of(trial))} if template else {}
    everything = [replace(trial, trace_json="") for trial in stored]
    candidates = tuple(trial for trial in everything if not trial.is_reference)
    best = store.best_trial(run.id)
    reference = store.best_trial(run.id, reference=True)
    if reference is None:  # a failed reference is worth telling of
        failed = [trial for trial in everything if trial.is_reference]
        reference = store.trial(run.id, failed[0].index) if failed else None
    simulations = _simulations(store, candidates, best, reference)
    counters = {
        index: _finite_only(simulation.outcome.counters)
        for index, simulation in simulations.items()
        if simulation.outcome.counters is not None
    }
    known, note = (None, "") if template else _machine(run, machine)
    objective = str(run.config.get("objective", "latency"))
    marked = {"best": best, "reference": reference}
    explained = {
        name: _cycles(counters.get(trial.index), known) for name, trial in marked.items() if trial is not None
    }
    report = Report(
        run=run,
        workload=_workload(store, run),
        objective=objective,
        unit=_unit(objective),
        machine=known,
        machine_note=note,
        trials=candidates,
        best=best,
        reference=reference,
        counters=counters,
        statuses={status: sum(t.status is status for t in candidates) for status in Status},
        failures=_failures(store, everything),
        cycles={name: parts for name, parts in explained.items() if parts},
        timings={k: float(v) for k, v in (timings or {}).items() if finite(v) and v >= 0},
        measured={},
        simulators=tuple(sorted({_simulator(simulation) for simulation in simulations.values()})),
        knobs=_knobs(run) if template else (),
        configs=configs,
        jobs={trial.index: str(origin) for trial in stored if (origin := origin_of(trial))},
        codes=() if not template else _codes(store, run) if codes is None else tuple(codes),
    )
    return replace(report, measured=_measured(store, report))


def work_folders(records: str | Path, run_id: str, out: Path) -> list[Path]:
    """Where tuning may have left the wall times of a run, the likeliest place first."""
    name = Path("simtune-runs") / run_id
    return [name, Path(records).parent / name, out.parent]


def find_timings(*folders: Path) -> dict[str, float]:
    """What tuning left in the work folder of a run; empty when there is nothing readable."""
    for folder in folders:
        try:
            stages = json.loads((folder / "timings.json").read_text())
            return {str(name): float(seconds) for name, seconds in stages.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return {}


def _workload(store: RecordStore, run: Run) -> Workload:
    try:
        return store.workload(run.workload)
    except RecordError:  # a salvaged store may have lost it; its runs can still be read
        return Workload(run.workload, [])


def _simulations(
    store: RecordStore, candidates: tuple[Trial, ...], best: Trial | None, reference: Trial | None
) -> dict[int, Simulation]:
    """Simulations by trial index: of an even sample, of the best ones and of the reference."""
    valid = [trial for trial in candidates if trial.ok and trial.simulation and finite(trial.value)]
    step = max(1, math.ceil(len(valid) / SAMPLE))
    wanted = valid[::step] + sorted(valid, key=value_of)[:TOP]
    wanted += [trial for trial in (best, reference) if trial is not None and trial.simulation]
    found: dict[int, Simulation] = {}
    for trial in wanted:
        if trial.index not in found:
            simulation = store.simulation(str(trial.simulation))
            if simulation is not None:
                found[trial.index] = simulation
    return found


def _finite_only(counters: Counters) -> Counters:
    """Without what a broken simulator may have left, which no axis can show."""
    values = {name: value for name, value in counters.items() if finite(value)}
    return Counters(values, counters.simulator, counters.replacement, counters.schema_version)


def _simulator(simulation: Simulation) -> str:
    conditions = simulation.conditions
    return f"{conditions.simulator} {conditions.simulator_version}".strip()


def _machine(run: Run, given: Machine | None) -> tuple[Machine | None, str]:
    try:
        machine = given or load_machine(run.machine)
    except SimtuneError:
        return None, f"The file of machine {run.machine} was not found when this report was written."
    if machine.digest() != run.machine_digest:
        return None, f"The file of machine {run.machine} has changed since this run."
    return machine, ""


def _unit(objective: str) -> str:
    try:
        return resolve_objective(objective).unit
    except ConfigurationError:  # a function of the user's, known by its name only
        return ""


def _cycles(counters: Counters | None, machine: Machine | None) -> dict[str, float]:
    if counters is None or machine is None:
        return {}
    try:
        parts = AnalyticalPredictor().explain(counters, machine)
    except SimtuneError:
        return {}
    return {name: cycles for name, cycles in parts.items() if finite(cycles)}


def _failures(store: RecordStore, trials: list[Trial]) -> tuple[Failure, ...]:
    """One of each kind first: eight times the same time-out would hide the one crash."""
    failed = [trial for trial in trials if not trial.ok]
    seen: dict[tuple[Status, str], int] = {}
    order = []
    for trial in failed:
        kind = (trial.status, trial.stage)
        seen[kind] = seen.get(kind, 0) + 1
        order.append((not trial.is_reference, seen[kind], trial.index, trial))
    first = [trial for *_, trial in sorted(order, key=lambda entry: entry[:3])[:SHOWN_FAILURES]]
    shown = []
    for trial in sorted(first, key=lambda trial: trial.index):
        # Failures before the simulation have their own message, later ones that of the outcome.
        simulation = store.simulation(trial.simulation) if trial.simulation else None
        outcome = simulation.outcome if simulation else None
        shown.append(
            Failure(
                trial.index,
                trial.status,
                trial.stage or (outcome.stage if outcome else ""),
                (trial.error or (outcome.error if outcome else "")).strip(),
                trial.command or (outcome.command if outcome else ""),
                trial.is_reference,
            )
        )
    return tuple(shown)


def _measured(store: RecordStore, report: Report) -> dict[int, float]:
    marked = [*report.top, *([report.reference] if report.reference else [])]
    found: dict[int, float] = {}
    for trial in marked:
        if trial.measured_s is not None:
            found[trial.index] = trial.measured_s
        elif trial.simulation:
            for measurement in store.measurements(trial.simulation):
                found[trial.index] = measurement.median  # the newest one stays
    return {index: seconds for index, seconds in found.items() if finite(seconds)}


def _knobs(run: Run) -> tuple[tuple[str, tuple[int, ...]], ...]:
    try:
        return tuple((str(name), tuple(map(int, values))) for name, values in run.config["space"])
    except (KeyError, TypeError, ValueError):
        return ()


def _codes(store: RecordStore, run: Run) -> tuple[str, ...]:
    """The validity of every point, if the target is known here and is still the same."""
    from simtune.tuning.targets import codes_of

    try:
        return codes_of(_workload(store, run).name, run.machine, run.machine_digest)
    except SimtuneError:
        return ()
