# SPDX-License-Identifier: Apache-2.0
"""A Gaussian process in numpy, for the few dozen to few hundred results of a search.

The length scale, the share of a linear trend and the noise are those of a small grid with the highest
marginal likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.special import ndtr

from simtune.templates.encode import Array

_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
_TRENDS = (0.0, 1.0)
_NOISES = (1e-4, 1e-2, 1e-1)


@dataclass(frozen=True)
class Scale:
    """Columns shifted and scaled to mean 0 and deviation 1; constant ones become 0."""

    middle: Array
    spread: Array

    @staticmethod
    def of(rows: Array) -> Scale:
        spread = rows.std(axis=0)
        return Scale(rows.mean(axis=0), np.where(spread > 1e-9, spread, np.inf))

    def __call__(self, rows: Array) -> Array:
        return (rows - self.middle) / self.spread


@dataclass(frozen=True)
class Hyper:
    """Length scale in units of the typical distance, share of the linear trend, noise variance."""

    length: float
    trend: float
    noise: float


class Gaussian:
    """A fitted process.

    Args:
        rows: scaled features of what is known.
        targets: their values; made mean 0 and deviation 1 inside.
        hyper: None looks for the likeliest.
    """

    def __init__(self, rows: Array, targets: Array, hyper: Hyper | None = None) -> None:
        self.rows = rows
        self.middle = float(targets.mean())
        self.spread = float(targets.std()) or 1.0
        self.targets = (targets - self.middle) / self.spread
        distance, linear = _distances(rows, rows), _linear(rows, rows)
        grid = [hyper] if hyper else [Hyper(*each) for each in product(_LENGTHS, _TRENDS, _NOISES)]
        best = -np.inf
        for each in grid:
            factor = _factor(_kernel(distance, linear, each), each.noise)
            weights = cho_solve((factor, True), self.targets, check_finite=False)
            likelihood = -0.5 * float(self.targets @ weights) - float(np.log(np.diag(factor)).sum())
            if likelihood > best:
                best, self.hyper, self._lower, self._weights = likelihood, each, factor, weights

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at scaled rows."""
        after = self.posterior(rows)
        return after.mean, after.deviation

    def posterior(self, rows: Array) -> Posterior:
        """What is believed of scaled rows."""
        cross = _kernel(_distances(self.rows, rows), _linear(self.rows, rows), self.hyper)
        mean = self._weights @ cross * self.spread + self.middle
        half = solve_triangular(self._lower, cross, lower=True, check_finite=False)
        own = 1.0 + self.hyper.trend * (rows**2).mean(axis=1)
        return Posterior(self, rows, mean, own - (half**2).sum(axis=0), half)


class Posterior:
    """The belief in some rows, which narrows as some of them are taken to be known.

    Believing a row's mean leaves all means as they are; only the variances shrink.
    """

    def __init__(self, process: Gaussian, rows: Array, mean: Array, variance: Array, half: Array) -> None:
        self.process, self.rows, self.mean = process, rows, mean
        self._variance, self._half = variance, half

    @property
    def deviation(self) -> Array:
        found: Array = np.sqrt(np.maximum(self._variance, 1e-12)) * self.process.spread
        return found

    def believe(self, place: int) -> None:
        """Takes the mean of a row for its value."""
        row, hyper = self.rows[place : place + 1], self.process.hyper
        prior = _kernel(_distances(row, self.rows), _linear(row, self.rows), hyper)[0]
        covariance = prior - self._half[:, place] @ self._half
        step = covariance / np.sqrt(max(float(self._variance[place]), 1e-12) + hyper.noise)
        self._half = np.vstack([self._half, step])
        self._variance = self._variance - step**2


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """How far below `best` a value is expected to be, counting those above as zero."""
    gap = (best - mean) / deviation
    density = np.exp(-0.5 * np.clip(gap, -30, 30) ** 2) / np.sqrt(2 * np.pi)
    found: Array = deviation * (gap * ndtr(gap) + density)
    return found


def _distances(left: Array, right: Array) -> Array:
    """Euclidean, per square root of the number of columns."""
    square = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    found: Array = np.sqrt(np.maximum(square, 0.0) / max(1, left.shape[1]))
    return found


def _linear(left: Array, right: Array) -> Array:
    found: Array = left @ right.T / max(1, left.shape[1])
    return found


def _kernel(distance: Array, linear: Array, hyper: Hyper) -> Array:
    """Matern 5/2 and a linear trend."""
    scaled = np.sqrt(5.0) * distance / hyper.length
    found: Array = (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled) + hyper.trend * linear
    return found


def _factor(kernel: Array, noise: float) -> Array:
    found: Array = cholesky(kernel + (noise + 1e-8) * np.eye(len(kernel)), lower=True, check_finite=False)
    return found
