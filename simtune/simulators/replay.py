# SPDX-License-Identifier: Apache-2.0
"""Answers from the record store, in the place of a simulator that is not there.

For tests, tutorials and research on search strategies: what was simulated once is answered in
microseconds, exactly as it was or, when asked, with noise, delay and failures. Which candidates are
disturbed, and how, depends on their content and the seed only: the same candidate gets the same answer.

On the command line the simulator is called ``replay`` and takes its settings from the environment::

    SIMTUNE_REPLAY="demo/records.db?noise=0.02&delay=0.1&crashed=0.05&seed=7" simtune tune ...
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl

from simtune.counters import Counters
from simtune.errors import ConfigurationError, SimtuneError
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Machine
from simtune.records.database import default_store_path
from simtune.records.model import Conditions, content_hash
from simtune.records.store import RecordStore, open_existing
from simtune.simulators.base import Capability

_EXAMPLE = 'export SIMTUNE_REPLAY="records.db?noise=0.02&delay=0.1&crashed=0.05&seed=7"'
_POLL_S = 0.02


@dataclass(frozen=True)
class Disturbance:
    """What is done to the recorded answers.

    Attributes:
        noise: standard deviation of the logarithm of a factor on every counter.
        delay: seconds that each answer takes.
        slowdown: times the recorded wall time that it takes besides; 1 is as slow as the original.
        failures: chance of a failure by status, such as ``{Status.CRASHED: 0.05}``.
        seed: another seed disturbs other candidates.
    """

    noise: float = 0.0
    delay: float = 0.0
    slowdown: float = 0.0
    failures: Mapping[Status, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("noise", "delay", "slowdown"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} is {getattr(self, name)}", "give a number from 0")
        chances = self.failures.values()
        if not all(0 <= chance <= 1 for chance in chances) or sum(chances) > 1 or Status.OK in self.failures:
            raise ConfigurationError("the chances of failures are not from 0 to 1 in all", _EXAMPLE)

    @property
    def label(self) -> str:
        """What distinguishes it, for the version; empty when answers are as recorded."""
        parts = [f"noise={self.noise:g}"] if self.noise else []
        parts += [f"{status}={chance:g}" for status, chance in self.failures.items() if chance]
        return "+".join([*parts, f"seed={self.seed}"]) if parts else ""


class ReplaySimulator:
    """Answers jobs with recorded outcomes.

    Args:
        source: a record store or its file; by default what ``SIMTUNE_REPLAY`` names.
        disturbance: noise, delay and failures.
        simulator: answers of this simulator only; by default of any, the latest first.

    Raises:
        ConfigurationError: ``SIMTUNE_REPLAY`` has a setting that does not exist.
    """

    name = "replay"

    def __init__(
        self,
        source: RecordStore | str | Path | None = None,
        disturbance: Disturbance | None = None,
        simulator: str | None = None,
    ) -> None:
        self._store = source if isinstance(source, RecordStore) else None
        self.path = "" if source is None or isinstance(source, RecordStore) else str(source)
        self.disturbance, self._simulator = disturbance or Disturbance(), simulator
        if source is None:
            self.path, self.disturbance, self._simulator = _from_environment(disturbance, simulator)
        self._known: dict[str, list[tuple[frozenset[str], Outcome]]] = {}
        self._machines: set[str] = set()
        self._lock, self._read = threading.Lock(), False
        self._digest = ""

    def probe(self, machine: Machine | None = None) -> Capability:
        """Available where the store has outcomes, for the machine if one is given."""
        try:
            self._load()
        except SimtuneError as error:
            return Capability(False, path=self.path, reason=error.what, fix=_EXAMPLE)
        reason = fix = ""
        if not self._known:
            reason, fix = "the record store holds no simulations", f"simulate something first, or {_EXAMPLE}"
        elif machine is not None and machine.digest() not in self._machines:
            reason = f"the record store holds no simulations of {machine.name} as its file is now"
            fix = "simulate for it first, or choose a machine of the records"
        outcomes = [outcome for recorded in self._known.values() for _, outcome in recorded]
        counters = {name for outcome in outcomes if outcome.counters for name in outcome.counters}
        label = self.disturbance.label
        return Capability(
            available=not reason,
            version=f"{self._digest}{'+' if label else ''}{label}",
            path=self.path,
            isas=("riscv64", "aarch64", "x86_64") if machine is None else (machine.isa.name,),
            counters=frozenset(counters) if not reason else frozenset(),
            reason=reason,
            fix=fix,
        )

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Gives the recorded outcome of the job; see `Simulator.run`."""
        start = time.perf_counter()
        try:
            self._load()
            content = job.content or content_of(job)
        except (SimtuneError, OSError) as error:
            return Outcome(Status.INFRASTRUCTURE, error=str(error))
        recorded = self._known.get(content, [])
        # Blocks are not recorded; of the other models the record may have more than were asked for.
        wanted = frozenset(job.count) - {"blocks"}
        outcome = next((outcome for models, outcome in recorded if wanted <= models), None)
        if outcome is None:
            reason = f"{self.path or 'the record store'} has no simulation of this candidate and machine"
            if recorded:
                reason += f" with {', '.join(sorted(wanted))}"
            return Outcome(Status.INFRASTRUCTURE, error=reason)
        outcome = self._bounded(self._disturbed(outcome, content), job)
        wait = self.disturbance.delay + self.disturbance.slowdown * outcome.wall_s
        limit = job.limits.wall_s
        if limit is not None and wait > limit:
            wait, outcome = (
                limit,
                _timeout(f"still running after {limit} s of wall time"),
            )
        while (left := start + wait - time.perf_counter()) > 0:
            if cancel is not None and cancel.is_set():
                return Outcome(Status.INFRASTRUCTURE, error="cancelled")
            time.sleep(min(left, _POLL_S))
        return replace(outcome, wall_s=max(time.perf_counter() - start, 1e-9), cpu_s=0.0)

    def _bounded(self, outcome: Outcome, job: SimJob) -> Outcome:
        limit = job.limits.instructions
        counters = outcome.counters
        if limit is None or counters is None or counters.get("instructions", 0) <= limit:
            return outcome
        return _timeout(f"executed more than {limit} instructions")

    def _disturbed(self, outcome: Outcome, content: str) -> Outcome:
        wanted = self.disturbance
        if not outcome.ok or not wanted.label:
            return outcome
        chance = random.Random(f"{wanted.seed}:{content}")
        draw = chance.random()
        for status, share in wanted.failures.items():
            draw -= share
            if draw < 0:
                return Outcome(
                    status, error="a failure that replaying was told to add", wall_s=outcome.wall_s
                )
        if outcome.counters is None or not wanted.noise:
            return outcome
        noisy = {
            # Counts stay whole numbers.
            name: float(round(value * math.exp(chance.gauss(0.0, wanted.noise))))
            for name, value in sorted(outcome.counters.items())
        }
        label = f"{outcome.counters.simulator} replayed with noise {wanted.noise:g}"
        counters = Counters(noisy, label, outcome.counters.replacement, outcome.counters.schema_version)
        return replace(outcome, counters=counters)

    def _load(self) -> None:
        """Reads the outcomes once."""
        with self._lock:
            if self._read:
                return
            if self._store is not None:
                self._take(self._store)
            else:
                with open_existing(self.path) as store:
                    self._take(store)
            self._read = True

    def _take(self, store: RecordStore) -> None:
        keys = []
        for simulation in store.simulations(simulator=self._simulator):
            # Only what says something about the candidate, and not what was replayed itself.
            conditions = simulation.conditions
            if simulation.outcome.status is Status.INFRASTRUCTURE or conditions.simulator == self.name:
                continue
            recorded = self._known.setdefault(conditions.content, [])
            # The latest first, but what timed out only where nothing else is known.
            place = len(recorded) if simulation.outcome.status is Status.TIMEOUT else 0
            recorded.insert(place, (frozenset(conditions.count), simulation.outcome))
            self._machines.add(simulation.conditions.machine_digest)
            keys.append(simulation.key)
        self._digest = content_hash(sorted(keys))[:12]


