# SPDX-License-Identifier: Apache-2.0
"""Wrong answers found by comparing the candidates of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.consensus import outliers


def printed(values: np.ndarray) -> dict[str, str]:
    """What the harness prints of an output, with other signs."""
    rng = np.random.default_rng(1)
    with np.errstate(all="ignore"):
        sums = {
            f"projection.{k}": repr(float(values @ rng.choice([-1.0, 1.0], values.size))) for k in range(8)
        }
        return {"norm2": repr(float(values @ values)), **sums}


OUTPUT = np.random.default_rng(0).normal(size=500)


def test_rounding_is_no_difference_and_one_wrong_element_is() -> None:
    rounded = OUTPUT * (1 + 1e-6 * np.random.default_rng(2).normal(size=500))
    wrong = OUTPUT.copy()
    wrong[7] += 1
    outputs = [printed(OUTPUT), printed(rounded), printed(OUTPUT), printed(wrong)]
    assert outliers(outputs) == {3}
    assert outliers([*outputs, None]) == {3}


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 2])
def test_an_answer_that_is_not_finite_is_wrong_wherever_it_stands(bad: float, place: int) -> None:
    broken = OUTPUT.copy()
    broken[3] = bad
    outputs = [printed(OUTPUT) for _ in range(3)]
    outputs.insert(place, printed(broken))
    assert outliers(outputs) == {place}


def test_all_with_the_same_nan_agree() -> None:
    broken = OUTPUT.copy()
    broken[3] = np.nan
    assert outliers([printed(broken)] * 3) == set()


def test_without_a_majority_nobody_is_wrong() -> None:
    assert outliers([printed(OUTPUT), printed(OUTPUT + 1)]) == set()
    assert outliers([printed(OUTPUT)]) == set()
    assert outliers([]) == set()


def test_half_precision_may_differ_more_and_integers_not_at_all() -> None:
    near = OUTPUT * (1 + 1e-3)
    outputs = [printed(OUTPUT), printed(OUTPUT), printed(near)]
    assert outliers(outputs, "float16") == set()
    assert outliers(outputs, "float32") == {2}
    assert outliers([printed(OUTPUT), printed(OUTPUT), printed(OUTPUT * (1 + 1e-7))], "int32") == {2}


@given(
    st.lists(st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3), max_size=5)
)
def test_any_output_is_taken(outputs: list[dict[str, str] | None]) -> None:
    outliers(outputs)
