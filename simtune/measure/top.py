# SPDX-License-Identifier: Apache-2.0
"""How many of the best predictions are measured: ``5``, ``3%``."""

from __future__ import annotations

import math

from simtune.errors import ConfigurationError


def top_count(top: int | float | str, trials: int) -> int:
    """The number that `top` means among so many trials; at least one.

    Args:
        top: a count (``5`` or ``"5"``), or a share (``0.03`` or ``"3%"``).
        trials: that there are.

    Raises:
        ConfigurationError: it is neither.
    """
    text = str(top).strip()
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
        elif isinstance(top, float):
            share = top
        else:
            share, count = 0.0, int(text)
            if count > 0:
                return min(count, max(1, trials))
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigurationError(
            f"'{top}' says not how many to measure", "give a count such as 5, or a share such as 3%"
        )
    # Rounded first: 3 % of 100 is 3, not the 4 that 3.0000000000000004 rounds up to.
    return max(1, math.ceil(round(share * trials, 9)))
