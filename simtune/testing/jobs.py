# SPDX-License-Identifier: Apache-2.0
"""A job that computes nothing: for tests of executors, fault injection, and benchmarks.

Its result follows from its number alone, so a run with faults can be compared with one without.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from simtune.errors import ConfigurationError
from simtune.execution.base import PortableJob, Refused, Site
from simtune.execution.supervise import Command, Completed, run
from simtune.jobs import Limits

#: Scripts that run as a process under the supervisor, by mode; `processes_of` finds what they start.
_SCRIPTS = {
    "process": "sleep {seconds}",
    "hang": "trap '' TERM; while :; do sleep 1000.{number}; done",
    "orphans": "trap '' TERM; (setsid sh -c 'sleep 1000.{number} & wait' &); (sleep 1000.{number} &); exit 0",
    "flood": "while :; do echo 0123456789012345678901234567890123456789; done",
    "big_file": "head -c 64M /dev/zero > big",
    "crash": "kill -SEGV $$",
    "devices": "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n' >&2; exit 1",
}
#: What a fake job may do, see `FakeJob`.
MODES = ("ok", "fail", "raise", "transient", "refuse", "poison", *_SCRIPTS)


@dataclass(frozen=True)
class FakeResult:
    """What became of a fake job.

    Attributes:
        number: of the job.
        value: follows from the number.
        status: "ok", "failed", "transient", "lost" (see `reason`), or "cancelled".
        reason: free text; no part of what is compared.
    """

    number: int
    value: str
    status: str = "ok"
    reason: str = field(default="", compare=False)


@dataclass(frozen=True)
class FakeJob(PortableJob[FakeResult]):
    """Takes some time and ends in a way of one's choice.

    Attributes:
        number: what its result follows from.
        seconds: how long it takes.
        does: "ok"; "fail" (a result that says so); "raise" (an exception, which a job must not);
            "transient" (the machine is at fault); "refuse" (this machine cannot run it); "poison"
            (kills the process that runs it); or as a process under the supervisor: "process" (sleeps),
            "hang" (ignores TERM), "orphans" (leaves processes behind), "flood" (of output),
            "big_file", "crash", "devices" (fails, and names its network devices).
        times: it does so at its first so many runs, and is "ok" afterwards; needs `state`.
        state: a folder on all machines where every run leaves a line.
        spin: keeps a core busy instead of sleeping.
        weight: its `length`.
        file: is read, and becomes a part of the result's value.
        limits: of the process.
    """

    number: int
    seconds: float = 0.0
    does: str = "ok"
    times: int = 1 << 30
    state: Path | None = None
    spin: bool = False
    weight: float = 0.0
    file: Path | None = None
    limits: Limits = Limits(wall_s=60.0, cpu_s=60.0)

    def __post_init__(self) -> None:
        if self.does not in MODES:
            raise ConfigurationError(f"a fake job cannot do '{self.does}'", f"known: {', '.join(MODES)}")

    @property
    def length(self) -> float:
        return self.weight

    def run(self, site: Site) -> FakeResult:
        """Does what it is told to."""
        does = self.does if self._note() < self.times else "ok"
        if does == "raise":
            raise ValueError(f"fake job {self.number} raises")
        if does == "refuse":
            raise Refused(f"fake job {self.number} runs nowhere", "ask for another mode")
        if does in _SCRIPTS:
            return self._process(does, site)
        self._pass_time(site)
        if site.cancel.is_set():
            return self._result("cancelled")
        if does == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return self._result({"fail": "failed", "transient": "transient"}.get(does, "ok"))

    def runs(self) -> int:
        """How often it was run so far, anywhere; needs `state`."""
        assert self.state is not None
        path = self.state / str(self.number)
        return path.stat().st_size if path.exists() else 0

    def _note(self) -> int:
        """Notes this run, and returns how many there were before."""
        if self.state is None:
            return 0
        with open(self.state / str(self.number), "ab") as file:
            file.write(b".")
            return file.tell() - 1

    def _pass_time(self, site: Site) -> None:
        if self.spin:
            end = time.monotonic() + self.seconds
            while time.monotonic() < end and not site.cancel.is_set():
                pass
        elif self.seconds:
            site.cancel.wait(self.seconds)

    def _process(self, does: str, site: Site) -> FakeResult:
        script = _SCRIPTS[does].format(seconds=self.seconds, number=_name(self.number))
        done: Completed = run(
            Command(("sh", "-c", script, _name(self.number)), cwd=site.folder, limits=self.limits),
            site.cancel,
        )
        if site.cancel.is_set():
            return self._result("cancelled")
        return self._result("ok" if done.ok else "failed", f"{done.ending} {done.stderr[-200:]!r}")

    def _result(self, status: str, reason: str = "") -> FakeResult:
        content = self.file.read_bytes() if self.file is not None else b""
        value = hashlib.sha256(b"%d %b" % (self.number, content)).hexdigest()[:16]
        return FakeResult(self.number, value, status, reason)

    # ---- on the way to another machine ------------------------------------------------------

    def files(self) -> Mapping[str, Path]:
        return {} if self.file is None else {"file": self.file}

    def encode(self) -> dict[str, Any]:
        limits = self.limits
        return {
            "number": self.number,
            "seconds": self.seconds,
            "does": self.does,
            "times": self.times,
            "state": str(self.state) if self.state else None,
            "spin": self.spin,
            "weight": self.weight,
            "limits": [
                limits.wall_s,
                limits.cpu_s,
                limits.memory_bytes,
                limits.output_bytes,
                limits.file_bytes,
            ],
        }

    @classmethod
    def decode(cls, data: Mapping[str, Any], files: Mapping[str, Path]) -> Self:
        return cls(
            **{
                **data,
                "state": Path(data["state"]) if data["state"] else None,
                "limits": Limits(*data["limits"]),
                "file": files.get("file"),
            }
        )

    @classmethod
    def encode_result(cls, result: FakeResult) -> dict[str, Any]:
        return {"of": [result.number, result.value, result.status, result.reason]}

    @classmethod
    def decode_result(cls, data: Mapping[str, Any]) -> FakeResult:
        return FakeResult(*data["of"])

    @classmethod
    def transient(cls, result: FakeResult) -> bool:
        return result.status == "transient"

    def failed(self, reason: str) -> FakeResult:
        return FakeResult(self.number, "", "lost", reason)


def processes_of(number: int) -> list[int]:
    """Process ids on this machine of what the fake job of that number has started and left."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if _name(number).encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue  # it ended meanwhile
    return found


def _name(number: int) -> str:
    """Digits that can be a fraction of seconds, and stand out among all processes."""
    return f"5117{number:012d}7115"
