# SPDX-License-Identifier: Apache-2.0
"""Runs one command in its own supervised process tree.

The native launcher (`simulators/launcher/launch.c`) enforces the limits and kills the tree; this
module starts it, waits for its report, and passes a cancellation on. However the job behaves, and
even if this process is killed, none of the job's processes stays behind.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from simtune import native
from simtune.errors import ToolMissingError
from simtune.execution.confine import Confinement, confinement, sandboxed
from simtune.jobs import Limits

#: How soon a cancellation is noticed. An Event cannot be polled together with a descriptor.
_CANCEL_POLL_MS = 50


@dataclass(frozen=True)
class Command:
    """A command line with its bounds.

    Attributes:
        argv: program and arguments; a program without a slash is looked up in PATH.
        env: the whole environment; None passes this process's environment on.
        cwd: working folder; None is this process's.
        limits: bounds on the tree; `limits.instructions` is not the supervisor's business.
        fixed_layout: switches address randomisation off, so that simulators that count by
            address give the same counts each time.
        confined: holds `simtune.execution.confine` against it; False for tools of ours, such as ssh.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    limits: Limits = field(default_factory=Limits)
    fixed_layout: bool = True
    confined: bool = True


class Ending(StrEnum):
    """Why a command is no longer running."""

    EXITED = "exited"
    SIGNALED = "signaled"
    WALL_TIMEOUT = "wall_timeout"
    CPU_TIMEOUT = "cpu_timeout"
    MEMORY = "memory"
    OUTPUT_FLOOD = "output_flood"
    CANCELLED = "cancelled"
    LAUNCH_FAILED = "launch_failed"


@dataclass(frozen=True)
class Completed:
    """What became of a command.

    Attributes:
        exit_code: of the main process; None when a signal ended it or it never started.
        signal: that ended the main process, or None.
        wall_s: from the start to the end of the main process.
        cpu_s: user and system time of the whole tree.
        peak_rss: bytes; the larger of the largest process and the sampled sum of the tree.
        stdout, stderr: the last 64 KiB and 16 KiB; with LAUNCH_FAILED, `stderr` is the reason.
        leftovers: processes that outlived the main process by themselves, and were killed.
        offline: it ran without network.
    """

    ending: Ending
    exit_code: int | None = None
    signal: int | None = None
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    leftovers: int = 0
    offline: bool = False

    @property
    def ok(self) -> bool:
        return self.ending is Ending.EXITED and self.exit_code == 0


@functools.cache
def launcher(out: Path | None = None) -> Path:
    """The compiled launcher, built at first use.

    Raises:
        ToolMissingError: there is neither a built launcher nor a C compiler.
    """
    source = native.sources() / "launcher" / "launch.c"
    flags = ["-O2", "-Wall", "-Wextra", "-std=gnu11", "-o", "{out}", str(source), "-lm"]
    try:
        # Without a dynamic loader, starting the launcher costs a third.
        return native.build("launch", ["cc", "-static", *flags], [source], out)
    except ToolMissingError:
        return native.build("launch", ["cc", *flags], [source], out)


def run(command: Command, cancel: threading.Event | None = None) -> Completed:
    """Runs `command` to its end, whatever that is. A misbehaving command never raises.

    Args:
        command: what to run.
        cancel: once set, the tree is killed and the ending is CANCELLED.

    Raises:
        ToolMissingError: the launcher cannot be built, or a sandbox is wanted that is not here.
    """
    if cancel is not None and cancel.is_set():
        return Completed(Ending.CANCELLED)
    if problem := _unusable(command):
        return Completed(Ending.LAUNCH_FAILED, stderr=problem.encode(errors="replace"))
    bounds = confinement() if command.confined else Confinement()
    inner = sandboxed(command.argv, command.cwd) if bounds.sandbox else command.argv
    options = [*_options(command), *(["network=off"] if not bounds.network else [])]
    argv = [os.fspath(launcher()), *options, "--", *inner]
    reader, writer = os.pipe()
    pid = 0
    try:
        try:
            pid = _spawn(argv, command.env, writer)
        except OSError as error:
            return Completed(Ending.LAUNCH_FAILED, stderr=f"cannot start the launcher: {error}".encode())
        finally:
            os.close(writer)
        report = _read_report(reader, pid, cancel)
    finally:
        # On an exception, such as KeyboardInterrupt, the job is still running: a launcher that
        # nobody listens to kills its tree before it exits.
        os.close(reader)
        status = _wait(pid) if pid else 0
    done = _parse(report, status)
    return _seen_through(done, command.limits) if bounds.sandbox else done


