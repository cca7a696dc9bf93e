# SPDX-License-Identifier: Apache-2.0
"""From what the user names to jobs: folders, lists, files, TVM databases. Reads no more than it must."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from simtune.build.elf import is_program, is_static_program
from simtune.errors import ConfigurationError, InputFileError
from simtune.tuning.tvm_database import DATABASE_FILES, TvmDatabase, is_database

#: Stands for the standard input, which is then a list.
STDIN = "-"
#: Names that are candidates whatever they hold: a damaged one is a failed job, not another kind of file.
_SUFFIXES = (".o", ".tar")


@dataclass(frozen=True, slots=True)
class FileJob:
    """A file to simulate; a batch may have a million of these."""

    path: str
    arguments: tuple[str, ...] = ()


@dataclass
class Found:
    """What there is to do.

    Attributes:
        name: what tells this batch from others, unless the user gives it a name.
        files: in the order in which they were named; folders in the order of names.
        databases: every candidate of theirs is a job.
        skipped: files in folders that are no jobs, by reason.
    """

    name: str = ""
    files: list[FileJob] = field(default_factory=list)
    databases: list[TvmDatabase] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.files) + sum(map(len, self.databases))


def find(sources: Sequence[str | os.PathLike[str]], stdin: TextIO | None = None) -> Found:
    """Finds the jobs of a batch.

    Args:
        sources: each one a folder, an object, a TVM tar, a program, or a list with one job a line;
            ``"-"`` is the list on `stdin`. A folder is searched to its depths for ``.o``, ``.tar`` and
            static executables; a pair of MetaSchedule's database files in it stands for its candidates.
            Lines of a list hold the path of a file or folder, relative to the working directory, and
            the arguments of a program, quoted as in a shell; empty ones and those that begin with #
            are left out.

    Raises:
        InputFileError: a source, or what a list names, is not there or cannot be read.
    """
    _head.cache_clear()  # a file may be another one than the last time
    found = Found()
    places = []
    for source in (os.fspath(source) for source in sources):
        if source == STDIN and stdin is not None:
            places.append(os.getcwd())
            _read_list(stdin, "standard input", found)
            continue
        places.append(os.path.realpath(source))
        if not _add(source, (), found):
            try:
                with open(source, encoding="utf-8") as stream:
                    _read_list(stream, source, found)
            except (OSError, UnicodeDecodeError) as error:
                raise InputFileError(
                    f"{source} is no object, TVM tar or program, and no list of them either: {error}",
                    "see what may be given: simtune batch --help",
                ) from None
    found.name = os.path.commonpath(places) if places else ""
    if not len(found) and stdin is not None and [os.fspath(source) for source in sources] == [STDIN]:
        found.name = "standard input"  # which the error says, not the working directory
    return found


def nothing_to_do(found: Found) -> ConfigurationError:
    """The error for sources without any job."""
    left_out = ", ".join(f"{number} {reason}" for reason, number in found.skipped.items())
    return ConfigurationError(
        f"there is nothing to simulate in {found.name or 'an empty list of sources'}"
        + (f" (left out: {left_out})" if left_out else ""),
        "give objects, TVM tars, static executables, folders or lists of them, or a TVM work directory",
    )


def _add(path: str, arguments: tuple[str, ...], found: Found) -> bool:
    """Adds a folder or candidate; False for a file that is neither."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror}", "check the path") from None
    if stat.S_ISDIR(mode):
        if arguments:
            raise InputFileError(f"{path} is a folder and takes no arguments", "name a program")
        _search(path, found)
        return True
    if not path.endswith(_SUFFIXES) and not _starts_like_candidate(path):
        return False
    found.files.append(FileJob(path, arguments))
    return True


def _read_list(lines: Iterable[str], name: str, found: Found) -> None:
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            # A path with blanks need not be quoted: `find` and `ls` do not quote, either.
            words = [line] if os.path.exists(line) else shlex.split(line)
            # One string for a program that is named a hundred thousand times.
            if not _add(sys.intern(words[0]), tuple(words[1:]), found):
                raise InputFileError(f"{words[0]} is no object, TVM tar or program")
        except ValueError as error:  # a quotation without an end, a name with a null byte
            what = error.what if isinstance(error, InputFileError) else str(error)
            raise InputFileError(
                f"{name}, line {number}: {what}", "one job a line: a path, and the arguments of a program"
            ) from None


def _search(top: str, found: Found) -> None:
    def unreadable(error: OSError) -> None:
        raise InputFileError(f"cannot read the folder {error.filename}: {error.strerror}", "check the path")

    for folder, folders, names in os.walk(top, onerror=unreadable):
        hidden = [name for name in folders if name.startswith(".")]
        found.skipped["hidden folders"] += len(hidden)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = frozenset(names)
        if is_database(here):
            found.databases.append(TvmDatabase(Path(folder)))
        for name in sorted(names):
            reason = _reason_to_skip(folder, name, here)
            if reason:
                found.skipped[reason] += 1
            elif reason is None:
                found.files.append(FileJob(os.path.join(folder, name)))
    found.skipped = +found.skipped  # without zeros


def _reason_to_skip(folder: str, name: str, here: frozenset[str]) -> str | None:
    """Why a file of a folder is no job; empty when it belongs to one, None when it is one."""
    if name.startswith("."):
        return "hidden files"
    if name.endswith(_SUFFIXES):
        return None
    if name.endswith(".json") and name.removesuffix(".json") in here:
        return ""
    if name.removesuffix(".xz") in DATABASE_FILES and is_database(here):
        return ""
    try:
        head = _head(os.path.join(folder, name))
    except OSError:
        return "unreadable files"
    if is_static_program(head):
        return None
    return "programs and libraries that are not static" if is_program(head) else "files of other kinds"


def _starts_like_candidate(path: str) -> bool:
    try:
        head = _head(path)
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror}", "check the path") from None
    return head[:4] == b"\x7fELF" or head[257:262] == b"ustar"


@lru_cache(maxsize=16)
def _head(path: str) -> bytes:
    """The first 4 KiB; of no pipe or device, which might never answer. A list may name a program often."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        return b""
    with open(path, "rb") as stream:
        return stream.read(4096)
