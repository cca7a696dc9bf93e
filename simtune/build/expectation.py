# SPDX-License-Identifier: Apache-2.0
"""What a candidate's output is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Expectation:
    """A file with all outputs one after the other, and how far a candidate may be off."""

    path: Path
    digest: str
    rtol: float
    atol: float
    constant: bool

    def arguments(self) -> tuple[str, ...]:
        """Harness arguments that check against it."""
        fill = ("--constant",) if self.constant else ()
        return (*fill, "--expect", str(self.path), "--rtol", repr(self.rtol), "--atol", repr(self.atol))

    def conditions(self) -> tuple[str, ...]:
        """What of it decides an outcome, without the path."""
        fill = ("--constant",) if self.constant else ()
        return (*fill, "--expect", self.digest, "--rtol", repr(self.rtol), "--atol", repr(self.atol))
