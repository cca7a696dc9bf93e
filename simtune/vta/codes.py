# SPDX-License-Identifier: Apache-2.0
"""Why a configuration fails, and how far it came; numbers as in the C++ core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simtune.jobs import Status

#: Stages in order; a configuration that works has the first.
STAGES: tuple[str, ...] = ("", "instantiate", "lower", "run", "check")


@dataclass(frozen=True)
class Reason:
    """What a code means.

    Attributes:
        stage: where the failure shows.
        meaning: in one sentence.
        status: how a trial with this failure ended.
        autotvm: the error number that AutoTVM's records would hold.
    """

    stage: str
    meaning: str
    status: Status = Status.INVALID
    autotvm: int = 2


#: Codes in the order of the C++ core, after the empty one of a configuration that works.
REASONS: Mapping[str, Reason] = {
    "VT_DIV": Reason("lower", "a virtual thread does not divide its loop of tiles"),
    "ST_2D": Reason("lower", "the store needs more than two dimensions"),
    "INP_PAD": Reason("lower", "padding would fall on the innermost block"),
    "INP_2D": Reason("lower", "the input load needs more than two dimensions"),
    "SRAM_INP": Reason("lower", "the input buffer is too small"),
    "SRAM_WGT": Reason("lower", "the weight buffer is too small"),
    "SRAM_ACC": Reason("lower", "the accumulator buffer is too small"),
    "UOP_SIG": Reason("run", "a micro-op kernel captures both thread indices", autotvm=4),
    "UOP_DEP": Reason("run", "a micro-op writes what one of its two predecessors wrote", autotvm=4),
    "UOP_CNT": Reason("run", "a micro-op kernel is larger than its buffer", autotvm=4),
    "FIELD_ITER": Reason("run", "a loop extent does not fit its field", autotvm=4),
    "FIELD_FACTOR": Reason("run", "an index step does not fit its field", autotvm=4),
    "FIELD_SIZE": Reason("run", "the extent of a transfer does not fit its field", autotvm=4),
    "FIELD_STRIDE": Reason("run", "the stride of a transfer does not fit its field", autotvm=4),
    "FIELD_PAD": Reason("run", "more padding than its field can hold", autotvm=4),
    "FIELD_BASE": Reason("run", "an address does not fit its field", autotvm=4),
    "OOB": Reason("run", "an access outside of a buffer or tensor", Status.CRASHED, 4),
    "DEADLOCK": Reason("run", "every module waits for a token", Status.TIMEOUT, 7),
    "TOKENS": Reason("run", "dependency tokens are left at the end", Status.CRASHED, 4),
    "TIMEOUT": Reason("run", "more cycles than the host waits for", Status.TIMEOUT, 7),
    "HLS_HAZARD": Reason(
        "check", "an accumulator is used again before it is written", Status.WRONG_OUTPUT, 5
    ),
    "WRONG": Reason("check", "the answer differs from the reference", Status.WRONG_OUTPUT, 5),
}

#: Code by the number that the C++ core gives.
CODES: tuple[str, ...] = ("", *REASONS)


def status_of(code: str) -> Status:
    """How a trial with this code ended; the empty code is a success."""
    return REASONS[code].status if code else Status.OK
