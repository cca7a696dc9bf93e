# SPDX-License-Identifier: Apache-2.0
"""Keeps failed candidates with all that their runs depend on, and the commands that repeat them."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simtune.build.artifact import side_file
from simtune.build.expectation import Expectation
from simtune.build.kept import keep_folder
from simtune.candidates import Candidate
from simtune.errors import MachineFileError
from simtune.jobs import Limits
from simtune.machines.dump import as_toml
from simtune.machines.load import load_machine
from simtune.machines.model import Machine


@dataclass(frozen=True)
class Keeper:
    """The settings that all candidates of an evaluator share; see there."""

    machine: Machine
    simulator: str
    limits: Limits
    models: Sequence[str]
    seed: int
    warmup: int

    def keep(
        self,
        root: Path,
        candidate: Candidate,
        digest: str,
        expected: Expectation | None,
        constant: bool = False,
        instruction_limit: int | None = None,
    ) -> str:
        """Copies a candidate below `root`; returns the shell command that repeats its run.

        Args:
            digest: names the candidate's folder.
        """
        folder = keep_folder(root, digest[:16])
        kept = folder / candidate.path.name
        shutil.copy(candidate.path, kept)
        if not candidate.executable and side_file(candidate.path).exists():
            shutil.copy(side_file(candidate.path), side_file(kept))
        if expected is not None:
            copy = shutil.copy(expected.path, folder / f"{expected.digest[:16]}.expected")
            expected = replace(expected, path=Path(copy))
        machine = self._machine_name(folder)
        moved = replace(candidate, path=kept)
        return self.command(moved, machine, expected, constant, instruction_limit)

    def command(
        self,
        candidate: Candidate,
        machine: str,
        expected: Expectation | None = None,
        constant: bool = False,
        instruction_limit: int | None = None,
    ) -> str:
        """The shell command that runs a candidate again from the files where they are.

        Args:
            machine: what names the machine on a command line.
        """
        times = [bound for bound in (self.limits.wall_s, self.limits.cpu_s) if bound is not None]
        memory = self.limits.memory_bytes
        options: dict[str, object] = {
            "--machine": machine,
            "--simulator": self.simulator,
            "--seed": self.seed,
            "--warmup": self.warmup or None,
            "--timeout": min(times, default=None),
            "--memory": None if memory is None else memory / 2**20,
            "--max-instructions": instruction_limit,
        }
        if candidate.executable:
            for name in ("--seed", "--warmup"):
                del options[name]
        elif candidate.signature and not side_file(candidate.path).exists():
            options["--args"] = ",".join(map(str, candidate.signature))
        if expected is not None:
            options |= {"--expect": expected.path, "--rtol": expected.rtol, "--atol": expected.atol}
            constant = expected.constant
        command = ["simtune", "simulate", str(candidate.path), *(["--constant"] if constant else [])]
        for name, value in options.items():
            command += [] if value is None else [name, str(value)]
        for model in self.models:
            command += ["--count", model]
        if candidate.arguments:
            command += ["--", *candidate.arguments]
        return shlex.join(command)

    def _machine_name(self, folder: Path) -> str:
        """What names this machine on a command line; one that has no name is written into `folder`."""
        with contextlib.suppress(MachineFileError):
            if load_machine(self.machine.name).digest() == self.machine.digest():
                return self.machine.name
        path = folder / "machine.toml"
        path.write_text(as_toml(self.machine))
        return str(path)
