# SPDX-License-Identifier: Apache-2.0
"""What a predictor is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from simtune.counters import Counters
from simtune.machines.model import Machine


@runtime_checkable
class Predictor(Protocol):
    """Turns the counters of one simulation into a run time on a machine."""

    @property
    def name(self) -> str:
        """Short name for records and reports, such as ``"analytical"``."""

    def predict(self, counters: Counters, machine: Machine) -> float:
        """Seconds.

        Raises:
            ConfigurationError: the counters do not hold the least that this predictor needs.
        """

    def explain(self, counters: Counters, machine: Machine) -> dict[str, float]:
        """Cycles per part; they add up to the prediction. A part without counters is absent."""


class Session(Predictor, Protocol):
    """A predictor at work on one workload, which compares its candidates with one another."""

    def predict_batch(self, counters: Sequence[Counters], machine: Machine) -> Any:
        """Seconds (N,) of candidates that were simulated together."""

    def observe(self, counters: Sequence[Counters], machine: Machine) -> None:
        """Learns from candidates that were predicted before, when a run goes on."""


@runtime_checkable
class ContextualPredictor(Predictor, Protocol):
    """A predictor that needs to know which candidates belong together: trained ones do."""

    def session(self, workload: str) -> Session:
        """A predictor for the candidates of one workload."""

    def seconds(self, counters: Sequence[Counters], machine: Machine) -> Any:
        """Seconds (N,) of all candidates of one workload, each in the light of all others."""

    @property
    def digest(self) -> str:
        """Hex digest of everything that decides a prediction."""
