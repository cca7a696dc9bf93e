# SPDX-License-Identifier: Apache-2.0
"""The value types of a tuning run: how to search, whom to tell, what came out. Needs no TVM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from simtune.candidates import Evaluation
from simtune.errors import ConfigurationError
from simtune.measure.base import Timing
from simtune.records.model import Run, Trial


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

    def on_start(self, run: Run, stored: Sequence[Trial], trials: int) -> None:
        """A run of `trials` trials starts or is taken up again; these are stored, the reference included."""

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
