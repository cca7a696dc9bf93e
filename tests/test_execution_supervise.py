# SPDX-License-Identifier: Apache-2.0
"""The supervisor against real processes that misbehave in every way we could think of."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from execution_helpers import MARK, fresh_mark, marked, wait_for

from simtune.execution.supervise import Command, Completed, Ending, launcher, run
from simtune.jobs import Limits

PROGRAM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void forever(void) { for (;;) pause(); }

static void daemonise(int ignore_term) {
    if (fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        if (ignore_term) signal(SIGTERM, SIG_IGN);
        forever();
    }
    wait(NULL);
}

int main(int argc, char **argv) {
    const char *mode = argv[1];
    static char block[1 << 16];
    if (!strcmp(mode, "code")) return atoi(argv[2]);
    if (!strcmp(mode, "say")) { puts("to out"); fputs("to err\n", stderr); return 0; }
    if (!strcmp(mode, "hang")) forever();
    if (!strcmp(mode, "ignore")) { signal(SIGTERM, SIG_IGN); signal(SIGXCPU, SIG_IGN); forever(); }
    if (!strcmp(mode, "stop")) { raise(SIGSTOP); forever(); }
    if (!strcmp(mode, "crash")) *(volatile int *)0 = 1;
    if (!strcmp(mode, "burn")) for (;;) ;
    if (!strcmp(mode, "burn-on")) { signal(SIGTERM, SIG_IGN); signal(SIGXCPU, SIG_IGN); for (;;) ; }
    if (!strcmp(mode, "closed")) { close(1); close(2); usleep(300000); return 0; }
    if (!strcmp(mode, "layout")) { printf("%p %p\n", (void *)&argc, malloc(100)); return 0; }
    if (!strcmp(mode, "bomb"))
        for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (!strcmp(mode, "spike")) { int n = atoi(argv[2]) << 20; memset(malloc(n), 1, n); return 0; }
    if (!strcmp(mode, "bombs")) {            /* no process is large, the tree is */
        for (int i = 0; i < 8; i++)
            if (fork() == 0) { memset(malloc(20 << 20), 1, 20 << 20); forever(); }
        forever();
    }
    if (!strcmp(mode, "flood")) for (;;) if (write(1 + atoi(argv[2]), block, sizeof block) < 0) return 1;
    if (!strcmp(mode, "count"))
        for (int i = 0; i < atoi(argv[2]); i++) printf("%d\n", i);
    if (!strcmp(mode, "file")) {
        int fd = open(argv[2], O_CREAT | O_WRONLY, 0600);
        for (;;) if (write(fd, block, sizeof block) < 0) return 1;
    }
    if (!strcmp(mode, "daemon")) { daemonise(0); return 7; }
    if (!strcmp(mode, "daemon-hang")) { daemonise(1); signal(SIGTERM, SIG_IGN); forever(); }
    if (!strcmp(mode, "children")) {
        for (int i = 0; i < 20; i++) if (fork() == 0) { setsid(); forever(); }
        return 0;
    }
    if (!strcmp(mode, "breed")) {            /* a bounded fork bomb: each child forks two more */
        for (int depth = 0; depth < 6; depth++) fork();
        forever();
    }
    if (!strcmp(mode, "burn-child")) {
        if (fork() == 0) { for (volatile long i = 0; i < 300000000; i++) ; return 0; }
        wait(NULL);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    source = folder / "misbehave.c"
    source.write_text(PROGRAM)
    subprocess.run(["cc", "-O0", "-w", "-o", folder / "misbehave", source], check=True)
    return folder / "misbehave"


SMALL = Limits(wall_s=20, cpu_s=20, memory_bytes=100 << 20, output_bytes=1 << 20, grace_s=0.2)


class Runner:
    """Runs the program in one of its modes, and checks that nothing is left of it."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, *arguments: str, cancel: threading.Event | None = None, **limits) -> Completed:
        mark = fresh_mark()
        command = Command(
            (str(self.program), *arguments),
            env={**os.environ, MARK: mark},
            limits=replace(SMALL, **limits),
        )
        done = run(command, cancel)
        assert marked(mark) == []
        return done


@pytest.fixture
def misbehave(program: Path) -> Runner:
    return Runner(program)


def test_exit_code_and_output(misbehave: Runner) -> None:
    assert misbehave("code", "0").ok
    done = misbehave("code", "77")
    assert (done.ending, done.exit_code, done.signal, done.leftovers) == (Ending.EXITED, 77, None, 0)
    done = misbehave("say")
    assert (done.stdout, done.stderr) == (b"to out\n", b"to err\n")


