# SPDX-License-Identifier: Apache-2.0
"""From found jobs to candidates that can be evaluated, one after the other and not before they are due."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from simtune.batching.find import FileJob, Found
from simtune.batching.identity import Digests, file_candidate, schedule_candidate, unread_candidate
from simtune.batching.ledger import Ledger
from simtune.build.elf import is_program
from simtune.build.image import Tensor
from simtune.candidates import Candidate, Evaluation
from simtune.errors import InputFileError
from simtune.jobs import Status
from simtune.records.origins import Origin
from simtune.tuning.tvm_database import StoredCandidate, TvmDatabase

#: Candidates of a TVM database that are built together, while those before them are simulated: at
#: least so many, and so many per slot.
_BUILT, _BUILT_PER_SLOT = 16, 2


@dataclass(frozen=True)
class Ready:
    """A job whose turn it is.

    Attributes:
        name: of the candidate in its run.
        other_name: that an earlier record of it may have; empty for none.
        candidate: what to evaluate; None when it failed before it came to that.
        failure: how it failed then.
        built: it was built for this alone, and its folder goes when it is done.
    """

    name: str
    origin: Origin
    other_name: str = ""
    candidate: Candidate | None = None
    failure: Evaluation | None = None
    built: bool = False

    def release(self) -> None:
        """Removes what was built for it."""
        if self.built and self.candidate is not None:
            shutil.rmtree(self.candidate.path.parent, ignore_errors=True)


#: Starts to build candidates of a database; what comes out is in their order.
Build = Callable[[TvmDatabase, list[StoredCandidate]], "Future[list[Candidate | Evaluation]]"]

_Chunk = list[tuple[str, StoredCandidate]]


class Feed:
    """Yields the jobs of a batch that have to run; tells of those that do not.

    Args:
        signature: tensors of objects without side file.
        build: for the candidates of databases; None when nothing is to be built.
        slots: how many jobs run at once.
        on_settled: called with index and status of a job that has its final record.
        on_duplicate: called for a job of the same content as one before it.
    """

    def __init__(
        self,
        found: Found,
        ledger: Ledger,
        digests: Digests,
        signature: tuple[Tensor, ...],
        build: Build | None,
        slots: Callable[[], int],
        on_settled: Callable[[int, Status], None],
        on_duplicate: Callable[[], None],
    ) -> None:
        self._found, self._ledger, self._digests = found, ledger, digests
        self._signature, self._build, self._slots = signature, build, slots
        self._on_settled, self._on_duplicate = on_settled, on_duplicate
        self._seen: set[str] = set()

    def __iter__(self) -> Iterator[Ready | None]:
        """The jobs that have to run; None where the next one is still being built."""
        for job in self._found.files:
            ready = self._file(job)
            if ready is not None:
                yield ready
        for database in self._found.databases:
            yield from self._database(database)

    def pending(self) -> Iterator[Origin]:
        """The jobs that would run, without reading, building or running more than it takes to tell."""
        for job in self._found.files:
            name, _other, origin, _error = self._identify(job)
            if self._is_due(name):
                yield origin
        for database in self._found.databases:
            for candidate in database.candidates():
                if self._is_due(_name(database, candidate)):
                    yield Origin(str(database.folder), line=candidate.line)

    def _is_due(self, name: str) -> bool:
        if name in self._seen:
            self._on_duplicate()
            return False
        self._seen.add(name)
        if (settled := self._ledger.settled(name)) is not None:
            self._on_settled(*settled)
            return False
        return True

    # ---- files -------------------------------------------------------------------------------

    def _identify(self, job: FileJob) -> tuple[str, str, Origin, str]:
        """Name, other name and origin of a file's job, and why it cannot be read."""
        unread = unread_candidate(job.path, job.arguments)
        path = os.path.abspath(job.path)
        try:
            digest, state = self._digests.digest(job.path)
        except OSError as error:
            message = f"cannot read {job.path}: {error.strerror}"
            return unread, "", Origin(path, job.arguments), message
        name = file_candidate(digest, job.arguments)
        return name, unread, Origin(path, job.arguments, None, digest, state), ""

    def _file(self, job: FileJob) -> Ready | None:
        name, other, origin, error = self._identify(job)
        if not self._is_due(name):
            return None
        if error:
            return Ready(name, origin, failure=Evaluation(Status.INFRASTRUCTURE, "read", error))
        try:
            candidate = self._candidate(job, self._ledger.tried(name))
        except InputFileError as caught:
            return Ready(name, origin, other, failure=Evaluation(Status.INVALID, "read", str(caught)))
        except OSError as caught:
            message = f"cannot read {job.path}: {caught.strerror}"
            return Ready(name, origin, other, failure=Evaluation(Status.INFRASTRUCTURE, "read", message))
        return Ready(name, origin, other, candidate)

    def _candidate(self, job: FileJob, again: bool) -> Candidate:
        with open(job.path, "rb") as stream:
            program = is_program(stream.read(32))
        if job.arguments and not program:
            raise InputFileError(
                f"{job.path} is no program and takes no arguments ({' '.join(job.arguments)})",
                "leave them out, or name a static executable",
            )
        return Candidate(
            Path(job.path),
            () if program else self._signature,
            executable=program,
            arguments=job.arguments,
            retry=again,
        )

    # ---- TVM databases -----------------------------------------------------------------------

    def _database(self, database: TvmDatabase) -> Iterator[Ready | None]:
        """One chunk is built while the one before it is handed out."""
        assert self._build is not None
        before: tuple[_Chunk, Future[list[Candidate | Evaluation]]] | None = None
        for chunk in self._chunks(database):
            building = self._build(database, [candidate for _, candidate in chunk])
            if before is not None:
                yield from self._built(database, *before)
            before = chunk, building
        if before is not None:
            yield from self._built(database, *before)

    def _chunks(self, database: TvmDatabase) -> Iterator[_Chunk]:
        named = ((_name(database, candidate), candidate) for candidate in database.candidates())
        due = (pair for pair in named if self._is_due(pair[0]))
        while chunk := list(islice(due, max(_BUILT, _BUILT_PER_SLOT * self._slots()))):
            yield chunk

    def _built(
        self, database: TvmDatabase, chunk: _Chunk, building: Future[list[Candidate | Evaluation]]
    ) -> Iterator[Ready | None]:
        while not building.done():
            yield None
        for (name, candidate), result in zip(chunk, building.result(), strict=True):
            origin = Origin(str(database.folder.resolve()), line=candidate.line)
            if isinstance(result, Evaluation):
                yield Ready(name, origin, failure=result)
            else:
                yield Ready(name, origin, candidate=result, built=True)


def _name(database: TvmDatabase, candidate: StoredCandidate) -> str:
    module = str(database.workloads[candidate.workload][0])
    return schedule_candidate(module, candidate.trace, candidate.target)
