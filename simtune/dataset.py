# SPDX-License-Identifier: Apache-2.0
"""What predictors are trained and judged on: simulated candidates with their times, by workload."""

from __future__ import annotations

import fnmatch
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.features import PIPELINE
from simtune.inputs import AnyMachine, Inputs, common_inputs
from simtune.machines.model import Machine
from simtune.records.model import Measurement, Run, Simulation, Trial, Workload, canonical_json
from simtune.records.points import config_of, is_template
from simtune.records.store import RecordStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """The candidates of one workload on one machine, TVM's default schedule first if it is there.

    Attributes:
        name: of the workload, for people.
        key: what is computed, whatever its name: splits keep equal keys together.
        machine: the candidates were simulated for it.
        seconds: (N,) measured times: the median over all processes of all measurements; of accelerators
            those of their timing simulator.
        halves: (N, 2) two independent medians of the same candidate, NaN where it was measured once.
        trials: ``run:index`` of each candidate.
        has_reference: whether the first candidate is TVM's default schedule.
    """

    name: str
    key: str
    machine: AnyMachine
    counters: tuple[Counters, ...]
    seconds: NDArray[np.float64]
    halves: NDArray[np.float64]
    trials: tuple[str, ...]
    has_reference: bool = False

    def __len__(self) -> int:
        return len(self.counters)

    @property
    def cpu(self) -> Machine:
        """The machine, where it has to be a CPU.

        Raises:
            ConfigurationError: it is an accelerator.
        """
        if not isinstance(self.machine, Machine):
            raise ConfigurationError(f"{self.machine.name} is no CPU", "choose records of a CPU")
        return self.machine

    def take(self, rows: NDArray[np.int64]) -> Group:
        """Some of the candidates, in the order of `rows`."""
        return Group(
            self.name,
            self.key,
            self.machine,
            tuple(self.counters[row] for row in rows),
            self.seconds[rows],
            self.halves[rows],
            tuple(self.trials[row] for row in rows),
            self.has_reference and len(rows) > 0 and rows[0] == 0,
        )


@dataclass(frozen=True)
class Dataset:
    """Groups, where their times were measured, and what was left out (reason to number)."""

    groups: tuple[Group, ...]
    target: str
    skipped: Mapping[str, int]

    @property
    def inputs(self) -> Inputs:
        """What is learned from on machines of this kind."""
        return common_inputs(group.machine for group in self.groups)

    @property
    def pipeline(self) -> bool:
        """Whether every candidate has cycles of the pipeline scoreboard."""
        rows = [row for group in self.groups for row in group.counters]
        return bool(rows) and all(row.get(PIPELINE, 0) > 0 for row in rows)

    def __len__(self) -> int:
        return sum(map(len, self.groups))


def load_dataset(
    store: RecordStore,
    machines: Sequence[AnyMachine],
    target: str | None = None,
    workloads: str = "*",
    replacement: str | None = None,
) -> Dataset:
    """Reads every measured candidate that was simulated for one of `machines`.

    On an accelerator, whose timing simulator stands for the hardware, the times are that simulator's.

    Runs of the same workload and machine make one group, and a candidate in several of them, or
    simulated by several versions of a simulator, counts once. Left out, and counted in
    `Dataset.skipped`: failed and unmeasured candidates, times that are no positive numbers,
    simulations for another version of the machine file.

    Args:
        machines: CPUs, or accelerators of one kind.
        target: where the times were measured, such as ``host``; may be left out when the store has
            measurements of one target only, and for accelerators.
        workloads: pattern of names, such as ``*conv*``: for models per kernel type.
        replacement: take only counts of this replacement policy of the caches, such as ``lru``; ``any``
            mixes them. May be left out when all were counted under the same: misses under LRU and
            misses under (pseudo-)random replacement are different quantities of the same name.

    Raises:
        ConfigurationError: nothing is left, CPUs and accelerators are mixed, or there are several
            targets or replacement policies to choose from.
    """
    inputs = common_inputs(machines)
    times = _Times(store, target, inputs)
    skipped: Counter[str] = Counter()
    groups = []
    for machine in machines:
        by_key: dict[str, list[tuple[Workload, Run]]] = {}
        for run in _runs_of(store, machine, skipped):
            workload = store.workload(run.workload)
            if fnmatch.fnmatch(workload.name, workloads):
                by_key.setdefault(workload_key(workload), []).append((workload, run))
        for key, runs in by_key.items():
            group = _group(store, key, runs, machine, times, skipped, replacement)
            if len(group):
                groups.append(group)
    if not groups:
        names = ", ".join(machine.name for machine in machines)
        reasons = "; ".join(f"{number} x {reason}" for reason, number in skipped.items())
        raise ConfigurationError(
            f"{store.path} has no measured candidates of {names}" + (f" ({reasons})" if reasons else ""),
            inputs.hint,
        )
    policies = {row.replacement for group in groups for row in group.counters}
    if len(policies) > 1 and replacement is None:
        raise ConfigurationError(
            f"{store.path} has counts under several replacement policies of the caches: "
            f"{', '.join(sorted(policies))}",
            "choose one with --replacement, or mix them with --replacement any",
        )
    return Dataset(tuple(groups), times.target, dict(skipped))


