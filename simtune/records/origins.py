# SPDX-License-Identifier: Apache-2.0
"""Trials of a batch: where their candidates come from, in the place of a schedule's trace."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from simtune.records.model import Run, Trial


def is_batch(run: Run) -> bool:
    """Whether a run simulated given candidates instead of searching."""
    return run.config.get("kind") == "batch"


@dataclass(frozen=True)
class Origin:
    """Where a candidate was found.

    Attributes:
        path: the file, or the folder of a TVM database.
        arguments: command line of a program.
        line: of a TVM database's records, from 0; None for a file.
        digest: content of the file, in hex; empty when it could not be read.
        stat: names the state of the file on its disk when it had that content; empty when that is
            not safe to say, see `simtune.batching.identity`.
    """

    path: str
    arguments: Sequence[str] = ()
    line: int | None = None
    digest: str = ""
    stat: str = ""

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.path}, line {self.line + 1}"
        return shlex.join([self.path, *self.arguments])

    def as_json(self) -> str:
        """What a trial keeps of it."""
        fields = [self.path, list(self.arguments), self.line, self.digest, self.stat]
        return json.dumps({"origin": fields}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Origin | None:
        """The inverse of `as_json`; None for what a trial of another kind keeps."""
        try:
            path, arguments, line, digest, stat = json.loads(text)["origin"]
        except (ValueError, TypeError, KeyError):
            return None
        return cls(path, tuple(arguments), line, digest, stat)


def origin_of(trial: Trial) -> Origin | None:
    """Where a batch's trial comes from; None for a trial of another kind."""
    return Origin.from_json(trial.trace_json)
