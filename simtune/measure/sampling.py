# SPDX-License-Identifier: Apache-2.0
"""From single processes to a label: calibration, repetition, agreement. Knows no place to run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from simtune.jobs import Status
from simtune.measure.base import Settings, Timing


@dataclass(frozen=True)
class Draw:
    """What one process is to do: `repeat` timings of `number` calls each, after `warmup` calls."""

    layout: int
    repeat: int
    number: int
    warmup: int


@dataclass(frozen=True)
class Sample:
    """What one process gave: its timings in seconds per call, or why there are none."""

    status: Status
    times: tuple[float, ...] = ()
    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


#: A process that waited for its core for more than this share of its time gets a note.
_WAITED = 0.05

#: No kernel is shorter; what a coarse clock tells of a single call may be.
_SHORTEST = 1e-7

#: Also finds wrong answers and crashes before the longer processes run.
_CALIBRATION = Draw(layout=0, repeat=3, number=1, warmup=1)


def layout_of(process: int) -> int:
    """Address layout of the n-th process: the same for all candidates, far apart for neighbours."""
    return 1 + 23 * process


def measure(sample: Callable[[Draw], Sample], settings: Settings) -> Timing:
    """Times one candidate by running `sample` for as many processes as it takes.

    The first process only calibrates: how many calls make up one timing, and how many to warm up.
    """
    start = time.perf_counter()

    def failed(by: Sample) -> Timing:
        return Timing(by.status, error=by.error, wall_s=time.perf_counter() - start)

    first = sample(_CALIBRATION)
    if first.status is not Status.OK:
        return failed(first)
    call = max(min(first.times), _SHORTEST)
    number = max(1, math.ceil(settings.min_repeat_s / call))
    fitting = int(settings.process_s / (number * call))
    repeat = min(settings.repeat, max(2, fitting))
    warmup = max(1, math.ceil(settings.warmup_s / call))
    seconds: list[float] = []
    facts: Mapping[str, Any] = {}
    waited = 0.0
    while len(seconds) < settings.processes or (
        len(seconds) < settings.max_processes and not agree(seconds, settings.max_spread)
    ):
        time.sleep(settings.cooldown_s)
        done = sample(Draw(layout_of(len(seconds)), repeat, number, warmup))
        if done.status is not Status.OK:
            return failed(done)
        seconds.append(min(done.times))
        if not 0 < seconds[-1] < math.inf:
            return failed(Sample(Status.INFRASTRUCTURE, error=f"impossible times {done.times}"))
        facts = done.facts
        waited = max(waited, float(facts.get("waited", 0.0)))
    notes = []
    if not agree(seconds, settings.max_spread):
        notes.append(f"unsteady: {len(seconds)} processes did not agree")
    if waited > _WAITED:
        notes.append(f"busy: a process waited for its core {waited:.0%} of the time")
    done_as = {"number": number, "repeat": repeat, "warmup": warmup, "waited": waited}
    conditions = {**settings.as_dict(), **facts, **done_as}
    return Timing(Status.OK, tuple(seconds), conditions, tuple(notes), wall_s=time.perf_counter() - start)


def agree(seconds: Sequence[float], max_spread: float) -> bool:
    """Whether the middle half of the times lies within a share of the median.

    Not the whole range: that only grows with more processes, and one disturbed process among several
    moves no median.
    """
    if len(seconds) < 2:
        return True
    ordered = sorted(seconds)
    return _quantile(ordered, 0.75) - _quantile(ordered, 0.25) <= max_spread * median(ordered)


def _quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
