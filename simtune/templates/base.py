# SPDX-License-Identifier: Apache-2.0
"""The ask/tell protocol of a tuner.

A tuner proposes points (`ask`) and learns what became of them (`tell`). It never evaluates anything
itself. The same seed, options and answers always give the same proposals, so that a state is simply
what was asked and told: restoring plays it again.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates.checks import Check, Constraints, Oracle, Unseen
from simtune.templates.encode import Array
from simtune.templates.space import Space

#: Compile-time features of a configuration; never anything derived from its cycles.
Features = Callable[[Mapping[str, int]], Mapping[str, float]]

#: A rough cost of a valid configuration, known without running it; smaller is better.
Prior = Callable[[Mapping[str, int]], float]

_FORMAT = 1


@dataclass(frozen=True)
class Result:
    """What became of one point.

    Attributes:
        index: the point.
        value: what is minimised; None for a failure.
        stage, code: where and why it failed, such as "lower" and "SRAM_ACC".
    """

    index: int
    value: float | None
    stage: str = ""
    code: str = ""

    @property
    def ok(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Lesson:
    """The validity of one configuration of another space with the same knobs and features."""

    config: Mapping[str, int]
    features: Mapping[str, float]
    valid: bool


@dataclass(frozen=True)
class Options:
    """Options of a tuner: a frozen dataclass per tuner, all fields with defaults."""

    def __str__(self) -> str:
        """Those that are not as usual, for messages."""
        mine = ((item.name, getattr(self, item.name), item.default) for item in fields(self))
        return ", ".join(f"{name}={value}" for name, value, usual in mine if value != usual)


class Tuner(ABC):
    """Base of all tuners; subclasses propose and learn, this class keeps the books.

    Args:
        space: where to search.
        seed: of every random choice.
        oracle: the compiler as a judge: "" or a code for a configuration. Calls are counted.
        constraints: exact validity, as a function of the configuration or as one code per point. A
            point that breaks a constraint is never proposed.
        features: compile-time features of a configuration, for tuners that learn from them.
        prior: a rough cost of a configuration, for tuners that start from one.
        lessons: from other spaces, for tuners that learn which points are valid.
        options: of the tuner, by name.

    Attributes:
        results: what was told, by point, in the order of telling.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    options_type: ClassVar[type[Options]] = Options

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        oracle: Check | None = None,
        constraints: Check | Sequence[str] | None = None,
        features: Features | None = None,
        prior: Prior | None = None,
        lessons: Sequence[Lesson] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if seed < 0:
            raise ConfigurationError(f"seed is {seed}, but may not be negative")
        self.space, self.seed = space, seed
        self.rng = np.random.default_rng(seed)
        self.oracle = Oracle(space, oracle)
        self.constraints = Constraints(space, constraints)
        self.features, self.prior, self.lessons = features, prior, tuple(lessons)
        self.options = self._options(dict(options or {}))
        self.results: dict[int, Result] = {}
        self.pending: set[int] = set()
        self._log: list[list[Any]] = []
        self._fill = Unseen(space, np.random.default_rng((seed, 1)), lambda point: not self.open(point))

    def _options(self, given: dict[str, Any]) -> Any:
        known = {field.name for field in fields(self.options_type)}
        for name in given:
            if name not in known:
                hint = f"it has {', '.join(sorted(known))}" if known else "it has none"
                raise ConfigurationError(f"the tuner '{self.name}' has no option '{name}'", hint)
        return self.options_type(**given)

    # The protocol -----------------------------------------------------------------------------

    def ask(self, n: int = 1) -> list[int]:
        """Up to `n` new points to evaluate; fewer, or none, when the space has no more.

        Points that were asked for and not told yet count as taken.
        """
        if n < 1:
            raise ConfigurationError(f"ask({n}): ask for at least one point")
        picked: list[int] = []
        for point in self.propose(n):
            if self.open(point):
                picked.append(point)
                self.pending.add(point)
            if len(picked) == n:
                break
        while len(picked) < n and (extra := self._fill.draw()) is not None:
            picked.append(extra)
            self.pending.add(extra)
        self._log.append(["ask", n])
        return picked

    def tell(self, results: Iterable[Result] | Result) -> None:
        """Learns what became of points, those included that were never asked for.

        A point that was told before keeps its first result.
        """
        given = [results] if isinstance(results, Result) else list(results)
        news = []
        for result in given:
            self.space.coordinates(result.index)  # refuses what is no point
            value = None if result.value is None else float(result.value)
            if value is not None and not np.isfinite(value):
                raise ConfigurationError(
                    f"point {result.index} has the value {value}", "tell a failure as value=None with a code"
                )
            self.pending.discard(result.index)
            if result.index not in self.results:
                fresh = Result(int(result.index), value, result.stage, result.code)
                self.results[result.index] = fresh
                news.append(fresh)
        self._log.append(["tell", [[r.index, r.value, r.stage, r.code] for r in given]])
        if news:
            self.learn(news)

    @abstractmethod
    def propose(self, n: int) -> Iterable[int]:
        """Points for `ask`, best first, any number of them.

        It takes those that are open until it has enough, and fills up with random ones.
        """

    def learn(self, results: Sequence[Result]) -> None:  # noqa: B027  # a hook, not an obligation
        """Takes in new results; does nothing by default."""

    # The books --------------------------------------------------------------------------------

    def open(self, point: int) -> bool:
        """Whether a point may be proposed: not told, not under way, allowed by the constraints."""
        return point not in self.results and point not in self.pending and self.constraints.allow(point)

    @property
    def best(self) -> Result | None:
        """The best result so far, the earliest among equals."""
        good = [result for result in self.results.values() if result.ok]
        return min(good, key=lambda result: result.value or 0.0, default=None)

    @property
    def oracle_calls(self) -> int:
        """How many points the compiler was asked about."""
        return self.oracle.calls

    # Saving -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as JSON values."""
        return {
            "format": _FORMAT,
            "tuner": self.name,
            "space": space_digest(self.space),
            "seed": self.seed,
            "options": {field.name: getattr(self.options, field.name) for field in fields(self.options)},
            "log": [list(entry) for entry in self._log],
            "verdicts": [[point, code] for point, code in self.oracle.verdicts.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Brings a new tuner to a saved state, by playing what was asked and told.

        The compiler is not asked again.

        Raises:
            ConfigurationError: the state is of another tuner, space, seed or format.
        """
        mine = self.state()
        for name in ("format", "tuner", "space", "seed", "options"):
            if state.get(name) != json.loads(json.dumps(mine[name])):
                raise ConfigurationError(
                    f"the saved tuner has another {name}: {state.get(name)!r} instead of {mine[name]!r}",
                    "create the tuner with the same space, seed and options",
                )
        if self._log:
            raise ConfigurationError("this tuner is in use already", "restore into a new one")
        self.oracle.stored = {int(point): str(code) for point, code in state["verdicts"]}
        for kind, content in state["log"]:
            if kind == "ask":
                self.ask(content)
            else:
                self.tell([Result(*row) for row in content])


def scores(results: Sequence[Result]) -> Array:
    """From 0 (failed) to 1 (the best): its value over each value, as AutoTVM's share of the best rate."""
    values = np.array([np.nan if result.value is None else result.value for result in results])
    if not np.isfinite(values).any():
        return np.zeros(len(values))
    best, worst = float(np.nanmin(values)), float(np.nanmax(values))
    # Ratios of values that are not positive mean nothing.
    found = best / values if best > 0 else 1.0 - 0.9 * (values - best) / ((worst - best) or 1.0)
    result: Array = np.nan_to_num(found, nan=0.0)
    return result


def space_digest(space: Space) -> str:
    """Content hash of a space's knobs."""
    text = json.dumps([[knob.name, list(knob.values)] for knob in space.knobs])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
