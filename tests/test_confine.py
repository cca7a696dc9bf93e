# SPDX-License-Identifier: Apache-2.0
"""What jobs cannot reach: the network, and in bubblewrap all files but a few."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from qemu_helpers import assemble, machine, program, simulate

from simtune.errors import ConfigurationError, ToolMissingError
from simtune.execution import confine
from simtune.execution.supervise import Command, Completed, Ending, check_confinement, run
from simtune.jobs import Limits


def shell(script: str, folder: Path, **limits: float) -> Completed:
    bounds = Limits(**{"wall_s": 20.0, **limits})  # type: ignore[arg-type]
    return run(Command(("sh", "-c", script), cwd=folder, limits=bounds))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(confine.NETWORK_VARIABLE, "off")
    if "refuses" in check_confinement():
        pytest.skip("this kernel lets nobody leave the network")


@pytest.fixture
def bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(confine.SANDBOX_VARIABLE, "bwrap")
    try:
        check_confinement()
    except ToolMissingError as error:
        pytest.skip(error.what)


def test_jobs_without_network_reach_nobody(offline: None, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        call = f"exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]}"
        command = Command(("bash", "-c", call), cwd=tmp_path)
        done = run(command)
        assert done.ending is Ending.EXITED
        assert not done.ok
        assert done.offline
        assert run(Command(command.argv, cwd=tmp_path, confined=False)).ok, "a tool of ours is not held back"


def test_the_supervisor_works_as_before_without_network(offline: None, tmp_path: Path) -> None:
    assert shell("(setsid sleep 1000 &); exit 0", tmp_path).leftovers == 1
    assert shell("kill -SEGV $$", tmp_path).signal == 11
    assert shell("while :; do :; done", tmp_path, cpu_s=1.0).ending is Ending.CPU_TIMEOUT
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    assert run(Command(("sleep", "100")), cancel).ending is Ending.CANCELLED


def test_a_sandbox_shows_what_is_needed_and_no_more(bwrap: None, tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "job"
    secret.write_text("nobody's business")
    folder.mkdir()
    assert shell("echo mine > file && cat file", folder).stdout == b"mine\n"
    assert (folder / "file").read_text() == "mine\n"
    assert not shell("cat ../secret", folder).ok
    assert not shell("echo > /usr/file || echo > /file", folder).ok or not Path("/file").exists()
    assert run(Command(("cat", str(secret)), cwd=folder)).ok, "a file that the command line names"
    run(Command(("sh", "-c", f"echo > {secret}"), cwd=folder))
    assert secret.read_text() == "nobody's business"


@pytest.mark.parametrize(
    ("script", "limits", "ending", "signal"),
    [
        ("kill -SEGV $$", {}, Ending.SIGNALED, 11),
        ("while :; do :; done", {"cpu_s": 1.0}, Ending.CPU_TIMEOUT, None),
        ("sleep 100", {"wall_s": 0.3}, Ending.WALL_TIMEOUT, None),
        ("exit 7", {}, Ending.EXITED, None),
    ],
)
def test_endings_in_a_sandbox(
    bwrap: None, tmp_path: Path, script: str, limits: dict[str, float], ending: Ending, signal: int | None
) -> None:
    started = time.monotonic()
    done = shell(script, tmp_path, **limits)
    assert done.ending is ending
    assert signal is None or done.signal == signal
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("sandbox", ["none", "bwrap"])
def test_counts_are_the_same_when_confined(
    sandbox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sandbox == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    executable = assemble(
        tmp_path, "riscv64", program("riscv64", " li t0, 1000\n1: addi t0, t0, -1\n bnez t0, 1b")
    )
    free = simulate(executable, machine("riscv64"))
    monkeypatch.setenv(confine.NETWORK_VARIABLE, "off")
    monkeypatch.setenv(confine.SANDBOX_VARIABLE, sandbox)
    confined = simulate(executable, machine("riscv64"))
    assert confined.ok, confined.error
    assert confined.counters == free.counters


def test_what_the_environment_may_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(confine.NETWORK_VARIABLE, "maybe")
    with pytest.raises(ConfigurationError, match="SIMTUNE_NETWORK is 'maybe'"):
        check_confinement()
