# SPDX-License-Identifier: Apache-2.0
"""A shell on another computer through the system's `ssh`; the other side needs nothing but `sh`.

One connection serves all commands. It also owns the folder on the other side: the remote shell
removes it when the connection ends, however that happens, even if this process is killed.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import shlex
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

from simtune.errors import SimtuneError, ToolMissingError
from simtune.execution.scratch import scratch_folder
from simtune.execution.supervise import Command, Completed, Ending, run
from simtune.jobs import Limits

#: Seconds in which a connection stands or a small command has answered.
_PATIENCE_S = 30.0

#: Exit codes of `ssh` itself, and of `RemoteShell.execute` for a program that was late.
_LOST, _LATE = 255, 124

_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=10")

# The guard is a shell of its own, and takes its `sleep` with it when the program ends in time. It may be
# told so at any moment: $! is the program until there is a `sleep`, a variable would be set too late, and
# TERM may come to a child that still has the handler of its shell, and be lost.
_GUARDED = """\
cd {folder} || exit 126
rm -f late
{command} & program=$!
(trap '[ "$!" = "$program" ] || kill -9 $! 2>/dev/null; exit' TERM; sleep {seconds} & wait $!; : > late; \
kill -9 $program) \
>/dev/null 2>&1 & guard=$!
wait $program
status=$?
kill $guard 2>/dev/null
[ -e late ] && exit {late}
exit $status
"""


class ConnectionLost(SimtuneError):
    """The other side cannot be reached, or no longer."""


class RemoteShell:
    """Connects at the first use, and again after a loss.

    Args:
        address: ``HOST`` or ``USER@HOST``; the user's ssh configuration applies.
        port: None is that of the ssh configuration.
        parent: folder on the other side in which a temporary one is made.
        config: ssh configuration file in the place of the user's.
    """

    def __init__(
        self, address: str, port: int | None = None, parent: str = "/tmp", config: Path | None = None
    ) -> None:
        self.address, self.port, self.parent, self.config = address, port, parent, config
        self.folder = ""
        self._master: subprocess.Popen[bytes] | None = None
        self._local: Path | None = None

    def connect(self) -> bool:
        """Makes sure that the connection stands; returns whether it is a new one.

        Raises:
            ConnectionLost: no answer, no permission, or a folder that cannot be written.
            ToolMissingError: there is no `ssh` here.
        """
        if self._master is not None and self._master.poll() is None:
            return False
        self.close()
        if shutil.which("ssh") is None:
            raise ToolMissingError("there is no 'ssh' here", "apt-get install openssh-client")
        self._local = scratch_folder("ssh")
        self.folder = f"{self.parent.rstrip('/')}/simtune-{secrets.token_hex(6)}"
        folder = shlex.quote(self.folder)
        script = f"umask 077; mkdir {folder} && echo ready && cat >/dev/null; rm -rf {folder}"
        with open(self._local / "errors", "wb") as errors:
            self._master = subprocess.Popen(
                self._argv(script, "-o", "ControlMaster=yes"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        assert self._master.stdout is not None
        ready, _, _ = select.select([self._master.stdout], [], [], _PATIENCE_S)
        if not ready or self._master.stdout.readline().strip() != b"ready":
            text = (self._local / "errors").read_text(errors="replace").strip()
            self.close()
            raise ConnectionLost(
                f"no shell on {self.address}: {text[-500:] or 'no answer'}",
                f"make 'ssh {self.address}' work without a password, and {self.parent} writable there",
            )
        return True

    def ask(self, script: str, stdin: Path | None = None) -> bytes:
        """Output of a short script.

        Args:
            stdin: file that it reads.

        Raises:
            ConnectionLost: it failed, or the connection did.
        """
        self.connect()
        try:
            with open(stdin or "/dev/null", "rb") as source:
                done = subprocess.run(
                    self._argv(script), stdin=source, capture_output=True, timeout=4 * _PATIENCE_S
                )
        except subprocess.TimeoutExpired:
            self.close()
            raise ConnectionLost(f"{self.address} does not answer") from None
        if done.returncode != 0:
            text = done.stderr.decode(errors="replace").strip()[-500:]
            raise ConnectionLost(f"{self.address}: exit code {done.returncode}: {text}")
        return done.stdout

    def upload(self, path: Path, name: str, mode: str = "600") -> None:
        """Copies a file into the folder; without scp, whose other half boards often lack."""
        target = shlex.quote(f"{self.folder}/{name}")
        self.ask(f"cat > {target} && chmod {mode} {target}", stdin=path)

    def execute(
        self, argv: tuple[str, ...], limits: Limits, cancel: threading.Event | None = None
    ) -> Completed:
        """Runs a program in the folder, with a wall-clock limit that the other side enforces itself."""
        seconds = limits.wall_s or 3600.0
        script = _GUARDED.format(
            folder=shlex.quote(self.folder),
            command=shlex.join(argv),
            seconds=max(1, round(seconds)),  # some shells' sleep knows no fractions
            late=_LATE,
        )
        outer = Limits(seconds + _PATIENCE_S, None, None, limits.output_bytes, None)
        done = run(Command(tuple(self._argv(script)), limits=outer, confined=False), cancel)
        code = done.exit_code
        if done.ending is not Ending.EXITED or code is None or code == _LOST:
            error = done.stderr.decode(errors="replace").strip()[-500:]
            raise ConnectionLost(f"the connection to {self.address} broke ({done.ending}): {error}")
        if code == _LATE:
            return replace(done, ending=Ending.WALL_TIMEOUT, exit_code=None)
        if code > 128:  # as shells tell of a signal
            return replace(done, ending=Ending.SIGNALED, exit_code=None, signal=code - 128)
        return done

    def close(self) -> None:
        """Ends the connection, which removes the remote folder; may be called more than once."""
        master, self._master = self._master, None
        if master is not None and master.stdin is not None and master.stdout is not None:
            with contextlib.suppress(OSError):
                master.stdin.close()
            try:
                master.wait(timeout=5)
            except subprocess.TimeoutExpired:
                master.kill()
                master.wait()
            master.stdout.close()
        if self._local is not None:
            shutil.rmtree(self._local, ignore_errors=True)
            self._local = None

    def _argv(self, script: str, *options: str) -> list[str]:
        port = ("-p", str(self.port)) if self.port else ()
        config = ("-F", str(self.config)) if self.config else ()
        control = ("-o", f"ControlPath={self._local}/socket")
        # Quoted for the login shell, which need not be a Bourne shell.
        return [
            "ssh", *config, *_OPTIONS, *control, *options, *port, self.address, f"sh -c {shlex.quote(script)}"
        ]  # fmt: skip