def test_usage_is_reported(misbehave: Runner) -> None:
    done = misbehave("spike", "64")
    assert done.ok
    assert 64 << 20 <= done.peak_rss < 80 << 20
    assert 0 < done.wall_s < 5
    done = misbehave("burn-child")
    assert done.ok
    assert done.cpu_s > 0.05  # spent by a grandchild of ours


def test_hang(misbehave: Runner) -> None:
    done = misbehave("hang", wall_s=0.3)
    assert (done.ending, done.signal, done.exit_code) == (Ending.WALL_TIMEOUT, signal.SIGTERM, None)
    assert 0.3 <= done.wall_s < 1.5


@pytest.mark.parametrize("mode", ["ignore", "stop"])
def test_hang_that_term_cannot_end(misbehave: Runner, mode: str) -> None:
    done = misbehave(mode, wall_s=0.2, grace_s=0.3)
    assert (done.ending, done.signal) == (Ending.WALL_TIMEOUT, signal.SIGKILL)
    assert 0.5 <= done.wall_s < 1.5


def test_hang_with_closed_streams(misbehave: Runner) -> None:
    done = misbehave("closed")
    assert done.ok
    assert done.cpu_s < 0.1


def test_crash(misbehave: Runner, tmp_path: Path) -> None:
    done = misbehave("crash")
    assert (done.ending, done.signal) == (Ending.SIGNALED, signal.SIGSEGV)


@pytest.mark.parametrize("mode", ["burn", "burn-on"])
def test_cpu_limit(misbehave: Runner, mode: str) -> None:
    done = misbehave(mode, cpu_s=0.3)
    assert done.ending is Ending.CPU_TIMEOUT
    assert 0.3 <= done.cpu_s < 1.5


def test_cpu_limit_of_the_kernel(misbehave: Runner) -> None:
    """Whole seconds: the kernel's XCPU and our sample come at the same time."""
    assert misbehave("burn", cpu_s=1.0).ending is Ending.CPU_TIMEOUT


@pytest.mark.parametrize("mode", ["bomb", "bombs"])
def test_memory_bomb(misbehave: Runner, mode: str) -> None:
    done = misbehave(mode)
    assert done.ending is Ending.MEMORY
    assert 100 << 20 < done.peak_rss < 1 << 30


def test_memory_spike_between_two_samples(misbehave: Runner) -> None:
    assert misbehave("spike", "4", memory_bytes=3 << 20).ending is Ending.MEMORY


@pytest.mark.parametrize("stream", ["0", "1"])
def test_output_flood(misbehave: Runner, stream: str) -> None:
    done = misbehave("flood", stream)
    assert done.ending is Ending.OUTPUT_FLOOD
    assert len(done.stdout) + len(done.stderr) <= 80 << 10


def test_a_short_flood_counts_too(misbehave: Runner) -> None:
    assert misbehave("count", "1000", output_bytes=1000).ending is Ending.OUTPUT_FLOOD


def test_long_output_keeps_its_tail(misbehave: Runner) -> None:
    done = misbehave("count", "50000", output_bytes=None)
    assert done.ok
    assert len(done.stdout) == 64 << 10
    expected = "".join(f"{i}\n" for i in range(50000)).encode()
    assert done.stdout == expected[-(64 << 10) :]


def test_big_file(misbehave: Runner, tmp_path: Path) -> None:
    done = misbehave("file", str(tmp_path / "big"), file_bytes=1 << 20)
    assert (done.ending, done.signal) == (Ending.SIGNALED, signal.SIGXFSZ)
    assert (tmp_path / "big").stat().st_size == 1 << 20


def test_daemonised_grandchild(misbehave: Runner) -> None:
    done = misbehave("daemon")
    assert (done.ending, done.exit_code, done.leftovers) == (Ending.EXITED, 7, 1)
    assert done.wall_s < 1
    done = misbehave("daemon-hang", wall_s=0.2)
    assert (done.ending, done.leftovers) == (Ending.WALL_TIMEOUT, 0)


def test_many_children(misbehave: Runner) -> None:
    done = misbehave("children")
    assert (done.ending, done.leftovers) == (Ending.EXITED, 20)
    assert misbehave("breed", wall_s=0.3).ending is Ending.WALL_TIMEOUT


