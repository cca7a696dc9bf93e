# SPDX-License-Identifier: Apache-2.0
"""Times candidates on a board behind ssh: copies the static executable there and runs it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from simtune.errors import InputFileError, SimtuneError
from simtune.execution.scratch import scratch
from simtune.jobs import Status
from simtune.measure import sampling
from simtune.measure.base import Closing, Probe, Program, Settings, Timing
from simtune.measure.conditions import compare, default_core, look
from simtune.measure.host import arguments, limits, link, read_sample, wrong_isa
from simtune.measure.lock import exclusive
from simtune.measure.sampling import Draw, Sample
from simtune.measure.shell import RemoteShell
from simtune.simulators.outcomes import classify

_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


class SshTarget(Closing):
    """A board with a Linux kernel and a shell; neither TVM nor Python is needed there.

    Args:
        address, port, folder, config: see `RemoteShell`.
        name: in the records.
    """

    def __init__(
        self,
        address: str,
        port: int | None = None,
        folder: str = "/tmp",
        *,
        name: str = "",
        config: Path | None = None,
    ) -> None:
        self.name = name or f"ssh:{address}" + (f":{port}" if port else "")
        self._shell = RemoteShell(address, port, folder, config)
        self._isa = ""
        self._uploaded: set[str] = set()

    def probe(self) -> Probe:
        """See `Target.probe`."""
        try:
            self._connect()
            isa, _, release = self._shell.ask("uname -m; uname -r").decode(errors="replace").partition("\n")
        except (SimtuneError, OSError) as error:
            return Probe(False, reason=str(error), fix=f"check that 'ssh {self._shell.address} uname' works")
        self._isa = _ALIASES.get(isa.strip(), isa.strip())
        return Probe(True, self._isa, f"{self._shell.address}, {release.strip()}")

    def measure(self, program: Program, settings: Settings, cancel: threading.Event | None = None) -> Timing:
        """See `Target.measure`."""
        foreign = wrong_isa(program, self._isa, self.name)
        if foreign is not None:
            return foreign
        with scratch("measure") as folder:
            try:
                executable = link(program, folder)
                with exclusive(self.name):
                    return self._measure(executable, program, settings, cancel)
            except (SimtuneError, OSError) as error:
                status = Status.INVALID if isinstance(error, InputFileError) else Status.INFRASTRUCTURE
                return Timing(status, error=str(error))

    def close(self) -> None:
        """Ends the connection and removes what was copied."""
        self._shell.close()

    def _measure(
        self, executable: Path, program: Program, settings: Settings, cancel: threading.Event | None
    ) -> Timing:
        self._connect()
        self._shell.upload(executable, "candidate.elf", "700")
        expected = ""
        if program.expected is not None:
            expected = f"{program.expected.digest[:32]}.expected"
            if expected not in self._uploaded:
                self._shell.upload(program.expected.path, expected)
                self._uploaded.add(expected)
        core = default_core(self._read) if settings.core is None else settings.core

        def sample(draw: Draw) -> Sample:
            argv = ("./candidate.elf", *arguments(program, draw, core, expected))
            done = self._shell.execute(argv, limits(settings), cancel)
            status, reason = classify(done, limits(settings))
            return read_sample(status, reason, done.stdout, done.stderr, draw)

        before = look(self._read, core)
        timing = sampling.measure(sample, settings)
        facts, notes = compare(before, look(self._read, core))
        return replace(timing, conditions={**timing.conditions, **facts}, notes=(*timing.notes, *notes))

    def _connect(self) -> None:
        if self._shell.connect():
            self._uploaded.clear()  # a new connection has a new folder

    def _read(self, paths: tuple[str, ...]) -> Mapping[str, str]:
        script = f'for f in {" ".join(paths)}; do [ -r "$f" ] && echo "==$f" && cat "$f"; done; true'
        texts: dict[str, str] = {}
        for part in self._shell.ask(script).decode(errors="replace").split("==/")[1:]:
            path, _, text = part.partition("\n")
            texts[f"/{path}"] = text
        return texts
