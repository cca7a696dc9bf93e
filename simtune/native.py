# SPDX-License-Identifier: Apache-2.0
"""Compiles and finds simtune's native parts: the QEMU plugin, the launcher, the harness.

Each part is built once per content of its sources and flags: by the package's build into
`simtune/_native/`, otherwise at first use into the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from simtune.errors import ToolMissingError

PACKAGE = Path(__file__).resolve().parent


def sources() -> Path:
    """Folder `simulators/` of the checkout, or its copy inside an installed package."""
    checkout = PACKAGE.parent / "simulators"
    return checkout if (checkout / "harness").is_dir() else PACKAGE / "_native" / "simulators"


def cache_dir() -> Path:
    """Where built parts are kept: `$SIMTUNE_CACHE`, else the XDG cache folder, else a private one."""
    configured = os.environ.get("SIMTUNE_CACHE")
    if configured:
        return Path(configured)
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simtune"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # no home, or one that cannot be written, as in some containers
        pass
    return _private_folder()


def _private_folder() -> Path:
    """A cache below the folder for temporary files that nobody else can put programs into."""
    folder = Path(tempfile.gettempdir()) / f"simtune-cache-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ToolMissingError(
            f"{folder} belongs to somebody else, so programs from it cannot be trusted",
            "export SIMTUNE_CACHE=DIR with a folder of yours",
        )
    return folder


def keep(name: str, text: str) -> Path:
    """A file with this text in the user's cache, named by content: processes can share it."""
    stem, dot, suffix = name.partition(".")
    path = cache_dir() / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{dot}{suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = Path(scratch) / path.name
            whole.write_text(text)
            whole.replace(path)
    return path


def build(
    name: str,
    command: Sequence[str],
    inputs: Sequence[Path],
    out: Path | None = None,
    include: Sequence[Path] = (),
) -> Path:
    """Compiles one part unless it is there already, and returns its path.

    Args:
        name: file name of the product, such as ``"qemu-plugin.so"``.
        command: compiler command; the item ``"{out}"`` stands for the product.
        inputs: all files whose content decides about the product.
        out: folder for the product; by default the package's, then the user's cache.
        include: folders of foreign headers; where they lie does not decide about the product.

    Raises:
        ToolMissingError: the compiler is missing, or refuses the sources.
    """
    return _build(name, tuple(command), tuple(inputs), out, tuple(include))


@lru_cache(maxsize=64)  # every job asks for the plugin; its sources do not change under a process
def _build(
    name: str,
    command: tuple[str, ...],
    inputs: tuple[Path, ...],
    out: Path | None,
    include: tuple[Path, ...],
) -> Path:
    # Content, not place: the same sources elsewhere give the same name, and the plugin's name is
    # part of the version that stored simulations are found by.
    flags = [item.replace(f"{sources()}{os.sep}", "") for item in command]
    digest = hashlib.sha256("\0".join(flags).encode())
    for path in sorted(inputs):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    stem, dot, suffix = name.partition(".")
    unique = f"{stem}-{digest.hexdigest()[:16]}{dot}{suffix}"
    folders = [out] if out else [PACKAGE / "_native" / "built", cache_dir()]
    for folder in folders:
        if (folder / unique).is_file():
            return folder / unique
    folder = folders[-1]
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which(command[0]) is None:
        raise ToolMissingError(
            f"{name} needs the compiler '{command[0]}', which is not here",
            "run 'simtune doctor' for the command that installs it",
        )
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        product = Path(scratch) / unique
        argv = [str(product) if item == "{out}" else item for item in command]
        argv += [f"-isystem{folder}" for folder in include]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise ToolMissingError(
                f"building {name} failed: {done.stderr.strip()[-2000:]}", f"command: {' '.join(argv)}"
            )
        # Atomic: two processes that build the same part at once both end with a whole file.
        product.replace(folder / unique)
    return folder / unique
