# SPDX-License-Identifier: Apache-2.0
"""A built candidate, what became of it, and what is known of the best one of its kernel."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simtune.build.expectation import Expectation
from simtune.build.image import Tensor
from simtune.counters import Counters
from simtune.jobs import Outcome, Status
from simtune.records.model import Trial


@dataclass(frozen=True)
class Candidate:
    """One built candidate.

    Attributes:
        path: object, TVM tar, or static executable.
        signature: tensors in argument order, for artifacts without side file.
        expected: what the output is compared with; None runs unchecked.
        expected_constant: the same for constant inputs, for candidates that may work on operands
            which they take for re-packed.
        constant: run on constant inputs in any case.
        instruction_limit: cut off after so many instructions, see `Evaluator.straggler_limit`.
        executable: `path` is a whole program, which checks nothing and knows nothing of tensors.
        arguments: command line of an executable.
        length: predicted instructions for planning; 0 leaves it to the evaluator.
        retry: run again if what the store knows of it is a failure.
    """

    path: Path
    signature: tuple[Tensor, ...] = ()
    expected: Expectation | None = None
    expected_constant: Expectation | None = None
    constant: bool = False
    instruction_limit: int | None = None
    executable: bool = False
    arguments: tuple[str, ...] = ()
    length: float = 0.0
    retry: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What became of a candidate.

    Attributes:
        value: the objective, lower is better; None unless `status` is ok.
        predicted_s: predicted run time, whatever the objective is.
        key: under which the simulation is stored; empty when it never ran.
        cached: the outcome came from the store.
        build_s, link_s, simulate_s: wall seconds per stage.
        digest: content hash of the candidate's objects.
        prepacked: whether it took an operand for re-packed; None when its builder does not tell.
    """

    status: Status
    stage: str = ""
    error: str = ""
    command: str = ""
    value: float | None = None
    predicted_s: float | None = None
    key: str = ""
    outcome: Outcome | None = None
    cached: bool = False
    build_s: float = 0.0
    link_s: float = 0.0
    simulate_s: float = 0.0
    digest: str = ""
    prepacked: bool | None = None

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    def trial(
        self, run: str, index: int, candidate: str, trace: str = "", is_reference: bool = False
    ) -> Trial:
        """The trial row of this candidate; see `Trial` for the arguments."""
        return Trial(
            run,
            index,
            candidate,
            self.status,
            trace,
            self.key or None,
            self.stage,
            self.error,
            self.command,
            self.value,
            self.predicted_s,
            None,
            self.build_s,
            self.link_s,
            self.simulate_s,
            is_reference,
        )


class BestRuns:
    """Fewest instructions of a right run, by kind of kernel."""

    def __init__(self) -> None:
        self._best: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def get(self, tensors: Sequence[Tensor]) -> int | None:
        with self._lock:
            return self._best.get(kind_of(tensors))

    def note(self, tensors: Sequence[Tensor], counters: Counters | None) -> None:
        if counters is not None and "instructions" in counters:
            instructions = int(counters["instructions"])
            with self._lock:
                self._best[kind_of(tensors)] = min(
                    self._best.get(kind_of(tensors), instructions), instructions
                )


def kind_of(tensors: Sequence[Tensor]) -> tuple[str, ...]:
    """Kernels with tensors of the same types and sizes; an operand may be re-packed."""
    return tuple(f"{tensor.dtype}:{tensor.elements}" for tensor in tensors)
