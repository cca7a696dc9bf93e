# SPDX-License-Identifier: Apache-2.0
"""Points of a space as arrays: coordinates, values, and distances between points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtune.templates.space import Space

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def coordinates(space: Space, points: Iterable[int] | Ints) -> Ints:
    """One row of positions along the knobs per point."""
    numbers = np.fromiter(points, dtype=np.int64) if not isinstance(points, np.ndarray) else points
    return np.stack(np.unravel_index(numbers, space.extents), axis=-1).astype(np.int64)


def indices(space: Space, rows: Ints) -> Ints:
    """The points at rows of positions; the reverse of `coordinates`."""
    found: Ints = np.ravel_multi_index(tuple(rows.T), space.extents).astype(np.int64)
    return found


def values(space: Space, points: Iterable[int] | Ints) -> Array:
    """One row per point: the logarithms of its knobs' values, or the values where some are not positive."""
    rows = coordinates(space, points)
    columns = []
    for column, knob in enumerate(space.knobs):
        known = np.asarray(knob.values, dtype=float)
        columns.append((np.log2(known) if known.min() > 0 else known)[rows[:, column]])
    return np.stack(columns, axis=-1)


def feature_rows(known: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    """Named features as rows, those of large range as logarithms; what one does not have is zero."""
    rows = np.array([[float(each.get(name, 0.0)) for name in names] for each in known]).reshape(
        -1, len(names)
    )
    signed: Array = np.sign(rows) * np.log1p(np.abs(rows))
    return np.nan_to_num(signed, nan=0.0, posinf=50.0, neginf=-50.0)


def spread_out(rows: Ints | Array, count: int, rng: np.random.Generator, chosen: Any = None) -> list[int]:
    """Positions of `count` rows that lie far apart.

    Starts with a random row (or with the rows `chosen`, which are not returned), then always takes the
    row whose nearest chosen one is farthest, by Manhattan distance.
    """
    if not len(rows):
        return []
    picked: list[int] = []
    nearest = np.full(len(rows), np.inf)
    if chosen is not None and len(chosen):
        for row in chosen:
            nearest = np.minimum(nearest, np.abs(rows - row).sum(axis=1))
    while len(picked) < min(count, len(rows)):
        if np.isinf(nearest).all():
            place = int(rng.integers(len(rows)))
        else:
            farthest = np.flatnonzero(nearest == nearest.max())
            place = int(farthest[rng.integers(len(farthest))])
        picked.append(place)
        nearest = np.minimum(nearest, np.abs(rows - rows[place]).sum(axis=1))
        nearest[place] = -1.0
    return picked
