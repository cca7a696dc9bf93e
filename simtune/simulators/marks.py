# SPDX-License-Identifier: Apache-2.0
"""The marks of a region of interest inside an executable: found, and replaced in a copy.

The marks of `simulators/harness/roi.h` do nothing on hardware and are recognised by the QEMU plugin.
Simulators that want instructions of their own there get a copy of the executable in which other
instructions of the same length stand in their place: one executable serves all simulators.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from simtune.errors import InputFileError

#: Begin and end of a region, as bytes of code.
MARKS: dict[str, tuple[bytes, bytes]] = {
    "riscv64": (bytes.fromhex("13201051"), bytes.fromhex("13202051")),  # slti x0, x0, 0x511 / 0x512
    "aarch64": (bytes.fromhex("3f2a03d5"), bytes.fromhex("5f2a03d5")),  # hint #0x51 / #0x52
    "x86_64": (bytes.fromhex("0f1f840001005151"), bytes.fromhex("0f1f840002005151")),  # nopl
}
#: Instructions start at multiples of this.
_STEP = {"riscv64": 2, "aarch64": 4, "x86_64": 1}
_ISAS = {243: "riscv64", 183: "aarch64", 62: "x86_64"}  # e_machine
_PT_LOAD, _EXECUTABLE = 1, 1


def isa_of(data: bytes) -> str:
    """Instruction set of an ELF file, empty when it is none that simtune knows."""
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < 64:
        return ""
    return _ISAS.get(struct.unpack_from("<H", data, 18)[0], "")


def program_headers(data: bytes) -> Iterator[tuple[int, ...]]:
    """Type, flags, offset, address, physical address, file size, memory size and alignment of each.

    Raises:
        struct.error: the file is cut off.
    """
    table = struct.unpack_from("<Q", data, 32)[0]
    size, number = struct.unpack_from("<HH", data, 54)
    if table + size * number > len(data):
        raise struct.error("the table of segments lies behind the end")
    for index in range(number):
        yield struct.unpack_from("<IIQQQQQQ", data, table + index * size)


def find(data: bytes) -> tuple[list[int], list[int]]:
    """File offsets of the begin marks and of the end marks in executable segments."""
    begin, end = MARKS[isa_of(data)]
    step = _STEP[isa_of(data)]
    found: tuple[list[int], list[int]] = ([], [])
    for kind, flags, offset, address, _, size, *_ in program_headers(data):
        if kind != _PT_LOAD or not flags & _EXECUTABLE:
            continue
        for mark, places in zip((begin, end), found, strict=True):
            at = data.find(mark, offset, offset + size)
            while at >= 0:
                if (at - offset + address) % step == 0:
                    places.append(at)
                at = data.find(mark, at + 1, offset + size)
    return found


def replace(data: bytes, begin: bytes | None, end: bytes | None) -> bytes:
    """A copy with other instructions in the place of the marks; None leaves a kind of mark alone.

    Raises:
        InputFileError: no ELF of a known instruction set, or there are no marks.
    """
    isa = isa_of(data)
    if not isa:
        raise InputFileError("no executable of a known instruction set", f"known: {', '.join(MARKS)}")
    try:
        places = find(data)
    except struct.error:
        raise InputFileError("the executable is cut off", "build or copy it again") from None
    if not places[0]:
        raise InputFileError(
            "the program never entered a region of interest",
            "mark one with ROI_BEGIN() and ROI_END() of simulators/harness/roi.h",
        )
    content = bytearray(data)
    for code, offsets in zip((begin, end), places, strict=True):
        if code is None:
            continue
        if len(code) != len(MARKS[isa][0]):
            raise ValueError(f"{len(code)} bytes cannot take the place of a mark of {isa}")
        for offset in offsets:
            content[offset : offset + len(code)] = code
    return bytes(content)


def copy_with(executable: Path, to: Path, begin: bytes | None, end: bytes | None) -> Path:
    """Writes such a copy as an executable file; see `replace`."""
    to.write_bytes(replace(executable.read_bytes(), begin, end))
    to.chmod(0o755)
    return to
