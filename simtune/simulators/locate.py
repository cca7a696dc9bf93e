# SPDX-License-Identifier: Apache-2.0
"""Where a simulator's program is: an environment variable, the configuration file, or PATH.

The configuration file is ``$SIMTUNE_CONFIG``, else ``simtune/config.toml`` in the XDG configuration
folder (``~/.config``)::

    [simulators]
    gem5 = "/opt/gem5/build/RISCV/gem5.fast"
    spike = "/opt/riscv/bin/spike"
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A program, or why there is none.

    Attributes:
        path: empty when there is none.
        reason, fix: why, and what to do; empty when it was found.
    """

    path: str = ""
    reason: str = ""
    fix: str = ""


def config_file() -> Path:
    """The configuration file, whether or not it exists."""
    if configured := os.environ.get("SIMTUNE_CONFIG"):
        return Path(configured)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "simtune" / "config.toml"


def variable(name: str) -> str:
    """The environment variable that names a simulator's program."""
    return f"SIMTUNE_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def find_program(name: str, programs: tuple[str, ...], install: str) -> Found:
    """Finds a simulator. Never raises.

    Args:
        name: of the simulator, as in the variable and the configuration file.
        programs: what it is called on PATH, the most wanted first.
        install: how to get it, for the message.
    """
    asked, where = os.environ.get(variable(name), ""), f"${variable(name)}"
    if not asked:
        file = config_file()
        where = f"[simulators] {name} in {file}"
        try:
            settings = tomllib.loads(file.read_text()).get("simulators", {})
            asked = settings.get(name, "")
            if not isinstance(asked, str):
                raise ValueError("it is no text")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError) as error:
            return Found(reason=f"{file} cannot be used: {error}", fix="mend the configuration file")
    if asked:
        path = shutil.which(os.path.expanduser(asked))
        if path:
            return Found(os.path.abspath(path))
        return Found(reason=f"{where} is {asked}, which is no program", fix="name the program itself")
    for program in programs:
        if path := shutil.which(program):
            return Found(os.path.abspath(path))
    return Found(
        reason=f"{programs[0]} is not installed",
        fix=f"{install}, then put it on PATH, or export {variable(name)}=PATH_OF_THE_PROGRAM",
    )


def output_of(program: str, *options: str) -> str:
    """What a program prints to standard output and error; empty when it does not run.

    Asked once per program file: probing happens before every run.
    """
    try:
        stamp = os.stat(program).st_mtime_ns
    except OSError:
        return ""
    return _output(program, options, stamp)


@lru_cache(maxsize=64)
def _output(program: str, options: tuple[str, ...], stamp: int) -> str:
    del stamp  # part of the cache key only
    try:
        done = subprocess.run(
            [program, *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout + done.stderr
