# SPDX-License-Identifier: Apache-2.0
"""The tuner for spaces where most points are invalid and every measurement counts.

What it uses depends on what it is given:
- exact constraints: only points that keep them are considered;
- otherwise the compiler: neighbourhood pre-sampling that ends when it costs more than it saves, and a
  question before each proposal, in the order of a learned model of validity;
- otherwise only the learned model, over knobs and compile-time features, which may have had lessons
  in other spaces;
- a prior: the search starts at its best points, and learns how reality differs from it;
- compile-time features: the model of the cost sees them beside the knobs.

Among what may be valid, it proposes what promises the largest expected improvement under a Gaussian
process of the logarithm of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates import boosting
from simtune.templates.base import Options, Tuner
from simtune.templates.encode import Array, coordinates, feature_rows, spread_out, values
from simtune.templates.gaussian import Gaussian, Hyper, Scale, expected_improvement
from simtune.templates.presample import Presample, Stopping, presample

#: Beyond this many results the process learns from the best and the latest only.
_MEMORY = 300

#: Spaces up to this size are gone through as a whole: each point may ask constraints and features once.
_WHOLE = 1 << 15

#: The model of validity learns again after so many refusals of the compiler.
_REFUSALS = 8

#: Promises that differ by less than this share are equal.
_EQUAL = 1e-3


@dataclass(frozen=True)
class ValidityOptions(Options):
    """Switches and sizes.

    Attributes:
        presample: whether the compiler is asked about neighbourhoods before anything is measured.
        limit, enough, cost: of pre-sampling: most questions, valid points wanted, and the cost of a
            question relative to a measurement; see `simtune.templates.presample.Stopping`.
        ask_oracle: whether the compiler is asked before a point is proposed.
        validity_model: whether a model of validity is learned.
        use_features, use_prior: whether compile-time features and the prior are used if given.
        first: points of the first batch, which is spread out, or the best of the prior.
        pool: candidates that are compared in a space too large to go through.
        margin: relative improvement below which a point is not worth its trial.
    """

    presample: bool = True
    limit: int = 1000
    enough: int = 25
    cost: float = 0.1
    ask_oracle: bool = True
    validity_model: bool = True
    use_features: bool = True
    use_prior: bool = True
    first: int = 8
    pool: int = 4096
    margin: float = 0.0

    def __post_init__(self) -> None:
        if min(self.limit, self.enough, self.first, self.pool) < 1 or self.cost < 0 or self.margin < 0:
            raise ConfigurationError(
                f"validity-driven search with {self}", "counts from 1, cost and margin from 0"
            )


class ValidityTuner(Tuner):
    """Proposes what promises most among the points that are, or seem to be, valid."""

    name = "validity"
    summary = "Expected improvement among valid points: constraints, compiler or learned validity."
    options_type = ValidityOptions
    options: ValidityOptions

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.presampled: Presample | None = None
        self._asks = (
            self.options.ask_oracle and self.oracle.given is not None and self.constraints.given is None
        )
        self._allowed: list[int] | None = None
        self._place: dict[int, int] = {}
        self._known: Array = np.zeros((0, 0))
        self._names: list[str] | None = None
        self._hyper: tuple[int, Hyper] | None = None
        self._teacher: boosting.Trees | None = None
        self._odds: dict[int, float] = {}

    # Candidates -------------------------------------------------------------------------------

    def propose(self, n: int) -> list[int]:
        if self._asks and self.options.presample and self.presampled is None:
            stopping = Stopping(enough=self.options.enough, cost=self.options.cost)
            self.presampled = presample(
                self.space, self.oracle, self.options.limit, self.rng, stopping=stopping
            )
        candidates = self._candidates()
        if not candidates:
            return []
        chance = self._chance(candidates)
        good = [result for result in self.results.values() if result.ok]
        if len(good) < 2:
            return self._start(candidates, chance, n)
        return self._improve(candidates, chance, n)

    def _candidates(self) -> list[int]:
        if self.space.size <= _WHOLE and len(self._whole()) <= 4 * self.options.pool:
            return [point for point in self._whole() if self.open(point) and not self._refused(point)]
        pool: set[int] = set()
        good = sorted((r for r in self.results.values() if r.ok), key=lambda r: r.value or 0.0)
        frontier = [result.index for result in good[:16]]
        for _ in range(2):
            frontier = [near for point in frontier for near in self.space.neighbours(point)]
            pool.update(frontier)
        if self.presampled is not None:
            pool.update(self.presampled.valid)
        for _ in range(4 * self.options.pool):
            if len(pool) >= self.options.pool:
                break
            pool.add(int(self.rng.integers(self.space.size)))
        return sorted(point for point in pool if self.open(point) and not self._refused(point))

    def _whole(self) -> list[int]:
        if self._allowed is None:
            self._allowed = self.constraints.allowed()
        return self._allowed

    def _refused(self, point: int) -> bool:
        return bool(self.oracle.verdicts.get(point))

    def _take(self, order: Sequence[int], n: int) -> list[int]:
        """The first `n` of the order that the compiler accepts, as far as it is asked."""
        picked: list[int] = []
        for point in order:
            if len(picked) == n:
                break
            if not self._asks or self.oracle.valid(point):
                picked.append(point)
        return picked

    # Validity ---------------------------------------------------------------------------------

    def _chance(self, candidates: list[int]) -> Array:
        """The learned chance of each candidate to be valid; 1 for those the compiler has accepted."""
        known = {point: float(not code) for point, code in self.oracle.verdicts.items()}
        known |= {point: float(result.ok) for point, result in self.results.items()}
        odds = self._taught(candidates)
        labels = np.array(list(known.values()))
        if self.options.validity_model and len(labels) >= 8 and 0 < labels.sum() < len(labels):
            start = None if odds is None else self._taught(list(known))
            rows = self._features(list(known))
            model = boosting.fit(rows, labels, "logistic", rounds=40, least=0.1, start=start)
            own = model.predict(self._features(candidates))
            odds = own if odds is None else odds + own
        found = np.ones(len(candidates)) if odds is None else 1.0 / (1.0 + np.exp(-np.clip(odds, -50, 50)))
        if self._asks:
            sure = np.array([self.oracle.verdicts.get(point) == "" for point in candidates])
            found = np.where(sure, 1.0, found)
        return found

    def _taught(self, points: list[int]) -> Array | None:
        """What other spaces say about points, as logarithms of odds; None without lessons."""
        if not self.lessons or not self.options.validity_model:
            return None
        if self._teacher is None:
            self._features(points[:1])  # settles the names of the features
            columns = []
            for knob in self.space.knobs:  # as `encode.values` has them
                column = np.array([float(lesson.config.get(knob.name, 1)) for lesson in self.lessons])
                columns.append(np.log2(np.maximum(column, 1e-9)) if min(knob.values) > 0 else column)
            rows = np.stack(columns, axis=-1)
            if self._names:
                rows = np.hstack(
                    [rows, feature_rows([lesson.features for lesson in self.lessons], self._names)]
                )
            labels = np.array([float(lesson.valid) for lesson in self.lessons])
            self._teacher = boosting.fit(rows, labels, "logistic", rounds=60, depth=4)
        missing = [point for point in points if point not in self._odds]
        if missing:
            odds = self._teacher.predict(self._features(missing))
            self._odds.update(zip(missing, odds.tolist(), strict=True))
        return np.array([self._odds[point] for point in points])

    def _weight(self, chance: Array, careful: bool) -> Array:
        """Successes per effort: a refused question costs little, a failed measurement all of its trial.

        Where nothing but the learned model warns, it is asked too much of: the largest promises are where
        the model is wrong. Then every other choice is a careful one.
        """
        chance = np.maximum(chance, 1e-9)
        if self._asks:
            return chance / (self.options.cost + chance)
        return chance**3 if careful else chance

    # Cost -------------------------------------------------------------------------------------

    def _start(self, candidates: list[int], chance: Array, n: int) -> list[int]:
        """Before there is anything to learn from: the best of the prior, or points far apart."""
        if self._asks and self.presampled is not None and self.presampled.valid:
            sure = [point for point in self.presampled.valid if self.open(point)]
            if sure:
                candidates, chance = sure, np.ones(len(sure))
        ranked: list[int] = []
        if self.prior is not None and self.options.use_prior:
            cost = self._prior(candidates) - np.log(np.maximum(chance, 1e-6))
            ranked = [candidates[place] for place in np.argsort(cost, kind="stable").tolist()]
            if self._asks or self.constraints.given is not None or self.lessons:
                return self._take(ranked, n)
        likely = np.flatnonzero(chance >= 0.5 * chance.max())
        rows = coordinates(self.space, [candidates[place] for place in likely.tolist()])
        done = coordinates(self.space, list(self.results)) if self.results else None
        wanted = n if not self._asks else len(likely)
        order = [candidates[likely[place]] for place in spread_out(rows, wanted, self.rng, done)]
        if ranked:
            # Nothing tells what is valid, and what looks fastest often is not: one of each.
            order = list(dict.fromkeys(each for pair in zip(ranked, order, strict=False) for each in pair))
        return self._take(order, n)

    def _improve(self, candidates: list[int], chance: Array, n: int) -> list[int]:
        known = [result for result in self.results.values() if result.ok]
        if len(known) > _MEMORY:
            best = sorted(known, key=lambda result: result.value or 0.0)[: _MEMORY // 2]
            known = list({r.index: r for r in [*best, *known[-_MEMORY // 2 :]]}.values())
        points = [result.index for result in known]
        cost = _log(np.array([result.value for result in known], dtype=float))
        base = np.zeros(len(points))
        lift = np.zeros(len(candidates))
        if self.prior is not None and self.options.use_prior:
            base, lift = self._prior(points), self._prior(candidates)
        everything = np.vstack([self._features(points), self._features(candidates)])
        scaled = Scale.of(everything)(everything)
        rows, others = scaled[: len(points)], scaled[len(points) :]
        goal = cost.min() - self.options.margin
        picked: list[int] = []
        left = np.ones(len(candidates), dtype=bool)
        refused = 0
        # The likeliest kernel changes slowly, and is that of what was measured, not of what is believed.
        at, hyper = self._hyper or (0, None)
        if len(points) >= 1.15 * at:
            hyper = Gaussian(rows, cost - base).hyper
            self._hyper = (len(points), hyper)
        belief = Gaussian(rows, cost - base, hyper).posterior(others)
        floor = 1e-3 * belief.process.spread
        expected = belief.mean + lift
        while len(picked) < n and left.any():
            promise = expected_improvement(expected, belief.deviation, goal)
            # Promises that are next to nothing count as equal: then validity decides, then the lowest cost.
            worth = np.log(promise + floor) + np.log(
                self._weight(chance, (len(self.results) + len(picked)) % 2 == 1)
            )
            worth = np.where(left, worth, -np.inf)
            place = int(np.where(worth >= worth.max() - _EQUAL, expected, np.inf).argmin())
            left[place] = False
            if self._take([candidates[place]], 1):
                picked.append(candidates[place])
                belief.believe(place)  # so that the next point is not its twin
            else:
                refused += 1
                if refused % _REFUSALS == 0:
                    chance = self._chance(candidates)
        return picked

    def _prior(self, points: Sequence[int]) -> Array:
        assert self.prior is not None
        return _log(np.array([self.prior(self.space.config(point)) for point in points], dtype=float))

    def _features(self, points: Sequence[int]) -> Array:
        knobs = values(self.space, points)
        if self.features is None or not self.options.use_features:
            return knobs
        self._fill_in(points)
        places = [self._place[point] for point in points]
        return np.hstack([knobs, self._known[places]])

    def _fill_in(self, points: Sequence[int]) -> None:
        """Computes the features of points that are new, and keeps them as rows of one array."""
        assert self.features is not None
        missing = [point for point in points if point not in self._place]
        if not missing:
            return
        found = [self.features(self.space.config(point)) for point in missing]
        self._names = self._names or sorted(set().union(*found))
        rows = feature_rows(found, self._names)
        self._place.update(
            zip(missing, range(len(self._place), len(self._place) + len(missing)), strict=True)
        )
        self._known = np.vstack([self._known, rows]) if len(self._known) else rows


def _log(costs: Array) -> Array:
    """Tuning is about factors; costs that are not positive stay as they are."""
    return np.log(costs) if len(costs) and costs.min() > 0 else costs
