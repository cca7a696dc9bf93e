# SPDX-License-Identifier: Apache-2.0
"""What candidates cannot reach: the network, and with bubblewrap all files but a few.

Two variables of the environment say so for everything that this process and its children supervise:
``SIMTUNE_NETWORK=off`` and ``SIMTUNE_SANDBOX=bwrap``. Jobs that came from another machine have no
network unless ``SIMTUNE_NETWORK=on``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from simtune import native
from simtune.errors import ConfigurationError, ToolMissingError

NETWORK_VARIABLE = "SIMTUNE_NETWORK"
SANDBOX_VARIABLE = "SIMTUNE_SANDBOX"

_CHOICES = {NETWORK_VARIABLE: ("on", "off"), SANDBOX_VARIABLE: ("none", "bwrap")}

#: What programs of the system need, where it exists.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/opt")

#: An absolute path inside an argument, such as that of ``file=/a/b.so,size=3``.
_PATH = re.compile(r"(?<![^=,:])/[^=,:\s]+")


@dataclass(frozen=True)
class Confinement:
    """Whether jobs have the machine's network, and whether they run in bubblewrap."""

    network: bool = True
    sandbox: bool = False


_thread = threading.local()


@contextlib.contextmanager
def offline_by_default() -> Iterator[None]:
    """What this thread supervises meanwhile has no network, unless the environment says otherwise."""
    before = getattr(_thread, "network", "on")
    _thread.network = "off"
    try:
        yield
    finally:
        _thread.network = before


def confinement() -> Confinement:
    """What the environment asks for, and `offline_by_default`.

    Raises:
        ConfigurationError: a variable holds something else than it may.
    """
    # Per job, and cheap: somebody may change the environment, as workers do.
    network = os.environ.get(NETWORK_VARIABLE) or getattr(_thread, "network", "on")
    return _confinement(network, os.environ.get(SANDBOX_VARIABLE, "none"))


@functools.lru_cache(maxsize=16)
def _confinement(network: str, sandbox: str) -> Confinement:
    for name, value in ((NETWORK_VARIABLE, network), (SANDBOX_VARIABLE, sandbox)):
        if value not in _CHOICES[name]:
            raise ConfigurationError(f"{name} is '{value}'", f"allowed: {', '.join(_CHOICES[name])}")
    return Confinement(network == "on", sandbox == "bwrap")


@functools.cache
def bubblewrap() -> str:
    """Path of the program.

    Raises:
        ToolMissingError: it is not installed.
    """
    path = shutil.which("bwrap")
    if path is None:
        raise ToolMissingError(
            "the sandbox needs the program 'bwrap', which is not here",
            "apt-get install --no-install-recommends bubblewrap",
        )
    return path


def sandboxed(argv: Sequence[str], cwd: Path | None) -> tuple[str, ...]:
    """The command line that runs `argv` where only its own folder can be written, and only programs,
    libraries and the files that it names can be read.

    Raises:
        ToolMissingError: bubblewrap is not installed.
    """
    readable = [path for path in (*_SYSTEM, *_ours()) if os.path.exists(path)]
    readable += [found for argument in argv for found in _PATH.findall(argument) if os.path.exists(found)]
    program = shutil.which(argv[0])
    if program is not None:
        readable.append(os.path.realpath(program))
    options = ["--unshare-ipc", "--unshare-uts", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
    options += ["--tmpfs", "/tmp"]
    for path in dict.fromkeys(readable):
        options += ["--ro-bind", path, path]
    if cwd is not None:
        folder = os.path.abspath(cwd)
        options += ["--bind", folder, folder, "--chdir", folder]
    return (bubblewrap(), *options, "--", *argv)


@functools.cache
def _ours() -> tuple[str, ...]:
    """Where this installation keeps its programs and the parts that it compiled."""
    return (str(native.PACKAGE), str(native.cache_dir().absolute()), sys.prefix)
