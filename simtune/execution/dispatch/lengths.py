# SPDX-License-Identifier: Apache-2.0
"""How long jobs take, learnt while they run: seconds from predicted length, and how far off that is."""

from __future__ import annotations

import math

#: How much an observation still counts after each further one: the last few hundred jobs matter, so
#: that the figures follow a fleet that changes.
_MEMORY = 0.995

#: Chunks beyond this quantile of (actual / predicted) are stragglers, and how fast its estimate moves.
_QUANTILE = 0.98
_STEP = 0.5


#: Jobs whose lengths differ by less than this share of their mean say little about the rate; it leans
#: towards all time being due to length then, so that much longer jobs are not taken for short ones.
_SPREAD = 0.1


class Lengths:
    """Predicts seconds as `base + rate * length`, by least squares over the recent jobs, regularised.

    Attributes:
        known: something was learnt; before, all predictions are 0.
        base: seconds that a job takes besides its length, such as for linking; all of them when no
            length is known.
        rate: seconds per unit of length.
        tardy: the 98 % quantile of actual by predicted seconds of whole chunks, at least 2, by
            stochastic approximation (Robbins and Monro, 1951).
    """

    def __init__(self) -> None:
        self.known = False
        self.base = 0.0
        self.rate = 0.0
        self.tardy = 2.0
        self._n = self._l = self._s = self._ll = self._ls = 0.0

    def learn(self, length: float, seconds: float) -> None:
        """One job of this length took so many seconds on a worker."""
        if not 0 <= seconds < math.inf:
            return  # what a worker says need not make sense
        self._n = self._n * _MEMORY + 1.0
        self._l = self._l * _MEMORY + length
        self._s = self._s * _MEMORY + seconds
        self._ll = self._ll * _MEMORY + length * length
        self._ls = self._ls * _MEMORY + length * seconds
        self.known = True

    def fit(self) -> None:
        """Takes what was learnt into the prediction; once per chunk is enough."""
        if not self.known:
            return
        mean_l, mean_s = self._l / self._n, self._s / self._n
        if not mean_l:
            self.base, self.rate = mean_s, 0.0
            return
        most = mean_s / mean_l
        lean = (_SPREAD * mean_l) ** 2
        variance = self._ll / self._n - mean_l * mean_l
        covariance = self._ls / self._n - mean_l * mean_s
        # Neither a job nor an instruction takes less than no time.
        self.rate = min(max((covariance + lean * most) / (max(variance, 0.0) + lean), 0.0), most)
        self.base = mean_s - self.rate * mean_l

    def observe(self, ratio: float) -> None:
        """A chunk took `ratio` times as long as predicted."""
        step = _QUANTILE if ratio > self.tardy else _QUANTILE - 1.0
        self.tardy = max(2.0, self.tardy * (1.0 + _STEP * step))

    def seconds(self, jobs: int, length: float) -> float:
        """Predicted seconds of so many jobs with this length in total, one after the other."""
        return self.base * jobs + self.rate * length
