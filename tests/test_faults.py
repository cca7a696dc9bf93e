# SPDX-License-Identifier: Apache-2.0
"""Executables, kernels and compilers that misbehave: each gives its status, says what happened, can be
run again by the command that is stored, and leaves nothing behind."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from execution_helpers import wait_for
from process_helpers import processes_about, scratch_entries, shell

from simtune.build.expectation import Expectation
from simtune.build.image import Role, Tensor
from simtune.build.kept import KEEP_FAILED, keep_folder
from simtune.build.toolchain import find
from simtune.candidates import Candidate, Evaluation
from simtune.evaluate import Evaluator
from simtune.jobs import Limits, SimJob, Status
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import resolve_objective
from simtune.records.model import Trial
from simtune.records.store import RecordStore

MIB = 1 << 20

PROGRAM = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void forever(void) { for (;;) pause(); }

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    static char block[1 << 16];
    if (!strcmp(mode, "hang")) forever();
    if (!strcmp(mode, "ignore-term")) { signal(SIGTERM, SIG_IGN); signal(SIGXCPU, SIG_IGN); forever(); }
    if (!strcmp(mode, "stop")) { raise(SIGSTOP); forever(); }
    if (!strcmp(mode, "cpu-hog")) for (;;) ;
    if (!strcmp(mode, "cpu-hog-ignore")) { signal(SIGTERM, SIG_IGN); signal(SIGXCPU, SIG_IGN); for (;;) ; }
    if (!strcmp(mode, "segv")) *(volatile int *)0 = 1;
    if (!strcmp(mode, "abort")) { fputs("assertion of the program\n", stderr); abort(); }
    if (!strcmp(mode, "illegal")) __asm__ volatile(".4byte 0");
    if (!strcmp(mode, "exit")) { fputs("cannot go on\n", stderr); return 41; }
    if (!strcmp(mode, "bomb")) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (!strcmp(mode, "flood")) for (;;) if (write(1, block, sizeof block) < 0) return 1;
    if (!strcmp(mode, "big-file")) {
        FILE *file = fopen("big", "wb");
        for (;;) if (fwrite(block, 1, sizeof block, file) != sizeof block) return 1;
    }
    if (!strcmp(mode, "fork")) { if (fork() == 0) forever(); return 0; }
    if (!strcmp(mode, "daemon")) {
        if (fork() == 0) { setsid(); signal(SIGTERM, SIG_IGN); if (fork() == 0) forever(); _exit(0); }
        return 0;
    }
    return 0;
}
"""

HEADER = r"""
#include <stdint.h>
typedef struct { float *data; } Tensor;
typedef struct { int32_t type, padding; Tensor *tensor; } Value;
void TVMFFIErrorSetRaisedFromCStr(const char *, const char *);
void *TVMBackendAllocWorkspace(int, int, uint64_t, int, int);
int nowhere(void);
static int deep(volatile int n) { volatile char use[4096]; use[0] = n; return deep(n + 1) + use[0]; }
int __tvm_ffi_main(void *self, Value *in, int32_t n, Value *out) { float *y = in[1].tensor->data;
"""

#: body of a kernel -> status, stage, what the error text says
KERNELS: dict[str, tuple[str, Status, str, str]] = {
    "endless": ("for (;;) __asm__ volatile(\"\");", Status.TIMEOUT, "simulate", "more than 2000000 instr"),
    "asleep": ("__asm__ volatile(\"li a7, 73\\n li a0, 0\\n li a1, 0\\n li a2, 0\\n li a3, 0\\n ecall\" "
               "::: \"a0\", \"a1\", \"a2\", \"a3\", \"a7\");", Status.TIMEOUT, "simulate", "of wall time"),
    "segv": ("*(volatile int *)0 = 1;", Status.CRASHED, "simulate", "SIGSEGV"),
    "deep": ("y[0] = deep(0);", Status.CRASHED, "simulate", "killed by SIGSEGV"),
    "raises": ("TVMFFIErrorSetRaisedFromCStr(\"ValueError\", \"no such luck\"); return -1;",
               Status.CRASHED, "simulate", "kernel raised ValueError: no such luck"),
    "fails": ("return -7;", Status.CRASHED, "simulate", "a kernel returned -7"),
    "bomb": ("char *p = TVMBackendAllocWorkspace(1, 0, 900 << 20, 0, 8);"
             "for (long i = 0; i < 900l << 20; i += 4096) p[i] = 1;",
             Status.OUT_OF_MEMORY, "simulate", "more than 134217728 bytes of memory"),
    "wrong": ("for (int i = 0; i < 16; i++) y[i] = 1 + (i == 5);", Status.WRONG_OUTPUT, "check",
              "1 elements differ from the reference, first at 5"),
    "lazy": ("y[0] = 1;", Status.WRONG_OUTPUT, "check", "15 elements differ"),
    "needy": ("y[0] = nowhere();", Status.INVALID, "link", "nowhere"),
}  # fmt: skip


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of this test alone."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def assert_nothing_is_left(place: Path, temporary: Path, before: set[int]) -> None:
    assert wait_for(lambda: not processes_about(place), 1), processes_about(place)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert scratch_entries(temporary) == []


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


