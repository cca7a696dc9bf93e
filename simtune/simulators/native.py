# SPDX-License-Identifier: Apache-2.0
"""Runs executables on this host, when it has their instruction set: output only, no counters."""

from __future__ import annotations

import platform
import shlex
import threading

from simtune.errors import SimtuneError
from simtune.execution.supervise import Command, run
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import Machine
from simtune.simulators.base import Capability
from simtune.simulators.outcomes import classify, error_text, harness_output


class NativeSimulator:
    """The host's own processor in the place of a simulator, to check answers and to time them."""

    name = "native"

    def probe(self, machine: Machine | None = None) -> Capability:
        """Available for machines of the host's instruction set."""
        isa = platform.machine()
        if machine is not None and machine.isa.name != isa:
            reason = f"this host is {isa}, {machine.name} is {machine.isa.name}"
            return Capability(False, isas=(isa,), reason=reason, fix=f"choose a machine that is {isa}")
        return Capability(True, version=platform.release(), isas=(isa,))

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Runs one job; see `Simulator.run`. Counters are always None."""
        capability = self.probe(job.machine)
        if not capability.available:
            return Outcome(Status.INFRASTRUCTURE, error=capability.reason)
        argv = (str(job.executable.absolute()), *job.arguments)
        try:
            done = run(Command(argv, env={}, cwd=job.scratch, limits=job.limits), cancel)
        except (SimtuneError, OSError) as error:
            return Outcome(Status.INFRASTRUCTURE, error=str(error))
        status, reason = classify(done, job.limits)
        return Outcome(
            status=status,
            stage="check" if status is Status.WRONG_OUTPUT else "simulate",
            output=harness_output(done.stdout),
            error="" if status is Status.OK else error_text(reason, done.stderr),
            command=f"env -i {shlex.join(argv)}",
            wall_s=done.wall_s,
            cpu_s=done.cpu_s,
            peak_rss=done.peak_rss,
        )
