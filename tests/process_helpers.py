# SPDX-License-Identifier: Apache-2.0
"""The `simtune` command in processes of its own, and what processes and files they leave behind."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
from execution_helpers import MARK, marked

ROOT = Path(__file__).resolve().parents[1]
SIMTUNE = (sys.executable, "-m", "simtune.cli.main")


def environment(temporary: Path | None = None, mark: str = "", **changes: str) -> dict[str, str]:
    """An environment with scratch files in `temporary` and a mark that descendants inherit."""
    env = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT), **changes}
    if temporary is not None:
        temporary.mkdir(exist_ok=True)
        env["TMPDIR"] = str(temporary)
    return env


def simtune(*arguments: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    command = [*SIMTUNE, *map(str, arguments)]
    env = environment(**changes)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a stored reproducer as a user would paste it."""
    words = shlex.split(command)
    if words[0] == "simtune":  # what is tested need not be installed
        command = command.replace("simtune", shlex.join(SIMTUNE), 1)
    return subprocess.run(
        ["sh", "-c", command],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def processes_about(place: Path, mark: str = "") -> list[str]:
    """Command lines of all processes that name `place`, or that inherited the mark.

    Simulators start with an empty environment; what gives them away is the path of the executable.
    """
    found = marked(mark) if mark else []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(place) in line and process.info["pid"] != os.getpid():
            found.append(f"{process.info['pid']}: {line}")
    return found


def scratch_entries(temporary: Path) -> list[str]:
    """What simtune has left in the folder for temporary files."""
    return sorted(path.name for path in temporary.iterdir() if path.name.startswith(("simtune-", "qemu-")))