# ---- executables in the adapter ---------------------------------------------------------------


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory: pytest.TempPathFactory, qemu: Any) -> Path:
    folder = tmp_path_factory.mktemp("misbehaving")
    source, executable = folder / "p.c", folder / "p.elf"
    source.write_text(PROGRAM)
    subprocess.run([find("riscv64").cc, "-O1", "-static", source, "-o", executable], check=True)
    return executable


@pytest.mark.parametrize(
    ("mode", "limits", "status", "says"),
    [
        ("hang", {"wall_s": 0.4}, Status.TIMEOUT, "still running after 0.4 s of wall time"),
        ("ignore-term", {"wall_s": 0.4}, Status.TIMEOUT, "still running after 0.4 s of wall time"),
        ("stop", {"wall_s": 0.4}, Status.TIMEOUT, "still running after 0.4 s of wall time"),
        ("cpu-hog", {"cpu_s": 1}, Status.TIMEOUT, "used more than 1 s of CPU time"),
        ("cpu-hog-ignore", {"cpu_s": 1}, Status.TIMEOUT, "used more than 1 s of CPU time"),
        ("segv", {}, Status.CRASHED, "killed by SIGSEGV"),
        ("abort", {}, Status.CRASHED, "killed by SIGABRT\nassertion of the program"),
        ("illegal", {}, Status.CRASHED, "killed by SIGILL"),
        ("exit", {}, Status.CRASHED, "ended with exit code 41\ncannot go on"),
        ("bomb", {"memory_bytes": 128 * MIB}, Status.OUT_OF_MEMORY, "used more than 134217728 bytes"),
        ("flood", {"output_bytes": MIB}, Status.CRASHED, "wrote more than 1048576 bytes"),
        ("big-file", {"file_bytes": MIB}, Status.CRASHED, ""),
        ("fork", {}, Status.CRASHED, "left 1 running process"),
        # The process that forked the daemon may not have ended yet.
        ("daemon", {}, Status.CRASHED, "running process"),
        ("none", {}, Status.INVALID, "never entered a region of interest"),
    ],
)
def test_misbehaving_executables(
    mode: str,
    limits: dict[str, float],
    status: Status,
    says: str,
    misbehaving: Path,
    u74: Machine,
    qemu: Any,
    tmp_path: Path,
    temporary: Path,
) -> None:
    before, started, scratch = children(), time.monotonic(), tmp_path / "scratch"
    bounds = Limits(**{"wall_s": 20, "grace_s": 0.2, **limits})  # type: ignore[arg-type]
    outcome = qemu.run(SimJob(misbehaving, u74, (mode,), bounds, scratch=scratch))
    assert outcome.status is status, outcome.error
    assert outcome.stage == "simulate"
    assert says in outcome.error
    assert outcome.error
    assert outcome.counters is None
    assert f"{misbehaving} {mode}" in outcome.command
    assert time.monotonic() - started < 10
    assert list(scratch.iterdir()) == []
    assert_nothing_is_left(misbehaving, temporary, before)


