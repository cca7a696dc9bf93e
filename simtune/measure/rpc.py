# SPDX-License-Identifier: Apache-2.0
"""Times candidates on a board that runs TVM's RPC server, directly or through a tracker.

TVM's client blocks for ever when a board hangs, so it lives in a supervised process of its own
(`simtune.measure.rpc_client`), one per candidate.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simtune.build.link import LinkFailed
from simtune.build.toolchain import find
from simtune.errors import InputFileError, SimtuneError
from simtune.execution.scratch import scratch
from simtune.execution.supervise import Command, run
from simtune.jobs import Limits, Status
from simtune.measure.base import Closing, Probe, Program, Settings, Timing
from simtune.measure.host import wrong_isa
from simtune.measure.lock import exclusive

#: Seconds for the client to start, on a busy computer.
_START_S = 60.0


class RpcTarget(Closing):
    """A board behind TVM's RPC.

    The library that is uploaded has the candidate's code; TVM's runtime on the board calls it, in one
    thread. Each "process" of the settings is a new session, which TVM's server serves in a new process.

    Args:
        host, port: of the server, or of the tracker.
        key: under which the tracker knows the boards; empty connects to a server.
        name: in the records.
        patience_s: seconds for a connection, an upload and the check, beside the candidate's own time.
    """

    def __init__(
        self, host: str, port: int, key: str = "", *, name: str = "", patience_s: float = 20.0
    ) -> None:
        self.name = name or f"rpc:{host}:{port}" + (f"/{key}" if key else "")
        self._server = {"host": host, "port": port, "key": key}
        self._isa, self._patience_s = "", patience_s

    def probe(self) -> Probe:
        """See `Target.probe`."""
        if find_spec("tornado") is None:
            return Probe(
                False, reason="TVM's RPC needs the package tornado", fix="pip install 'simtune[rpc]'"
            )
        with scratch("rpc") as folder:
            reply = self._ask({"verb": "probe", "timeout_s": self._patience_s}, folder, self._wall_s(0.0))
        if "error" in reply:
            fix = "(re)start 'python -m tvm.exec.rpc_server --host 0.0.0.0' there, and check address and key"
            return Probe(False, reason=str(reply["error"]), fix=fix)
        self._isa = str(reply["isa"])
        return Probe(True, self._isa, str(reply["description"]))

    def measure(self, program: Program, settings: Settings, cancel: threading.Event | None = None) -> Timing:
        """See `Target.measure`."""
        foreign = wrong_isa(program, self._isa, self.name)
        if foreign is not None:
            return foreign
        with scratch("rpc") as folder:
            try:
                library = shared_library(program, folder)
                with exclusive(self.name):
                    reply = self._ask(
                        _job(program, library, settings),
                        folder,
                        self._wall_s(_seconds(settings)),
                        cancel,
                    )
            except (SimtuneError, OSError) as error:
                status = Status.INVALID if isinstance(error, InputFileError) else Status.INFRASTRUCTURE
                return Timing(status, error=str(error))
        if "status" not in reply:
            return Timing(Status.INFRASTRUCTURE, error=str(reply["error"]))
        return Timing(
            Status(reply["status"]),
            tuple(reply["seconds"]),
            reply["conditions"],
            tuple(reply["notes"]),
            reply["error"],
            reply["wall_s"],
        )

    def _wall_s(self, candidate_s: float) -> float:
        """A bound for the client as a whole; its own alarm ends each session much earlier."""
        return _START_S + 10 * self._patience_s + candidate_s

    def _ask(
        self,
        job: dict[str, Any],
        folder: Path,
        wall_s: float,
        cancel: threading.Event | None = None,
    ) -> dict[str, Any]:
        """The client's reply; one with nothing but an error when it gave none."""
        question, answer = folder / "job.json", folder / "reply.json"
        question.write_text(json.dumps({**self._server, "patience_s": self._patience_s, **job}))
        argv = (sys.executable, "-m", "simtune.measure.rpc_client", str(question), str(answer))
        done = run(Command(argv, limits=Limits(wall_s, None, None), confined=False), cancel)
        try:
            reply: dict[str, Any] = json.loads(answer.read_text())
            return reply
        except (OSError, ValueError):
            tail = done.stderr.decode(errors="replace").strip()[-1000:]
            how = "it does not answer; restart it" if done.signal == signal.SIGALRM else str(done.ending)
            return {"error": f"no result from TVM's server: {how} {tail}".rstrip()}


def shared_library(program: Program, folder: Path) -> Path:
    """The candidate's code as a library that TVM's runtime loads.

    Raises:
        LinkFailed: the linker refuses the objects.
        ToolMissingError: no compiler for the instruction set.
    """
    library = folder / "candidate.so"
    objects = map(str, program.artifact.objects)
    command = [find(program.artifact.isa).cc, "-shared", *objects, "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise LinkFailed(f"no library can be made of the candidate: {done.stderr.strip()[-1000:]}")
    return library


def _job(program: Program, library: Path, settings: Settings) -> dict[str, Any]:
    (step,) = program.plan.steps
    expected = program.expected
    return {
        "verb": "measure",
        "library": str(library),
        "kernel": step.kernel,
        "tensors": [[t.dtype, list(t.shape), int(t.role)] for t in program.plan.tensors],
        "seed": program.seed,
        "constant": program.constant,
        "expected": [str(expected.path), expected.rtol, expected.atol] if expected else None,
        "settings": settings.as_dict(),
        "timeout_s": settings.timeout_s,
    }


def _seconds(settings: Settings) -> float:
    processes = settings.max_processes + 1  # one to calibrate
    return processes * (settings.timeout_s + settings.cooldown_s)
