# SPDX-License-Identifier: Apache-2.0
"""The trials of a batch's run: which jobs have their final record, and where new records go."""

from __future__ import annotations

import time

from simtune.batching.identity import Digests
from simtune.candidates import Evaluation
from simtune.jobs import Status
from simtune.records.model import Run, Trial
from simtune.records.origins import Origin
from simtune.records.store import RecordStore

#: Records are committed together when there are so many, or when the oldest waited so long.
_MOST, _LONGEST_S = 500, 0.5


class Ledger:
    """Reads the run once, then knows every job's status; commits new records in groups.

    Args:
        run: None when there is none yet, so that nothing is known.
        retry_failed: failures are no final records; those of the machine's never are.
    """

    def __init__(self, store: RecordStore, run: Run | None, digests: Digests, retry_failed: bool) -> None:
        self._store, self._run = store, run
        self._settled: dict[str, tuple[int, Status]] = {}
        self._again: dict[str, int] = {}
        self._next = 0
        self._buffer: list[Trial] = []
        self._oldest = 0.0
        if run is not None:
            for trial, origin in store.trial_origins(run.id):
                self._next = max(self._next, trial.index + 1)
                if trial.status is Status.INFRASTRUCTURE or (retry_failed and trial.status is not Status.OK):
                    self._again[trial.candidate] = trial.index
                else:
                    self._settled[trial.candidate] = trial.index, trial.status
                if origin is not None and origin.stat:
                    digests.remember(origin.stat, origin.digest)

    def __len__(self) -> int:
        """Jobs that have their final record."""
        return len(self._settled)

    def settled(self, candidate: str) -> tuple[int, Status] | None:
        """Index and status of a job's trial; None when it has to run, for the first time or again."""
        return self._settled.get(candidate)

    def tried(self, candidate: str) -> bool:
        """Whether it has a record that is not final."""
        return candidate in self._again

    def add(self, candidate: str, origin: Origin, evaluation: Evaluation, instead_of: str = "") -> Trial:
        """Records how a job ended, in the place of a record that was not final.

        Args:
            instead_of: another name that the job's earlier record may have.
        """
        assert self._run is not None
        index = self._again.pop(candidate, None)
        if index is None:
            index = self._again.pop(instead_of, None)
        if index is None:
            index, self._next = self._next, self._next + 1
        trial = evaluation.trial(self._run.id, index, candidate, origin.as_json())
        self._settled[candidate] = index, trial.status
        if not self._buffer:
            self._oldest = time.monotonic()
        self._buffer.append(trial)
        return trial

    def flush(self, force: bool = False) -> None:
        """Commits what is due."""
        if not self._buffer:
            return
        if force or len(self._buffer) >= _MOST or time.monotonic() - self._oldest > _LONGEST_S:
            self._store.put_trials(self._buffer)
            self._buffer = []
