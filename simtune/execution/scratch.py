# SPDX-License-Identifier: Apache-2.0
"""Temporary folders that do not outlive their process for long, even after kill -9."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"simtune-(\d+)-(\d+)-.+")


def scratch_folder(purpose: str) -> Path:
    """Makes a new folder named after this process, and removes those of processes that are gone.

    The caller removes it; what a killed process leaves is removed by the next one.
    """
    sweep()
    pid = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"simtune-{pid}-{_start_time(pid)}-{purpose}-"))


@contextlib.contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A `scratch_folder` that goes with the context."""
    folder = scratch_folder(purpose)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Removes this user's scratch folders whose process has ended; returns how many."""
    removed = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            name = _NAME.fullmatch(entry.name)
            with contextlib.suppress(OSError):
                if (
                    name
                    and entry.stat(follow_symlinks=False).st_uid == os.getuid()
                    and _start_time(int(name[1])) != int(name[2])
                ):
                    shutil.rmtree(entry.path, ignore_errors=True)
                    removed += 1
    return removed


def _start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot, -1 when it is gone: tells a reused pid apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[19])
