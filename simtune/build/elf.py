# SPDX-License-Identifier: Apache-2.0
"""Reads the few facts of an ELF file that linking and simulating need."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from simtune.errors import InputFileError

_ISAS = {"EM_RISCV": "riscv64", "EM_AARCH64": "aarch64", "EM_X86_64": "x86_64"}
ENTRY_PREFIX = "__tvm_ffi_"


@dataclass(frozen=True)
class Segment:
    """One loadable segment; `header` is the file offset of its program header."""

    address: int
    content: bytes
    memory_size: int
    header: int


class Elf:
    """One ELF file in memory.

    Raises:
        InputFileError: the bytes are not a whole 64-bit little-endian ELF of a known ISA.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self._data = data
        try:
            self._elf: Any = ELFFile(io.BytesIO(data))
            machine, self.type = self._elf["e_machine"], self._elf["e_type"]
            self.is_static = not any(s["p_type"] == "PT_INTERP" for s in self._elf.iter_segments())
            # Reading every section header finds a file that was cut off.
            ends = [
                s["sh_offset"] + s["sh_size"]
                for s in self._elf.iter_sections()
                if s["sh_type"] != "SHT_NOBITS"
            ]
        except Exception as error:  # pyelftools raises many kinds on damaged input
            kind = "is not an ELF file" if data[:4] != b"\x7fELF" else "is damaged or cut off"
            raise InputFileError(
                f"{name} {kind} ({error or type(error).__name__})",
                "give an object (.o), a TVM tar, or a static executable",
            ) from None
        if machine not in _ISAS or self._elf.elfclass != 64 or not self._elf.little_endian:
            raise InputFileError(
                f"{name} is for {machine}, {self._elf.elfclass} bits",
                f"simtune knows 64-bit little-endian {', '.join(sorted(_ISAS.values()))}",
            )
        if max(ends, default=0) > len(data):
            raise InputFileError(
                f"{name} is cut off: {len(data)} bytes, its sections need {max(ends)}",
                "build or copy it again",
            )
        self.isa = _ISAS[machine]

    @classmethod
    def read(cls, path: Path) -> Elf:
        """Reads a file; a missing or unreadable one is an InputFileError too."""
        try:
            return cls(path.read_bytes(), str(path))
        except OSError as error:
            raise InputFileError(f"cannot read {path}: {error.strerror}", "check the path") from None

    @property
    def is_object(self) -> bool:
        return bool(self.type == "ET_REL")

    @property
    def is_executable(self) -> bool:
        return bool(self.type in ("ET_EXEC", "ET_DYN"))

    @cached_property
    def symbols(self) -> dict[str, int]:
        """Defined global symbols and their values."""
        try:
            table = self._elf.get_section_by_name(".symtab")
            if table is None:
                return {}
            # Local symbols come first, a TVM object has hundreds; Elf64_Sym is unpacked by hand because
            # this runs once per candidate.
            entries = table.data()[table["sh_info"] * 24 :]
            strings = self._elf.get_section(table["sh_link"]).data()
            names: dict[str, int] = {}
            for name, _info, _other, section, value, _size in struct.iter_unpack("<IBBHQQ", entries):
                if section != 0:
                    names[strings[name : strings.index(b"\0", name)].decode()] = value
            return names
        except (ELFError, ValueError, KeyError, struct.error) as error:
            raise InputFileError(f"the symbol table of {self.name} is damaged: {error}") from None

    @property
    def kernels(self) -> tuple[str, ...]:
        """Names of the functions with TVM's packed calling convention, prefix removed."""
        found = (name[len(ENTRY_PREFIX) :] for name in self.symbols if name.startswith(ENTRY_PREFIX))
        return tuple(name for name in found if not name.startswith("_"))

    def segments(self) -> tuple[Segment, ...]:
        """The loadable segments in the order of the program headers."""
        result = []
        for index, segment in enumerate(self._elf.iter_segments()):
            if segment["p_type"] == "PT_LOAD":
                header = self._elf["e_phoff"] + index * self._elf["e_phentsize"]
                result.append(Segment(segment["p_vaddr"], segment.data(), segment["p_memsz"], header))
        return tuple(result)
