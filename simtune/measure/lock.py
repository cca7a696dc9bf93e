# SPDX-License-Identifier: Apache-2.0
"""One measurement at a time: a lock file that all processes on this computer share.

It keeps measurements apart, not simulations: `simtune collect` and `simtune tune` end theirs before
they measure, and other work on a target is for the user to keep away.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(target: str) -> Iterator[None]:
    """Waits until nobody measures on a target, and keeps others from it. Dies with its process."""
    name = re.sub(r"[^A-Za-z0-9.@-]+", "_", target)
    descriptor = _open(Path(tempfile.gettempdir()) / f"simtune-measure-{name}.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        # In a sticky folder the kernel lets nobody "create" a file that somebody else owns.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.fchmod(descriptor, 0o666)  # other users wait for the same processor
        return descriptor
