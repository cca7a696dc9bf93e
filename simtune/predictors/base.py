# SPDX-License-Identifier: Apache-2.0
"""What a predictor is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

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