def check_confinement() -> str:
    """Tries what the environment asks for, and says in a sentence what jobs cannot reach here.

    Raises:
        ConfigurationError: a variable of the environment holds something else than it may.
        ToolMissingError: a sandbox is wanted that is not here, or does not work.
    """
    wanted = confinement()
    done = run(Command(("true",), limits=Limits(wall_s=10.0)))
    if wanted.sandbox and not done.ok:
        raise ToolMissingError(
            f"bubblewrap does not work here: {done.stderr.decode(errors='replace').strip()}",
            "allow user namespaces, or go without the sandbox",
        )
    if wanted.network:
        network = "jobs can reach the network"
    elif done.offline:
        network = "jobs cannot reach the network"
    else:
        network = "jobs can reach the network: the kernel refuses them one of their own"
    return f"{network}, and run in bubblewrap" if wanted.sandbox else network


def _seen_through(done: Completed, limits: Limits) -> Completed:
    """A sandbox tells of a signal that ended the job as shells do; what it says is the job's own ending."""
    if done.ending is not Ending.EXITED or done.exit_code is None or done.exit_code <= 128:
        return done
    number = done.exit_code - 128
    by_clock = number == signal.SIGXCPU or (
        number == signal.SIGKILL and limits.cpu_s is not None and done.cpu_s >= limits.cpu_s
    )
    ending = Ending.CPU_TIMEOUT if by_clock else Ending.SIGNALED
    return replace(done, ending=ending, exit_code=None, signal=number)


def _unusable(command: Command) -> str:
    """Why the operating system cannot even be asked to run this; empty if it can."""
    texts = [*command.argv, *(text for pair in (command.env or {}).items() for text in pair)]
    if command.cwd is not None:
        texts.append(os.fspath(command.cwd))
    if not command.argv or not command.argv[0]:
        return "the command line is empty"
    if any("\0" in text for text in texts):
        return f"the command line or environment of '{command.argv[0]}' holds a NUL character"
    if any(not key or "=" in key for key in command.env or {}):
        return f"the environment of '{command.argv[0]}' has an empty name or one with '='"
    return ""


def _options(command: Command) -> list[str]:
    limits = command.limits
    bounds = {
        "wall": limits.wall_s,
        "cpu": limits.cpu_s,
        "memory": limits.memory_bytes,
        "output": limits.output_bytes,
        "file": limits.file_bytes,
        "grace": limits.grace_s,
        "cwd": command.cwd,
    }
    options = [f"{name}={value}" for name, value in bounds.items() if value is not None]
    if command.fixed_layout:
        options.append("layout=fixed")
    return [f"parent={os.getpid()}", *options]


def _spawn(argv: list[str], env: Mapping[str, str] | None, writer: int) -> int:
    # posix_spawn rather than Popen: half the cost, and descriptors are close-on-exec anyway.
    # A process group of its own: what is sent to our group (Ctrl-C, kill -9 of a shell's job)
    # must reach the job through us or through our death, never the launcher alone.
    return os.posix_spawn(
        argv[0],
        argv,
        os.environ if env is None else env,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, writer, 1),
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setpgroup=0,
    )


def _read_report(reader: int, pid: int, cancel: threading.Event | None) -> bytes:
    """Reads until the report is whole, or the launcher has died without one."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    waiting = cancel
    report = b""
    while True:
        while waiting is not None and not poll.poll(_CANCEL_POLL_MS):
            if waiting.is_set():
                os.kill(pid, signal.SIGTERM)  # not reaped yet, so the pid is still its own
                waiting = None
        chunk = os.read(reader, 1 << 17)
        report += chunk
        # Not only by end of file: a process that was forked off us at the wrong moment
        # would hold the pipe open.
        if not chunk or _is_whole(report):
            return report


def _is_whole(report: bytes) -> bool:
    line, newline, tails = report.partition(b"\n")
    if not newline:
        return False
    values = _values(line)
    return len(tails) >= int(values["stdout"]) + int(values["stderr"])


def _values(line: bytes) -> dict[str, str]:
    pairs = (item.partition("=") for item in line.decode("ascii").split())
    return {name: value for name, _, value in pairs}


def _wait(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0  # the application ignores SIGCHLD: the kernel has reaped it


def _parse(report: bytes, status: int) -> Completed:
    if not _is_whole(report):
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        text = f"the launcher died ({how}) before it could report"
        return Completed(Ending.LAUNCH_FAILED, stderr=text.encode())
    line, _, tails = report.partition(b"\n")
    values = _values(line)
    ending, number, split = Ending(values["ending"]), int(values["signal"]), int(values["stdout"])
    exited = ending is not Ending.LAUNCH_FAILED and not number
    return Completed(
        ending=ending,
        exit_code=int(values["code"]) if exited else None,
        signal=number or None,
        wall_s=float(values["wall"]),
        cpu_s=float(values["cpu"]),
        peak_rss=int(values["tree_rss"]),
        stdout=tails[:split],
        stderr=tails[split:],
        leftovers=int(values["leftovers"]),
        offline=values["network"] == "off",
    )
