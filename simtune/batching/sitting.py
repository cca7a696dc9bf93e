# SPDX-License-Identifier: Apache-2.0
"""One sitting of a batch: keeps the executor fed, and records what comes back."""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from simtune.batching.feed import Feed, Ready
from simtune.batching.find import Found
from simtune.batching.identity import Digests
from simtune.batching.ledger import Ledger
from simtune.batching.listing import EXTREMES, FAILED, extremes, listed
from simtune.batching.model import BatchResult, Finished, Observer, Tally
from simtune.build.image import Tensor
from simtune.candidates import Candidate, Evaluation
from simtune.counters import Counters
from simtune.errors import SimtuneError
from simtune.evaluate import Evaluator
from simtune.execution.base import Executor
from simtune.execution.view import View, Viewable
from simtune.jobs import Status
from simtune.predictors.base import ContextualPredictor
from simtune.records.database import MEMORY
from simtune.records.model import Run, RunState
from simtune.records.store import RecordStore
from simtune.tuning.tvm_database import StoredCandidate, TvmDatabase

if TYPE_CHECKING:
    from simtune.batching.rebuild import Rebuilder

#: Under way or waiting is the work of so many seconds: enough for the longest to start first and for
#: remote workers not to run dry, while a hundred thousand jobs need little memory.
_AHEAD_S = 10.0
#: Bounds of that: jobs in all, jobs per slot.
_LEAST, _LEAST_PER_SLOT, _MOST_PER_SLOT = 64, 4, 64
#: Seconds between two looks at the executor.
_LOOK_S = 0.5


