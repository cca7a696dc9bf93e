# SPDX-License-Identifier: Apache-2.0
"""The process that speaks TVM's RPC for one candidate: ``rpc_client JOB.json REPLY.json``.

TVM 0.27's server stops serving for good when a candidate crashes it, and its client then waits for
ever: an alarm ends this process, and the reply already holds what that means.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from simtune.build.image import Plan, Role, Tensor
from simtune.build.inputs import Array, inputs, numpy_dtype
from simtune.jobs import Status
from simtune.measure.base import Settings, Timing
from simtune.measure.sampling import Draw, Sample, measure

_HUNG = "the session broke during a call: the candidate crashed TVM's server, which may need a restart"


def connect(job: dict[str, Any]) -> Any:
    """A new session, which the server ends by itself when it lasts too long."""
    from tvm import rpc

    timeout = max(1, math.ceil(job["timeout_s"]))
    if job["key"]:
        tracker = rpc.connect_tracker(job["host"], job["port"])
        return tracker.request(job["key"], session_timeout=timeout, max_retry=1)
    return rpc.connect(job["host"], job["port"], session_timeout=timeout)


def probe(job: dict[str, Any]) -> dict[str, Any]:
    """Connects; a board whose runtime has no compiler cannot tell its instruction set."""
    session = connect(job)
    try:
        triple = str(session.get_function("target.llvm_get_system_triple")())
    except Exception:
        triple = ""
    return {"isa": triple.partition("-")[0], "description": f"TVM's RPC server {triple}".strip()}


class Candidate:
    """Runs one candidate in sessions of its own."""

    def __init__(self, job: dict[str, Any], answer: Path) -> None:
        self.job, self.answer = job, answer
        self.tensors = [Tensor(dtype, tuple(shape), Role(role)) for dtype, shape, role in job["tensors"]]
        self.values = inputs(Plan.single(self.tensors), job["seed"], job["constant"])

    def sample(self, draw: Draw) -> Sample:
        """One session: uploads, calls, checks."""
        start = time.monotonic()
        signal.alarm(math.ceil(self.job["timeout_s"] + self.job["patience_s"]))
        self.answer.unlink(missing_ok=True)
        stage = Status.INFRASTRUCTURE
        try:
            session = connect(self.job)
            session.upload(self.job["library"])
            one_thread(session)
            stage = Status.INVALID
            library = session.load_module(Path(self.job["library"]).name)
            arrays = self._arrays(session.cpu(0))
            stage = Status.CRASHED
            self.answer.write_text(json.dumps(asdict(Timing(stage, error=_HUNG))))
            times = self._times(library, session.cpu(0), arrays, draw)
            error = self._check([a.numpy() for a, t in self._outputs(arrays)])
        except Exception as problem:
            return Sample(self._blame(stage, time.monotonic() - start), error=str(problem).strip()[-1000:])
        if error:
            return Sample(Status.WRONG_OUTPUT, error=error)
        return Sample(Status.OK, times)

    def _arrays(self, device: Any) -> list[Any]:
        import tvm

        # The same mark as the harness's: an element that the kernel never writes is no number.
        blank = [
            np.full(t.nbytes, 0xFF, np.uint8).view(numpy_dtype(t)).reshape(t.shape) for t in self.tensors
        ]
        return [tvm.runtime.tensor(self.values.get(i, blank[i]), device) for i in range(len(self.tensors))]

    def _times(self, library: Any, device: Any, arrays: list[Any], draw: Draw) -> tuple[float, ...]:
        def run(number: int, repeat: int) -> Any:
            return library.time_evaluator(self.job["kernel"], device, number=number, repeat=repeat)(*arrays)

        run(draw.warmup, 1)
        return tuple(float(seconds) for seconds in run(draw.number, draw.repeat).results)

    def _outputs(self, arrays: list[Any]) -> list[tuple[Any, Tensor]]:
        pairs = zip(arrays, self.tensors, strict=True)
        return [(array, tensor) for array, tensor in pairs if tensor.role is Role.OUTPUT]

    def _check(self, outputs: list[Array]) -> str:
        """What is wrong with the outputs, by the harness's rule; empty when nothing is."""
        if self.job["expected"] is None:
            return ""
        path, rtol, atol = self.job["expected"]
        data, position = Path(path).read_bytes(), 0
        for output in outputs:
            want = np.frombuffer(data, output.dtype, output.size, position).reshape(output.shape)
            position += output.nbytes
            exact = output.dtype.kind in "iub"
            a, b = (output, want) if exact else (output.astype(np.float64), want.astype(np.float64))
            equal = a == b if exact else np.isclose(a, b, rtol, atol, equal_nan=True)
            if not np.all(equal):
                return f"wrong output: {int(np.sum(~equal))} elements differ from the reference"
        return ""

    def _blame(self, stage: Status, elapsed: float) -> Status:
        """A session that broke during a call is the candidate's fault only if the server lives on."""
        if stage is Status.INFRASTRUCTURE:
            return stage
        try:
            connect(self.job)
        except Exception:
            return Status.INFRASTRUCTURE
        late = elapsed >= self.job["timeout_s"]
        return Status.TIMEOUT if late and stage is Status.CRASHED else stage


def one_thread(session: Any) -> None:
    """Candidates are predicted for one core; a runtime that cannot be told keeps its threads."""
    try:
        any_core = 0
        session.get_function("runtime.config_threadpool")(any_core, 1)
    except Exception:
        return


def main(question: Path, answer: Path) -> None:
    """Reads the job, writes the reply."""
    job = json.loads(question.read_text())
    try:
        if job["verb"] == "probe":
            signal.alarm(math.ceil(job["patience_s"]))
            reply = probe(job)
        else:
            reply = asdict(measure(Candidate(job, answer).sample, Settings(**job["settings"])))
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {str(error).strip()[-1000:]}"}
    signal.alarm(0)
    answer.write_text(json.dumps(reply))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