class _Times:
    """The times of simulated candidates, by measurement or by the simulator itself.

    Attributes:
        inputs: of the machines.
        target: where the times come from, "" if there are none.
    """

    def __init__(self, store: RecordStore, target: str | None, inputs: Inputs) -> None:
        self.inputs, self.target = inputs, inputs.timed_by
        self._measured: dict[str, list[Measurement]] | None = None
        if inputs.timed_by and target in (None, inputs.timed_by):
            return
        self._measured = {}
        targets: Counter[str] = Counter()
        for measurement in store.measurements(target=target):
            self._measured.setdefault(measurement.simulation, []).append(measurement)
            targets[measurement.target] += 1
        if len(targets) > 1:
            raise ConfigurationError(
                f"{store.path} has times of several targets: {', '.join(sorted(targets))}",
                "choose one with --target",
            )
        self.target = next(iter(targets), "")

    def of(self, simulation: Simulation) -> NDArray[np.float64] | None:
        """(median of all, of the first half, of the second), NaN for no positive number; None without any."""
        if self._measured is not None:
            found = self._measured.get(simulation.key)
            return None if found is None else _label(found)
        try:
            seconds = float(simulation.outcome.output["seconds"])
        except (KeyError, ValueError):
            return None
        return np.array([seconds if seconds > 0 else math.nan, math.nan, math.nan])


def _runs_of(store: RecordStore, machine: AnyMachine, skipped: Counter[str]) -> list[Run]:
    """Runs for this very machine; if there are none, those for the latest version of its file.

    Counters of different versions never mix, for caches and pipeline may differ. Taking an older
    version is right when only what is not simulated has changed, such as the clock of the host.
    """
    named = [run for run in store.runs() if run.machine == machine.name]
    digests = [run.machine_digest for run in store.runs() if run.machine_digest == machine.digest()]
    digest = digests[0] if digests else named[-1].machine_digest if named else ""
    others = sum(run.machine_digest != digest for run in named)
    if others:
        skipped["run for another version of the machine file"] += others
    if named and not digests:
        _log.warning("%s: the machine file has changed since these simulations", machine.name)
    return [run for run in store.runs() if run.machine_digest == digest]


def workload_key(workload: Workload) -> str:
    """The same for workloads that compute the same, under whatever name."""
    form = next((str(row[2][0]) for row in workload.arguments if row[0] == "LAYER"), "")
    return workload.structural_hash or form or workload.id


def _candidate(run: Run, trial: Trial) -> str:
    """The same for the same schedule, or the same knobs whatever the name of the layer."""
    return canonical_json(config_of(trial)) if is_template(run) else trial.candidate


