# SPDX-License-Identifier: Apache-2.0
"""The MetaSchedule runner: `runner=simtune.SimulatorRunner("sifive-u74")`."""

from __future__ import annotations

import atexit
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.image import Tensor
from simtune.build.reference import Reference
from simtune.candidates import Candidate, Evaluation
from simtune.consensus import outliers
from simtune.counters import Counters
from simtune.errors import ConfigurationError, InputFileError
from simtune.evaluate import Evaluator
from simtune.execution.base import Executor
from simtune.execution.scratch import scratch_folder
from simtune.jobs import Limits, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.base import Predictor
from simtune.predictors.objective import resolve_objective
from simtune.records.store import RecordStore, default_store_path
from simtune.simulators.base import Simulator, get_simulator

ms = tvm_setup.load()

from tvm.ir.utils import derived_object  # noqa: E402

#: More than the largest batch.
_KEPT = 4096

#: Called once per candidate with its artifact path and evaluation.
Listener = Callable[[str, Evaluation], None]


class _Batch:
    """The candidates of one `run()` call: one task's, hence all compute the same function."""

    def __init__(
        self,
        evaluator: Evaluator,
        size: int,
        checked: bool,
        listener: Listener | None,
        on_finished: Callable[[float], None],
    ) -> None:
        self._evaluator, self._checked, self._listener = evaluator, checked, listener
        self._pending, self._start, self._on_finished = size, time.perf_counter(), on_finished
        self.candidates: list[Candidate] = []
        self.futures: list[Future[Evaluation]] = []
        self._verdicts: list[Evaluation] | None = None
        self._lock = threading.Lock()  # of the verdicts; waits for futures while it is held
        self._pending_lock = threading.Lock()

    def add(self, candidate: Candidate) -> int:
        self.candidates.append(candidate)
        future = self._evaluator.submit(candidate)
        self.futures.append(future)
        future.add_done_callback(self._tell(str(candidate.path)))
        return len(self.futures) - 1

    def _tell(self, path: str) -> Callable[[Future[Evaluation]], None]:
        def tell(future: Future[Evaluation]) -> None:
            with self._pending_lock:
                self._pending -= 1
                finished = self._pending == 0
            if finished:
                self._on_finished(time.perf_counter() - self._start)
            # Progress as it happens; the verdict of the whole batch may still change it.
            if self._listener and not future.cancelled() and future.exception() is None:
                self._listener(path, future.result())

        return tell

    def result(self, index: int) -> Evaluation:
        """The final evaluation; it waits for the whole batch if that has a say in it.

        That is so without references, and with predictors that compare candidates: what they say
        must not depend on which simulation happens to finish first.
        """
        if self._checked and not self._evaluator.contextual:
            return self.futures[index].result()
        with self._lock:
            if self._verdicts is None:
                evaluations = [future.result() for future in self.futures]
                if not self._checked:
                    evaluations = self._compare(evaluations)
                self._verdicts = self._evaluator.in_context(evaluations, self.candidates[0].signature)
            return self._verdicts[index]

    def _compare(self, evaluations: list[Evaluation]) -> list[Evaluation]:
        """Marks as wrong what disagrees with the majority of the batch."""
        dtype = self.candidates[0].signature[-1].dtype if self.candidates else "float32"

        def disagreeing(of: list[Evaluation]) -> set[int]:
            return outliers([e.outcome.output if e.ok and e.outcome else None for e in of], dtype)

        # Candidates with re-packed operands ran on constant inputs, so they form a group of their own.
        for packed in (True, False):
            group = [i for i, e in enumerate(evaluations) if bool(e.prepacked) is packed]
            suspects = {group[i] for i in disagreeing([evaluations[i] for i in group])}
            # A builder that does not tell may have taken an operand for re-packed. That changes the
            # answer too, but not when the operand is constant.
            untold = sorted(i for i in suspects if evaluations[i].prepacked is None)
            agreeing = next((i for i in group if evaluations[i].ok and i not in suspects), None)
            if untold and agreeing is not None:
                again = [replace(self.candidates[i], constant=True) for i in (agreeing, *untold)]
                right, *repeated = [f.result() for f in [self._evaluator.submit(c) for c in again]]
                for index, evaluation in zip(untold, repeated, strict=True):
                    if evaluation.ok and not disagreeing([right, evaluation, right]):
                        suspects.remove(index)
            for index in suspects:
                evaluations[index] = replace(
                    evaluations[index],
                    status=Status.WRONG_OUTPUT,
                    stage="check",
                    value=None,
                    predicted_s=None,
                    error="the output differs from what most candidates of the batch computed",
                )
        return evaluations


