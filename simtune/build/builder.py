# SPDX-License-Identifier: Apache-2.0
"""The fast MetaSchedule builder: `builder=simtune.Builder()`."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

from simtune import tvm_setup
from simtune.build.artifact import write_side_file
from simtune.build.job import BuildJob
from simtune.build.kept import keep_module
from simtune.build.pool import BuildPool, BuildReply, BuildRequest
from simtune.execution.base import Executor, run_all
from simtune.execution.capacity import usable_cores
from simtune.execution.scratch import scratch_folder

ms = tvm_setup.load()

# `tvm.ir.utils` is where derived_object lives in the pinned version.
from tvm.ir import save_json  # noqa: E402
from tvm.ir.utils import derived_object  # noqa: E402

#: Between the message of a failed build and the command that repeats it.
AGAIN = "\nagain: "


@derived_object
class Builder(ms.builder.PyBuilder):  # type: ignore[misc, name-defined]
    """Builds candidates in persistent workers that imported TVM once, straight to objects.

    Beside each object lies a small JSON file with the kernel's tensors, so that the runner knows
    outputs and re-packed operands. A candidate that hangs or crashes the compiler becomes a failed
    build and costs one worker, which is forked anew in milliseconds.

    Args:
        workers: how many build at the same time; all usable cores by default.
        timeout_s: wall seconds per candidate.
        memory_bytes: a worker that has grown beyond is replaced.
        keep_failed: folder that keeps modules which could not be built; the error message then ends
            with the command that builds such a module again.
        executor: builds where it runs its jobs, in workers of those machines, whose TVM must be of
            the same version; `workers` and `memory_bytes` then mean nothing. It may serve others as
            well, and is not closed here.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: float = 60.0,
        memory_bytes: int = 1 << 30,
        keep_failed: Path | None = None,
        executor: Executor | None = None,
    ) -> None:
        super().__init__()
        self.keep_failed = keep_failed
        self.wall_s = 0.0
        self.timeout_s = timeout_s
        self.executor = executor
        self.pool = BuildPool(workers or usable_cores(), timeout_s, memory_bytes)
        self.folder = scratch_folder("build")
        # Not __del__: TVM may hold the object beyond the interpreter's life.
        atexit.register(_close, weakref.ref(self))

    def build(self, build_inputs: list[Any]) -> list[Any]:
        """Builds one batch; called by MetaSchedule."""
        start = time.perf_counter()
        self.folder.mkdir(exist_ok=True)
        # One folder per artifact: TVM's clean-up callback removes the parent of the path.
        paths = [Path(tempfile.mkdtemp(dir=self.folder)) / "candidate.o" for _ in build_inputs]
        requests = [
            BuildRequest(save_json(item.mod), json.dumps(_plain_target(item.target)), path)
            for item, path in zip(build_inputs, paths, strict=True)
        ]
        replies = self._remotely(requests, self.executor) if self.executor else self.pool.build(requests)
        results = [self._result(request, reply) for request, reply in zip(requests, replies, strict=True)]
        self.wall_s += time.perf_counter() - start
        return results

    def _remotely(self, requests: list[BuildRequest], executor: Executor) -> list[BuildReply]:
        jobs = [BuildJob(item.module_json, item.target_json, self.timeout_s) for item in requests]
        replies = []
        for request, built in zip(requests, run_all(executor, jobs), strict=True):
            reply = BuildReply(dict(built.info), built.error, built.seconds)
            if not built.error:
                try:
                    request.path.write_bytes(built.code)
                except OSError as error:  # such as a full disk
                    reply = BuildReply({}, f"cannot write the object: {error}", built.seconds)
            replies.append(reply)
        return replies

    def _result(self, request: BuildRequest, reply: BuildReply) -> Any:
        path = request.path
        if reply.error:
            shutil.rmtree(path.parent, ignore_errors=True)
            return ms.builder.BuilderResult(None, f"build: {reply.error}{self._keep(request)}")
        write_side_file(path, {**reply.info, "build_s": reply.seconds})
        return ms.builder.BuilderResult(str(path), None)

    def _keep(self, request: BuildRequest) -> str:
        """TVM hands nothing but a message from a builder to those who store trials."""
        if self.keep_failed is None:
            return ""
        digest = hashlib.sha256((request.module_json + request.target_json).encode()).hexdigest()
        command = keep_module(self.keep_failed, digest[:16], request.module_json, request.target_json)
        return AGAIN + command

    def close(self) -> None:
        """Ends the workers and removes what they built."""
        self.pool.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _plain_target(target: Any) -> dict[str, Any]:
    exported: dict[str, Any] = json.loads(json.dumps(dict(target.export()), default=_plain))
    return exported


def _plain(value: Any) -> Any:
    """TVM's containers as JSON values."""
    if hasattr(value, "items"):
        return dict(value.items())
    return list(value) if hasattr(value, "__iter__") else str(value)


def _close(reference: weakref.ref[Any]) -> None:
    builder = reference()
    if builder is not None:
        builder.close()
