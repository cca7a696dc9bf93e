# SPDX-License-Identifier: Apache-2.0
"""Files by content: what jobs read on a worker, and how the driver knows what to send."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

#: Enough for tens of thousands of objects beside some harnesses and expected outputs.
DEFAULT_LIMIT = 2 << 30

_FULL = (errno.ENOSPC, errno.EDQUOT)

#: Chunks that were sent one after the other may start at the same time: seconds in which a file that
#: came with one of them is waited for by the others.
_GRACE_S = 0.5


def digest_of(content: bytes | memoryview) -> str:
    """What a file is known by: SHA-256 of its content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class BlobsMissing(Exception):
    """Some files are neither in the store nor came along; `digests` says which."""

    def __init__(self, digests: Collection[str]) -> None:
        super().__init__(f"{len(digests)} files are not here")
        self.digests = tuple(digests)


class BlobStore:
    """Files by content, in a folder of this process alone.

    A file that is in use stays; of the others, those that were not used for longest make room for
    new ones. The folder may vanish at any time: its files then are missing, and come again.

    Args:
        folder: where the files lie; made when it is needed.
        limit: bytes that the files may take together, beside those that are in use.
    """

    def __init__(self, folder: Path, limit: int = DEFAULT_LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._sizes: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._taken = 0  # the sum of these
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stored = threading.Condition(self._lock)

    @contextlib.contextmanager
    def holding(
        self, digests: Collection[str], brought: Mapping[str, bytes | memoryview]
    ) -> Iterator[dict[str, Path]]:
        """The files of these digests, which stay as long as the context; those brought along are stored.

        Raises:
            BlobsMissing: some are not here and did not come along.
            ValueError: what came along is not what its digest says.
            OSError: the disk is full even without all files that nobody uses.
        """
        with self._lock:
            self._users.update(digests)
        try:
            for digest, content in brought.items():
                self._put(digest, content)
            with self._lock:
                self._stored.wait_for(lambda: not self._missing(digests), _GRACE_S)
                if missing := self._missing(digests):
                    raise BlobsMissing(missing)
            yield {digest: self._folder / digest for digest in digests}
        finally:
            with self._lock:
                self._users.subtract(digests)
                self._users += Counter()  # forgets those that nobody uses

    def whole(self, digests: Collection[str]) -> bool:
        """Whether all these files still are where they were put."""
        return all(os.path.exists(self._folder / digest) for digest in digests)

    def size(self) -> int:
        """Bytes that all files take together."""
        with self._lock:
            return self._taken

    def _missing(self, digests: Collection[str]) -> list[str]:
        return [digest for digest in digests if not self._has(digest)]

    def _has(self, digest: str) -> bool:
        if digest not in self._sizes:
            return False
        try:
            present = os.stat(self._folder / digest)
        except OSError:
            present = None
        if present is None or not stat.S_ISREG(present.st_mode) or present.st_size != self._sizes[digest]:
            self._taken -= self._sizes.pop(digest)
            return False
        self._sizes.move_to_end(digest)
        return True

    def _put(self, digest: str, content: bytes | memoryview) -> None:
        if digest_of(content) != digest:
            raise ValueError(f"a file of {len(content)} bytes is not the one of digest {digest}")
        with self._lock:
            if self._has(digest):
                return
            self._make_room(self._limit - len(content))
            try:
                self._write(digest, content)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self._make_room(0)
                self._write(digest, content)
            self._sizes[digest] = len(content)
            self._taken += len(content)
            self._stored.notify_all()

    def _write(self, digest: str, content: bytes | memoryview) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f"{digest}.part"
        try:
            with open(unfinished, "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o555)  # an executable may be among them
            os.replace(unfinished, self._folder / digest)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise

    def _make_room(self, target: int) -> None:
        """Removes files that nobody uses until at most `target` bytes are taken."""
        if self._taken <= target:
            return
        for digest in list(self._sizes):
            if self._taken <= target:
                return
            if digest not in self._users:
                with contextlib.suppress(OSError):
                    (self._folder / digest).unlink()
                self._taken -= self._sizes.pop(digest)


class Library:
    """The driver's side: digests of files, each file read once as long as it does not change."""

    #: More files than any batch has in common; candidates' own objects pass through.
    _REMEMBERED = 65536

    def __init__(self) -> None:
        self._digests: OrderedDict[str, tuple[tuple[int, ...], str]] = OrderedDict()

    def digest(self, path: Path) -> str:
        """The digest of a file's content.

        Raises:
            OSError: it cannot be read.
        """
        name = os.fspath(path)
        state = os.stat(name)
        version = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev)
        known = self._digests.get(name)
        if known is not None and known[0] == version:
            return known[1]
        with open(name, "rb") as file:
            digest = digest_of(file.read())
        self._digests[name] = (version, digest)
        if len(self._digests) > self._REMEMBERED:
            self._digests.popitem(last=False)
        return digest
