# SPDX-License-Identifier: Apache-2.0
"""Jobs of a line, and the processes that a test has started, however far they have run from it."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simtune.execution.base import Job, Site

MARK = "SIMTUNE_TEST_MARK"


@dataclass(frozen=True)
class Call(Job[Any]):
    """A job that calls a function with the event that cancels it."""

    function: Callable[[threading.Event], Any]
    weight: float = 0.0

    @property
    def length(self) -> float:
        return self.weight

    def run(self, site: Site) -> Any:
        return self.function(site.cancel)


def fresh_mark() -> str:
    return uuid.uuid4().hex


def marked(mark: str) -> list[str]:
    """Command lines of all living processes that inherited the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(f"{folder.name}: {command}")
        except OSError:
            continue  # it ended meanwhile, or is a zombie
    return found


def wait_for(condition, seconds: float) -> bool:
    """Waits until `condition()` holds; returns whether it ever did."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
