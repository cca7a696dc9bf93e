# SPDX-License-Identifier: Apache-2.0
"""What travels between a driver and its workers: a chunk of jobs there, a reply back.

Both are bytes: a mark, the length of a JSON head, the head, and what it gives the sizes of: the jobs
as JSON, and files. Nothing is pickled, and what a worker imports to run a job is bounded: a module of
simtune, or one that a package on the worker registers under the entry-point group ``simtune.jobs``.
"""

from __future__ import annotations

import functools
import importlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import simtune
from simtune.errors import ConfigurationError, SimtuneError
from simtune.execution.base import PortableJob, Refused

#: Changes with what is below; driver and worker must agree on it, and on simtune's version.
PROTOCOL = 1
ENTRY_POINT_GROUP = "simtune.jobs"

_MARK = b"simtune\n"
_HEAD = struct.Struct(">8sI")


class WireError(SimtuneError):
    """What arrived is not what this simtune sends."""


@dataclass(frozen=True)
class PackedJob:
    """A job on its way.

    Attributes:
        ticket: the driver's number for it.
        kind: its class, as "module:Class".
        files: digest by the name that the job gives the file.
        data: the rest, as JSON.
    """

    ticket: int
    kind: str
    files: Mapping[str, str]
    data: bytes | memoryview


@dataclass(frozen=True)
class Chunk:
    """Jobs that one worker runs one after the other, and the files that it does not have yet."""

    jobs: Sequence[PackedJob]
    blobs: Mapping[str, bytes | memoryview] = field(default_factory=dict)


@dataclass(frozen=True)
class JobReply:
    """What became of one job.

    Attributes:
        seconds: wall time that it took.
        result: by `PortableJob.encode_result`; None when `run` raised.
        transient: the worker is at fault rather than the job.
        error: what `run` raised, which it should not.
    """

    ticket: int
    seconds: float = 0.0
    result: Mapping[str, Any] | None = None
    transient: bool = False
    error: str = ""


@dataclass(frozen=True)
class Reply:
    """A worker's answer to a chunk.

    Attributes:
        jobs: the jobs that came to an end; others have to be run again.
        missing: digests of files that the worker does not have; nothing has run.
        refused: why this worker can run no such job.
        trouble: why the worker could do nothing now, such as a full disk.
        leaving: the worker was told to leave; jobs without a reply had no part in that.
    """

    jobs: Sequence[JobReply] = ()
    missing: Sequence[str] = ()
    refused: str = ""
    trouble: str = ""
    leaving: bool = False


def kind_of(job: PortableJob[Any]) -> str:
    """The name of a job's class, by which a worker finds it.

    Raises:
        ConfigurationError: a worker would not find it, or may not import it.
    """
    return _kind_of_class(type(job))


@functools.cache
def _kind_of_class(cls: type[PortableJob[Any]]) -> str:
    kind = f"{cls.__module__}:{cls.__qualname__}"
    try:
        found = job_class(kind)
    except Refused as error:
        raise ConfigurationError(f"job {kind} cannot travel: {error.what}", error.hint) from None
    if found is not cls:
        raise ConfigurationError(f"job {kind} cannot travel: its name stands for something else")
    return kind


@functools.lru_cache(maxsize=64)
def job_class(kind: str) -> type[PortableJob[Any]]:
    """The class of that name.

    Raises:
        Refused: it is not one of simtune or of a registered package, or not here.
    """
    module, _, name = kind.partition(":")
    if module.partition(".")[0] != "simtune" and kind not in _registered():
        raise Refused(
            f"{kind} is not among the jobs that this machine may run",
            f"register it under the entry points '{ENTRY_POINT_GROUP}' there",
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Refused(f"{kind} is not there: {error}", "install the same packages on all machines") from None
    if not (isinstance(found, type) and issubclass(found, PortableJob)):
        raise Refused(f"{kind} is not a job that can travel", "derive it from PortableJob")
    return found


def _registered() -> set[str]:
    return {entry.value for entry in entry_points(group=ENTRY_POINT_GROUP)}


def encode_chunk(chunk: Chunk) -> bytes:
    """The chunk as bytes, with this simtune's version."""
    kinds = dict.fromkeys(job.kind for job in chunk.jobs)
    index = {kind: number for number, kind in enumerate(kinds)}
    head = {
        "kinds": list(kinds),
        "jobs": [[job.ticket, index[job.kind], job.files, len(job.data)] for job in chunk.jobs],
        "blobs": [[digest, len(content)] for digest, content in chunk.blobs.items()],
    }
    return _frame(head, (*(job.data for job in chunk.jobs), *chunk.blobs.values()))


def decode_chunk(payload: bytes) -> Chunk:
    """The chunk that `encode_chunk` made, maybe on another machine.

    Raises:
        Refused: it is from another version of simtune.
        WireError: it is damaged.
    """
    head, rest = _open(payload)
    if (head.get("protocol"), head.get("simtune")) != (PROTOCOL, simtune.__version__):
        raise Refused(
            f"the driver is simtune {head.get('simtune')} (protocol {head.get('protocol')}), "
            f"the worker is simtune {simtune.__version__} (protocol {PROTOCOL})",
            "install the same version on both machines",
        )
    try:
        kinds = head["kinds"]
        jobs = []
        for ticket, kind, files, size in head["jobs"]:
            jobs.append(PackedJob(ticket, kinds[kind], files, rest[:size]))
            rest = rest[size:]
        blobs = {}
        for digest, size in head["blobs"]:
            blobs[digest], rest = rest[:size], rest[size:]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise WireError(f"a chunk of {len(payload)} bytes is damaged: {error!r}") from None
    return Chunk(jobs, blobs)


def encode_reply(reply: Reply) -> bytes:
    """The reply as bytes."""
    head = {
        "jobs": [[job.ticket, job.seconds, job.result, job.transient, job.error] for job in reply.jobs],
        "missing": list(reply.missing),
        "refused": reply.refused,
        "trouble": reply.trouble,
        "leaving": reply.leaving,
    }
    return _frame(head, ())


def decode_reply(payload: bytes) -> Reply:
    """The reply that `encode_reply` made.

    Raises:
        WireError: it is damaged.
    """
    head, _ = _open(payload)
    if head.get("refused"):
        return Reply(refused=str(head["refused"]))  # maybe from another version
    try:
        jobs = [
            JobReply(
                int(ticket), float(seconds), None if result is None else dict(result), bool(again), str(why)
            )
            for ticket, seconds, result, again, why in head["jobs"]
        ]
        return Reply(
            jobs, tuple(head["missing"]), str(head["refused"]), str(head["trouble"]), bool(head["leaving"])
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WireError(f"a reply of {len(payload)} bytes is damaged: {error!r}") from None


def _frame(head: dict[str, Any], parts: Iterable[bytes | memoryview]) -> bytes:
    whole = {"protocol": PROTOCOL, "simtune": simtune.__version__, **head}
    text = json.dumps(whole, separators=(",", ":")).encode()
    return b"".join((_HEAD.pack(_MARK, len(text)), text, *parts))


def _open(payload: bytes) -> tuple[dict[str, Any], memoryview]:
    view = memoryview(payload)
    try:
        mark, length = _HEAD.unpack_from(view)
        head = json.loads(bytes(view[_HEAD.size : _HEAD.size + length]))
    except (struct.error, ValueError, RecursionError) as error:
        raise WireError(f"{len(view)} bytes are no message of simtune: {error}") from None
    if mark != _MARK or not isinstance(head, dict):
        raise WireError(f"{len(view)} bytes are no message of simtune")
    return head, view[_HEAD.size + length :]