@pytest.mark.parametrize("mode", ["hang", "ignore", "daemon-hang", "breed", "burn-on"])
def test_cancel(misbehave: Runner, mode: str) -> None:
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    started = time.monotonic()
    done = misbehave(mode, cancel=cancel)
    assert done.ending is Ending.CANCELLED
    assert 0.15 < time.monotonic() - started < 1.2


def test_cancelled_before_the_start(misbehave: Runner) -> None:
    cancel = threading.Event()
    cancel.set()
    assert misbehave("hang", cancel=cancel).ending is Ending.CANCELLED


def test_no_limits(misbehave: Runner) -> None:
    unlimited = dict.fromkeys(["wall_s", "cpu_s", "memory_bytes", "output_bytes", "file_bytes"])
    assert misbehave("say", **unlimited).ok


def test_fixed_layout(program: Path) -> None:
    layouts = {run(Command((str(program), "layout"))).stdout for _ in range(5)}
    assert len(layouts) == 1
    layouts = {run(Command((str(program), "layout"), fixed_layout=False)).stdout for _ in range(5)}
    assert len(layouts) > 1


def test_environment_folder_and_input(tmp_path: Path) -> None:
    script = "echo $X; pwd; cat; cd /proc/self/fd && echo *; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    done = run(Command(("sh", "-c", script), env={"X": "hé", "PATH": os.environ["PATH"]}, cwd=tmp_path))
    name, folder, descriptors, *signals = done.stdout.decode().splitlines()
    assert (name, folder) == ("hé", str(tmp_path))
    assert descriptors in ("0 1 2", "0 1 2 3")  # 3 is the folder that the shell reads
    masks = [int(line.split()[1], 16) for line in signals]
    # Signals 32 and 33 are the C library's own.
    assert len(masks) == 2
    assert all(mask & ~(3 << 31) == 0 for mask in masks)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (Command(("/no/such/simulator",)), ["/no/such/simulator", "No such file"]),
        (Command(("no-such-simulator",)), ["no-such-simulator", "No such file"]),
        (Command(("/etc/passwd",)), ["/etc/passwd", "Permission denied"]),
        (Command(("true",), cwd=Path("/no/such/folder")), ["folder", "No such file"]),
        (Command(()), ["empty"]),
        (Command(("true", "a\0b")), ["NUL"]),
        (Command(("true",), env={"a=b": "c"}), ["'='"]),
        (Command(("true", "x" * (3 << 20))), ["launcher", "Argument list too long"]),
    ],
)
def test_what_cannot_be_started(command: Command, words: list[str]) -> None:
    done = run(command)
    assert (done.ending, done.exit_code) == (Ending.LAUNCH_FAILED, None)
    assert all(word in done.stderr.decode() for word in words), done.stderr


def test_garbage_is_not_given_to_a_shell(tmp_path: Path) -> None:
    garbage = tmp_path / "truncated.elf"
    garbage.write_bytes(b"echo oops\n")
    garbage.chmod(0o755)
    done = run(Command((str(garbage),)))
    assert done.ending is Ending.LAUNCH_FAILED
    assert b"format" in done.stderr


def test_a_pipe_that_someone_else_holds_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process forked off this one at the wrong moment must not delay the report."""
    held, spawn = [], os.posix_spawn

    def spawn_and_leak(*arguments, file_actions, **options):
        held.append(os.dup(file_actions[0][1]))
        return spawn(*arguments, file_actions=file_actions, **options)

    monkeypatch.setattr(os, "posix_spawn", spawn_and_leak)
    done = run(Command(("echo", "hello")))
    os.close(held[0])
    assert done.stdout == b"hello\n"


def test_death_of_the_launcher() -> None:
    """Even kill -9 of the launcher takes the main process along."""

    def kill_launcher() -> None:
        wait_for(lambda: marked(mark) != [], 5)
        for pid in filter(_is_launcher, _children()):
            os.kill(int(pid), signal.SIGKILL)

    mark = fresh_mark()
    # Only the job has the mark: it sets it itself.
    script = f"{MARK}={mark} exec sleep 1000"
    killer = threading.Thread(target=kill_launcher)
    killer.start()
    done = run(Command(("sh", "-c", script), limits=SMALL))
    killer.join()
    assert done.ending is Ending.LAUNCH_FAILED
    assert b"signal 9" in done.stderr
    assert wait_for(lambda: not marked(mark), 1)


def _children() -> list[str]:
    tasks = Path("/proc/self/task").iterdir()
    return [pid for task in tasks for pid in (task / "children").read_text().split()]


def _is_launcher(pid: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe") == str(launcher())
    except OSError:
        return False
