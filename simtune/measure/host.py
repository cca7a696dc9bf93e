# SPDX-License-Identifier: Apache-2.0
"""Times candidates on this computer."""

from __future__ import annotations

import platform
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtune.build.link import linker
from simtune.errors import InputFileError, SimtuneError
from simtune.execution.scratch import scratch
from simtune.execution.supervise import Command, run
from simtune.jobs import Limits, Status
from simtune.measure import sampling
from simtune.measure.base import Closing, Probe, Program, Settings, Timing
from simtune.measure.conditions import compare, default_core, look, read_files
from simtune.measure.lock import exclusive
from simtune.measure.sampling import Draw, Sample
from simtune.simulators.outcomes import classify, error_text, harness_output


class HostTarget(Closing):
    """This computer: the same static executable that is simulated, pinned to one core."""

    name = "host"

    def probe(self) -> Probe:
        """See `Target.probe`."""
        return Probe(True, platform.machine(), f"this computer, {platform.release()}")

    def measure(self, program: Program, settings: Settings, cancel: threading.Event | None = None) -> Timing:
        """See `Target.measure`."""
        foreign = wrong_isa(program, platform.machine(), self.name)
        if foreign is not None:
            return foreign
        core = default_core(read_files) if settings.core is None else settings.core
        with scratch("measure") as folder:
            try:
                executable = link(program, folder)
                with exclusive(self.name):
                    before = look(read_files, core)
                    timing = sampling.measure(
                        lambda draw: _sample(executable, program, draw, settings, core, cancel), settings
                    )
                    facts, notes = compare(before, look(read_files, core))
            except (SimtuneError, OSError) as error:
                status = Status.INVALID if isinstance(error, InputFileError) else Status.INFRASTRUCTURE
                return Timing(status, error=str(error))
        return replace(timing, conditions={**timing.conditions, **facts}, notes=(*timing.notes, *notes))


def wrong_isa(program: Program, isa: str, target: str) -> Timing | None:
    """The failure of a program that this target cannot run; None when it can, or nobody knows."""
    if not isa or program.artifact.isa == isa:
        return None
    return Timing(Status.INVALID, error=f"the candidate is {program.artifact.isa}, {target} is {isa}")


def link(program: Program, folder: Path) -> Path:
    """The static executable of a program, as it is simulated."""
    executable = folder / "candidate.elf"
    return linker(program.artifact.isa).link(program.artifact.objects, program.plan, executable)


def arguments(program: Program, draw: Draw, core: int | None, expected: str) -> tuple[str, ...]:
    """Harness arguments of one process; `expected` is where the file with the right answer lies."""
    fill = ("--constant",) if program.constant else ()
    check: tuple[str, ...] = ()
    if program.expected is not None:
        tolerance = ("--rtol", repr(program.expected.rtol), "--atol", repr(program.expected.atol))
        check = ("--expect", expected, *tolerance)
    pin = () if core is None else ("--core", str(core))
    numbers = {"layout": draw.layout, "repeat": draw.repeat, "number": draw.number, "warmup": draw.warmup}
    counts = (text for name, value in numbers.items() for text in (f"--{name}", str(value)))
    return ("--seed", str(program.seed), *fill, *check, *pin, *counts)


def limits(settings: Settings) -> Limits:
    """Bounds on one process."""
    return Limits(settings.timeout_s, settings.timeout_s, settings.memory_bytes)


def _sample(
    executable: Path,
    program: Program,
    draw: Draw,
    settings: Settings,
    core: int | None,
    cancel: threading.Event | None,
) -> Sample:
    expected = str(program.expected.path) if program.expected else ""
    command = Command(
        (str(executable), *arguments(program, draw, core, expected)),
        env={},
        cwd=executable.parent,
        limits=limits(settings),
        fixed_layout=False,
    )
    done = run(command, cancel)
    status, reason = classify(done, command.limits)
    return read_sample(status, reason, done.stdout, done.stderr, draw)


def read_sample(status: Status, reason: str, stdout: bytes, stderr: bytes, draw: Draw) -> Sample:
    """A sample from how a harness process ended and what it printed."""
    if status is not Status.OK:
        return Sample(status, error=error_text(reason, stderr))
    output = harness_output(stdout)
    try:
        wall, times = (
            tuple(float(output[f"{clock}.{number}"]) for number in range(draw.repeat))
            for clock in ("seconds", "cpu_seconds")
        )
    except (KeyError, ValueError):
        return Sample(Status.CRASHED, error="the harness reported no times")
    # CPU time: on a busy computer a process waits for its core, and that is not the kernel's time.
    facts: dict[str, Any] = {"waited": round(max(0.0, 1 - sum(times) / max(sum(wall), 1e-12)), 3)}
    if "core" in output:
        facts["core"] = int(output["core"])
    return Sample(Status.OK, times, facts=facts)
