# SPDX-License-Identifier: Apache-2.0
"""One built candidate's way from object to value: link, simulate, check, store, predict.

Knows the rooms by their value types only, and nothing of TVM: the MetaSchedule runner, `simtune
simulate` and batch use all go through here.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtune.build.expectation import Expectation
from simtune.build.image import Plan, Tensor
from simtune.build.link import linker
from simtune.candidates import BestRuns, Candidate, Evaluation, kind_of
from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.execution.base import Executor
from simtune.execution.local import LocalExecutor
from simtune.execution.scratch import scratch_folder
from simtune.jobs import Limits, Outcome, Status
from simtune.lengths import Lengths
from simtune.machines.model import Machine
from simtune.mca import MCA, Mca
from simtune.pending import PendingEvaluation
from simtune.predictors.base import ContextualPredictor, Predictor, Session
from simtune.predictors.objective import Objective
from simtune.records.committer import Committer
from simtune.records.model import Conditions
from simtune.records.store import RecordStore
from simtune.reproduce import Keeper
from simtune.simulation import Simulated, SimulationJob
from simtune.simulators.base import Simulator, models_to_count

_log = logging.getLogger(__name__)

#: Seconds after which candidates that go on although they were given up are given up once more.
_CANCEL_AGAIN_S = 0.2


class Evaluator:
    """Evaluates candidates for one machine, many at once.

    Args:
        machine, simulator, predictor, objective: what to run and how to value it.
        store: finished simulations are committed here before they are used, and reused.
        executor: where jobs run; a `LocalExecutor` over all usable cores by default. One that is
            given may serve others as well, and is not closed here.
        limits: bounds on each simulation.
        count: optional models, see `SimJob.count`, and "mca", see `simtune.mca`; what the predictor
            was trained on is switched on in any case.
        seed: seed of the kernels' inputs.
        warmup: calls of the kernel before the one that counts.
        straggler_factor: a candidate is cut off after this many times the instructions of the best
            one of its kernel; None never cuts.
        keep_failed: folder for the objects of failed candidates, None keeps none.
    """

    def __init__(
        self,
        machine: Machine,
        simulator: Simulator,
        predictor: Predictor,
        objective: Objective,
        store: RecordStore,
        *,
        executor: Executor | None = None,
        jobs: int | None = None,
        limits: Limits | None = None,
        count: Sequence[str] | None = None,
        seed: int = 0,
        warmup: int = 0,
        straggler_factor: float | None = 10.0,
        keep_failed: Path | None = None,
    ) -> None:
        if straggler_factor is not None and straggler_factor <= 1:
            raise ConfigurationError(
                f"straggler_factor is {straggler_factor}", "give a factor above 1, or None"
            )
        count = models_to_count(simulator, count)
        counted = {name.partition(":")[0] for name in count}  # a share may follow, as in pipeline:0.5
        count = (*count, *(name for name in getattr(predictor, "needs", ()) if name not in counted))
        capability = simulator.probe(machine)
        if not capability.available:
            raise ConfigurationError(
                f"simulator {simulator.name} cannot run {machine.name}: {capability.reason}",
                capability.fix or "run 'simtune doctor'",
            )
        self.machine, self.simulator, self.predictor, self.objective = (
            machine,
            simulator,
            predictor,
            objective,
        )
        self.store = store
        self.version, self.counters = capability.version, capability.counters
        self.limits = limits or Limits()
        #: llvm-mca is no model of the simulator: it looks at the blocks that the simulator reports.
        self.mca = Mca(machine) if MCA in count else None
        self.count = tuple(name for name in count if name != MCA)
        self.seed, self.warmup = seed, warmup
        self.keep_failed = keep_failed
        #: What the counts depend on beside the simulator.
        self.models = (*self.count, *([self.mca.name] if self.mca else []))
        self.executor = executor or LocalExecutor(jobs)
        self._own_executor = executor is None
        self._running: set[Future[Any]] = set()
        self._numbers = itertools.count()
        self._pending: set[Future[Evaluation]] = set()
        self.committer = Committer(store)
        self.scratch = scratch_folder("jobs")
        # Also for an evaluator that nobody closes, such as one whose construction fails below.
        weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)
        self.machine_digest = machine.digest()
        self._straggler_factor = straggler_factor
        self._best = BestRuns()
        self.lengths = Lengths()
        self._sessions: dict[tuple[str, ...], Session] = {}
        linker(machine.isa.name)  # compiles the harness now, not inside the first timed job

    def straggler_limit(self, tensors: Sequence[Tensor]) -> int | None:
        """Instructions after which a kernel on these tensors is hopeless; None when nothing is known.

        Ask once for a whole batch: a limit that moved while the batch runs would make its outcome
        depend on which candidate happens to finish first.
        """
        best = self._best.get(tensors)
        return None if best is None or self._straggler_factor is None else int(best * self._straggler_factor)

    @property
    def contextual(self) -> bool:
        """Whether predictions depend on the other candidates, so that `in_context` must have a say."""
        return isinstance(self.predictor, ContextualPredictor)

    def in_context(self, evaluations: Sequence[Evaluation], tensors: Sequence[Tensor]) -> list[Evaluation]:
        """Predicts a batch of one kernel anew, each candidate in the light of all others so far.

        Objectives other than latency keep their value: an expression sees the plain prediction.
        """
        done = [e.outcome.counters for e in evaluations if e.ok and e.outcome and e.outcome.counters]
        if not done or not self.contextual:
            return list(evaluations)
        predicted = iter(self._session(tensors).predict_batch(done, self.machine).tolist())
        again = []
        for evaluation in evaluations:
            if evaluation.ok and evaluation.outcome and evaluation.outcome.counters:
                seconds = next(predicted)
                value = seconds if self.objective.name == "latency" else evaluation.value
                evaluation = replace(evaluation, predicted_s=seconds, value=value)
            again.append(evaluation)
        return again

    def observe(self, counters: Sequence[Counters], tensors: Sequence[Tensor]) -> None:
        """Tells of right candidates from an earlier sitting."""
        for one in counters:
            self._best.note(tensors, one)
        if self.contextual:
            self._session(tensors).observe(counters, self.machine)

    def _session(self, tensors: Sequence[Tensor]) -> Session:
        assert isinstance(self.predictor, ContextualPredictor)
        kind = kind_of(tensors)
        if kind not in self._sessions:
            self._sessions[kind] = self.predictor.session(" ".join(kind))
        return self._sessions[kind]

    def submit(self, candidate: Candidate) -> Future[Evaluation]:
        """Queues one candidate. The future never raises for a bad candidate."""
        pending = PendingEvaluation(self, candidate)
        self._pending.add(pending.future)
        pending.future.add_done_callback(self._pending.discard)
        pending.start()
        return pending.future

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Evaluates one candidate and waits for it."""
        return self.submit(candidate).result()

    # ---- what a candidate under way asks for, see `simtune.pending` --------------------------

    def run(self, job: SimulationJob) -> Future[Simulated]:
        """Hands a job to the executor."""
        running = self.executor.submit(job)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return running

    def unpack_folder(self) -> Path:
        """Name of a folder for a candidate's unpacked files, not made yet: most need none."""
        return self.scratch / str(next(self._numbers))

    def limits_of(self, candidate: Candidate) -> Limits:
        """The bounds of one candidate's simulation."""
        bounds = [b for b in (candidate.instruction_limit, self.limits.instructions) if b is not None]
        return replace(self.limits, instructions=min(bounds, default=None))

    def note(self, conditions: Conditions, plan: Plan | None, outcome: Outcome) -> None:
        """Learns how long a right candidate ran."""
        if plan is not None:
            self._best.note(plan.tensors, outcome.counters)
        if outcome.counters is not None and "instructions" in outcome.counters:
            self.lengths.note(conditions, outcome.counters["instructions"], plan.tensors if plan else ())

    def keep(
        self,
        candidate: Candidate,
        digest: str,
        expected: Expectation | None,
        constant: bool = False,
        instruction_limit: int | None = None,
    ) -> str:
        """Keeps a failed candidate; returns the command that repeats it, empty when nothing is kept."""
        if self.keep_failed is None:
            return ""
        try:
            return self.keeper.keep(
                self.keep_failed, candidate, digest, expected, constant, instruction_limit
            )
        except OSError as error:  # it cannot be read, or there is no space: no reason to stop
            _log.warning("%s was not kept: %s", candidate.path, error)
            return ""

    @property
    def keeper(self) -> Keeper:
        """Knows how a run of these settings is repeated."""
        models = (*self.count, *([MCA] if self.mca else []))
        return Keeper(self.machine, self.simulator.name, self.limits, models, self.seed, self.warmup)

    def value(self, outcome: Outcome, key: str, cached: bool) -> Evaluation:
        """The evaluation of a simulation's outcome."""
        if not outcome.ok or outcome.counters is None:
            return Evaluation(
                outcome.status,
                outcome.stage,
                outcome.error,
                outcome.command,
                key=key,
                outcome=outcome,
                cached=cached,
            )
        predicted = self.predictor.predict(outcome.counters, self.machine)
        value = (
            predicted
            if self.objective.name == "latency"
            else self.objective.function(outcome.counters, self.machine)
        )
        return Evaluation(Status.OK, "", "", outcome.command, value, predicted, key, outcome, cached)

    def cancel(self) -> None:
        """Stops everything of this evaluator that runs or waits; returns at once."""
        self.executor.cancel(list(self._running))

    def close(self, cancel: bool = False) -> None:
        """Waits for its candidates, or with `cancel` gives them up; commits what is finished, ends
        an executor of its own, and removes the scratch folder."""
        if cancel:
            self.cancel()
        try:
            # For the candidates, not only for their jobs: what a job found has still to be committed.
            # One that is being committed may ask for another run, which is then given up as well.
            while wait([*self._pending, *self._running], _CANCEL_AGAIN_S if cancel else None).not_done:
                self.cancel()
        except BaseException:
            self.cancel()  # Ctrl-C while waiting for the rest
            raise
        if self._own_executor:
            self.executor.close(cancel=cancel)
        self.committer.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
