# SPDX-License-Identifier: Apache-2.0
"""One built candidate's way from object to value: link, simulate, check, store, predict.

Knows the rooms by their value types only, and nothing of TVM: the MetaSchedule runner, `simtune
simulate` and batch use all go through here.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from simtune.build.artifact import Artifact, load, side_file
from simtune.build.expectation import Expectation
from simtune.build.image import Plan, Tensor
from simtune.build.kept import keep_folder
from simtune.build.link import linker
from simtune.candidates import BestRuns, Candidate, Evaluation, kind_of
from simtune.counters import Counters
from simtune.errors import ConfigurationError, InputFileError, MachineFileError
from simtune.execution.base import Executor
from simtune.execution.local import LocalExecutor
from simtune.execution.scratch import scratch_folder
from simtune.jobs import Limits, Outcome, SimJob, Status
from simtune.machines.dump import as_toml
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.mca import MCA, Mca
from simtune.predictors.base import ContextualPredictor, Predictor, Session
from simtune.predictors.objective import Objective
from simtune.records.model import Conditions, Simulation
from simtune.records.store import RecordStore
from simtune.simulators.base import Simulator, models_to_count

#: Key in the stored output of a simulation that the clock or its memory bound ended.
_BOUNDS = "ended_by_bounds"


def _bounds(limits: Limits) -> str:
    return f"{limits.wall_s} s wall, {limits.cpu_s} s CPU, {limits.memory_bytes} bytes"


def _bounded(outcome: Outcome, limits: Limits, instruction_limit: int | None) -> tuple[Outcome, int | None]:
    """Notes what ended a run: only a run that its instructions ended is one under their limit."""
    if outcome.status not in (Status.TIMEOUT, Status.OUT_OF_MEMORY):
        return outcome, instruction_limit
    if outcome.status is Status.TIMEOUT and "instructions" in outcome.error.partition("\n")[0]:
        return outcome, instruction_limit
    return replace(outcome, output={**outcome.output, _BOUNDS: _bounds(limits)}), None


def _still_holds(known: Simulation, limits: Limits) -> bool:
    """A run that the clock or memory ended may end otherwise under other bounds."""
    return known.outcome.output.get(_BOUNDS, _bounds(limits)) == _bounds(limits)


class Evaluator:
    """Evaluates candidates for one machine, many at once.

    Args:
        machine, simulator, predictor, objective: what to run and how to value it.
        store: finished simulations are committed here before they are used, and reused.
        executor: where jobs run; a `LocalExecutor` over all usable cores by default.
        limits: bounds on each simulation.
        count: optional models, see `SimJob.count`, and "mca", see `simtune.mca`.
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
        self.executor = executor or LocalExecutor(jobs)
        self.scratch = scratch_folder("jobs")
        # Also for an evaluator that nobody closes, such as one whose construction fails below.
        weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)
        self._digest = machine.digest()
        self._straggler_factor = straggler_factor
        self._best = BestRuns()
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
        return self.executor.submit(lambda cancel: self.evaluate(candidate, cancel))

    def evaluate(self, candidate: Candidate, cancel: threading.Event | None = None) -> Evaluation:
        """Evaluates one candidate in the calling thread."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            start = time.perf_counter()
            try:
                artifact = load(candidate.path, Path(folder))
                if artifact.isa != self.machine.isa.name:
                    raise InputFileError(
                        f"{candidate.path.name} is for {artifact.isa}, "
                        f"{self.machine.name} is {self.machine.isa.name}",
                        f"build it for target {dict(self.machine.target)}",
                    )
                plan = artifact.plan(candidate.signature)
            except OSError as error:
                return Evaluation(Status.INFRASTRUCTURE, "link", f"cannot unpack the candidate: {error}")
            except InputFileError as error:
                command = self._keep(candidate, candidate.path.parent.name, None)
                return Evaluation(
                    Status.INVALID, "link", str(error), command, link_s=time.perf_counter() - start
                )
            evaluation = self._run(candidate, artifact, plan, Path(folder), cancel)
            return replace(
                evaluation,
                build_s=float(artifact.info.get("build_s", 0.0)),
                digest=artifact.digest,
                prepacked=artifact.info.get("prepacked"),
            )

    def _run(
        self,
        candidate: Candidate,
        artifact: Artifact,
        plan: Plan,
        folder: Path,
        cancel: threading.Event | None,
    ) -> Evaluation:
        prepacked = candidate.constant or bool(artifact.info.get("prepacked"))
        expected = candidate.expected_constant if prepacked else candidate.expected
        evaluation = self._simulate(candidate, artifact, plan, expected, prepacked, folder, cancel)
        untold = "prepacked" not in artifact.info
        if (
            evaluation.status is Status.WRONG_OUTPUT
            and candidate.expected_constant
            and untold
            and not prepacked
        ):
            # TVM's own builder does not tell whether an operand was taken for re-packed. With
            # constant inputs the order inside an operand does not matter, an error still does.
            evaluation = self._simulate(
                candidate, artifact, plan, candidate.expected_constant, True, folder, cancel
            )
        return evaluation

    def _simulate(
        self,
        candidate: Candidate,
        artifact: Artifact,
        plan: Plan,
        expected: Expectation | None,
        constant: bool,
        folder: Path,
        cancel: threading.Event | None,
    ) -> Evaluation:
        common = ("--touch", "--seed", str(self.seed), "--warmup", str(self.warmup))
        fill = ("--constant",) if constant else ()
        kernel = " ".join(map(str, plan.tensors))
        conditions = Conditions(
            artifact.digest,
            self.simulator.name,
            self.version,
            self._digest,
            (kernel, plan.steps[0].kernel, *common, *(expected.conditions() if expected else fill)),
            self.seed,
            (*self.count, *([self.mca.name] if self.mca else [])),
        )
        limit = min(
            (bound for bound in (candidate.instruction_limit, self.limits.instructions) if bound is not None),
            default=None,
        )
        known = self.store.get_simulation(conditions.key, limit)
        if known is not None and _still_holds(known, self.limits):
            outcome = known.outcome
            if outcome.ok:
                self._best.note(plan.tensors, outcome.counters)
            elif kept := self._keep(candidate, artifact.digest, expected, constant, known.instruction_limit):
                # What an earlier run kept may have been removed since.
                outcome = replace(outcome, command=kept)
            return self._value(outcome, conditions.key, cached=True)
        start = time.perf_counter()
        try:
            executable = linker(artifact.isa).link(artifact.objects, plan, folder / "candidate.elf")
        except OSError as error:  # such as a full disk
            return Evaluation(Status.INFRASTRUCTURE, "link", f"cannot write the executable: {error}")
        except InputFileError as error:
            command = self._keep(candidate, artifact.digest, expected, constant, limit)
            return Evaluation(Status.INVALID, "link", str(error), command, link_s=time.perf_counter() - start)
        linked = time.perf_counter()
        job = SimJob(
            executable,
            self.machine,
            (*common, *(expected.arguments() if expected else fill)),
            replace(self.limits, instructions=limit),
            tuple(dict.fromkeys((*self.count, "blocks"))) if self.mca else self.count,
            folder,
            content=conditions.content,
        )
        outcome = self.simulator.run(job, cancel)
        if self.mca:
            outcome = self.mca.add(outcome, keep_blocks="blocks" in self.count)
        simulated = time.perf_counter()
        cancelled = cancel is not None and cancel.is_set()
        # The adapter's own command names the executable, which is gone in a moment.
        command = ""
        if outcome.ok:
            self._best.note(plan.tensors, outcome.counters)
        elif not cancelled:
            command = self._keep(candidate, artifact.digest, expected, constant, limit)
        outcome = replace(outcome, command=command)
        if outcome.ok or not cancelled:  # what a cancelled job failed of says nothing about its candidate
            outcome, cut = _bounded(outcome, self.limits, limit)
            self.store.put_simulations([Simulation(conditions, outcome, cut)])
        evaluation = self._value(outcome, conditions.key, cached=False)
        return replace(evaluation, link_s=linked - start, simulate_s=simulated - linked)

    def _value(self, outcome: Outcome, key: str, cached: bool) -> Evaluation:
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

    def _keep(
        self,
        candidate: Candidate,
        digest: str,
        expected: Expectation | None,
        constant: bool = False,
        instruction_limit: int | None = None,
    ) -> str:
        """Keeps a failed candidate with all that its run depends on; returns the shell command that
        repeats it, empty when nothing is kept."""
        if self.keep_failed is None:
            return ""
        folder = keep_folder(self.keep_failed, digest[:16])
        kept = folder / candidate.path.name
        shutil.copy(candidate.path, kept)
        times = [bound for bound in (self.limits.wall_s, self.limits.cpu_s) if bound is not None]
        memory = self.limits.memory_bytes
        options: dict[str, object] = {
            "--machine": self._machine_name(folder),
            "--simulator": self.simulator.name,
            "--seed": self.seed,
            "--warmup": self.warmup or None,
            "--timeout": min(times, default=None),
            "--memory": None if memory is None else memory / 2**20,
            "--max-instructions": instruction_limit,
        }
        if side_file(candidate.path).exists():
            shutil.copy(side_file(candidate.path), side_file(kept))
        elif candidate.signature:
            options["--args"] = ",".join(map(str, candidate.signature))
        if expected is not None:
            options["--expect"] = shutil.copy(expected.path, folder / f"{expected.digest[:16]}.expected")
            options |= {"--rtol": expected.rtol, "--atol": expected.atol}
            constant = expected.constant
        command = ["simtune", "simulate", str(kept), *(["--constant"] if constant else [])]
        for name, value in options.items():
            command += [] if value is None else [name, str(value)]
        for model in (*self.count, *([MCA] if self.mca else [])):
            command += ["--count", model]
        return shlex.join(command)

    def _machine_name(self, folder: Path) -> str:
        """What names this machine on a command line; one that has no name is written into `folder`."""
        with contextlib.suppress(MachineFileError):
            if load_machine(self.machine.name).digest() == self._digest:
                return self.machine.name
        path = folder / "machine.toml"
        path.write_text(as_toml(self.machine))
        return str(path)

    def cancel(self) -> None:
        """Stops everything that runs or waits; returns at once."""
        self.executor.cancel()

    def close(self, cancel: bool = False) -> None:
        """Ends the executor and removes the scratch folder."""
        self.executor.close(cancel=cancel)
        shutil.rmtree(self.scratch, ignore_errors=True)
