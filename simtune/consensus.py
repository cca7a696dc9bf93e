# SPDX-License-Identifier: Apache-2.0
"""Finds wrong answers when no reference is known: candidates of one batch must agree.

All candidates of a batch compute the same function of the same inputs, so their outputs differ by
rounding only. The harness prints the norm of the output and a few sums with pseudo-random signs;
an output that is far from what the majority has is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

#: Distance of two outputs, relative to their norm, up to which they count as equal. Reordered
#: float32 sums differ by about 1e-6 and half ones by 1e-3; one wrong element in a thousand is 1e-2.
_TOLERANCE = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 2e-2}


def outliers(outputs: Sequence[Mapping[str, str] | None], dtype: str = "float32") -> set[int]:
    """Indices of outputs that disagree with the majority.

    Args:
        outputs: what the harness reported per candidate; None for those that did not finish.
        dtype: of the output; integers and float64 must agree to nine digits.

    Returns:
        Empty when no group of at least two holds more than half of the finished candidates.
    """
    prints = {
        i: fingerprint
        for i, output in enumerate(outputs)
        if output is not None and (fingerprint := _fingerprint(output))
    }
    groups: list[list[int]] = []
    for index, fingerprint in prints.items():
        for group in groups:
            if _close(prints[group[0]], fingerprint, _TOLERANCE.get(dtype, 1e-9)):
                group.append(index)
                break
        else:
            groups.append([index])
    largest = max(groups, key=len, default=[])
    if len(largest) < 2 or 2 * len(largest) <= len(prints):
        return set()
    return set(prints) - set(largest)


def _fingerprint(output: Mapping[str, str]) -> tuple[float, ...] | None:
    try:
        sums = [float(value) for name, value in sorted(output.items()) if name.startswith("projection.")]
        return (float(output["norm2"]), *sums)
    except (KeyError, ValueError):
        return None


def _close(a: tuple[float, ...], b: tuple[float, ...], tolerance: float) -> bool:
    if any(not math.isfinite(value) for value in (*a, *b)):
        return all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True))
    norm = math.sqrt(max(a[0], b[0]))
    return abs(math.sqrt(a[0]) - math.sqrt(b[0])) <= tolerance * norm and all(
        abs(x - y) <= tolerance * norm for x, y in zip(a[1:], b[1:], strict=True)
    )
