# SPDX-License-Identifier: Apache-2.0
"""Measured candidates as executables, built once, and simulated under any numbers of the machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simtune import tvm_setup
from simtune.build.artifact import load
from simtune.build.codegen import signature
from simtune.build.link import linker
from simtune.counters import Counters
from simtune.dataset import Dataset, Group
from simtune.errors import ConfigurationError, SimtuneError
from simtune.execution.capacity import usable_cores
from simtune.features import PIPELINE
from simtune.jobs import Limits, SimJob
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.records.model import Simulation, Trial
from simtune.records.store import RecordStore
from simtune.simulators.base import Simulator
from simtune.simulators.qemu_report import configuration
from simtune.tuning.natively import as_built, rebuild

ms = tvm_setup.load()


@dataclass(frozen=True)
class Case:
    """One candidate with its native time.

    Attributes:
        arguments: of the executable, as in the stored simulation.
        counters: of the stored simulation.
    """

    workload: str
    trial: str
    executable: Path
    arguments: tuple[str, ...]
    seconds: float
    counters: Counters


@dataclass
class Experiment:
    """Simulates cases under changing machines, never twice what the simulator would see as the same.

    Attributes:
        count: optional models of the simulator.
        runs: simulations until now.
        cpu_s: of them.
    """

    simulator: Simulator
    count: tuple[str, ...]
    jobs: int | None = None
    runs: int = 0
    cpu_s: float = 0.0
    _known: dict[tuple[str, str], Counters | None] = field(default_factory=dict)

    def counters(self, machine: Machine, cases: Sequence[Case]) -> list[Counters | None]:
        """Counters per case; None for one that failed."""
        seen = self._seen(machine)
        missing = [case for case in cases if (seen, case.trial) not in self._known]
        if missing:
            with ThreadPoolExecutor(self.jobs or usable_cores()) as pool:
                for case, found in zip(
                    missing, pool.map(lambda c: self._run(machine, c), missing), strict=True
                ):
                    self._known[seen, case.trial] = found
        return [self._known[seen, case.trial] for case in cases]

    def seconds(self, machine: Machine, cases: Sequence[Case]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Untrained predictions (N,): of the pipeline scoreboard where it was on, else analytical."""
        predictor = AnalyticalPredictor()
        values = []
        for row in self.counters(machine, cases):
            if row is None:
                values.append(math.nan)
            elif PIPELINE in row:
                values.append(row[PIPELINE] / machine.clock_hz)
            else:
                values.append(predictor.predict(row, machine))
        return np.array(values)

    def _seen(self, machine: Machine) -> str:
        """All of a machine that can change a simulation."""
        if self.simulator.name == "qemu":
            return configuration(machine, self.count)
        return machine.digest()

    def _run(self, machine: Machine, case: Case) -> Counters | None:
        job = SimJob(case.executable, machine, case.arguments, Limits(), self.count)
        outcome = self.simulator.run(job)
        self.runs += 1
        self.cpu_s += outcome.cpu_s
        return outcome.counters if outcome.ok else None


def choose(group: Group, number: int, largest: float) -> list[int]:
    """Rows of a workload to fit to: spread evenly over the order of their times.

    Candidates of more than `largest` instructions are left out, unless too few remain: they would
    take the time of many others.
    """
    usable = [row for row in range(len(group)) if group.seconds[row] > 0]
    small = [row for row in usable if group.counters[row].get("instructions", 0) <= largest]
    if len(small) >= min(number, len(usable)):
        usable = small
    ordered = sorted(usable, key=lambda row: float(group.seconds[row]))
    if len(ordered) <= number:
        return ordered
    # Also the fastest, which a search is about.
    places = np.unique(np.linspace(0, len(ordered) - 1, number).round().astype(int))
    return [ordered[place] for place in places]


def prepare(
    store: RecordStore,
    data: Dataset,
    number: int,
    folder: Path,
    builder: Any,
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Case]:
    """Builds and links so many measured candidates of each workload.

    Args:
        data: groups of one machine, from `store`.
        number: of candidates per workload.
        folder: where the executables go.
        builder: a MetaSchedule builder, such as `simtune.Builder`.

    Raises:
        ConfigurationError: nothing could be built again.
    """
    cases: list[Case] = []
    skipped = 0
    for group in data.groups:
        largest = 3 * float(np.median([row.get("instructions", 0.0) for row in group.counters]))
        rows = choose(group, number, largest)
        progress(f"{group.name}: building {len(rows)} candidates")
        by_run: dict[str, list[int]] = {}
        for row in rows:
            by_run.setdefault(group.trials[row].partition(":")[0], []).append(row)
        for run_id, members in by_run.items():
            module = _module(store, run_id)
            trials = [_trial(store, run_id, group.trials[row]) for row in members]
            tensors = tuple(signature(module.functions_items()[0][1]))
            built = rebuild(module, as_built(group.cpu, store.run(run_id)), trials, builder)
            for row, trial, (path, _error) in zip(members, trials, built, strict=True):
                simulation = store.simulation(str(trial.simulation))
                if path is None or simulation is None:
                    skipped += 1
                    continue
                place = folder / f"{run_id}-{trial.index}"
                place.mkdir(parents=True)
                try:
                    artifact = load(path, place)
                    if artifact.digest != simulation.conditions.object_sha256:
                        raise ConfigurationError("another code than was measured")
                    executable = linker(artifact.isa).link(
                        artifact.objects, artifact.plan(tensors), place / "candidate.elf"
                    )
                except SimtuneError:
                    skipped += 1
                    continue
                arguments = _arguments(simulation)
                seconds = float(group.seconds[row])
                cases.append(
                    Case(group.name, group.trials[row], executable, arguments, seconds, group.counters[row])
                )
    if skipped:
        progress(f"{skipped} candidates left out: they could not be built again as they were measured")
    if not cases:
        raise ConfigurationError(
            "no measured candidate could be built again as it was measured",
            "collect anew with this version: simtune collect",
        )
    return cases


def _module(store: RecordStore, run_id: str) -> Any:
    workload = store.workload(store.run(run_id).workload)
    if not workload.tvm_json:
        raise ConfigurationError(f"{workload.name} was not stored with its module", "collect it with simtune")
    return ms.database.Workload.from_json(json.loads(workload.tvm_json)).mod


def _trial(store: RecordStore, run_id: str, name: str) -> Trial:
    trial = store.trial(run_id, int(name.partition(":")[2]))
    assert trial is not None, name  # the dataset has just read it
    return trial


def _arguments(simulation: Simulation) -> tuple[str, ...]:
    """Seed, warm-up and kind of inputs; what the answer is compared with changes no counter."""
    stored = simulation.conditions.arguments
    kept: list[str] = ["--constant"] if "--constant" in stored else []
    for option in ("--seed", "--warmup"):
        if option in stored:
            kept += [option, stored[stored.index(option) + 1]]
    return tuple(kept)
