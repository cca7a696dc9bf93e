# SPDX-License-Identifier: Apache-2.0
"""How many instructions a candidate will run, before it does. For planning only: never a result."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence

from simtune.build.image import Tensor
from simtune.records.model import Conditions, Simulation

#: Instructions per operation until the first run tells better: between scalar and vector code.
_PER_OPERATION = 4.0
#: Kinds that are told apart; of a hundred thousand different programs none comes twice.
_KINDS = 10_000


class Lengths:
    """The mean of what is known of the same kernel or program; an estimate where nothing is.

    The estimate is the square root of the product of the three largest tensors' elements, which is
    the multiply-adds of a matrix product and the elements of an elementwise kernel, times the mean
    instructions per such operation so far.
    """

    def __init__(self) -> None:
        self._means: dict[str, tuple[float, int]] = {}
        self._total = (0.0, 0)
        self._ratio = (0.0, 0.0)
        self._lock = threading.Lock()

    def learn(self, simulations: Iterable[Simulation]) -> None:
        """Learns from stored runs of the same machine."""
        for simulation in simulations:
            counters = simulation.outcome.counters
            if simulation.outcome.ok and counters is not None and "instructions" in counters:
                self.note(simulation.conditions, counters["instructions"])

    def note(self, conditions: Conditions, instructions: float, tensors: Sequence[Tensor] = ()) -> None:
        """Learns from one run that went well."""
        with self._lock:
            name = _what(conditions)
            total, number = self._means.get(name, (0.0, 0))
            if number or len(self._means) < _KINDS:
                self._means[name] = (total + instructions, number + 1)
            self._total = (self._total[0] + instructions, self._total[1] + 1)
            if tensors:
                self._ratio = (self._ratio[0] + instructions, self._ratio[1] + _operations(tensors))

    def of(self, conditions: Conditions, tensors: Sequence[Tensor] = ()) -> float:
        """Predicted instructions; 0 when nothing is known at all."""
        with self._lock:
            total, number = self._means.get(_what(conditions), (0.0, 0))
            if number:
                return total / number
            if tensors:
                instructions, operations = self._ratio
                return _operations(tensors) * (instructions / operations if operations else _PER_OPERATION)
            return self._total[0] / self._total[1] if self._total[1] else 0.0


def _what(conditions: Conditions) -> str:
    """The tensors of a kernel, or the digest of a program."""
    first = conditions.arguments[0] if conditions.arguments else ""
    return conditions.object_sha256 if first == "executable" else first


def _operations(tensors: Sequence[Tensor]) -> float:
    largest = sorted((max(1, tensor.elements) for tensor in tensors), reverse=True)[:3]
    return math.sqrt(math.prod(largest))
