# SPDX-License-Identifier: Apache-2.0
"""Coordinate descent over a machine's free numbers, within a time budget.

Every round tries a step up and down for each parameter on a few candidates, keeps the promising
quarter of these moves, tries those on all candidates, and takes each one that helps. When none does,
steps are halved. Whole workloads are held out; they only judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simtune.calibration.experiment import Case, Experiment
from simtune.calibration.parameters import Parameter, changed, value_of
from simtune.errors import ConfigurationError
from simtune.machines.model import Machine
from simtune.metrics import order_agreement

#: Steps, as shares of the value.
SCALES = (0.5, 0.25, 0.12, 0.06)
#: A move that gains less is noise, and would carry numbers away from what is documented.
_LEAST_GAIN = 0.002
#: Share of the time left that a round may spend on looking.
_LOOKING = 0.6
#: Why a fit ended that somebody stopped.
INTERRUPTED = "it was interrupted"
#: Seconds beyond the budget for finding out what each change is worth.
_GRACE_S = 60.0
#: Numbers that together scale all times, see `Fitter._try_scaled`.
_SCALED = ("clock_hz", "memory.latency_ns", "memory.line_interval_ns")
#: Candidates per workload of the first look.
_FIRST_LOOK = 4


@dataclass(frozen=True)
class Score:
    """How well an untrained model does; error and tau-b are means over workloads.

    Attributes:
        error: median of abs(log(predicted / measured)) per workload.
        tau_b: per workload.
        loss: what is minimised, error + (1 - tau_b) / 2, per workload and then its mean.
    """

    error: float
    tau_b: float
    loss: float
    workloads: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One fitted number. `gain` is how much the loss grows when it alone goes back."""

    path: str
    old: float
    new: float
    gain: float


@dataclass(frozen=True)
class Fit:
    """What a calibration gave.

    Attributes:
        before, after: on the workloads that were fitted to.
        held_before, held_after: on those held out; None without any.
        tried: free parameters.
        sensitivity: parameter to the largest change of the loss by its last tried steps.
        start_s: of `wall_s`, for the first simulation of every candidate, which the budget does not bound.
        ended: why it stopped.
    """

    machine: Machine
    before: Score
    after: Score
    held_before: Score | None
    held_after: Score | None
    changes: tuple[Change, ...]
    tried: int
    sensitivity: Mapping[str, float]
    rounds: int
    runs: int
    start_s: float
    wall_s: float
    ended: str


def score(cases: Sequence[Case], predicted: Any) -> Score:
    """Compares predictions (N,) with the cases' measured times."""
    workloads: dict[str, tuple[float, float]] = {}
    losses = []
    names = np.array([case.workload for case in cases])
    measured = np.array([case.seconds for case in cases])
    for name in dict.fromkeys(names.tolist()):
        rows = (names == name) & np.isfinite(predicted)
        if not rows.any():
            return Score(math.inf, -1.0, math.inf)
        error = float(np.median(np.abs(np.log(predicted[rows] / measured[rows]))))
        tau = order_agreement(measured[rows], predicted[rows])[0]
        tau = 0.0 if math.isnan(tau) else tau
        workloads[name] = (error, tau)
        losses.append(error + (1 - tau) / 2)
    errors, taus = zip(*workloads.values(), strict=True)
    return Score(float(np.mean(errors)), float(np.mean(taus)), float(np.mean(losses)), workloads)


def check_held(names: Sequence[str], held: Sequence[str]) -> None:
    """Makes sure that workloads can be held out.

    Raises:
        ConfigurationError: a name is not there, or nothing is left to fit to.
    """
    if unknown := [name for name in held if name not in names]:
        raise ConfigurationError(f"no measurements of {', '.join(unknown)}", f"there are {', '.join(names)}")
    if set(names) <= set(held):
        raise ConfigurationError("all workloads are held out", "hold fewer of them out")


