# SPDX-License-Identifier: Apache-2.0
"""MetaSchedule's JSON database: its workloads, and its records as candidates that can be built again."""

from __future__ import annotations

import json
import lzma
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simtune.errors import InputFileError
from simtune.records.tvm_format import RECORD_FILE, WORKLOAD_FILE

DATABASE_FILES = (WORKLOAD_FILE, RECORD_FILE)


@dataclass(frozen=True)
class StoredCandidate:
    """One tuning record.

    Attributes:
        line: in the file of records, from 0.
        workload: number of its workload.
        trace: of its schedule, as TVM's JSON.
        seconds: what TVM noted as its run times.
        target: that it was tuned for, as TVM's JSON.
        arguments: ``["TENSOR", dtype, [shape…]]`` per parameter.
    """

    line: int
    workload: int
    trace: Any
    seconds: Any
    target: Any
    arguments: Any


class TvmDatabase:
    """The two files of a database, each either plain or as ``.xz``.

    Args:
        folder: that they are in.

    Raises:
        InputFileError: the workloads are missing or unreadable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: As TVM's JSON: ``[structural hash, base64 of the module]``.
        self.workloads = [
            _parse(folder / WORKLOAD_FILE, n, line) for n, line in _lines(folder, WORKLOAD_FILE)
        ]
        self._loaded: dict[int, Any] = {}

    def __len__(self) -> int:
        """How many candidates it holds."""
        return sum(1 for _ in _lines(self.folder, RECORD_FILE))

    def candidates(self) -> Iterator[StoredCandidate]:
        """Reads the records one by one: there may be more than fit into memory.

        Raises:
            InputFileError: a line is no tuning record.
        """
        path = self.folder / RECORD_FILE
        for number, line in _lines(self.folder, RECORD_FILE):
            record = _parse(path, number, line)
            try:
                workload, (trace, seconds, target, arguments) = record
                known = 0 <= workload < len(self.workloads)
            except (TypeError, ValueError):
                known = False
            if not known:
                raise InputFileError(f"{path}: line {number + 1} is no tuning record")
            yield StoredCandidate(number, workload, trace, seconds, target, arguments)

    def module(self, workload: int) -> Any:
        """The unscheduled IRModule of a workload."""
        return self._workload(workload).mod

    def schedule(self, candidate: StoredCandidate) -> Any:
        """Replays a candidate's trace; TVM's target must be in scope, which RVV intrinsics belong to."""
        from simtune import tvm_setup

        ms = tvm_setup.load()
        from tvm.s_tir import Schedule

        workload = self._workload(candidate.workload)
        fields = [candidate.trace, candidate.seconds, candidate.target, candidate.arguments]
        record = ms.database.TuningRecord.from_json(fields, workload)
        schedule = Schedule(workload.mod)
        record.trace.apply_to_schedule(schedule, remove_postproc=False)
        return schedule

    def _workload(self, number: int) -> Any:
        from simtune import tvm_setup

        if number not in self._loaded:
            self._loaded[number] = tvm_setup.load().database.Workload.from_json(self.workloads[number])
        return self._loaded[number]


def is_database(names: Container[str]) -> bool:
    """Whether a folder with files of these names holds a database."""
    return all(name in names or f"{name}.xz" in names for name in DATABASE_FILES)


def _lines(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, blank ones left out."""
    path = folder / name
    packed = folder / f"{name}.xz"
    try:
        if packed.exists():
            with lzma.open(packed, "rt", encoding="utf-8") as stream:
                yield from ((n, line) for n, line in enumerate(stream) if line.strip())
        else:
            with path.open(encoding="utf-8") as stream:
                yield from ((n, line) for n, line in enumerate(stream) if line.strip())
    except (OSError, ValueError, EOFError, lzma.LZMAError) as error:
        raise InputFileError(
            f"{path} cannot be read: {error}", "give the folder of a MetaSchedule JSON database"
        ) from None


def _parse(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputFileError(
            f"{path} cannot be read: line {number + 1}: {error}",
            "give the folder of a MetaSchedule JSON database",
        ) from None
