# SPDX-License-Identifier: Apache-2.0
"""Cross compilers and linkers, one set per instruction set, and the harness they build."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from simtune import native
from simtune.errors import ToolMissingError

#: Addresses of the windows of simulators/harness/windows.S. Code and C library lie below; the
#: distance stays inside AArch64's 128 MiB branch range.
IMAGE_WINDOW, TEXT_WINDOW, DATA_WINDOW = 0x1000000, 0x2000000, 0x6000000
WINDOW_END = 0x8000000
#: Largest page size of a supported kernel (AArch64 with 64 KiB pages).
PAGE = 0x10000

_TRIPLES = {
    "riscv64": "riscv64-linux-gnu",
    "aarch64": "aarch64-linux-gnu",
    "x86_64": "x86_64-linux-gnu",
}
_PACKAGES = {
    "riscv64": "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    "aarch64": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "x86_64": "gcc libc6-dev",
}
_SOURCES = ("main.c", "runtime.c", "tensors.c", "exports.c", "windows.S")
_HEADERS = ("image.h", "roi.h", "runtime.h", "tensors.h")


@dataclass(frozen=True)
class Toolchain:
    """Where the compiler and linker of one instruction set are."""

    isa: str
    cc: str
    ld: str


def install_command(isa: str) -> str:
    """The command that installs the toolchain of an instruction set on Debian and Ubuntu."""
    return f"apt-get install --no-install-recommends {_PACKAGES[isa]}"


def find(isa: str) -> Toolchain:
    """Finds the toolchain: `$SIMTUNE_CC_<ISA>` and `$SIMTUNE_LD_<ISA>`, else Debian's names on PATH.

    Raises:
        ToolMissingError: naming the package that has it.
    """
    found = []
    for tool, default in (("CC", "gcc"), ("LD", "ld")):
        name = os.environ.get(f"SIMTUNE_{tool}_{isa.upper()}") or f"{_TRIPLES[isa]}-{default}"
        path = shutil.which(name)
        if path is None:
            raise ToolMissingError(
                f"no {isa} {'compiler' if tool == 'CC' else 'linker'} found (looked for {name})",
                install_command(isa),
            )
        found.append(path)
    return Toolchain(isa, *found)


@lru_cache(maxsize=8)
def harness(isa: str) -> Path:
    """The harness executable of an instruction set, with empty windows; built once per machine.

    Raises:
        ToolMissingError: the compiler is missing or its C library has no static version.
    """
    folder = native.sources() / "harness"
    windows = ",".join(
        f"--section-start=.cand_{name}={address:#x}"
        for name, address in (("image", IMAGE_WINDOW), ("text", TEXT_WINDOW), ("data", DATA_WINDOW))
    )
    inputs = [folder / name for name in (*_SOURCES, *_HEADERS)]
    command = [
        find(isa).cc,
        "-O2",
        "-Wall",
        "-Wextra",
        "-static",
        "-no-pie",
        "-ffunction-sections",
        f"-Wl,-z,max-page-size={PAGE:#x}",
        f"-Wl,{windows}",
        *(str(folder / name) for name in _SOURCES),
        "-o",
        "{out}",
        "-lm",
    ]
    return native.build(f"harness-{isa}.elf", command, inputs)