@derived_object
class _Future(ms.runner.PyRunnerFuture):  # type: ignore[misc, name-defined]
    """One pending result, as MetaSchedule polls and joins it."""

    def __init__(self, batch: _Batch, index: int, owner: Any) -> None:
        super().__init__()
        self.batch, self.index, self.owner = batch, index, owner

    def done(self) -> bool:
        return self.batch.futures[self.index].done()

    def result(self) -> Any:
        try:
            evaluation = self.batch.result(self.index)
        except BaseException:
            self.owner.evaluator.cancel()  # Ctrl-C while waiting: nothing goes on behind the user's back
            raise
        self.owner.remember_evaluation(str(self.batch.candidates[self.index].path), evaluation)
        if evaluation.ok and evaluation.value is not None:
            return ms.runner.RunnerResult([evaluation.value], None)
        return ms.runner.RunnerResult(None, f"{evaluation.status} in {evaluation.stage}: {evaluation.error}")


@derived_object
class SimulatorRunner(ms.runner.PyRunner):  # type: ignore[misc, name-defined]
    """Runs MetaSchedule's candidates in a simulator instead of on hardware.

    The run time that TVM sees is the prediction for `machine` (or another objective). Works with
    TVM's own builder and, faster, with `simtune.Builder`.

    Args:
        machine: name, path of a machine file, "host", or a `Machine`.
        simulator: name of an adapter, or a `Simulator`.
        predictor: how counters become seconds; the analytical one by default. A path is read as a
            file of `simtune train`.
        objective: "latency", a counter, "energy", an expression over counters, or a function of
            (counters, machine); lower is better.
        workloads: unscheduled modules (or TuneContexts, or extracted Relax tasks) whose answers
            candidates are checked against. Without them the candidates of a batch are checked
            against each other.
        records: store for finished simulations, its path, or ":memory:"; by default
            `$SIMTUNE_RECORDS` or ``simtune-records.db`` here. Nothing that is stored runs again.
        executor: where jobs run; by default as many at once here as cores and memory allow.
        jobs: upper bound on the simulations at once.
        limits: bounds on each simulation.
        count: optional models: "branch", "prefetch", "blocks", "mca"; what the predictor was trained on is
            switched on in any case.
        seed: seed of the kernels' inputs.
        warmup: calls of the kernel before the one that counts.
        straggler_factor: cut a candidate off at this many times the instructions of the best.
        keep_failed: folder that keeps failed candidates for reproduction.
        listener: called with (artifact path, evaluation) as candidates finish.

    Raises:
        SimtuneError: unknown machine, or a simulator that does not work here.
    """

    def __init__(
        self,
        machine: str | Path | Machine,
        *,
        simulator: str | Simulator = "qemu",
        predictor: Predictor | str | Path | None = None,
        objective: Any = "latency",
        workloads: Iterable[Any] = (),
        records: str | Path | RecordStore | None = None,
        executor: Executor | None = None,
        jobs: int | None = None,
        limits: Limits | None = None,
        count: Sequence[str] | None = None,
        seed: int = 0,
        warmup: int = 0,
        straggler_factor: float | None = 10.0,
        keep_failed: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        super().__init__()
        self.machine = machine if isinstance(machine, Machine) else load_machine(machine)
        self._folder = scratch_folder("expected")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._owned_store: RecordStore | None = None
        if not isinstance(records, RecordStore):
            records = self._owned_store = RecordStore(records or default_store_path())
        if isinstance(predictor, str | Path):
            from simtune.predictors.storage import load_predictor

            predictor = load_predictor(predictor, self.machine)
        predictor = predictor or AnalyticalPredictor()
        if isinstance(simulator, str):
            simulator = get_simulator(simulator)
        self.evaluator = Evaluator(
            self.machine,
            simulator,
            predictor,
            resolve_objective(objective, predictor),
            records,
            executor=executor,
            jobs=jobs,
            limits=limits,
            count=count,
            seed=seed,
            warmup=warmup,
            straggler_factor=straggler_factor,
            keep_failed=keep_failed,
        )
        if not self.evaluator.counters:
            self.close()
            raise ConfigurationError(
                f"simulator {self.evaluator.simulator.name} counts nothing, so it cannot rank candidates",
                "choose one that counts, see 'simtune doctor'",
            )
        self.listener = listener
        #: The latest evaluations by artifact path, for measure callbacks that take them out.
        self.evaluations: dict[str, Evaluation] = {}
        #: Wall seconds in which a batch was under way.
        self.wall_s = 0.0
        self._references: dict[tuple[Any, ...], list[Reference]] = {}
        for workload in workloads:
            self.expect(workload)
        atexit.register(_close, weakref.ref(self))

    def expect(self, workload: Any) -> Reference:
        """Registers the right answers of a workload: candidates with its tensors are checked.

        Args:
            workload: unscheduled IRModule or PrimFunc, TuneContext, or extracted Relax task.

        Raises:
            InputFileError: its tensors have symbolic shapes.
        """
        reference = Reference(_module(workload), self.evaluator.seed, self._folder)
        self._references.setdefault(_shape_key(reference.tensors), []).append(reference)
        return reference

    def run(self, runner_inputs: list[Any]) -> list[Any]:
        """Starts one batch; called by MetaSchedule. Returns at once."""
        signatures = [_signature(item.args_info) for item in runner_inputs]
        reference = self._reference(signatures)
        batch = _Batch(
            self.evaluator, len(runner_inputs), reference is not None, self.listener, self._add_wall
        )
        limit = self.evaluator.straggler_limit(signatures[0]) if signatures else None
        futures = []
        for item, signature in zip(runner_inputs, signatures, strict=True):
            candidate = Candidate(Path(str(item.artifact_path)), signature, instruction_limit=limit)
            if reference is not None:
                layout_free = reference.expectation(constant=True) if reference.layout_free else None
                candidate = replace(
                    candidate, expected=reference.expectation(), expected_constant=layout_free
                )
            futures.append(_Future(batch, batch.add(candidate), self))
        return futures

    def remember(self, counters: Sequence[Counters], args_info: Iterable[Any]) -> None:
        """Tells of a kernel's right candidates from an earlier sitting: the limit on stragglers and
        predictors that compare candidates look back on them."""
        signature = _signature(args_info)
        self.evaluator.observe(counters, signature)

    def remember_evaluation(self, path: str, evaluation: Evaluation) -> None:
        """Keeps an evaluation for callbacks; not for ever, since a drop-in user has none."""
        self.evaluations[path] = evaluation
        while len(self.evaluations) > _KEPT:
            del self.evaluations[next(iter(self.evaluations))]

    def _add_wall(self, seconds: float) -> None:
        self.wall_s += seconds

    def _reference(self, signatures: list[tuple[Tensor, ...]]) -> Reference | None:
        """The one reference for a batch; None when unknown, or when two workloads look alike."""
        keys = {_shape_key(signature) for signature in signatures}
        known = self._references.get(keys.pop(), []) if len(keys) == 1 else []
        return known[0] if len(known) == 1 else None

    def close(self, cancel: bool = False) -> None:
        """Ends the executor, closes an own store, removes scratch files."""
        self.evaluator.close(cancel=cancel)
        if self._owned_store is not None:
            self._owned_store.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _close(reference: weakref.ref[Any]) -> None:
    runner = reference()
    if runner is not None:
        runner.close(cancel=True)


def _shape_key(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """What a workload has in common with its candidates: an operand may be re-packed, so its shape
    may differ, its type and size do not."""
    return tuple((tensor.dtype, tensor.elements) for tensor in tensors)


def _signature(args_info: Iterable[Any]) -> tuple[Tensor, ...]:
    tensors = []
    for info in args_info:
        kind, dtype, shape = info.as_json()
        if str(kind) != "TENSOR":
            raise InputFileError(f"argument of kind {kind} is not supported", "tune kernels on tensors only")
        tensors.append(Tensor(str(dtype), tuple(int(extent) for extent in shape)))
    return tuple(tensors)


def _module(workload: Any) -> Any:
    """The IRModule behind the several things that MetaSchedule calls a workload."""
    import tvm

    for attribute in ("dispatched", "mod"):
        value = getattr(workload, attribute, None)
        if value is not None:
            workload = value
            break
    if not isinstance(workload, tvm.IRModule) and hasattr(workload, "__getitem__"):
        workload = workload[0]  # an extracted task lists its dispatched modules
    if not isinstance(workload, tvm.IRModule):
        workload = tvm.IRModule({"main": workload.with_attr("global_symbol", "main")})
    return workload