# ---- kernels, through linking and checking ------------------------------------------------------


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles a kernel y = f(x) on 16 floats each, by name."""

    @functools.cache
    def build(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        source = folder / "kernel.c"
        source.write_text(f"{HEADER} {KERNELS[name][0]} return 0; }}\n")
        command = [find("riscv64").cc, "-c", "-O1", "-w", source, "-o", folder / "candidate.o"]
        subprocess.run(command, check=True)
        return folder / "candidate.o"

    return build


SIGNATURE = (Tensor("float32", (16,)), Tensor("float32", (16,), Role.OUTPUT))
LIMITS = Limits(wall_s=1.5, cpu_s=20, memory_bytes=128 * MIB, instructions=2_000_000)


@pytest.fixture
def make_evaluator(
    u74: Machine, qemu: Any, tmp_path: Path, temporary: Path
) -> Iterator[Callable[..., Evaluator]]:
    made: list[Evaluator] = []
    stores: list[RecordStore] = []

    def make(machine: Machine = u74, **options: Any) -> Evaluator:
        stores.append(RecordStore(tmp_path / "records.db"))
        predictor = AnalyticalPredictor()
        options = {"limits": LIMITS, "jobs": 2, "keep_failed": tmp_path / "failed"} | options
        evaluator = Evaluator(machine, qemu, predictor, resolve_objective("latency"), stores[-1], **options)
        made.append(evaluator)
        return evaluator

    yield make
    for evaluator in made:
        evaluator.close(cancel=True)
    for store in stores:
        store.close()


def candidate(path: Path, folder: Path, **options: Any) -> Candidate:
    """Right is an output of ones."""
    expected = folder / "ones"
    expected.write_bytes(np.ones(16, np.float32).tobytes())
    return Candidate(path, SIGNATURE, Expectation(expected, "01" * 16, 1e-3, 1e-4, False), **options)


def run_again(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """What the stored command says, run by a shell in another folder."""
    assert evaluation.command
    folder.mkdir(exist_ok=True)
    done = shell(f"{evaluation.command} --json", folder)
    assert "Traceback" not in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"exit": done.returncode}


@pytest.mark.parametrize("name", KERNELS)
def test_misbehaving_kernels(
    name: str,
    kernel: Callable[[str], Path],
    make_evaluator: Callable[..., Evaluator],
    tmp_path: Path,
    temporary: Path,
) -> None:
    _body, status, stage, says = KERNELS[name]
    before = children()
    evaluator = make_evaluator()
    evaluation = evaluator.submit(candidate(kernel(name), tmp_path)).result(30)
    evaluator.close()
    assert (evaluation.status, evaluation.stage) == (status, stage), evaluation.error
    assert says in evaluation.error
    assert evaluation.value is None
    assert evaluation.predicted_s is None
    assert_nothing_is_left(temporary, temporary, before)
    again = run_again(evaluation, tmp_path / "elsewhere")
    if status is Status.INVALID:
        assert again["exit"] == 2
        assert says in again["error"]["what"]
    else:
        assert (again["exit"], again["status"], again["stage"]) == (1, status, stage)
        assert says in again["error"]
        with RecordStore(tmp_path / "records.db") as store:
            stored = store.simulation(evaluation.key)
            assert stored is not None
            assert (stored.outcome.status, stored.outcome.command) == (status, evaluation.command)


def test_a_failure_from_the_store_can_be_run_again_too(
    kernel: Callable[[str], Path], make_evaluator: Callable[..., Evaluator], tmp_path: Path
) -> None:
    first = make_evaluator(keep_failed=None).evaluate(candidate(kernel("segv"), tmp_path))
    assert first.command == ""
    second = make_evaluator().evaluate(candidate(kernel("segv"), tmp_path))
    assert second.cached
    assert run_again(second, tmp_path / "elsewhere")["status"] == "crashed"


def test_every_condition_is_in_the_command(
    kernel: Callable[[str], Path], make_evaluator: Callable[..., Evaluator], u74: Machine, tmp_path: Path
) -> None:
    """A machine that no file describes, constant inputs, optional models, a tighter limit."""
    board = replace(u74, name="my-board", clock_hz=1.0e9, qemu_cpu="rv64", description='a "board"')
    evaluator = make_evaluator(board, seed=7, warmup=2, count=("branch",), limits=replace(LIMITS, wall_s=9.0))
    right = candidate(kernel("wrong"), tmp_path)
    assert right.expected is not None
    constant = replace(right.expected, constant=True)
    evaluation = evaluator.evaluate(replace(right, expected_constant=constant, constant=True))
    assert evaluation.status is Status.WRONG_OUTPUT
    words = shlex.split(evaluation.command)
    options = dict(zip(words, words[1:], strict=False))
    assert options["--seed"] == "7"
    assert options["--warmup"] == "2"
    assert options["--count"] == "branch"
    assert options["--timeout"] == "9.0"
    assert options["--max-instructions"] == "2000000"
    assert "--constant" in words
    again = run_again(evaluation, tmp_path / "elsewhere")
    assert again["machine"] == "my-board"
    assert again["machine_digest"] == board.digest()
    assert (again["status"], again["error"]) == ("wrong_output", evaluation.error)


def test_a_right_candidate_keeps_nothing(
    build_default: Any, make_evaluator: Callable[..., Evaluator], u74: Machine, tmp_path: Path
) -> None:
    evaluator = make_evaluator(limits=Limits())
    evaluation = evaluator.evaluate(Candidate(build_default("matmul:m=16,n=16,k=16", u74)))
    assert evaluation.ok
    assert evaluation.command == ""
    assert not (tmp_path / "failed").exists()


def test_cancelled_candidates_are_neither_stored_nor_kept(
    kernel: Callable[[str], Path], make_evaluator: Callable[..., Evaluator], tmp_path: Path, temporary: Path
) -> None:
    before = children()
    evaluator = make_evaluator(limits=replace(LIMITS, wall_s=30))
    future = evaluator.submit(candidate(kernel("asleep"), tmp_path))
    assert wait_for(lambda: processes_about(temporary), 5)
    evaluator.cancel()
    assert future.result(3).status is Status.INFRASTRUCTURE
    assert list(evaluator.store.simulations()) == []
    assert not (tmp_path / "failed").exists()
    evaluator.close()
    assert_nothing_is_left(temporary, temporary, before)


def test_only_the_newest_failures_are_kept(tmp_path: Path) -> None:
    for number in range(KEEP_FAILED + 5):
        keep_folder(tmp_path, f"{number:03d}")
        time.sleep(0.001)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == KEEP_FAILED
    assert kept[0] == "005"


# ---- compilers ----------------------------------------------------------------------------------

#: In the place of the build process: after the first module, of each four one hangs, one crashes
#: and one raises.
BAD_COMPILER = r"""
import os, signal, sys, time
from pathlib import Path
from simtune.build import codegen, zygote

