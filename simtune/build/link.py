# SPDX-License-Identifier: Apache-2.0
"""Object → standalone static executable, in a few milliseconds.

Everything that is the same for all candidates (entry point, TVM's runtime symbols, the C library)
is linked once per machine into the harness. A candidate is then linked alone, to a fixed address,
against the harness's symbols, and takes the place of the harness's empty windows in the file.
"""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from simtune import native
from simtune.build.elf import ENTRY_PREFIX, Elf
from simtune.build.image import Plan
from simtune.build.toolchain import DATA_WINDOW, IMAGE_WINDOW, PAGE, TEXT_WINDOW, WINDOW_END, find, harness
from simtune.errors import InputFileError

_EXPORT = "simtune_"
_RUNTIME = ("TVMBackend", "__TVMBackend", "TVMFFI", "__TVMFFI")

_SCRIPT = """\
{symbols}
PHDRS {{ text PT_LOAD FLAGS(5); data PT_LOAD FLAGS(6); }}
SECTIONS {{
  . = {text:#x};
  .text : {{ *(.text .text.*) *(.plt .iplt) }} :text
  .rodata : {{ *(.rodata .rodata.* .srodata .srodata.*) *(.data.rel.ro .data.rel.ro.*) }} :text
  ASSERT(. < {data:#x}, "the code of the candidate is too large")
  . = {data:#x};
  .data : {{ *(.data .data.* .sdata .sdata.*) *(.got .got.plt .igot .igot.plt) }} :data
  .bss : {{ *(.bss .bss.* .sbss .sbss.*) *(COMMON) }} :data
  ASSERT(. < {end:#x}, "the data of the candidate is too large")
  /DISCARD/ : {{ *(.debug* .comment .note* .eh_frame* .riscv.attributes .rela.*) }}
}}
"""


class LinkFailed(InputFileError):
    """This candidate cannot be linked; others can."""


class Linker:
    """Links candidates for one instruction set.

    Args:
        base: harness executable; the one that is built here by default.

    Raises:
        ToolMissingError: compiler or linker missing.
    """

    def __init__(self, isa: str, base: Path | None = None) -> None:
        self.isa = isa
        self._ld = find(isa).ld
        path = base or harness(isa)
        elf = Elf.read(path)
        self._base = path.read_bytes()
        self._headers = {s.address: s.header for s in elf.segments()}
        exported = {
            name[len(_EXPORT) :]: value for name, value in elf.symbols.items() if name.startswith(_EXPORT)
        }
        runtime = {name: value for name, value in elf.symbols.items() if name.startswith(_RUNTIME)}
        symbols = "".join(f"{name} = {value:#x};\n" for name, value in sorted((exported | runtime).items()))
        script = _SCRIPT.format(symbols=symbols, text=TEXT_WINDOW, data=DATA_WINDOW, end=WINDOW_END)
        self._script = str(native.keep(f"link-{isa}.ld", script))

    def link(self, objects: Sequence[Path], plan: Plan, out: Path) -> Path:
        """Writes the executable `out` for the kernels of `plan` in `objects`.

        Raises:
            LinkFailed: undefined symbols, code too large, or a kernel is missing.
            OSError: the disk is full, or somebody killed the linker, which says nothing of the objects.
        """
        linked = out.with_name(f"{out.name}.linked")
        command = [
            self._ld,
            *("-T", self._script),
            *("--discard-all", "--no-warn-rwx-segments", "-z", "noexecstack", "-e", "0"),
            *map(str, objects),
            *("-o", str(linked)),
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, env={"LC_ALL": "C", "PATH": os.defpath}
        )
        if done.returncode == -signal.SIGKILL:
            raise OSError("the linker was killed, as by the system when memory runs out")
        if done.returncode != 0:
            for number in (errno.ENOSPC, errno.EDQUOT):
                if os.strerror(number) in done.stderr:
                    raise OSError(number, os.strerror(number), str(linked))
            raise LinkFailed(_explain(done.stderr, objects), "see the symbols with nm")
        candidate = Elf.read(linked)
        linked.unlink()
        self._write(candidate, plan, out)
        return out

    def _write(self, candidate: Elf, plan: Plan, out: Path) -> None:
        entries = {name: candidate.symbols[ENTRY_PREFIX + name] for name in candidate.kernels}
        for step in plan.steps:
            if step.kernel not in entries:
                raise LinkFailed(
                    f"the object has no kernel '{step.kernel}'",
                    f"it has: {', '.join(sorted(entries)) or 'none'}",
                )
        image = plan.encode(entries)
        if len(image) > TEXT_WINDOW - IMAGE_WINDOW:
            raise LinkFailed("the plan has too many tensors", "split the network")
        windows = {IMAGE_WINDOW: (image, len(image))}
        windows |= {s.address: (s.content, s.memory_size) for s in candidate.segments() if s.memory_size}
        content = bytearray(self._base)
        for address, (data, memory_size) in windows.items():
            # File offset and address must agree modulo the page size.
            offset = -(-len(content) // PAGE) * PAGE
            content.extend(bytes(offset - len(content)))
            content.extend(data)
            # Elf64_Phdr after p_type and p_flags: offset, vaddr, paddr, filesz, memsz, align.
            struct.pack_into(
                "<6Q",
                content,
                self._headers[address] + 8,
                offset,
                address,
                address,
                len(data),
                memory_size,
                PAGE,
            )
        out.write_bytes(content)
        out.chmod(0o755)


def _explain(stderr: str, objects: Sequence[Path]) -> str:
    missing = sorted(
        {
            line.rpartition("`")[2].rstrip("'")
            for line in stderr.splitlines()
            if "undefined reference to" in line
        }
    )
    if missing:
        return (
            "the candidate calls functions that the bare runtime does not have: "
            f"{', '.join(missing[:8])}{' ...' if len(missing) > 8 else ''}"
        )
    return f"linking {', '.join(p.name for p in objects)} failed: {stderr.strip()[-1000:]}"


@lru_cache(maxsize=8)
def linker(isa: str, base: Path | None = None) -> Linker:
    """The shared linker of an instruction set, see `Linker`."""
    return Linker(isa, base)
