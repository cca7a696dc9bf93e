# SPDX-License-Identifier: Apache-2.0
"""The space of a template: knobs with ordered values, and points numbered from zero.

Example:
    >>> space = Space("toy", (Knob("tile", (1, 2, 4)), Knob("threads", (1, 2))))
    >>> space.size, space.config(3), space.neighbours(3)
    (6, {'tile': 2, 'threads': 2}, [1, 2, 5])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from simtune.errors import ConfigurationError


@dataclass(frozen=True)
class Knob:
    """One choice of a template.

    Attributes:
        name: as in a configuration.
        values: all values in their natural order; one step along a knob goes to the next of them.
    """

    name: str
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.name:
            raise ConfigurationError("a knob has no name")
        if not self.values:
            raise ConfigurationError(f"the knob '{self.name}' has no values", "give it at least one")
        if len(set(self.values)) < len(self.values):
            raise ConfigurationError(f"the knob '{self.name}' has a value twice: {self.values}")


@dataclass(frozen=True)
class Space:
    """All combinations of the values of some knobs.

    Points are numbered in the order of counting: the last knob changes fastest.

    Attributes:
        name: what the space belongs to, such as the name of a layer.
        knobs: at least one.
    """

    name: str
    knobs: tuple[Knob, ...]
    _strides: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "knobs", tuple(self.knobs))
        names = [knob.name for knob in self.knobs]
        if not names:
            raise ConfigurationError(f"the space '{self.name}' has no knobs")
        if len(set(names)) < len(names):
            raise ConfigurationError(f"the space '{self.name}' has a knob twice: {', '.join(names)}")
        extents = [len(knob.values) for knob in self.knobs]
        strides = tuple(prod(extents[number + 1 :]) for number in range(len(extents)))
        object.__setattr__(self, "_strides", strides)

    @property
    def extents(self) -> tuple[int, ...]:
        """How many values each knob has."""
        return tuple(len(knob.values) for knob in self.knobs)

    @cached_property
    def size(self) -> int:
        """How many points there are."""
        return prod(self.extents)

    def coordinates(self, index: int) -> tuple[int, ...]:
        """The position of a point along each knob, from zero."""
        self._check(index)
        return tuple(
            index // stride % len(knob.values) for knob, stride in zip(self.knobs, self._strides, strict=True)
        )

    def at(self, coordinates: tuple[int, ...]) -> int:
        """The point at a position; the reverse of `coordinates`."""
        if len(coordinates) != len(self.knobs):
            raise ConfigurationError(
                f"'{self.name}': {len(coordinates)} coordinates for {len(self.knobs)} knobs"
            )
        for knob, step in zip(self.knobs, coordinates, strict=True):
            if not 0 <= step < len(knob.values):
                raise ConfigurationError(
                    f"'{self.name}': {knob.name} has no position {step}", f"0 to {len(knob.values) - 1}"
                )
        return sum(step * stride for step, stride in zip(coordinates, self._strides, strict=True))

    def config(self, index: int) -> dict[str, int]:
        """The value of every knob at a point."""
        return {
            knob.name: knob.values[step]
            for knob, step in zip(self.knobs, self.coordinates(index), strict=True)
        }

    def index(self, config: Mapping[str, int]) -> int:
        """The point with these values; the reverse of `config`.

        Raises:
            ConfigurationError: a knob is missing or unknown, or does not have the value.
        """
        unknown = [name for name in config if all(knob.name != name for knob in self.knobs)]
        if unknown:
            known = ", ".join(knob.name for knob in self.knobs)
            raise ConfigurationError(f"'{self.name}' has no knob {', '.join(unknown)}", f"it has {known}")
        index = 0
        for knob, stride in zip(self.knobs, self._strides, strict=True):
            if knob.name not in config:
                raise ConfigurationError(f"'{self.name}': the knob {knob.name} has no value")
            if config[knob.name] not in knob.values:
                raise ConfigurationError(
                    f"'{self.name}': {knob.name} cannot be {config[knob.name]}",
                    f"one of {', '.join(map(str, knob.values))}",
                )
            index += knob.values.index(config[knob.name]) * stride
        return index

    def neighbours(self, index: int) -> list[int]:
        """Points one step along one knob away, in ascending order."""
        found = []
        for knob, stride, step in zip(self.knobs, self._strides, self.coordinates(index), strict=True):
            if step > 0:
                found.append(index - stride)
            if step + 1 < len(knob.values):
                found.append(index + stride)
        return sorted(found)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise ConfigurationError(
                f"'{self.name}' has no point {index}", f"its points are 0 to {self.size - 1}"
            )