right = codegen.emit

def emit(module_json, target, path):
    number = 0
    while True:
        try:
            os.close(os.open(Path(sys.argv[2]) / str(number), os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            number += 1
    if number % 4 == 1:
        time.sleep(1000)
    if number % 4 == 2:
        os.write(2, b"LLVM ERROR: Cannot select: t42\n")
        os.kill(os.getpid(), signal.SIGSEGV)
    if number % 4 == 3:
        raise ValueError("no such instruction")
    return right(module_json, target, path)

codegen.emit = emit
zygote.main()
"""


def forget_handlers() -> None:
    """TVM 0.27 cannot set up its loggers while a handler without a name is there, such as pytest's."""
    logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()


def test_candidates_that_break_the_compiler_in_a_tuning_run(
    u74: Machine, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simtune.build.builder import Builder
    from simtune.tuning.tune import Search, tune

    before = children()
    (tmp_path / "tickets").mkdir()
    (tmp_path / "bad.py").write_text(BAD_COMPILER)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nshift 2\nexec {shlex.quote(sys.executable)} {tmp_path}/bad.py "$1" {tmp_path}/tickets\n'
    )
    python.chmod(0o755)
    forget_handlers()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        builder = Builder(timeout_s=2.0, keep_failed=tmp_path / "work" / "failed")
        try:
            result = tune(
                "matmul:m=16,n=16,k=16",
                u74,
                trials=8,
                records=tmp_path / "records.db",
                work_dir=tmp_path / "work",
                search=Search(batch=8),
                builder=builder,
            )
        finally:
            builder.close()
    assert (result.trials, result.failures) == (8, 6)
    assert result.best is not None
    with RecordStore(tmp_path / "records.db") as store:
        trials = [trial for trial in store.trials(result.run) if not trial.is_reference]
    failed = [trial for trial in trials if not trial.ok]
    assert {(trial.status, trial.stage) for trial in failed} == {(Status.BUILD_FAILED, "build")}
    errors = sorted(trial.error for trial in failed)
    assert [error.splitlines()[0] for error in errors] == [
        *["build: ValueError: no such instruction"] * 2,
        *["build: building took longer than 2 s"] * 2,
        *["build: the compiler crashed on this candidate"] * 2,
    ]
    assert sum("LLVM ERROR: Cannot select: t42" in error for error in errors) == 2
    assert not any("again:" in error for error in errors)
    assert_the_module_was_kept(failed[0], u74)
    assert_nothing_is_left(temporary, temporary, before)


def assert_the_module_was_kept(trial: Trial, machine: Machine) -> None:
    """A real compiler, which takes the module, so that the command ends well."""
    *_python, module, target, out = shlex.split(trial.command)
    assert json.loads(Path(target).read_text())["mcpu"] == machine.target["mcpu"]
    done = shell(trial.command.replace(shlex.split(trial.command)[0], sys.executable, 1), Path(module).parent)
    assert done.returncode == 0, done.stderr
    assert Path(out).read_bytes()[:4] == b"\x7fELF"


def test_the_command_of_a_failed_build_fails_the_same_way(u74: Machine, tmp_path: Path) -> None:
    import tvm
    from tvm import te, tirx
    from tvm.target import Target

    from simtune.build.builder import AGAIN, Builder, ms

    n = tirx.Var("n", "int32")
    x = te.placeholder((n,), "float32", name="x")
    function = te.create_prim_func([x, te.compute((n,), lambda i: x[i] + 1)])
    symbolic = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    target = Target(dict(u74.target))
    for keep in (None, tmp_path / "failed"):
        builder = Builder(1, keep_failed=keep)
        try:
            (result,) = builder.build([ms.builder.BuilderInput(symbolic, target)])
        finally:
            builder.close()
        assert result.artifact_path is None
        error, again, command = str(result.error_msg).partition(AGAIN)
        assert "tensor 'x' has a symbolic shape" in error
        assert bool(again) == (keep is not None)
    done = shell(command, tmp_path)
    assert done.returncode == 1
    assert "tensor 'x' has a symbolic shape" in done.stderr
