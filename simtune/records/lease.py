# SPDX-License-Identifier: Apache-2.0
"""One process at a time works on a run. The kernel holds the lease, so it ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from simtune.errors import ConfigurationError
from simtune.records.database import MEMORY


@contextlib.contextmanager
def lease(store_path: str, run: str) -> Iterator[None]:
    """Holds a run of a store, so that two processes do not write the same trials.

    Raises:
        ConfigurationError: another process holds it.
    """
    if store_path == MEMORY:
        yield
        return
    path = Path(f"{store_path}.{run}.lock")
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigurationError(
                    f"run {run} of {store_path} is under way in another process",
                    "wait for it, or start another run with --fresh",
                ) from None
            if not _is_at(path, file.fileno()):
                continue  # its holder removed the file after it was opened here: this lock is nobody's
            try:
                yield
            finally:
                # While it is still held, so that nobody else's file is removed.
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
