# SPDX-License-Identifier: Apache-2.0
"""Runs executables in QEMU's system mode, where user mode takes no plugins.

The executable is joined with simtune's monitor (`simulators/bare/`), which stands where Linux would, and
runs on QEMU's board "virt". The plugin is the one of user mode and sees the same addresses, so the
counts of a region that makes no system calls are the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simtune.errors import SimtuneError
from simtune.jobs import SimJob
from simtune.machines.model import Machine
from simtune.simulators import bare
from simtune.simulators.base import Capability
from simtune.simulators.ending import refuse_unmarked, reproducer
from simtune.simulators.locate import find_program
from simtune.simulators.qemu import QemuSimulator, cpu_option

_INSTALL = "sudo apt-get install --no-install-recommends qemu-system-misc qemu-system-arm"
_BOARD = {"riscv64": ("-bios", "none"), "aarch64": ()}


class QemuSystemSimulator(QemuSimulator):
    """QEMU system mode with simtune's plugin and monitor.

    Args:
        path: folder of the `qemu-system-<isa>` programs; by default `SIMTUNE_QEMU_SYSTEM_<ISA>`, PATH.
        plugin: a compiled plugin; by default it is built for the QEMU that is found.
    """

    name = "qemu-system"

    def probe(self, machine: Machine | None = None) -> Capability:
        """Says which instruction sets work, or whether one machine does; see `Simulator.probe`."""
        capability = super().probe(machine)
        if not capability.available:
            fix = _INSTALL if "not installed" in capability.reason else "use --simulator qemu"
            return replace(capability, fix=fix)
        digests: dict[str, str] = {}
        error: SimtuneError | None = None
        for isa in capability.isas:
            try:
                # The monitor decides about results as much as QEMU does.
                digests[isa] = bare.monitor(isa, "semihosting").stem.rpartition("-")[2][:8]
            except SimtuneError as problem:
                error = problem
        if error is not None and not digests:
            return replace(
                capability, available=False, isas=(), counters=frozenset(), reason=error.what, fix=error.hint
            )
        version = "+".join((capability.version, *digests.values()))
        return replace(capability, version=version, isas=tuple(digests))

    def _command(self, job: SimJob, program: str, plugin: tuple[str, ...], scratch: Path) -> tuple[str, ...]:
        refuse_unmarked(job, self.name)
        isa = job.machine.isa.name
        base = bare.monitor(isa, "semihosting").read_bytes()
        image = scratch / "image.elf"
        image.write_bytes(bare.join(job.executable.read_bytes(), base, job.arguments))
        return (
            *(program, "-machine", "virt,memory-backend=ram", *_BOARD[isa]),
            # Not reserved: what is never touched need not be there.
            *("-object", f"memory-backend-ram,id=ram,size={bare.MEMORY_MIB}M,reserve=off"),
            *(cpu_option(job.machine) or ("-cpu", "max")),
            *("-m", str(bare.MEMORY_MIB), "-kernel", image.name, "-nodefaults", "-no-reboot"),
            *("-display", "none", "-serial", "none", "-monitor", "none"),
            *("-accel", "tcg,thread=single", "-semihosting-config", "enable=on,target=native"),
            *plugin,
        )

    def _reproducer(self, job: SimJob, argv: Sequence[str], config: str) -> str:
        del argv, config  # the image is gone by then
        return reproducer(job, self.name)

    def _state(self, isa: str) -> tuple[str, str, str]:
        if isa not in bare.MONITORS:
            return "", "", f"there is no bare-metal monitor for {isa}"
        program, version, reason = super()._state(isa)
        return program, version, reason.replace(f"qemu-{isa}", f"qemu-system-{isa}")

    def _find(self, isa: str) -> str:
        name = f"qemu-system-{isa}"
        if self._path is not None:
            candidate = self._path / name
            return str(candidate) if os.access(candidate, os.X_OK) else ""
        return find_program(name, (name,), _INSTALL).path
