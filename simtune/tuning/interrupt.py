# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C that passes through TVM: its call-backs turn every exception of Python into a RuntimeError."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C inside ends it with KeyboardInterrupt, whatever TVM made of that on its way."""
    pressed = threading.Event()
    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous) or threading.current_thread() is not threading.main_thread():
        yield  # the signal is not ours
        return

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        previous(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception:
        if pressed.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