def _timeout(reason: str) -> Outcome:
    return Outcome(Status.TIMEOUT, error=reason)


def content_of(job: SimJob) -> str:
    """What a job that comes without a name is called by: the executable's own content.

    Raises:
        OSError: the executable cannot be read.
    """
    return conditions_of(job).content


def conditions_of(job: SimJob, simulator: str = "", version: str = "") -> Conditions:
    """Conditions under which to store an executable that did not come from the tuner."""
    digest = hashlib.sha256(job.executable.read_bytes()).hexdigest()
    machine = job.machine.digest()
    return Conditions(digest, simulator, version, machine, (job.region, *job.arguments), 0, job.count)


def _from_environment(
    disturbance: Disturbance | None, simulator: str | None
) -> tuple[str, Disturbance, str | None]:
    path, _, query = os.environ.get("SIMTUNE_REPLAY", "").partition("?")
    settings: dict[str, float] = {}
    failures: dict[Status, float] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key == "simulator":
            simulator = text
            continue
        try:
            value = float(text)
            if key in ("noise", "delay", "slowdown", "seed"):
                settings[key] = value
            else:
                failures[Status(key)] = value
        except ValueError:
            raise ConfigurationError(f"SIMTUNE_REPLAY has '{key}={text}'", _EXAMPLE) from None
    if disturbance is None:
        seed = int(settings.pop("seed", 0))
        disturbance = Disturbance(**settings, failures=failures, seed=seed)
    return path or str(default_store_path()), disturbance, simulator