def split(cases: Sequence[Case], held: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """Cases to fit to, and cases of workloads held out; see `check_held`."""
    check_held(list(dict.fromkeys(case.workload for case in cases)), held)
    fitted = [case for case in cases if case.workload not in held]
    return fitted, [case for case in cases if case.workload in held]


def every_third(names: Sequence[str]) -> list[str]:
    """The workloads that are held out unless the user names some; none of fewer than three."""
    return list(names[1::3]) if len(names) >= 3 else []


def _measured(cases: Sequence[Case]) -> Any:
    return np.array([case.seconds for case in cases])


class Fitter:
    """One calibration.

    Args:
        machine: where to start.
        parameters: the free ones.
        cases: to fit to.
        held: of other workloads, to judge only.
        budget_s: wall seconds after which no new round of simulations starts; they begin when every
            candidate has been simulated once.
        progress: is told what happens.
        scales: of the steps, one after the other.
    """

    def __init__(
        self,
        experiment: Experiment,
        machine: Machine,
        parameters: Sequence[Parameter],
        cases: Sequence[Case],
        held: Sequence[Case] = (),
        budget_s: float = 600.0,
        progress: Callable[[str], None] = lambda _text: None,
        scales: Sequence[float] = SCALES,
    ) -> None:
        self.scales = scales
        self.experiment, self.start, self.parameters = experiment, machine, list(parameters)
        self.cases, self.held, self.progress = list(cases), list(held), progress
        self.few = _few(self.cases)
        self._free = {parameter.path: parameter for parameter in self.parameters}
        self._scaling = set(_SCALED) <= self._free.keys()
        self.budget_s, self.deadline = budget_s, math.inf
        self.values: dict[str, Any] = {}
        self.sensitivity: dict[str, float] = {}

    def run(self) -> Fit:
        """Fits until nothing helps any more, or the time is over."""
        began = time.monotonic()
        before = self._score(self.start, self.cases)
        held_before = self._score(self.start, self.held) if self.held else None
        start_s = time.monotonic() - began  # the simulator may have been compiled, too
        self.progress(
            f"start: error {before.error:.3f}, tau-b {before.tau_b:.3f}, loss {before.loss:.4f}; to simulate "
            f"every candidate once took {start_s:.1f} s, now come up to {self.budget_s:g} s of trying"
        )
        self.deadline = time.monotonic() + self.budget_s
        loss, level, rounds, ended = before.loss, 0, 0, "nothing helps any more"
        try:
            loss = self._first_scale(loss)
            while level < len(self.scales):
                if self._late():
                    ended = "the time was over"
                    break
                rounds += 1
                gained = self._round(loss, self.scales[level])
                if gained is None or loss - gained < _LEAST_GAIN:
                    level += 1
                loss = loss if gained is None else gained
                self.progress(f"round {rounds}: loss {loss:.4f}, {len(self.values)} numbers changed")
        except KeyboardInterrupt:  # what was found until now is worth writing
            ended, self.deadline = INTERRUPTED, -math.inf
        changes = self._prune(loss)
        machine = self._machine({})
        after = self._score(machine, self.cases)
        return Fit(
            machine,
            before,
            after,
            held_before,
            self._score(machine, self.held) if self.held else None,
            changes,
            len(self.parameters),
            dict(sorted(self.sensitivity.items(), key=lambda item: -item[1])),
            rounds,
            self.experiment.runs,
            start_s,
            time.monotonic() - began,
            ended,
        )

    def _first_scale(self, loss: float) -> float:
        """Makes the median prediction right, if the clock is free."""
        clock = self._free.get("clock_hz")
        if clock is None:
            return loss
        if self._scaling:
            reached, moves = self._try_scaled({}, self.cases)
        else:
            predicted = self.experiment.seconds(self.start, self.cases)
            wanted = self.start.clock_hz * float(np.nanmedian(predicted / _measured(self.cases)))
            moves = {clock.path: float(f"{min(clock.high, max(clock.low, wanted)):.3g}")}
            machine = self._try(moves)
            reached = math.inf if machine is None else self._score(machine, self.cases).loss
        if loss - reached < _LEAST_GAIN:
            return loss
        self.values.update(moves)
        self.progress(f"clock_hz = {self.values[clock.path]:g}: loss {reached:.4f}")
        return reached

    def _try_scaled(self, moves: Mapping[str, Any], cases: Sequence[Case]) -> tuple[float, dict[str, Any]]:
        """Loss after some moves, and these moves with the scale of all times that suits them best.

        A slower clock with a memory that is as much slower in nanoseconds is the same machine in
        cycles: all its times are longer by one factor, and nothing need be simulated to know them.
        Without that, a step would be judged by the scale that it spoils rather than by the order.
        """
        machine = self._try(moves)
        if machine is None:
            return math.inf, dict(moves)
        predicted = self.experiment.seconds(machine, cases)
        taken = dict(moves)
        if self._scaling:
            factor = float(np.nanmedian(_measured(cases) / predicted))
            for path in _SCALED:
                bound, value = self._free[path], float(value_of(machine, path))
                low, high = bound.low / value, bound.high / value
                if path == "clock_hz":
                    low, high = 1 / high, 1 / low
                factor = min(high, max(low, factor))
            for path in _SCALED:
                value = float(value_of(machine, path))
                taken[path] = float(f"{value / factor if path == 'clock_hz' else value * factor:.6g}")
            predicted = predicted * factor
        return score(cases, predicted).loss, taken

    def _round(self, loss: float, scale: float) -> float | None:
        """One look at all parameters; the new loss if a move was taken."""
        base, _ = self._try_scaled({}, self.few)
        looked: list[tuple[float, str, Any]] = []
        # What mattered most so far comes first, and some of the time is left for taking moves.
        ordered = sorted(self.parameters, key=lambda p: -self.sensitivity.get(p.path, math.inf))
        now = time.monotonic()
        enough = now + _LOOKING * (self.deadline - now)
        for number, parameter in enumerate(ordered, 1):
            if time.monotonic() > enough:
                break
            self.progress(f"step {scale:.0%}: {number}/{len(self.parameters)} {parameter.path}")
            found = []
            for value in parameter.moves(self._value(parameter.path), scale):
                if self._late():
                    break
                reached, _ = self._try_scaled({parameter.path: value}, self.few)
                if reached < math.inf:
                    found.append((reached - base, parameter.path, value))
            if found:
                self.sensitivity[parameter.path] = max(abs(change) for change, _, _ in found)
            looked += found
        looked.sort(key=lambda move: move[0])
        promising = [move for move in looked if move[0] < 0][: max(4, len(self.parameters) // 4)]
        best = None
        for _, path, value in promising:
            if self._late():
                break
            reached, moves = self._try_scaled({path: value}, self.cases)
            if (loss if best is None else best) - reached >= _LEAST_GAIN:
                best = reached
                self.values.update(moves)
                self.progress(f"{path} = {value:g}: loss {reached:.4f}")
        return best

    def _prune(self, loss: float) -> tuple[Change, ...]:
        """What each changed number is worth; one that is worth nothing any more goes back."""
        changes = []
        for path, value in list(self.values.items()):
            old = value_of(self.start, path)
            gain = math.nan
            if not self._late(_GRACE_S) and (without := self._try({path: old})) is not None:
                reached = self._score(without, self.cases).loss
                gain = reached - loss
                if gain <= 0:
                    del self.values[path]
                    loss = reached
                    continue
            changes.append(Change(path, float(old), float(value), gain))
        return tuple(changes)

    def _score(self, machine: Machine, cases: Sequence[Case]) -> Score:
        return score(cases, self.experiment.seconds(machine, cases))

    def _value(self, path: str) -> Any:
        return self.values.get(path, value_of(self.start, path))

    def _try(self, moves: Mapping[str, Any]) -> Machine | None:
        return changed(self.start, {**self.values, **moves})

    def _machine(self, moves: Mapping[str, Any]) -> Machine:
        machine = self._try(moves)
        assert machine is not None, "every accepted move made a valid machine"
        return machine

    def _late(self, grace_s: float = 0.0) -> bool:
        return time.monotonic() > self.deadline + grace_s


def _few(cases: Sequence[Case]) -> list[Case]:
    """Some of each workload, spread over their times: cases come in that order."""
    by_workload: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.seconds):
        by_workload.setdefault(case.workload, []).append(case)
    return [
        members[place]
        for members in by_workload.values()
        for place in np.unique(np.linspace(0, len(members) - 1, _FIRST_LOOK).round().astype(int))
    ]
