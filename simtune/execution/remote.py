# SPDX-License-Identifier: Apache-2.0
"""The worker's side: runs the jobs of a chunk one after the other, and replies.

Knows no engine but for `perform`, the function that Dask calls.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from simtune.execution.base import PortableJob, Refused, Site
from simtune.execution.blobs import DEFAULT_LIMIT, BlobsMissing, BlobStore
from simtune.execution.confine import offline_by_default
from simtune.execution.scratch import scratch_folder
from simtune.execution.wire import (
    Chunk,
    JobReply,
    PackedJob,
    Reply,
    WireError,
    decode_chunk,
    encode_reply,
    job_class,
)

#: How soon a chunk that the driver gave up, or whose driver is gone, is noticed.
_WATCH_S = 0.2

#: Bytes; a disk with less is full for every practical purpose.
_FULL = 256 << 10

#: Bytes of blobs that a worker keeps, see `BlobStore`.
BLOBS_VARIABLE = "SIMTUNE_WORKER_BLOBS"


class JobRunner:
    """Runs chunks of jobs in this process, any number of them at once in threads of the caller's.

    Args:
        blob_limit: bytes of files to keep between chunks.
    """

    def __init__(self, blob_limit: int = DEFAULT_LIMIT) -> None:
        self.scratch = scratch_folder("worker")
        self._remove_scratch = weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)
        self._blobs = BlobStore(self.scratch / "blobs", blob_limit)
        self._watched: dict[threading.Event, Callable[[], bool]] = {}
        self._lock = threading.Lock()
        self._watching = False
        self._stopped = False

    def perform(self, payload: bytes, given_up: Callable[[], bool] = lambda: False) -> bytes:
        """Runs a chunk and returns the reply, both as in `simtune.execution.wire`. Never raises.

        Args:
            payload: the chunk.
            given_up: asked now and then whether anybody still waits for the reply; if not, what runs
                is stopped.
        """
        cancel = threading.Event()
        with self._lock:
            self._watched[cancel] = given_up
            if self._stopped:
                cancel.set()
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="simtune-watch", daemon=True).start()
        try:
            reply = self._perform(payload, cancel)
            # Nobody reads the reply to a chunk that the driver gave up, so it is the worker that ends.
            return encode_reply(replace(reply, leaving=cancel.is_set()))
        finally:
            with self._lock:
                del self._watched[cancel]

    def busy(self) -> bool:
        """Whether a chunk is being run."""
        with self._lock:
            return bool(self._watched)

    def stop(self) -> None:
        """Tells all jobs that run, and all that still come, to give up."""
        with self._lock:
            self._stopped = True
            for cancel in self._watched:
                cancel.set()

    def close(self) -> None:
        """Removes the scratch folder."""
        self.stop()
        self._remove_scratch()

    def _watch(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            with self._lock:
                watched = list(self._watched.items())
                if not watched:
                    self._watching = False
                    return
            for cancel, given_up in watched:
                if not cancel.is_set() and given_up():
                    cancel.set()

    def _perform(self, payload: bytes, cancel: threading.Event) -> Reply:
        try:
            chunk = decode_chunk(payload)
            digests = {digest for job in chunk.jobs for digest in job.files.values()}
            with self._blobs.holding(digests, chunk.blobs) as paths:
                return Reply(self._run_all(chunk, paths, cancel))
        except Refused as error:
            return Reply(refused=f"{socket.gethostname()}: {error.what}")
        except BlobsMissing as error:
            return Reply(missing=error.digests)
        except (OSError, WireError, ValueError) as error:
            return Reply(trouble=f"{socket.gethostname()}: {error}")

    def _run_all(self, chunk: Chunk, paths: Mapping[str, Path], cancel: threading.Event) -> list[JobReply]:
        replies = []
        for packed in chunk.jobs:
            if cancel.is_set():
                break
            job = job_class(packed.kind)
            files = {name: paths[digest] for name, digest in packed.files.items()}
            start = time.monotonic()
            reply = self._run(job, packed, files, cancel)
            if cancel.is_set():
                break  # it was told to give up, whatever it says
            if reply.transient and not self._blobs.whole(paths):
                raise BlobsMissing(paths.keys())  # the rest of the chunk cannot go on without them either
            replies.append(
                JobReply(packed.ticket, time.monotonic() - start, reply.result, reply.transient, reply.error)
            )
        return replies

    def _run(
        self,
        kind: type[PortableJob[object]],
        packed: PackedJob,
        files: Mapping[str, Path],
        cancel: threading.Event,
    ) -> JobReply:
        self.scratch.mkdir(exist_ok=True)  # somebody may have tidied up the folder for temporary files
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            with offline_by_default():
                result = kind.decode(json.loads(bytes(packed.data)), files).run(Site(folder, cancel))
            # Whatever the job says, without its files and without a disk it could not do otherwise.
            transient = kind.transient(result) or not self._intact(folder, packed)
            return JobReply(packed.ticket, result=kind.encode_result(result), transient=transient)
        except Refused:
            raise
        except Exception as error:
            return JobReply(
                packed.ticket,
                transient=not self._intact(folder, packed) or _is_disk_full(error),
                error=f"{type(error).__name__}: {error}",
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _intact(self, folder: Path, packed: PackedJob) -> bool:
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            return disk.f_bavail * disk.f_frsize >= _FULL and self._blobs.whole(packed.files.values())
        return False


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@functools.cache
def runner() -> JobRunner:
    """The one runner of a worker process."""
    return JobRunner(int(os.environ.get(BLOBS_VARIABLE, DEFAULT_LIMIT)))


def perform(payload: bytes) -> bytes:
    """Runs a chunk as a task of Dask's; stops when the task is released, as when its driver is gone."""
    from distributed import Status, get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def given_up() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state != "executing" or worker.status is not Status.running

    return runner().perform(payload, given_up)
