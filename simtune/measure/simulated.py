# SPDX-License-Identifier: Apache-2.0
"""Times candidates in a detailed simulator when there is no board: cycles of the model over the clock."""

from __future__ import annotations

import threading
import time

from simtune.errors import InputFileError, SimtuneError
from simtune.execution.scratch import scratch
from simtune.jobs import Limits, SimJob, Status
from simtune.machines.load import load_machine
from simtune.measure.base import Closing, Probe, Program, Settings, Timing
from simtune.measure.host import link, wrong_isa
from simtune.simulators.base import get_simulator

#: A detailed model needs minutes where hardware needs milliseconds.
_TIMEOUT_S = 3600.0


class SimulatedTarget(Closing):
    """A simulator that counts cycles, such as gem5's Minor or O3, in the place of a board.

    Args:
        simulator: adapter name, such as ``gem5-o3``.
        machine: name or path of the machine that is simulated.
        name: as the user wrote it.

    Raises:
        ConfigurationError: no such simulator or machine.
    """

    def __init__(self, simulator: str, machine: str, name: str) -> None:
        self.name = name
        self._simulator, self._machine = get_simulator(simulator), load_machine(machine)

    def probe(self) -> Probe:
        """See `Target.probe`."""
        capability, isa = self._simulator.probe(self._machine), self._machine.isa.name
        if capability.available and "cycles" not in capability.counters:
            reason = f"{self._simulator.name} counts no cycles"
            return Probe(False, isa, reason=reason, fix="take gem5-timing, gem5-minor or gem5-o3")
        description = f"{self._simulator.name} {capability.version} as {self._machine.name}"
        return Probe(capability.available, isa, description, capability.reason, capability.fix)

    def measure(self, program: Program, settings: Settings, cancel: threading.Event | None = None) -> Timing:
        """Simulates one call after a warm-up call; a deterministic model needs no repeats."""
        foreign = wrong_isa(program, self._machine.isa.name, self.name)
        if foreign is not None:
            return foreign
        # Warm caches, as when measuring on hardware.
        arguments = ["--seed", str(program.seed), "--warmup", "1", "--flush", "0"]
        arguments += ["--constant"] if program.constant else []
        if program.expected is not None:
            arguments += ["--expect", str(program.expected.path)]
            arguments += ["--rtol", repr(program.expected.rtol), "--atol", repr(program.expected.atol)]
        bounds = Limits(_TIMEOUT_S, _TIMEOUT_S, settings.memory_bytes)
        start = time.perf_counter()
        with scratch("measure") as folder:
            try:
                executable = link(program, folder)
            except (SimtuneError, OSError) as error:
                status = Status.INVALID if isinstance(error, InputFileError) else Status.INFRASTRUCTURE
                return Timing(status, error=str(error))
            job = SimJob(executable, self._machine, tuple(arguments), bounds, scratch=folder)
            outcome = self._simulator.run(job, cancel)
        wall_s = time.perf_counter() - start
        if not outcome.ok or outcome.counters is None:
            return Timing(outcome.status, error=outcome.error, wall_s=wall_s)
        if "cycles" not in outcome.counters:
            return Timing(Status.INFRASTRUCTURE, error=f"{self._simulator.name} counted no cycles")
        facts = {"simulator": outcome.counters.simulator, "machine": self._machine.digest()}
        seconds = outcome.counters["cycles"] / self._machine.clock_hz
        return Timing(Status.OK, (seconds,), facts, wall_s=wall_s)
