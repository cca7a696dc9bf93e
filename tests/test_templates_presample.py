# SPDX-License-Identifier: Apache-2.0
"""Pre-sampling: every point is asked for once, the frontier is as published, and it knows its price."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_helpers import SPACE, VALID, check

from simtune.templates import Knob, Space
from simtune.templates.presample import Presample, Stopping, presample


def asked(found: Presample) -> list[int]:
    return [*found.valid, *found.invalid]


@settings(max_examples=60, deadline=None)
@given(
    extents=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    share=st.floats(0, 1),
    limit=st.integers(1, 400),
    neighbours=st.booleans(),
)
def test_no_point_is_asked_twice_and_the_walk_always_ends(extents, seed, share, limit, neighbours) -> None:
    space = Space("s", tuple(Knob(f"k{n}", tuple(range(e))) for n, e in enumerate(extents)))
    good = set(np.flatnonzero(np.random.default_rng(seed).random(space.size) < share).tolist())
    calls: list[int] = []

    def oracle(config) -> str:
        calls.append(space.index(config))
        return "" if calls[-1] in good else "BAD"

    found = presample(space, oracle, limit, np.random.default_rng(seed), neighbours=neighbours)
    assert len(calls) == len(set(calls)) == len(asked(found))
    assert set(found.valid) == set(calls) & good
    assert set(found.invalid) == set(calls) - good
    # Only a space without further points ends it early; a frontier of visited points would hang or starve.
    assert found.asked == min(limit, space.size)


def test_a_valid_cluster_is_walked_before_anything_else() -> None:
    space = Space("grid", (Knob("a", tuple(range(30))), Knob("b", tuple(range(30)))))
    cluster = {space.at((a, b)) for a in range(5, 12) for b in range(5, 12)}
    order: list[int] = []

    def oracle(config) -> str:
        order.append(space.index(config))
        return "" if order[-1] in cluster else "BAD"

    found = presample(space, oracle, 300, np.random.default_rng(0))
    assert set(found.valid) == cluster
    first = next(place for place, point in enumerate(order) if point in cluster)
    ring = {near for point in cluster for near in space.neighbours(point)} | cluster
    # After the first hit the queue holds the cluster's neighbourhood, and one random point per miss.
    early = order[first : first + 2 * len(ring)]
    assert len(ring & set(early)) > 0.9 * len(ring)


def test_neighbours_raise_the_yield() -> None:
    walks = [presample(SPACE, check, 100, np.random.default_rng(seed)) for seed in range(20)]
    blind = [presample(SPACE, check, 100, np.random.default_rng(s), neighbours=False) for s in range(20)]
    share = np.mean([len(walk.valid) for walk in walks]) / 100
    base = np.mean([len(walk.valid) for walk in blind]) / 100
    assert base == pytest.approx(len(VALID) / SPACE.size, abs=0.05)
    assert share > 1.5 * base


def test_it_stops_with_enough_valid_points_or_when_questions_cost_more_than_they_save() -> None:
    rng = np.random.default_rng
    enough = presample(SPACE, check, 1000, rng(0), stopping=Stopping(enough=25, cost=0.0))
    assert enough.reason == "enough valid"
    assert len(enough.valid) == 25
    # A question as dear as a measurement never pays where a third of the points is valid anyway.
    dear = presample(SPACE, check, 1000, rng(0), stopping=Stopping(enough=1000, cost=5.0))
    assert dear.reason == "costs more than it saves"
    assert dear.asked < 60
    # Where hardly anything is valid, cheap questions pay for long, even without an answer.
    rare = presample(SPACE, lambda config: "BAD", 300, rng(0), stopping=Stopping(enough=1000, cost=0.1))
    assert rare.reason == "limit"
    assert rare.asked == 300
    # Without a rule it goes on to the limit, as published.
    assert presample(SPACE, check, 90, rng(0)).asked == 90