def _group(
    store: RecordStore,
    key: str,
    runs: list[tuple[Workload, Run]],
    machine: AnyMachine,
    times: _Times,
    skipped: Counter[str],
    replacement: str | None = None,
) -> Group:
    rows: dict[str, tuple[bool, str, Counters, NDArray[np.float64]]] = {}  # by candidate
    owners: dict[str, str] = {}  # simulation to candidate: traces may differ and yet give the same code
    for _, run in runs:
        for trial in store.trials(run.id):
            simulation = store.simulation(trial.simulation) if trial.ok and trial.simulation else None
            candidate = _candidate(run, trial)
            if simulation is None or simulation.outcome.counters is None or not simulation.outcome.ok:
                skipped["candidate that failed"] += 1
            elif (label := times.of(simulation)) is None:
                skipped["candidate that was not measured"] += 1
            elif owners.setdefault(simulation.key, candidate) == candidate:
                counters = simulation.outcome.counters
                if replacement not in (None, "any", counters.replacement):
                    skipped["candidate counted under another replacement policy"] += 1
                elif not math.isfinite(label[0]):
                    skipped["candidate whose time is no positive number"] += 1
                elif not any(counters.get(name, 0) > 0 for name in times.inputs.least):
                    skipped["candidate without counters to predict from"] += 1
                else:
                    # The latest run wins: it has the newest simulator, and counts each once. Only one
                    # without a scoreboard does not win over one with it.
                    row = (trial.is_reference, f"{run.id}:{trial.index}", counters, label)
                    known = rows.get(candidate)
                    if known is None or PIPELINE in counters or PIPELINE not in known[2]:
                        rows[candidate] = row
    ordered = sorted(rows.values(), key=lambda row: not row[0])  # stable: the reference comes first
    labels = np.array([row[3] for row in ordered]).reshape(-1, 3)
    return Group(
        runs[0][0].name,
        key,
        machine,
        tuple(row[2] for row in ordered),
        labels[:, 0],
        labels[:, 1:],
        tuple(row[1] for row in ordered),
        bool(ordered) and ordered[0][0],
    )


def _label(measurements: Sequence[Measurement]) -> NDArray[np.float64]:
    """(median of all, first, second): two measurements if there are, else odd and even repeats."""
    repeats = [[t for t in measurement.seconds if math.isfinite(t) and t > 0] for measurement in measurements]
    repeats = [part for part in repeats if part]
    if not repeats:
        return np.full(3, np.nan)
    if len(repeats) == 1:
        first, second = repeats[0][::2], repeats[0][1::2]
    else:
        half = len(repeats) // 2
        first = [t for part in repeats[:half] for t in part]
        second = [t for part in repeats[half:] for t in part]
    both = [float(np.median(part)) if part else math.nan for part in (first, second)]
    if not second:
        both = [math.nan, math.nan]
    return np.array([float(np.median([t for part in repeats for t in part])), *both])


# Splits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """Rows for training and for testing, per group (same order as `Dataset.groups`)."""

    train: tuple[NDArray[np.int64], ...]
    test: tuple[NDArray[np.int64], ...]


def leave_workload_out(groups: Sequence[Group]) -> Iterator[Fold]:
    """One fold per workload: tested on it, on every machine, and trained on all others."""
    for key in dict.fromkeys(group.key for group in groups):
        everything = [np.arange(len(group)) for group in groups]
        nothing = np.arange(0)
        yield Fold(
            tuple(
                nothing if group.key == key else rows for group, rows in zip(groups, everything, strict=True)
            ),
            tuple(
                rows if group.key == key else nothing for group, rows in zip(groups, everything, strict=True)
            ),
        )


def within_workloads(groups: Sequence[Group], folds: int = 5, seed: int = 0) -> Iterator[Fold]:
    """Folds over the candidates of every workload: what training on the same workload gives."""
    random = np.random.default_rng(seed)
    places = [random.permutation(len(group)) % folds for group in groups]
    for fold in range(folds):
        yield Fold(
            tuple(np.flatnonzero(place != fold) for place in places),
            tuple(np.flatnonzero(place == fold) for place in places),
        )


SPLITS = {"leave-workload-out": leave_workload_out, "within": within_workloads}