class Sitting:
    """Works on a run that nobody else works on.

    Args:
        signature: tensors of objects without side file.
        machine_name: names the machine on a command line.
        builder_executor: where the candidates of TVM databases are built; None builds here.
    """

    def __init__(
        self,
        store: RecordStore,
        run: Run,
        evaluator: Evaluator,
        found: Found,
        signature: tuple[Tensor, ...],
        *,
        retry_failed: bool,
        machine_name: str,
        builder_executor: Executor | None,
        observer: Observer,
    ) -> None:
        self._store, self._run, self._evaluator, self._found = store, run, evaluator, found
        self._machine_name, self._builder_executor, self._observer = machine_name, builder_executor, observer
        self._tally = Tally()
        self._failed: list[int] = []
        digests = Digests()
        self._ledger = Ledger(store, run, digests, retry_failed)
        self._feed = Feed(
            found,
            self._ledger,
            digests,
            signature,
            self._build,
            evaluator.executor.capacity,
            self._on_settled,
            self._on_duplicate,
        )
        #: What has ended; None only wakes who waits for it.
        self._finished: SimpleQueue[tuple[Ready, Future[Evaluation]] | None] = SimpleQueue()
        self._under_way = 0
        self._start = time.monotonic()
        self._looked = 0.0
        self._rebuilder: Rebuilder | None = None
        self._builds: Future[list[Candidate | Evaluation]] | None = None
        self._leaving = False

    def work(self, name: str) -> BatchResult:
        """Runs what is missing."""
        self._run = self._store.reopen_run(self._run.id)
        state = RunState.FAILED
        try:
            self._evaluator.lengths.learn(self._store.recent_simulations(self._evaluator.machine_digest))
            self._observer.on_start(self._run, len(self._found))
            self._go()
            self._ledger.flush(force=True)
            self._predict_together()
            state = RunState.FINISHED
        except KeyboardInterrupt:
            state = RunState.INTERRUPTED
            raise
        finally:
            self._leave(state)
        fastest, slowest = extremes(self._store, self._run.id, EXTREMES)
        return BatchResult(
            self._run.id,
            name,
            self._tally,
            dict(self._found.skipped),
            time.monotonic() - self._start,
            fastest,
            slowest,
            listed(self._store, self._run.id, self._failed),
            self._view(),
        )

    def _leave(self, state: RunState) -> None:
        if state is RunState.FINISHED:
            self._evaluator.close()
            self._store.finish_run(self._run.id, state)
        else:
            # What has ended is recorded first; what is cancelled then says nothing of its candidate.
            with contextlib.suppress(SimtuneError):
                self._collect(0.0)
                self._ledger.flush(force=True)
            self._evaluator.close(cancel=True)
            with contextlib.suppress(SimtuneError):
                self._store.finish_run(self._run.id, state)
        self._end_builds()

    def _go(self) -> None:
        for ready in self._feed:
            if ready is None:
                self._collect(_LOOK_S)
                continue
            self._submit(ready)
            self._collect(0.0)
            while self._under_way >= self._window():
                self._collect(_LOOK_S)
        while self._under_way:
            self._collect(_LOOK_S)

    def _window(self) -> float:
        """How many jobs may be under way."""
        slots = max(1, self._evaluator.executor.capacity())
        rate = (self._tally.jobs - self._tally.settled) / max(0.1, time.monotonic() - self._start)
        return max(_LEAST, min(_MOST_PER_SLOT * slots, max(_LEAST_PER_SLOT * slots, rate * _AHEAD_S)))

    def _submit(self, ready: Ready) -> None:
        if ready.failure is not None:
            self._record(ready, ready.failure)
            return
        assert ready.candidate is not None
        self._under_way += 1
        future = self._evaluator.submit(ready.candidate)
        future.add_done_callback(lambda done: self._finished.put((ready, done)))

    def _collect(self, wait_s: float) -> None:
        """Records what has ended, or waits for it; looks at the executor from time to time."""
        with contextlib.suppress(Empty):
            ended = self._finished.get(timeout=wait_s) if wait_s else self._finished.get_nowait()
            while True:
                if ended is not None:
                    self._take(*ended)
                ended = self._finished.get_nowait()
        self._ledger.flush()
        now = time.monotonic()
        if now - self._looked > _LOOK_S:
            self._looked = now
            self._observer.on_view(self._view(), self._under_way)

    def _take(self, ready: Ready, future: Future[Evaluation]) -> None:
        self._under_way -= 1
        ready.release()
        if future.cancelled():
            raise SimtuneError(f"the executor gave up {ready.origin}", "run the same command to go on")
        self._record(ready, future.result())

    def _record(self, ready: Ready, evaluation: Evaluation) -> None:
        if not evaluation.ok and not evaluation.command:
            evaluation = replace(evaluation, command=self._command(ready))
        trial = self._ledger.add(ready.name, ready.origin, evaluation, ready.other_name)
        counters = evaluation.outcome.counters if evaluation.outcome else None
        instructions = int(counters.get("instructions", 0)) if counters else 0
        tally = self._tally
        tally.statuses[trial.status] += 1
        if evaluation.cached:
            tally.cached += 1
        elif evaluation.key:
            tally.simulated += 1
            tally.instructions += instructions
        self._note_failure(trial.index, trial.status)
        self._observer.on_job(Finished(trial, ready.origin, instructions, evaluation.cached))

    def _command(self, ready: Ready) -> str:
        """The command that repeats a run from the file where it is, or keeps what is built for it."""
        limit = self._evaluator.limits.instructions
        if ready.origin.line is not None:
            options = ["--machine", self._machine_name, "--simulator", self._evaluator.simulator.name]
            if self._store.path != MEMORY:
                options += ["--records", str(Path(self._store.path).absolute())]
            again = ["--retry-failed", "--keep-failed", "failed"]
            return shlex.join(["simtune", "batch", ready.origin.path, *options, *again])
        if ready.candidate is None:
            return ""
        candidate = replace(ready.candidate, path=ready.candidate.path.absolute())
        return self._evaluator.keeper.command(candidate, self._machine_name, instruction_limit=limit)

    def _on_settled(self, index: int, status: Status) -> None:
        self._tally.statuses[status] += 1
        self._tally.settled += 1
        self._note_failure(index, status)
        self._observer.on_settled(status)

    def _on_duplicate(self) -> None:
        self._tally.duplicates += 1
        self._observer.on_duplicate()

    def _note_failure(self, index: int, status: Status) -> None:
        if status is not Status.OK and len(self._failed) < FAILED:
            self._failed.append(index)

    def _build(
        self, database: TvmDatabase, candidates: list[StoredCandidate]
    ) -> Future[list[Candidate | Evaluation]]:
        """Builds in a thread, so that what ends meanwhile is recorded; TVM is imported there, too."""
        building: Future[list[Candidate | Evaluation]] = Future()
        building.add_done_callback(lambda _: self._finished.put(None))
        before, self._builds = self._builds, building

        def work() -> None:
            try:
                if before is not None:
                    wait([before])
                builder = self._builder()
                if self._leaving:
                    raise CancelledError
                building.set_result(builder.build(database, candidates))
            except BaseException as error:
                building.set_exception(error)

        threading.Thread(target=work, name="simtune-build", daemon=True).start()
        return building

    def _end_builds(self) -> None:
        """Gives builds up and waits for their thread: Python aborts when it ends while TVM is at work.

        Not for builds elsewhere: these end when the executor is closed, and TVM is not at work here.
        """
        self._leaving = True
        end = time.monotonic() + (math.inf if self._builder_executor is None else 1.0)
        while self._builds is not None and not self._builds.done() and time.monotonic() < end:
            if self._rebuilder is not None:
                self._rebuilder.close()
            wait([self._builds], 0.05)
        if self._rebuilder is not None:
            self._rebuilder.close()

    def _builder(self) -> Rebuilder:
        from simtune.batching.rebuild import Rebuilder

        if self._rebuilder is None:
            self._rebuilder = Rebuilder(
                self._evaluator.machine,
                executor=self._builder_executor,
                seed=self._evaluator.seed,
                keep_failed=self._evaluator.keep_failed,
            )
        return self._rebuilder

    def _view(self) -> View:
        executor = self._evaluator.executor
        return executor.view() if isinstance(executor, Viewable) else View()

    def _predict_together(self) -> None:
        """Trained predictors compare the candidates of a kernel, so they predict when all are there."""
        predictor = self._evaluator.predictor
        if not isinstance(predictor, ContextualPredictor):
            return
        kernels: dict[str, list[tuple[int, Counters]]] = {}
        for brief in self._store.trial_briefs(self._run.id):
            known = self._store.simulation(brief.simulation) if brief.simulation else None
            if brief.status is Status.OK and known and known.outcome.counters:
                kernel = known.conditions.arguments[0]
                kernels.setdefault(kernel, []).append((brief.index, known.outcome.counters))
        for members in kernels.values():
            counters = [one for _, one in members]
            seconds = predictor.seconds(counters, self._evaluator.machine).tolist()
            for (index, _), predicted in zip(members, seconds, strict=True):
                trial = self._store.trial(self._run.id, index)
                if trial is not None:
                    self._store.put_trial(replace(trial, predicted_s=predicted, value=predicted))
