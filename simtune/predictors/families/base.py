# SPDX-License-Identifier: Apache-2.0
"""What a model family is: fitted on one design, predicting log times, storable as plain arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Design:
    """What a model sees of N candidates.

    Attributes:
        logs: (N, F) features, log(value / mean of the workload), clipped to the training range.
        costs: (N, C) linear costs, each over the mean cycles of the workload.
        groups: (N,) number of the workload.
        cycles: (N,) log(cycles / mean cycles of the workload).
    """

    logs: Array
    costs: Array
    groups: NDArray[np.int64]
    cycles: Array

    def __len__(self) -> int:
        return len(self.logs)

    def take(self, rows: NDArray[Any]) -> Design:
        return Design(self.logs[rows], self.costs[rows], self.groups[rows], self.cycles[rows])


class Model(ABC):
    """One family. Targets and predictions are log(time / mean time of the workload)."""

    name: ClassVar[str]
    #: Whether it may learn log(time / cycles) instead: a correction of the cycle model.
    residual_allowed: ClassVar[bool] = True

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, design: Design, target: Array) -> None:
        """Learns `target` (N,) from the design."""

    @abstractmethod
    def predict(self, design: Design) -> tuple[Array, Array | None]:
        """Predicted targets (N,), and their standard deviations where the family has them."""

    def mean(self, design: Design) -> Array:
        """Predicted targets alone, for families whose deviations cost time."""
        return self.predict(design)[0]

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that was learned, as arrays without Python objects."""

    @abstractmethod
    def restore(self, state: Arrays) -> None:
        """Takes over what `state` gave; ValueError or KeyError when it does not fit together."""
