# SPDX-License-Identifier: Apache-2.0
"""Dask holds messages back until a time of day has come; when that is set back, they would be stuck."""

from __future__ import annotations

import time
from typing import Any

#: Seconds that two looks at two clocks may differ by themselves.
_NOISE_S = 0.002


class TimeOfDay:
    """Notices that the time of day was set back."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def set_back(self) -> bool:
        """Whether that happened since the last call."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead < before - _NOISE_S


def send_now(stream: Any) -> None:
    """Makes a `distributed.batched.BatchedSend` send what it holds.

    It sends at most every few milliseconds, and knows the end of that pause by `time.time()`.
    """
    if stream is not None and hasattr(stream, "waker"):
        stream.next_deadline = None
        stream.waker.set()
