# SPDX-License-Identifier: Apache-2.0
"""When simulating pays: how many parallel simulators do the work of one native target."""

from __future__ import annotations

import math


def native_seconds(call_s: float, repeats: int, cooldown_s: float) -> float:
    """Wall seconds that a target needs for one candidate: each repeat with its pause."""
    return repeats * (call_s + cooldown_s)


def break_even(simulate_s: float, native_s: float, share: float = 0.0) -> int | None:
    """K: from so many simulators at once on, simulating a candidate takes less than measuring it.

    Args:
        simulate_s: mean wall seconds of simulating one candidate.
        native_s: mean wall seconds of measuring one, repeats and pauses included.
        share: of the candidates that are measured all the same, such as 0.03.

    Returns:
        None when nothing is known, or when every candidate is measured all the same.
    """
    saved = (1 - share) * native_s
    return max(1, math.ceil(simulate_s / saved)) if saved > 0 and simulate_s > 0 else None
