# SPDX-License-Identifier: Apache-2.0
"""What names a job: its content, so that a moved or copied file is no new job."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simtune.build.artifact import side_file
from simtune.records.model import canonical_json, content_hash

#: A file that was written within the last seconds may be written again without a new time stamp.
_SETTLED_S = 2.0


class Digests:
    """Contents of files, each read once: a state of a file on its disk is remembered with its digest.

    The state is device, inode, size and the times of the last change of content and of the inode, of
    the file and of its side file. No program can write into a file and leave all of that as it was,
    but within the resolution of the clock; so a file's state is only trusted when it is older.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, state: str, digest: str) -> None:
        """Notes what a sitting before this one found out."""
        self._known[bytes.fromhex(state)] = bytes.fromhex(digest)

    def digest(self, path: str) -> tuple[str, str]:
        """Digest of the file with its tensors, and the state to remember it by, empty when unsafe.

        Raises:
            OSError: the file cannot be read.
        """
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe might never answer
            raise OSError(errno.EINVAL, "it is no regular file")
        try:
            beside: os.stat_result | None = os.stat(side_file(Path(path)))
        except OSError:
            beside = None
        state = _state(status, beside)
        known = self._known.get(bytes.fromhex(state))
        if known is not None:
            return known.hex(), state
        newest = max(max(s.st_mtime, s.st_ctime) for s in (status, beside) if s is not None)
        settled = newest < time.time() - _SETTLED_S
        found = _content(Path(path), beside is not None)
        if not settled:
            return found.hex(), ""
        self._known[bytes.fromhex(state)] = found
        return found.hex(), state


def file_candidate(digest: str, arguments: Sequence[str]) -> str:
    """The name of a file with these arguments among the candidates of a run."""
    return content_hash("file", digest, list(arguments))


def unread_candidate(path: str, arguments: Sequence[str]) -> str:
    """The same for a file that cannot be read: all that is known of it is its place."""
    return content_hash("unread", os.path.abspath(path), list(arguments))


def schedule_candidate(module: str, trace: Any, target: Any) -> str:
    """The same for a candidate of a TVM database: module, schedule and target; not its line."""
    return content_hash("schedule", module, trace, target)


def _state(status: os.stat_result, beside: os.stat_result | None) -> str:
    parts = [
        (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
        for s in (status, beside)
        if s is not None
    ]
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def _content(path: Path, has_side_file: bool) -> bytes:
    digest = hashlib.sha256(path.read_bytes())
    if has_side_file:
        # The time that a build took is there, too, and is no part of what is simulated.
        text = side_file(path).read_bytes()
        try:
            info = json.loads(text)
            text = canonical_json([info.get("kernels"), info.get("prepacked")]).encode()
        except (ValueError, AttributeError):
            pass  # damaged, which the evaluation will say
        digest.update(b"\0" + text)
    return digest.digest()
