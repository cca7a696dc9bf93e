# SPDX-License-Identifier: Apache-2.0
"""One candidate under way: from its file over the store and the executor to an evaluation.

Nothing here waits: a step ends by handing the next one to the executor or to the store's
committer, so that one thread can have thousands of candidates under way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simtune.build.artifact import Artifact, load
from simtune.build.elf import Elf
from simtune.build.expectation import Expectation
from simtune.build.image import Plan
from simtune.candidates import Candidate, Evaluation
from simtune.errors import InputFileError
from simtune.jobs import Limits, Outcome, Status
from simtune.records.model import Conditions, Simulation
from simtune.simulation import Simulated, SimulationJob

if TYPE_CHECKING:
    from simtune.evaluate import Evaluator

#: Key in the stored output of a simulation that the clock or its memory bound ended.
_BOUNDS = "ended_by_bounds"


@dataclass(frozen=True)
class _Attempt:
    """One simulation of a candidate: on which inputs, and under which conditions."""

    job: SimulationJob
    conditions: Conditions
    constant: bool


class PendingEvaluation:
    """The way of one candidate of an `Evaluator`; `future` gets its evaluation."""

    def __init__(self, owner: Evaluator, candidate: Candidate) -> None:
        self._owner, self._candidate = owner, candidate
        self.future: Future[Evaluation] = Future()
        self._folder: Path | None = None
        self._artifact: Artifact | None = None
        self._plan: Plan | None = None

    def start(self) -> None:
        """Takes the first steps; does not raise for a bad candidate."""
        self._guarded(self._open)()

    def _guarded(self, step: Callable[..., None]) -> Callable[..., None]:
        """A step whose errors, such as a full disk under the store, reach those who wait."""

        def run(*arguments: Any) -> None:
            try:
                step(*arguments)
            except BaseException as error:
                self._tidy()
                if not self.future.done() and self.future.set_running_or_notify_cancel():
                    self.future.set_exception(error)
                if not isinstance(error, Exception):
                    raise  # Ctrl-C is meant for whoever is in charge of this thread

        return run

    def _open(self) -> None:
        owner, candidate = self._owner, self._candidate
        start = time.perf_counter()
        try:
            if candidate.executable:
                return self._open_executable()
            self._folder = owner.unpack_folder()
            self._artifact = load(candidate.path, self._folder)
            self._check_isa(self._artifact.isa)
            self._plan = self._artifact.plan(candidate.signature)
        except OSError as error:
            return self._finish(
                Evaluation(Status.INFRASTRUCTURE, "link", f"cannot unpack the candidate: {error}")
            )
        except InputFileError as error:
            command = owner.keep(candidate, candidate.path.parent.name, None)
            seconds = time.perf_counter() - start
            return self._finish(Evaluation(Status.INVALID, "link", str(error), command, link_s=seconds))
        prepacked = candidate.constant or bool(self._artifact.info.get("prepacked"))
        self._simulate(candidate.expected_constant if prepacked else candidate.expected, prepacked)

    def _open_executable(self) -> None:
        owner, candidate = self._owner, self._candidate
        elf = Elf.read(candidate.path)
        self._check_isa(elf.isa)
        if not elf.is_static:
            raise InputFileError(f"{candidate.path} is dynamically linked", "link it with -static")
        conditions = Conditions(
            elf.digest,
            owner.simulator.name,
            owner.version,
            owner.machine_digest,
            ("executable", *candidate.arguments),
            0,
            owner.models,
        )
        self._attempt(conditions, "marker" if elf.has_region else "all", None, (), False)

    def _check_isa(self, isa: str) -> None:
        machine = self._owner.machine
        if isa != machine.isa.name:
            raise InputFileError(
                f"{self._candidate.path.name} is for {isa}, {machine.name} is {machine.isa.name}",
                f"build it for target {dict(machine.target)}",
            )

    def _simulate(self, expected: Expectation | None, constant: bool) -> None:
        owner, artifact, plan = self._owner, self._artifact, self._plan
        assert artifact is not None
        assert plan is not None
        common = ("--touch", "--seed", str(owner.seed), "--warmup", str(owner.warmup))
        fill = ("--constant",) if constant else ()
        kernel = " ".join(map(str, plan.tensors))
        conditions = Conditions(
            artifact.digest,
            owner.simulator.name,
            owner.version,
            owner.machine_digest,
            (kernel, plan.steps[0].kernel, *common, *(expected.conditions() if expected else fill)),
            owner.seed,
            owner.models,
        )
        arguments = common if expected else (*common, *fill)
        self._attempt(conditions, "marker", expected, arguments, constant)

    def _attempt(
        self,
        conditions: Conditions,
        region: str,
        expected: Expectation | None,
        arguments: tuple[str, ...],
        constant: bool,
    ) -> None:
        owner, candidate = self._owner, self._candidate
        limits = owner.limits_of(candidate)
        job = SimulationJob(
            self._artifact.objects if self._artifact else (candidate.path,),
            self._plan,
            owner.machine,
            owner.simulator,
            owner.version,
            arguments if self._plan else candidate.arguments,
            expected,
            limits,
            owner.count,
            owner.mca,
            region,
            conditions.content,
            candidate.length or owner.lengths.of(conditions, self._plan.tensors if self._plan else ()),
        )
        attempt = _Attempt(job, conditions, constant)
        known = owner.store.get_simulation(conditions.key, limits.instructions)
        if known is not None and _still_holds(known, owner.limits) and not self._again(known.outcome):
            outcome = known.outcome
            if not outcome.ok and (kept := self._keep(attempt, known.instruction_limit)):
                # What an earlier run kept may have been removed since.
                outcome = replace(outcome, command=kept)
            self._value(attempt, Simulated(outcome), True)
            return
        owner.run(job).add_done_callback(self._guarded(partial(self._simulated, attempt)))

    def _simulated(self, attempt: _Attempt, running: Future[Simulated]) -> None:
        if running.cancelled():
            self._tidy()
            self.future.cancel()
            self.future.set_running_or_notify_cancel()
            return
        result = running.result()
        # The adapter's own command names the executable, which is gone in a moment.
        limit = attempt.job.limits.instructions
        command = "" if result.outcome.ok or result.cancelled else self._keep(attempt, limit)
        result = replace(result, outcome=replace(result.outcome, command=command))
        if result.cancelled or result.outcome.stage == "link":
            # What a cancelled job failed of says nothing about its candidate, and linking is cheap.
            self._value(attempt, result, False)
            return
        outcome, cut = _bounded(result.outcome, self._owner.limits, limit)
        result = replace(result, outcome=outcome)

        def stored(error: BaseException | None) -> None:
            if error is not None:
                raise error
            self._value(attempt, result, False)

        self._owner.committer.put(Simulation(attempt.conditions, outcome, cut), self._guarded(stored))

    def _value(self, attempt: _Attempt, result: Simulated, cached: bool) -> None:
        owner, candidate, artifact = self._owner, self._candidate, self._artifact
        outcome = result.outcome
        if outcome.ok:
            owner.note(attempt.conditions, self._plan, outcome)
        untold = artifact is not None and "prepacked" not in artifact.info
        if (
            outcome.status is Status.WRONG_OUTPUT
            and candidate.expected_constant
            and untold
            and not attempt.constant
        ):
            # TVM's own builder does not tell whether an operand was taken for re-packed. With
            # constant inputs the order inside an operand does not matter, an error still does.
            self._simulate(candidate.expected_constant, True)
            return
        if outcome.stage == "link":  # it never came to a simulation
            evaluation = Evaluation(outcome.status, outcome.stage, outcome.error, outcome.command)
        else:
            evaluation = owner.value(outcome, attempt.conditions.key, cached)
        evaluation = replace(
            evaluation,
            link_s=result.link_s,
            simulate_s=result.simulate_s,
            digest=attempt.conditions.object_sha256,
        )
        if artifact is not None:
            evaluation = replace(
                evaluation,
                build_s=float(artifact.info.get("build_s", 0.0)),
                prepacked=artifact.info.get("prepacked"),
            )
        self._finish(evaluation)

    def _again(self, known: Outcome) -> bool:
        return self._candidate.retry and not known.ok

    def _keep(self, attempt: _Attempt, limit: int | None) -> str:
        digest = attempt.conditions.object_sha256
        return self._owner.keep(self._candidate, digest, attempt.job.expected, attempt.constant, limit)

    def _finish(self, evaluation: Evaluation) -> None:
        self._tidy()
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(evaluation)

    def _tidy(self) -> None:
        if self._folder is not None and self._folder.exists():
            shutil.rmtree(self._folder, ignore_errors=True)


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
