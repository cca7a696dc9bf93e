# SPDX-License-Identifier: Apache-2.0
"""Spaces: points, configurations, neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.errors import ConfigurationError
from simtune.templates import Knob, Space
from simtune.templates.encode import coordinates, indices, spread_out


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    knobs = draw(
        st.lists(
            st.lists(st.integers(-50, 1000), min_size=1, max_size=5, unique=True), min_size=1, max_size=5
        )
    )
    return Space("drawn", tuple(Knob(f"k{n}", tuple(values)) for n, values in enumerate(knobs)))


@given(spaces(), st.randoms(use_true_random=False))
def test_index_config_and_coordinates_are_reverses(space: Space, random) -> None:
    for _ in range(20):
        point = random.randrange(space.size)
        assert space.index(space.config(point)) == point
        assert space.at(space.coordinates(point)) == point
        assert [k.values[c] for k, c in zip(space.knobs, space.coordinates(point), strict=True)] == list(
            space.config(point).values()
        )
    points = np.arange(min(space.size, 500))
    assert (indices(space, coordinates(space, points)) == points).all()


@given(spaces(), st.randoms(use_true_random=False))
def test_neighbours_are_one_step_away_and_mutual(space: Space, random) -> None:
    point = random.randrange(space.size)
    here = space.coordinates(point)
    near = space.neighbours(point)
    assert near == sorted(set(near))
    for other in near:
        assert sum(abs(a - b) for a, b in zip(here, space.coordinates(other), strict=True)) == 1
        assert point in space.neighbours(other)
    expected = sum((step > 0) + (step + 1 < extent) for step, extent in zip(here, space.extents, strict=True))
    assert len(near) == expected


def test_what_is_wrong_is_named() -> None:
    space = Space("s", (Knob("a", (1, 2)), Knob("b", (3,))))
    for call, words in [
        (lambda: space.config(2), "no point 2"),
        (lambda: space.index({"a": 1}), "b has no value"),
        (lambda: space.index({"a": 1, "b": 4}), "b cannot be 4"),
        (lambda: space.index({"a": 1, "b": 3, "c": 1}), "no knob c"),
        (lambda: space.at((0, 1)), "b has no position 1"),
        (lambda: Knob("a", ()), "no values"),
        (lambda: Knob("a", (1, 1)), "twice"),
        (lambda: Space("s", ()), "no knobs"),
        (lambda: Space("s", (Knob("a", (1,)), Knob("a", (2,)))), "twice"),
    ]:
        with pytest.raises(ConfigurationError, match=words):
            call()


def test_spread_out_takes_far_points_and_avoids_given_ones() -> None:
    rows = np.array([[x, y] for x in range(10) for y in range(10)])
    rng = np.random.default_rng(3)
    picked = spread_out(rows, 4, rng, np.array([[0, 0]]))
    assert rows[picked[0]].tolist() == [9, 9]
    chosen = [np.array([0, 0]), *(rows[p] for p in picked)]
    nearest = [min(np.abs(chosen[n] - c).sum() for c in chosen[:n]) for n in range(1, 5)]
    assert nearest[:3] == [18, 9, 9]
    assert nearest[3] <= 9
    assert sorted(spread_out(rows, 200, rng)) == list(range(100))
    assert spread_out(rows[:0], 3, rng) == []
