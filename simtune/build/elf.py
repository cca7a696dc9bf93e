# SPDX-License-Identifier: Apache-2.0
"""Reads the few facts of an ELF file that linking and simulating need.

Runs twice per candidate, so it unpacks the structures itself: a general ELF library takes ten
milliseconds for what takes one tenth of a millisecond here.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from simtune.errors import InputFileError

ENTRY_PREFIX = "__tvm_ffi_"

# The ELF-64 object file format, System V ABI.
_ISAS = {243: "riscv64", 183: "aarch64", 62: "x86_64"}  # e_machine
_REL, _EXEC, _DYN = 1, 2, 3  # e_type
_PT_LOAD, _PT_INTERP = 1, 3
_SHT_SYMTAB, _SHT_NOBITS = 2, 8
#: The mark that begins a region of interest (simulators/harness/roi.h), as bytes of code.
_REGION_MARK = {
    "riscv64": bytes.fromhex("13201051"),
    "aarch64": bytes.fromhex("3f2a03d5"),
    "x86_64": bytes.fromhex("0f1f840001005151"),
}
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")


@dataclass(frozen=True)
class Segment:
    """One loadable segment; `header` is the file offset of its program header."""

    address: int
    content: bytes
    memory_size: int
    header: int


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int
    info: int


def is_program(head: bytes) -> bool:
    """Whether a file that starts so (18 bytes at least) is a linked ELF file, static or not."""
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], "little") in (_EXEC, _DYN)


def is_static_program(head: bytes) -> bool:
    """Whether a file that starts so (4 KiB, or all of it) is a program that needs no loader.

    Position-independent ones are left out: they cannot be told from shared libraries.
    """
    if head[:6] != b"\x7fELF\x02\x01":
        return False
    try:
        header = _HEADER.unpack_from(head)
        at, size, number = header[5], header[9], header[10]
        kinds = {_SEGMENT.unpack_from(head, at + i * size)[0] for i in range(number)}
    except (struct.error, OverflowError):
        return False
    return header[1] == _EXEC and _PT_INTERP not in kinds


class Elf:
    """One ELF file in memory.

    Attributes:
        isa: "riscv64", "aarch64" or "x86_64".
        is_object, is_executable: relocatable, or a program.
        is_static: needs no dynamic loader.

    Raises:
        InputFileError: the bytes are not a whole 64-bit little-endian ELF of a known ISA.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self._data = data
        if data[:4] != b"\x7fELF":
            raise InputFileError(
                f"{name} is not an ELF file", "give an object (.o), a TVM tar, or a static executable"
            )
        if data[4:6] != b"\x02\x01":
            raise InputFileError(
                f"{name} is not 64-bit little-endian", f"simtune knows {', '.join(_ISAS.values())}"
            )
        try:
            self._parse()
        except (struct.error, OverflowError):
            raise InputFileError(f"{name} is cut off or damaged", "build or copy it again") from None

    def _parse(self) -> None:
        header = _HEADER.unpack_from(self._data)
        kind, machine = header[1], header[2]
        segments_at, sections_at = header[5], header[6]
        segment_size, segments, section_size, sections = header[9:13]
        if machine not in _ISAS:
            raise InputFileError(
                f"{self.name} is for an unknown instruction set (ELF machine {machine})",
                f"simtune knows {', '.join(_ISAS.values())}",
            )
        if (segments and segment_size != _SEGMENT.size) or (sections and section_size != _SECTION.size):
            raise struct.error
        self.isa = _ISAS[machine]
        self.is_object, self.is_executable = kind == _REL, kind in (_EXEC, _DYN)
        self._headers = [segments_at + i * _SEGMENT.size for i in range(segments)]
        self._segments = [_SEGMENT.unpack_from(self._data, at) for at in self._headers]
        self.is_static = all(segment[0] != _PT_INTERP for segment in self._segments)
        fields = (_SECTION.unpack_from(self._data, sections_at + i * _SECTION.size) for i in range(sections))
        self._sections = [_Section(f[1], f[4], f[5], f[6], f[7]) for f in fields]
        ends = [s.offset + s.size for s in self._sections if s.kind != _SHT_NOBITS]
        ends += [s[2] + s[5] for s in self._segments]
        if max(ends, default=0) > len(self._data):
            raise InputFileError(
                f"{self.name} is cut off: {len(self._data)} bytes, its contents need {max(ends)}",
                "build or copy it again",
            )

    @classmethod
    def read(cls, path: Path) -> Elf:
        """Reads a file; a missing or unreadable one is an InputFileError too."""
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise InputFileError(f"cannot read {path}: {error.strerror}", "check the path") from None

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Defined global symbols and their values.

        Raises:
            InputFileError: the symbol table is damaged.
        """
        table = next((s for s in self._sections if s.kind == _SHT_SYMTAB), None)
        if table is None:
            return {}
        try:
            strings = self._content(self._sections[table.link])
            # Local symbols come first, `info` of them; a TVM object has hundreds.
            entries = self._content(table)[table.info * _SYMBOL.size :]
            names = {}
            for name, _info, _other, section, value, _size in _SYMBOL.iter_unpack(entries):
                if section != 0:
                    names[strings[name : strings.index(b"\0", name)].decode()] = value
            return names
        except (struct.error, ValueError, IndexError, OverflowError):
            raise InputFileError(
                f"the symbol table of {self.name} is damaged", "build or copy it again"
            ) from None

    def _content(self, section: _Section) -> bytes:
        return self._data[section.offset : section.offset + section.size]

    @property
    def digest(self) -> str:
        """SHA-256 of the whole file, in hex."""
        return hashlib.sha256(self._data).hexdigest()

    @property
    def has_region(self) -> bool:
        """Whether the code marks a region of interest."""
        return _REGION_MARK[self.isa] in self._data

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the functions with TVM's packed calling convention, prefix removed."""
        found = (name[len(ENTRY_PREFIX) :] for name in self.symbols if name.startswith(ENTRY_PREFIX))
        return tuple(name for name in found if not name.startswith("_"))

    def segments(self) -> tuple[Segment, ...]:
        """The loadable segments in the order of the program headers."""
        result = []
        for header, fields in zip(self._headers, self._segments, strict=True):
            kind, _flags, offset, address, _physical, file_size, memory_size, _align = fields
            if kind == _PT_LOAD:
                result.append(Segment(address, self._data[offset : offset + file_size], memory_size, header))
        return tuple(result)
