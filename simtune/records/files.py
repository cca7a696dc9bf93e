# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all, and scratch folders that do not outlive their process."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from simtune.errors import RecordError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when the block ends without an error.

    Raises:
        RecordError: it cannot be written; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror or error}",
            "choose another place with -o, or free some space",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """A rename is on the disk only after its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def scratch_beside(path: Path, purpose: str) -> Iterator[Path]:
    """A folder beside `path`, on the same file system, that is gone after the block.

    What a killed process left behind goes when the next one asks for the same: each holds a lock on
    its folder, which the kernel takes back.

    Raises:
        OSError: it cannot be made.
    """
    prefix = f".{path.name}-{purpose}-"
    for left in path.parent.glob(f"{prefix}*"):
        with _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
            if free:
                shutil.rmtree(left, ignore_errors=True)
    while True:
        folder = path.parent / f"{prefix}{secrets.token_hex(4)}"
        folder.mkdir()
        with _locked(folder, fcntl.LOCK_EX) as mine:
            if not mine:  # another process took it for left behind before it was locked
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[bool]:
    """Whether the folder is still there and could be locked."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError:
            yield False
        else:
            yield folder.exists()
    finally:
        os.close(handle)
