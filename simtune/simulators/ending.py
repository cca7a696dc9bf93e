# SPDX-License-Identifier: Apache-2.0
"""What adapters share: a scratch folder per run, errors as outcomes, and outcomes from endings."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from simtune.build.image import MAGIC as IMAGE_MAGIC
from simtune.counters import Counters
from simtune.errors import ConfigurationError, SimtuneError
from simtune.execution.supervise import Command, Completed, run
from simtune.jobs import Limits, Outcome, SimJob, Status
from simtune.simulators.base import Capability
from simtune.simulators.outcomes import classify, error_text, harness_output


@contextlib.contextmanager
def scratch(job: SimJob, purpose: str) -> Iterator[Path]:
    """A folder of this run alone, removed afterwards."""
    if job.scratch is not None:
        job.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=job.scratch) as folder:
        yield Path(folder).absolute()


def attempt(
    job: SimJob,
    simulator: str,
    capability: Capability,
    models: Collection[str],
    work: Callable[[Path], Outcome],
) -> Outcome:
    """Runs `work` in a scratch folder if the adapter works here; what it raises becomes an outcome.

    Args:
        models: optional ones that the simulator has, for `job.count`.
    """
    if not capability.available:
        return Outcome(Status.INFRASTRUCTURE, error=f"{capability.reason}\n{capability.fix}".strip())
    try:
        if unknown := sorted(set(job.count) - set(models)):
            raise ConfigurationError(f"{simulator} cannot count {', '.join(unknown)}", "use qemu for that")
        with scratch(job, simulator) as folder:
            return work(folder)
    except ConfigurationError as error:  # of the executable or of what it asks for
        return Outcome(Status.INVALID, error=str(error))
    except (SimtuneError, OSError) as error:
        return Outcome(Status.INFRASTRUCTURE, error=str(error))


def refuse_unmarked(job: SimJob, simulator: str) -> None:
    """For simulators that cannot count a whole program.

    Raises:
        ConfigurationError: the job wants that.
    """
    if job.region == "all":
        raise ConfigurationError(
            f"{simulator} counts marked regions only, and {job.executable.name} has none",
            "mark it with ROI_BEGIN() and ROI_END() of simulators/harness/roi.h",
        )


class Stages:
    """Several supervised runs that together are one simulation, under one set of limits.

    Args:
        limits: for all of them together: the later ones get what time the earlier ones left.
        folder: working folder.
    """

    def __init__(self, limits: Limits, folder: Path, cancel: threading.Event | None) -> None:
        self._limits, self._folder, self._cancel = limits, folder, cancel
        self.wall_s = self.cpu_s = 0.0
        self.peak_rss = 0

    def run(self, argv: Sequence[str]) -> Completed:
        """Runs one command."""
        left = replace(
            self._limits,
            wall_s=_left(self._limits.wall_s, self.wall_s),
            cpu_s=_left(self._limits.cpu_s, self.cpu_s),
        )
        done = run(Command(tuple(argv), env={}, cwd=self._folder, limits=left), self._cancel)
        self.wall_s += done.wall_s
        self.cpu_s += done.cpu_s
        self.peak_rss = max(self.peak_rss, done.peak_rss)
        return done

    def outcome(
        self,
        done: Completed,
        counters: Counters | None,
        command: str,
        problem: tuple[Status, str] | None = None,
        stdout: bytes | None = None,
    ) -> Outcome:
        """The outcome of the whole.

        Args:
            done: the run that says how the program ended.
            counters: what was counted, if its report was whole.
            problem: what a report says although the program ended well.
            stdout: what the program printed, when that is not `done.stdout`.
        """
        status, reason = classify(done, self._limits)
        limit = self._limits.instructions
        executed = 0 if counters is None else counters.get("instructions", 0)
        if status is Status.OK and problem is not None:
            status, reason = problem
        elif status in (Status.OK, Status.WRONG_OUTPUT) and limit is not None and executed > limit:
            status, reason = Status.TIMEOUT, f"executed more than {limit} instructions"
        whole = status in (Status.OK, Status.WRONG_OUTPUT)
        return Outcome(
            status=status,
            stage="check" if status is Status.WRONG_OUTPUT else "simulate",
            counters=counters if whole else None,
            output=harness_output(done.stdout if stdout is None else stdout),
            error="" if status is Status.OK else error_text(reason, done.stderr),
            command=command,
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            peak_rss=self.peak_rss,
        )


def _left(limit: float | None, used: float) -> float | None:
    return None if limit is None else max(0.01, limit - used)


def reproducer(job: SimJob, simulator: str) -> str:
    """The command that repeats a run of an executable through simtune."""
    machine = job.machine.name
    argv = ["simtune", "simulate", str(job.executable.absolute()), "-m", machine, "--simulator", simulator]
    for model in job.count:
        argv += ["--count", model]
    return shlex.join([*argv, *(["--", *job.arguments] if job.arguments else [])])


def cold_start(executable: bytes, job: SimJob, passes: int = 1) -> tuple[str, ...]:
    """Arguments by which simtune's harness empties the caches just before the region.

    For simulators whose caches are warm from start-up: QEMU's plugin begins with empty ones. Other
    executables are left alone, and so is a job that says itself what to flush.

    Args:
        passes: how often to read the size of all caches; once replaces all lines under LRU.
    """
    if IMAGE_MAGIC.to_bytes(8, "little") not in executable or "--flush" in job.arguments:
        return ()
    caches = job.machine.caches
    largest = max(cache.size for cache in caches.values())
    return ("--flush", str(passes * (largest + caches["l1d"].size)))


def named(counts: Mapping[str, float], simulator: str, replacement: str = "lru") -> Counters:
    """Counters without what is not known (NaN or negative)."""
    return Counters({name: value for name, value in counts.items() if value >= 0}, simulator, replacement)
