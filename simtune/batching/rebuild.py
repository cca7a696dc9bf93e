# SPDX-License-Identifier: Apache-2.0
"""Builds the candidates of a TVM database for a batch. Imports TVM."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.builder import AGAIN, Builder
from simtune.build.reference import Reference
from simtune.candidates import Candidate, Evaluation
from simtune.errors import SimtuneError
from simtune.execution.base import Executor
from simtune.execution.scratch import scratch_folder
from simtune.jobs import Status
from simtune.machines.model import Machine
from simtune.tuning.tvm_database import StoredCandidate, TvmDatabase

ms = tvm_setup.load()


class Rebuilder:
    """Replays traces, builds what comes out, and says what the right answers are.

    A candidate is built for the TVM target of its record when that is of the machine's instruction
    set, since its trace may hold that target's intrinsics; otherwise for the machine's own.

    Args:
        executor: builds there; None builds here.
        seed: of the kernels' inputs.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        executor: Executor | None = None,
        jobs: int | None = None,
        seed: int = 0,
        keep_failed: Path | None = None,
    ) -> None:
        self._machine, self._seed = machine, seed
        self._builder = Builder(jobs, keep_failed=keep_failed, executor=executor)
        self._folder = scratch_folder("expected")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._closed = False
        self._references: dict[tuple[str, int], Reference] = {}

    def build(self, database: TvmDatabase, candidates: list[StoredCandidate]) -> list[Candidate | Evaluation]:
        """Builds candidates; an evaluation says why one could not be built."""
        results: dict[int, Candidate | Evaluation] = {}
        ready = []
        for candidate in candidates:
            if self._closed:
                raise CancelledError
            try:
                ready.append((candidate, self._input(database, candidate)))
            except SimtuneError:
                raise
            except Exception as error:  # whatever TVM raises at a trace it cannot replay
                last = "".join(str(error).strip().splitlines()[-1:])
                results[candidate.line] = Evaluation(
                    Status.BUILD_FAILED, "build", f"its trace cannot be replayed: {last}"
                )
        built = self._builder.build([item for _, item in ready]) if ready else []
        for (candidate, _), artifact in zip(ready, built, strict=True):
            results[candidate.line] = self._candidate(database, candidate, artifact)
        return [results[candidate.line] for candidate in candidates]

    def _input(self, database: TvmDatabase, candidate: StoredCandidate) -> Any:
        from tvm.target import Target

        target = Target(self._target(candidate.target))
        with target:  # TVM registers RVV intrinsics for the target in scope
            return ms.builder.BuilderInput(database.schedule(candidate).mod, target)

    def _target(self, recorded: Any) -> Any:
        triple = recorded.get("mtriple", "") if isinstance(recorded, Mapping) else json.dumps(recorded)
        same = str(triple).partition("-")[0] == self._machine.isa.name
        return recorded if same else dict(self._machine.target)

    def _candidate(
        self, database: TvmDatabase, candidate: StoredCandidate, artifact: Any
    ) -> Candidate | Evaluation:
        if artifact.artifact_path is None:
            error, _, command = str(artifact.error_msg or "").partition(AGAIN)
            return Evaluation(Status.BUILD_FAILED, "build", error, command)
        key = (str(database.folder), candidate.workload)
        if key not in self._references:
            module = database.module(candidate.workload)
            self._references[key] = Reference(module, self._seed, self._folder)
        reference = self._references[key]
        constant = reference.expectation(constant=True) if reference.layout_free else None
        return Candidate(
            Path(str(artifact.artifact_path)), reference.tensors, reference.expectation(), constant
        )

    def close(self) -> None:
        """Ends the builder and removes the expected outputs; gives up what another thread builds."""
        self._closed = True
        self._builder.close()
        shutil.rmtree(self._folder, ignore_errors=True)
