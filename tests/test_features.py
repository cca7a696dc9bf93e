# SPDX-License-Identifier: Apache-2.0
"""Features of counters by hand, absent counters, and windows against a plain implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_helpers import U74, planted_counters

from simtune.counters import SCHEMA, Counters, CounterSpec
from simtune.errors import ConfigurationError
from simtune.features import COSTS, FEATURES, PIPELINE, Features, extract, normalised, window_means
from simtune.machines.load import load_machine
from simtune.predictors.analytical import AnalyticalPredictor

COUNTS = {
    "instructions": 1000,
    "loads": 300,
    "load_bytes": 1200,
    "stores": 100,
    "store_bytes": 400,
    "blocks": 99,
    "issue_cycles": 800,
    "insn.fp_fma": 200,
    "insn.load": 300,
    "insn.store": 100,
    "insn.int_alu": 400,
    "l1d.read_misses": 10,
    "l1d.write_misses": 5,
    "dram_read_bytes": 640,
}


def feature(features: Features, name: str, row: int = 0) -> float:
    return float(features.values[row, FEATURES.index(name)])


def cost(features: Features, name: str, row: int = 0) -> float:
    return float(features.costs[row, COSTS.index(name)])


def test_features_by_hand() -> None:
    counters = Counters(COUNTS)
    features = extract([counters], U74)
    cycles = sum(AnalyticalPredictor().explain(counters, U74).values())
    assert features.base_s[0] == pytest.approx(cycles / U74.clock_hz)
    assert feature(features, "cycles") == pytest.approx(cycles + 1)
    assert feature(features, "instructions") == 1001
    assert feature(features, "share.fp_fma") == pytest.approx(0.2 + 1e-3)
    assert feature(features, "l1d.misses") == pytest.approx(0.015 + 1e-4)
    assert feature(features, "memory_bytes") == 640 + 64
    assert feature(features, "bytes_per_load") == pytest.approx(1200 / 301 + 1e-3)
    assert feature(features, "fp_per_byte") == pytest.approx(200 / 1601 + 1e-4)
    assert feature(features, "cycles.issue") == pytest.approx(800 / cycles + 1e-3)
    # The U74 has one port, B, for floating point, and its latency is 5.
    assert feature(features, "cycles.fp_port") == pytest.approx(200 / cycles + 1e-3)
    assert feature(features, "cycles.fp_latency") == pytest.approx(5 * 200 / cycles + 1e-3)
    assert cost(features, "fp") == 200
    assert cost(features, "l1d.misses") == 15
    assert cost(features, "lines") == 10
    assert cost(features, "l3.misses") == 0


def test_an_absent_counter_is_nan_and_a_zero_is_not() -> None:
    with_zero = {**COUNTS, "branch_mispredicts": 0}
    features = extract([Counters(COUNTS), Counters(with_zero)], U74)
    assert math.isnan(feature(features, "rate.mispredicts", 0))
    assert feature(features, "rate.mispredicts", 1) == pytest.approx(1e-4)
    assert math.isnan(feature(features, "share.vec_alu"))


def test_without_cycles_there_is_no_feature_row() -> None:
    with pytest.raises(ConfigurationError):
        extract([Counters({"loads": 3})], U74)
    with pytest.raises(ConfigurationError, match="no cycles"):
        extract([Counters({"instructions": 0})], U74)


def test_pipeline_cycles_are_the_base_where_they_were_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMA, PIPELINE, CounterSpec("cycles", "of the scoreboard"))  # type: ignore[call-overload]
    counters = [Counters({**COUNTS, PIPELINE: 5000}), Counters(COUNTS)]
    features = extract(counters, U74)
    assert features.pipeline.tolist() == [True, False]
    assert features.base_s[0] == pytest.approx(5000 / U74.clock_hz)
    assert feature(features, "analytical_cycles", 0) != feature(features, "cycles", 0)
    assert extract(counters, U74, use_pipeline=False).base_s[0] == features.base_s[1]


def test_the_scoreboard_adds_its_causes_and_leaves_the_static_model_as_it_is() -> None:
    machine = load_machine("sifive-u74")
    counts = {"instructions": 1000.0, "issue_cycles": 800.0, "loads": 100.0}
    plain = extract([Counters(counts)], machine)
    causes = {"pipeline_cycles": 2000.0, "pipeline.core": 1500.0, "pipeline.memory": 500.0}
    scored = extract([Counters(counts | causes)], machine)
    column = {name: scored.values[0, FEATURES.index(name)] for name in FEATURES}
    assert scored.base_s[0] == pytest.approx(2000 / machine.clock_hz)
    assert plain.base_s[0] == pytest.approx(800 / machine.clock_hz)
    assert column["analytical_cycles"] == pytest.approx(801)
    assert column["pipeline.core"] == pytest.approx(0.75, abs=2e-3)
    assert column["pipeline.memory"] == pytest.approx(0.25, abs=2e-3)
    assert np.isnan(column["pipeline.stores"])  # not counted
    off = extract([Counters(counts | causes)], machine, use_pipeline=False)
    np.testing.assert_array_equal(off.values, plain.values)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["sifive-u74", "x86-64-v3", "cortex-a72", "spacemit-x60"]),
    st.dictionaries(st.sampled_from(sorted(SCHEMA)), st.floats(0, 1e12), max_size=20),
)
def test_any_counters_give_positive_features_or_nan(machine: str, counts: dict[str, float]) -> None:
    features = extract(
        [Counters({**counts, "instructions": 1e6, "issue_cycles": 1e6})], load_machine(machine)
    )
    assert features.values.shape == (1, len(FEATURES))
    known = features.values[np.isfinite(features.values)]
    assert np.all(known > 0)
    assert np.all(np.isfinite(features.costs) & (features.costs >= 0))


# Windows --------------------------------------------------------------------------------------


def plain_means(values: np.ndarray, window: str) -> np.ndarray:
    """The same as `window_means`, cell by cell."""
    means = np.full(values.shape, np.nan)
    for row in range(len(values)):
        if window == "group":
            seen = values
        elif window == "dynamic":
            seen = values[: row + 1]
        elif window == "reference":
            seen = values[:1]
        else:
            seen = values[: int(window.partition(":")[2])]
        for column in range(values.shape[1]):
            numbers = [value for value in seen[:, column] if not math.isnan(value)]
            if numbers:
                means[row, column] = sum(numbers) / len(numbers)
    return means


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_windows_against_a_plain_implementation(rows: int, seed: int, absent: float) -> None:
    random = np.random.default_rng(seed)
    values = random.uniform(0.1, 10, (rows, 4))
    values[random.random((rows, 4)) < absent] = np.nan
    for window in ("group", "dynamic", "static:3", "static:1", "reference"):
        np.testing.assert_allclose(window_means(values, window), plain_means(values, window), rtol=1e-12)


@pytest.mark.parametrize("window", ["", "static", "static:0", "static:x", "dynamic:3", "group:2", "best"])
def test_an_unknown_window_is_refused(window: str) -> None:
    with pytest.raises(ConfigurationError, match="window"):
        window_means(np.ones((2, 2)), window)


def test_normalised_is_neutral_where_nothing_is_known() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    logs = normalised(values, window_means(values, "group"))
    np.testing.assert_allclose(logs, [[math.log(0.5), 0], [math.log(1.5), 0]])


def test_the_dynamic_window_ends_at_the_group_mean() -> None:
    values = extract(planted_counters(50, 1), U74).values
    np.testing.assert_allclose(window_means(values, "dynamic")[-1], window_means(values, "group")[-1])
