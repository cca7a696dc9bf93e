# SPDX-License-Identifier: Apache-2.0
"""The tuners by asking and telling: what they find, repeat, save, and never propose."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_helpers import OPTIMUM, POWERS, SPACE, VALID, answer, check, cost, features, prior

from simtune.errors import ConfigurationError
from simtune.templates import TUNERS, Knob, Lesson, Result, Space, Tuner, create, load, save

GIVEN: dict[str, Any] = {"oracle": check, "features": features, "prior": prior}


def search(tuner: Tuner, trials: int, batch: int = 8) -> list[int]:
    """Proposals in order, each answered."""
    order: list[int] = []
    while len(order) < trials and (points := tuner.ask(min(batch, trials - len(order)))):
        order += points
        tuner.tell(answer(point) for point in points)
    return order


def until_best(tuner: Tuner, batch: int = 4, limit: int = 400) -> int:
    best = cost(SPACE.config(OPTIMUM)) * 1.01
    for number in range(0, limit, batch):
        for place, point in enumerate(points := tuner.ask(batch)):
            if point in VALID_SET and cost(SPACE.config(point)) <= best:
                return number + place + 1
        tuner.tell(answer(point) for point in points)
    return limit


VALID_SET = set(VALID)


@pytest.mark.parametrize("name", TUNERS)
def test_goes_through_the_whole_space_without_repeating_and_then_says_so(name: str) -> None:
    small = Space("small", (Knob("x", (1, 2, 4, 8)), Knob("y", (8, 16, 32)), Knob("z", (1, 2))))

    def judge(config) -> str:
        return check({**config, "threads": 1})

    tuner = create(name, small, seed=1, oracle=judge)
    seen: list[int] = []
    while points := tuner.ask(5):
        seen += points
        tuner.tell(
            Result(p, None, "lower", code) if (code := judge(small.config(p))) else Result(p, 1.0 + p)
            for p in points
        )
    assert sorted(seen) == list(range(small.size))
    assert tuner.ask(3) == []
    assert tuner.best is not None
    assert tuner.best.index == min(p for p in seen if not judge(small.config(p)))


@pytest.mark.parametrize("name", TUNERS)
def test_same_seed_same_proposals_and_another_seed_others(name: str) -> None:
    first, again, other = (search(create(name, SPACE, seed=s, **GIVEN), 150) for s in (5, 5, 6))
    assert first == again
    assert len(set(first)) == 150
    assert name == "grid" or first != other


@pytest.mark.parametrize("name", TUNERS)
def test_a_saved_tuner_goes_on_as_if_it_had_never_stopped(name: str, tmp_path) -> None:
    whole, half = create(name, SPACE, seed=2, **GIVEN), create(name, SPACE, seed=2, **GIVEN)
    expected = search(whole, 160)
    order = search(half, 80)
    waiting = half.ask(3)  # asked for, and not told when it is saved
    save(half, tmp_path / "state.json")
    json.loads((tmp_path / "state.json").read_text())
    asked: list[int] = []

    def oracle(config) -> str:
        asked.append(SPACE.index(config))
        return check(config)

    restored = load(tmp_path / "state.json", SPACE, **{**GIVEN, "oracle": oracle})
    assert asked == []  # verdicts are in the state
    assert restored.oracle_calls == half.oracle_calls
    assert restored.pending == set(waiting)
    assert restored.best == half.best
    restored.tell(answer(point) for point in waiting)
    half.tell(answer(point) for point in waiting)
    assert search(restored, 60) == search(half, 60)
    assert order == expected[:80]


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(sorted(TUNERS)), seed=st.integers(0, 99), batch=st.integers(1, 30))
def test_exact_constraints_never_let_an_invalid_point_through(name: str, seed: int, batch: int) -> None:
    codes = [check(SPACE.config(point)) for point in range(SPACE.size)]
    tuner = create(name, SPACE, seed=seed, constraints=codes if seed % 2 else check, **GIVEN)
    order = search(tuner, 120, batch)
    assert len(order) == min(120, len(VALID))
    assert set(order) <= VALID_SET


def test_the_oracle_is_asked_before_every_proposal_and_counted() -> None:
    asked: list[int] = []

    def oracle(config) -> str:
        asked.append(SPACE.index(config))
        return check(config)

    tuner = create("validity", SPACE, seed=3, oracle=oracle)
    order = search(tuner, 40)
    assert set(order) <= VALID_SET & set(asked)
    assert tuner.oracle_calls == len(asked) == len(set(asked))
    deaf = create("validity", SPACE, seed=3, oracle=oracle, ask_oracle=False)
    before = len(asked)
    search(deaf, 60)
    assert len(asked) == before


def test_few_questions_to_the_compiler_are_enough() -> None:
    tuners = [create("validity", SPACE, seed=seed, oracle=check) for seed in range(8)]
    trials = [until_best(tuner) for tuner in tuners]
    assert np.median(trials) <= 24
    assert np.median([tuner.oracle_calls for tuner in tuners]) < 0.3 * SPACE.size


def test_the_learned_model_of_validity_saves_measurements_where_there_is_nothing_else() -> None:
    def invalid(**options) -> float:
        runs = [search(create("validity", SPACE, seed=s, features=features, **options), 60) for s in range(6)]
        return float(np.mean([sum(p not in VALID_SET for p in run) for run in runs]))

    assert invalid() < 0.75 * invalid(validity_model=False)


def test_lessons_from_another_space_tell_valid_points_from_the_start() -> None:
    other = Space(
        "other",
        (Knob("x", POWERS[:6]), Knob("y", POWERS), Knob("z", (1, 2, 4, 8, 16)), Knob("threads", (1, 2))),
    )
    lessons = [
        Lesson(config, features(config), not check(config)) for config in map(other.config, range(other.size))
    ]

    def invalid(**given) -> float:
        runs = [search(create("validity", SPACE, seed=s, features=features, **given), 24) for s in range(4)]
        return float(np.mean([sum(p not in VALID_SET for p in run) for run in runs]))

    taught = invalid(lessons=lessons)
    assert taught < 0.4 * invalid()
    assert invalid(lessons=lessons, validity_model=False) > 2 * taught


def test_a_prior_that_likes_what_is_invalid_does_not_lock_the_search_up() -> None:
    def tempting(config) -> float:
        return 1000.0 / (config["x"] * config["y"] * config["z"] * config["threads"])

    runs = [search(create("validity", SPACE, seed=s, prior=tempting), 40) for s in range(4)]
    assert np.mean([sum(p in VALID_SET for p in run) for run in runs]) > 8


def test_where_nothing_is_promised_any_more_the_cheapest_of_the_rest_comes_first() -> None:
    codes = [check(SPACE.config(point)) for point in range(SPACE.size)]
    right = create("validity", SPACE, seed=0, constraints=codes, prior=lambda c: 1.01 * cost(c) + c["z"])
    costs = [cost(SPACE.config(point)) for point in search(right, len(VALID) // 2)]
    assert min(costs[:4]) == cost(SPACE.config(OPTIMUM))
    assert max(costs) <= 1.1 * sorted(cost(SPACE.config(point)) for point in VALID)[len(costs)]


def test_the_published_first_batch_is_balanced_and_spread_out() -> None:
    tuner = create("initialised", SPACE, seed=4, oracle=check, limit=300)
    first = tuner.ask(50)
    assert sum(point in VALID_SET for point in first) == 25
    assert tuner.oracle_calls == min(300, SPACE.size)
    rows = np.array([SPACE.coordinates(p) for p in first if p in VALID_SET])
    drawn = np.random.default_rng(0).choice(VALID, 25, replace=False)
    random_rows = np.array([SPACE.coordinates(int(p)) for p in drawn])

    def least(points) -> int:
        apart = np.abs(points[:, None] - points[None]).sum(axis=2)
        return int(apart[np.triu_indices(len(points), 1)].min())

    assert least(rows) >= least(random_rows)


def test_each_part_of_the_published_method_has_a_switch_that_does_what_it_says() -> None:
    base = {"seed": 4, "oracle": check, "limit": 100}
    walked = create("initialised", SPACE, **base)
    blind = create("initialised", SPACE, presample=False, **base)
    walked.ask(1)
    blind.ask(1)
    assert len(walked.presampled.valid) > len(blind.presampled.valid)  # type: ignore[attr-defined]
    unbalanced = create("initialised", SPACE, balanced=False, presample=False, **{**base, "limit": 196})
    share = sum(point in VALID_SET for point in unbalanced.ask(50)) / 50
    assert share == pytest.approx(len(VALID) / SPACE.size, abs=0.2)
    later = {}
    for biased in (True, False):
        runs = [
            search(create("initialised", SPACE, biased=biased, **{**base, "seed": s}), 110)[50:]
            for s in range(5)
        ]
        known = [create("initialised", SPACE, biased=biased, **{**base, "seed": s}) for s in range(5)]
        for tuner in known:
            tuner.ask(1)
        later[biased] = np.mean(
            [
                sum(p in tuner.oracle.verdicts and p not in VALID_SET for p in run)
                for tuner, run in zip(known, runs, strict=True)
            ]
        )
    # With the bias, what is known to be invalid is left alone, but for the random part of a plan.
    assert later[True] < 0.5 * later[False]


def test_annealing_learns_from_failures_and_from_features_when_told_to() -> None:
    tuner = create("annealing", SPACE, seed=1, features=features, learn_from="features", plan=32)
    order = search(tuner, 128)
    early, late = order[:32], order[64:]
    valid = [np.mean([p in VALID_SET for p in part]) for part in (early, late)]
    assert valid[1] > 1.3 * valid[0]
    with pytest.raises(ConfigurationError, match="given none"):
        create("annealing", SPACE, learn_from="features")


def test_the_planted_optimum_is_found_in_the_expected_order_of_effort() -> None:
    seeds = range(8)

    def median(name: str, **given) -> float:
        return float(np.median([until_best(create(name, SPACE, seed=s, **given)) for s in seeds]))

    codes = [check(SPACE.config(point)) for point in range(SPACE.size)]
    random = median("random")
    exact = median("validity", constraints=codes, features=features, prior=prior)
    asking = median("validity", oracle=check)
    learned = median("validity", features=features)
    assert exact <= 16
    assert asking <= 40
    assert exact < 0.15 * random
    assert learned < 0.5 * random
    assert median("annealing", constraints=codes) < random


def test_a_space_too_large_to_go_through_is_searched_all_the_same() -> None:
    wide = Space("wide", tuple(Knob(f"k{n}", tuple(range(1, 13))) for n in range(8)))  # 430 million

    def judge(config) -> str:
        return "ODD" if (config["k0"] + config["k1"]) % 3 == 0 else ""

    def value(config) -> float:
        return 10.0 + sum(abs(config[k.name] - 7) for k in wide.knobs)

    best = {}
    for name in ("random", "genetic", "annealing", "validity"):
        tuner = create(name, wide, seed=0, constraints=judge, pool=500) if name == "validity" else create(
            name, wide, seed=0, constraints=judge
        )  # fmt: skip
        for _ in range(12):
            points = tuner.ask(8)
            assert all(not judge(wide.config(p)) for p in points)
            tuner.tell(Result(p, value(wide.config(p))) for p in points)
        assert tuner.best is not None
        best[name] = tuner.best.value
    assert best["validity"] < best["random"]


def test_what_is_told_unasked_counts_and_what_is_told_twice_keeps_its_first_result() -> None:
    tuner = create("random", SPACE, seed=0)
    tuner.tell([answer(OPTIMUM), Result(OPTIMUM, 1.0)])
    assert tuner.best == answer(OPTIMUM)
    assert OPTIMUM not in search(tuner, SPACE.size - 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: create("validty", SPACE), "did you mean 'validity'"),
        (lambda: create("random", SPACE, plan=3), "no option 'plan'"),
        (lambda: create("annealing", SPACE, plan=0), "counts from 1"),
        (lambda: create("genetic", SPACE, mutation=2.0), "mutation 0 to 1"),
        (lambda: create("initialised", SPACE), "given no oracle"),
        (lambda: create("random", SPACE, seed=-1), "seed is -1"),
        (lambda: create("random", SPACE, constraints=["", "BAD"]), "2 constraint codes for the 392"),
        (lambda: create("random", SPACE).ask(0), "at least one"),
        (lambda: create("random", SPACE).tell(Result(99999, 1.0)), "no point 99999"),
        (lambda: create("random", SPACE).tell(Result(0, float("nan"))), "has the value nan"),
        (lambda: create("random", SPACE).restore(create("grid", SPACE).state()), "another tuner"),
        (lambda: create("random", SPACE).restore(create("random", SPACE, seed=1).state()), "another seed"),
    ],
)
def test_mistakes_get_a_sentence(call, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        call()


def test_a_file_that_is_no_state_gets_a_sentence(tmp_path) -> None:
    (tmp_path / "x").write_text("[1")
    with pytest.raises(ConfigurationError, match="not the state of a tuner"):
        load(tmp_path / "x", SPACE)
    with pytest.raises(ConfigurationError, match="No such file"):
        load(tmp_path / "y", SPACE)
