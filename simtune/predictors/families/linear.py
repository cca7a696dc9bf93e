# SPDX-License-Identifier: Apache-2.0
"""Linear families: ridge regression on logarithms, non-negative least squares on costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtune.predictors.families.base import Array, Arrays, Design, Model


class Ridge(Model):
    """Multiple linear regression with an L2 penalty, chosen by leaving whole workloads out."""

    name = "ridge"
    penalties = (1e-2, 1e-1, 1.0, 10.0, 100.0)

    def fit(self, design: Design, target: Array) -> None:
        scale = design.logs.std(axis=0)
        self._centre, self._scale = design.logs.mean(axis=0), np.where(scale > 1e-9, scale, np.inf)
        x = (design.logs - self._centre) / self._scale
        numbers = np.unique(design.groups)
        # By workloads if there are several: neighbours of the same workload would flatter.
        folds = [design.groups == number for number in numbers]
        if len(numbers) == 1:
            folds = [np.arange(len(x)) % 5 == fold for fold in range(min(5, len(x)))]
        self.penalty = min(self.penalties, key=lambda penalty: self._error(x, target, folds, penalty))
        self._solve(x, target, self.penalty)

    def _error(self, x: Array, y: Array, folds: list[NDArray[np.bool_]], penalty: float) -> float:
        total = 0.0
        for held in folds:
            if held.all():
                continue
            self._solve(x[~held], y[~held], penalty)
            error = y[held] - x[held] @ self._weights
            total += float(np.sum((error - error.mean()) ** 2))  # an offset changes no ranking
        return total

    def _solve(self, x: Array, y: Array, penalty: float) -> None:
        self._offset = float(y.mean())
        square = x.T @ x + penalty * np.eye(x.shape[1])
        self._weights = np.linalg.solve(square, x.T @ (y - self._offset))

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        return self._offset + (design.logs - self._centre) / self._scale @ self._weights, None

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            "centre": self._centre,
            "scale": self._scale,
            "weights": self._weights,
            "offset": np.array(self._offset),
        }

    def restore(self, state: Arrays) -> None:
        self._centre, self._scale, self._weights = state["centre"], state["scale"], state["weights"]
        self._offset = float(state["offset"])


class NonNegative(Model):
    """time / mean time = sum of (cost, not negative) x (count / mean cycles), in least relative error.

    Costs that cannot be negative extrapolate to unseen workloads without surprises.
    """

    name = "nnls"
    residual_allowed = False

    def fit(self, design: Design, target: Array) -> None:
        from scipy.optimize import nnls

        time = np.exp(target)[:, None]
        scale = np.maximum(design.costs.max(axis=0), 1e-12)
        weights, _ = nnls(
            design.costs / scale / time, np.ones(len(design)), maxiter=50 * design.costs.shape[1]
        )
        self._weights = weights / scale

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        return np.log(np.maximum(design.costs @ self._weights, 1e-12)), None

    def state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self._weights}

    def restore(self, state: Arrays) -> None:
        self._weights = state["weights"]
