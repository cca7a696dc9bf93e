# SPDX-License-Identifier: Apache-2.0
"""A static executable and the monitor that stands where Linux would, as one bare-metal program.

The monitor (`simulators/bare/`) is compiled once per instruction set and host interface. An executable
is joined with it by copying: its segments are loaded behind the monitor and mapped at their own
addresses, so the very same code runs as in user mode.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from simtune import native
from simtune.build.toolchain import find
from simtune.errors import InputFileError
from simtune.simulators.marks import isa_of, program_headers

#: Must match simulators/bare/monitor.h.
_BOOT_MAGIC, _BOOT_OFFSET, _PROGRAM_OFFSET = 0x315441424D4D4953, 0xC00000, 0x1000000
_MAX_SEGMENTS, _MAX_ARGUMENTS = 16, 254
_RAM = {"riscv64": 0x80000000, "aarch64": 0x40000000}
_MEMORY_BYTES = 3 << 30
_PT_LOAD = 1
#: Segments end below this: behind it are the tensors (simulators/harness/main.c).
_LOW_END = 0x60000000
_FLAGS = (
    *("-O2", "-Wall", "-Wextra", "-std=gnu11", "-ffreestanding", "-fno-builtin", "-fno-stack-protector"),
    *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments"),
)
_ISA_FLAGS = {
    "riscv64": ("-march=rv64imac_zicsr_zifencei", "-mabi=lp64", "-mcmodel=medany", "-mno-relax"),
    "aarch64": ("-mgeneral-regs-only", "-mno-outline-atomics", "-mcmodel=small"),
}

#: Memory that the simulated machine needs; the host gives it page by page as it is touched.
MEMORY_MIB = _MEMORY_BYTES >> 20
#: Instruction sets that there is a monitor for.
MONITORS = tuple(_RAM)


class Stop(IntEnum):
    """What the breakpoint that ends a simulation stands for, which took the place of a mark."""

    NEVER = 0
    BEGIN = 1
    END = 2


def monitor(isa: str, host: str) -> Path:
    """The compiled monitor; its name has a digest of its sources.

    Args:
        isa: "riscv64" or "aarch64".
        host: "semihosting" (QEMU) or "htif" (Spike).

    Raises:
        ToolMissingError: the cross compiler is missing.
    """
    folder = native.sources() / "bare"
    script, host_source = folder / "monitor.ld", folder / f"{host}.c"
    if host == "htif":
        script, host_source = folder.parent / "spike" / "spike.ld", folder.parent / "spike" / "htif.c"
    inputs = [folder / f"{isa}.S", folder / f"{isa}.c", folder / "pages.c", folder / "monitor.c", host_source]
    command = [
        *(find(isa).cc, *_FLAGS, *_ISA_FLAGS[isa], f"-I{folder}", f"-Wl,-T,{script}"),
        *(f"-Wl,--defsym=RAM={_RAM[isa]:#x}", *map(str, inputs), "-o", "{out}"),
    ]
    return native.build(f"monitor-{isa}-{host}.elf", command, [*inputs, script, folder / "monitor.h"])


def join(executable: bytes, base: bytes, arguments: Sequence[str], stop: Stop = Stop.NEVER) -> bytes:
    """The bare-metal program: the monitor `base` with the executable and its arguments behind it.

    Raises:
        InputFileError: the executable is no static program of this instruction set, or too large.
    """
    isa = isa_of(executable)
    if isa != isa_of(base):
        raise InputFileError(f"the executable is for {isa or 'an unknown instruction set'}", "build it again")
    try:
        segments = [h for h in program_headers(executable) if h[0] == _PT_LOAD and h[6]]
        entry, table, _, _, _, _, number = struct.unpack_from("<QQQIHHH", executable, 24)
        content = _boot_block(executable, segments, entry, table, number, arguments, stop)
    except struct.error:
        raise InputFileError("the executable is cut off", "build or copy it again") from None
    ram = _RAM[isa]
    parts = [(ram + _BOOT_OFFSET, content)]
    for _, _, offset, address, _, size, *_ in segments:
        parts.append((ram + _PROGRAM_OFFSET + address, executable[offset : offset + size]))
    return _append(base, parts)


def _boot_block(
    executable: bytes,
    segments: Sequence[tuple[int, ...]],
    entry: int,
    table: int,
    number: int,
    arguments: Sequence[str],
    stop: Stop,
) -> bytes:
    if not segments or len(segments) > _MAX_SEGMENTS:
        raise InputFileError(f"the executable has {len(segments)} segments", "link it with -static -no-pie")
    headers = 0
    for _, _, offset, address, _, size, memory, _ in segments:
        if size and offset + size > len(executable):
            raise InputFileError("the executable is cut off", "build or copy it again")
        if address + memory > _LOW_END or address < 0x1000:
            raise InputFileError(
                f"the executable has a segment at {address:#x}, which the bare monitor cannot map",
                f"link it with -static -no-pie below {_LOW_END:#x}",
            )
        if offset <= table < offset + size:
            headers = address + table - offset
    words = [_BOOT_MAGIC, entry, headers, number, _MEMORY_BYTES, len(segments)]
    for _, flags, _, address, _, _, memory, _ in segments:
        words += [address, memory, flags]
    words += [0] * 3 * (_MAX_SEGMENTS - len(segments))
    strings = ["program", *arguments]
    if len(strings) > _MAX_ARGUMENTS:
        raise InputFileError("the program gets too many arguments", f"at most {_MAX_ARGUMENTS - 1}")
    words += [stop, len(strings)]
    text = b"".join(item.encode() + b"\0" for item in strings)
    return struct.pack(f"<{len(words)}Q", *words) + text


def _append(base: bytes, parts: Sequence[tuple[int, bytes]]) -> bytes:
    """An ELF file with more segments. Memory is zero at the start, so only file contents are loaded."""
    known = list(program_headers(base))
    content = bytearray(base)
    headers = [h for h in known if h[0] == _PT_LOAD]
    for address, data in parts:
        if data:
            content.extend(bytes(-len(content) % 16))
            headers.append((_PT_LOAD, 7, len(content), address, address, len(data), len(data), 16))
            content.extend(data)
    content.extend(bytes(-len(content) % 16))
    struct.pack_into("<Q", content, 32, len(content))
    struct.pack_into("<H", content, 56, len(headers))
    for header in headers:
        content.extend(struct.pack("<IIQQQQQQ", *header))
    return bytes(content)
