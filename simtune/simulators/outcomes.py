# SPDX-License-Identifier: Apache-2.0
"""From how a supervised process ended to a `Status`; shared by all adapters."""

from __future__ import annotations

import signal

from simtune.execution.supervise import Completed, Ending
from simtune.jobs import Limits, Status

EXIT_WRONG_OUTPUT = 3
EXIT_UNUSABLE = 4
EXIT_KERNEL_ERROR = 5

_ERROR_TAIL = 3000


def harness_output(stdout: bytes) -> dict[str, str]:
    """The ``key value`` lines of the harness; anything else on its output is skipped."""
    output = {}
    for line in stdout.decode(errors="replace").splitlines():
        key, space, value = line.strip().partition(" ")
        if space and key.isascii() and len(key) <= 64:
            output[key] = value.strip()
    return output


def classify(done: Completed, limits: Limits) -> tuple[Status, str]:
    """Status and reason of an ending, before anything that a simulator's own report says."""
    match done.ending:
        case Ending.WALL_TIMEOUT:
            return Status.TIMEOUT, f"still running after {limits.wall_s} s of wall time"
        case Ending.CPU_TIMEOUT:
            return Status.TIMEOUT, f"used more than {limits.cpu_s} s of CPU time"
        case Ending.MEMORY:
            return Status.OUT_OF_MEMORY, f"used more than {limits.memory_bytes} bytes of memory"
        case Ending.OUTPUT_FLOOD:
            return Status.CRASHED, f"wrote more than {limits.output_bytes} bytes to its output"
        case Ending.SIGNALED:
            return Status.CRASHED, f"killed by {_signal_name(done.signal)}"
        case Ending.CANCELLED:
            return Status.INFRASTRUCTURE, "cancelled"
        case Ending.LAUNCH_FAILED:
            return Status.INFRASTRUCTURE, "the program could not be started"
        case Ending.EXITED:
            return _by_exit_code(done)


def _by_exit_code(done: Completed) -> tuple[Status, str]:
    match done.exit_code:
        case 0 if done.leftovers:
            return Status.CRASHED, f"left {done.leftovers} running processes behind"
        case 0:
            return Status.OK, ""
        case code if code == EXIT_WRONG_OUTPUT:
            return Status.WRONG_OUTPUT, "the output is not the expected one"
        case code if code == EXIT_UNUSABLE:
            return Status.INVALID, "the executable cannot run with these arguments"
        case code if code == EXIT_KERNEL_ERROR:
            return Status.CRASHED, "the kernel raised an error"
        case code:
            return Status.CRASHED, f"ended with exit code {code}"


def error_text(reason: str, stderr: bytes) -> str:
    """The reason first, then the tail of the error stream."""
    tail = stderr.decode(errors="replace").strip()[-_ERROR_TAIL:]
    return f"{reason}\n{tail}" if reason and tail else reason or tail


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
