# SPDX-License-Identifier: Apache-2.0
"""The QEMU adapter: regions, limits, statuses, repeatability, and both plugin interfaces."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from qemu_helpers import BEGIN, END, EXIT, assemble, classes, counters, machine, program, simulate

from simtune import native
from simtune.jobs import Limits, SimJob, Status
from simtune.machines.load import load_machine
from simtune.simulators.base import Simulator, get_simulator, simulator_names
from simtune.simulators.qemu import QemuSimulator

ISAS = ("riscv64", "aarch64", "x86_64")
STEP = {"riscv64": "addi t0, t0, 1", "aarch64": "add x9, x9, #1", "x86_64": "lea 1(%rax), %rax"}
FOREVER = {"riscv64": "1: j 1b", "aarch64": "1: b 1b", "x86_64": "1: jmp 1b"}
CRASH = {
    "riscv64": "ld t0, 0(x0)",
    "aarch64": "mov x1, #0\n ldr x0, [x1]",
    "x86_64": "xor %eax, %eax\n mov (%rax), %rax",
}

KERNEL = """
static float a[96][96], b[96][96], c[96][96];
int main(void)
{
    for (int i = 0; i < 96; i++)
        for (int j = 0; j < 96; j++)
            a[i][j] = (i % 7) * 0.1f, b[i][j] = (j % 5) * 0.3f;
    BEGIN;
    for (int i = 0; i < 96; i++)
        for (int k = 0; k < 96; k++)
            for (int j = 0; j < 96; j++)
                c[i][j] += a[i][k] * b[k][j];
    END;
    return c[5][7] < 0;
}
"""


def test_registry_knows_the_adapters() -> None:
    assert {"qemu", "native"} <= set(simulator_names())
    assert isinstance(get_simulator("qemu"), Simulator)
    with pytest.raises(ValueError, match="no simulator is called 'qmeu'"):
        get_simulator("qmeu")


@pytest.mark.parametrize("isa", ISAS)
def test_marks_and_what_lies_outside_are_not_counted(isa: str, tmp_path: Path) -> None:
    outside = "\n".join([STEP[isa]] * 50)
    source = program(isa, "\n".join([STEP[isa]] * 7), before=outside, after=outside)
    assert classes(simulate(assemble(tmp_path, isa, source), machine(isa))) == {"int_alu": 7}


@pytest.mark.parametrize("isa", ISAS)
def test_regions_accumulate(isa: str, tmp_path: Path) -> None:
    again = "\n".join([END[isa], *[STEP[isa]] * 9, BEGIN[isa]])
    source = program(isa, "\n".join([STEP[isa], again, STEP[isa], again, STEP[isa]]))
    assert classes(simulate(assemble(tmp_path, isa, source), machine(isa))) == {"int_alu": 3}


def test_caches_stay_warm_between_regions_and_sleep_outside(tmp_path: Path) -> None:
    load = "ld t1, 0(t0)\n"
    far = "\n".join(f"ld t1, {64 * n}(t0)" for n in range(1, 30))
    body = f"{load}\n{END['riscv64']}\n{far}\n{BEGIN['riscv64']}\n{load}"
    source = program("riscv64", body, before=f"lla t0, buffer\n{far}")
    found = counters(
        simulate(assemble(tmp_path, "riscv64", source), machine("riscv64", l1i=(64, 8, 64), l1d=(1, 4, 64)))
    )
    assert (found["l1d.read_misses"], found["l1d.read_hits"]) == (1, 1)


@pytest.mark.parametrize(
    ("body", "code", "status", "reason"),
    [
        (STEP, 0, Status.OK, ""),
        (STEP, 3, Status.WRONG_OUTPUT, "not the expected"),
        (STEP, 4, Status.INVALID, "cannot run"),
        (STEP, 7, Status.CRASHED, "exit code 7"),
        (CRASH, 0, Status.CRASHED, "SIGSEGV"),
        (FOREVER, 0, Status.TIMEOUT, "1000000 instructions"),
    ],
)
@pytest.mark.parametrize("isa", ISAS)
def test_statuses(
    isa: str, body: dict[str, str], code: int, status: Status, reason: str, tmp_path: Path
) -> None:
    executable = assemble(tmp_path, isa, program(isa, body[isa], code=code))
    scratch = tmp_path / "scratch"
    job = SimJob(executable, machine(isa), limits=Limits(wall_s=30, instructions=1_000_000), scratch=scratch)
    outcome = QemuSimulator().run(job)
    assert outcome.status == status
    assert reason in outcome.error.splitlines()[0] if reason else outcome.error == ""
    assert (outcome.counters is not None) == (status in (Status.OK, Status.WRONG_OUTPUT))
    assert list(scratch.iterdir()) == []
    assert f"qemu-{isa}" in outcome.command


def test_endless_region_is_cut_by_time_too(tmp_path: Path) -> None:
    executable = assemble(tmp_path, "riscv64", program("riscv64", FOREVER["riscv64"]))
    outcome = simulate(executable, machine("riscv64"), limits=Limits(wall_s=0.3))
    assert outcome.status == Status.TIMEOUT
    assert "wall time" in outcome.error


def test_cancellation(tmp_path: Path) -> None:
    executable = assemble(tmp_path, "riscv64", program("riscv64", FOREVER["riscv64"]))
    cancel = threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    outcome = QemuSimulator().run(SimJob(executable, machine("riscv64")), cancel)
    timer.join()
    assert outcome.status == Status.INFRASTRUCTURE
    assert outcome.error == "cancelled"
    assert outcome.wall_s < 5


def test_limit_verdict_is_exact_at_the_end_of_the_region(tmp_path: Path) -> None:
    executable = assemble(tmp_path, "riscv64", program("riscv64", "\n".join(["nop"] * 100)))
    at, below = (simulate(executable, machine("riscv64"), limits=Limits(instructions=n)) for n in (100, 99))
    assert at.status == Status.OK
    assert below.status == Status.TIMEOUT


def test_program_without_region(tmp_path: Path) -> None:
    text = "\n".join([".globl _start", "_start:", EXIT["riscv64"].format(code=0), ""])
    outcome = simulate(assemble(tmp_path, "riscv64", text), machine("riscv64"))
    assert outcome.status == Status.INVALID
    assert "never entered" in outcome.error


def test_program_that_ends_inside_its_region(tmp_path: Path) -> None:
    text = "\n".join([".globl _start", "_start:", BEGIN["riscv64"], EXIT["riscv64"].format(code=0), ""])
    outcome = simulate(assemble(tmp_path, "riscv64", text), machine("riscv64"))
    assert outcome.status == Status.CRASHED
    assert outcome.counters is None


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/false\n"])
def test_unusable_executables(content: bytes, tmp_path: Path) -> None:
    assemble(tmp_path, "riscv64", program("riscv64", "nop"))  # skips where QEMU is missing
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    bad.chmod(0o755)
    outcome = simulate(bad, machine("riscv64"))
    assert not outcome.ok
    assert outcome.error


def compile_kernel(folder: Path, isa: str, flags: tuple[str, ...] = ("-O2",)) -> Path:
    assemble(folder, isa, program(isa, "nop"))  # skips where tools are missing
    source, executable = folder / "kernel.c", folder / "kernel.elf"
    header = "\n".join(
        '#define {} __asm__ volatile("{}" ::: "memory")'.format(name, mark[isa].replace("\n", "\\n"))
        for name, mark in (("BEGIN", BEGIN), ("END", END))
    )
    source.write_text(header + KERNEL)
    compiler = f"{isa}-linux-gnu-gcc"
    subprocess.run([compiler, *flags, "-static", "-o", executable, source], check=True, timeout=60)
    return executable


@pytest.mark.parametrize("isa", ISAS)
def test_counters_are_the_same_every_time_and_with_eight_at_once(isa: str, tmp_path: Path) -> None:
    executable = compile_kernel(tmp_path, isa)
    job = SimJob(executable, machine(isa), count=("branch", "blocks", "pipeline"))
    simulator = QemuSimulator()
    first = simulator.run(job)
    assert first.ok, first.error
    assert first.counters is not None
    assert first.counters["instructions"] > 96**3
    assert first.counters["pipeline_cycles"] > 0
    with ThreadPoolExecutor(8) as pool:
        for other in pool.map(lambda _: simulator.run(job), range(10)):
            assert other.counters == first.counters
            assert other.blocks == first.blocks


@pytest.mark.parametrize("isa", ISAS)
def test_hot_blocks(isa: str, tmp_path: Path) -> None:
    outcome = simulate(compile_kernel(tmp_path, isa), machine(isa), ("blocks",))
    assert outcome.counters is not None
    blocks = outcome.blocks
    assert blocks[0].executions >= 96**3 / 16
    executed = [block.executions * block.instructions for block in blocks]
    assert executed == sorted(executed, reverse=True)
    assert sum(executed) <= outcome.counters["instructions"]
    elf = (tmp_path / "kernel.elf").read_bytes()
    assert all(block.code in elf for block in blocks)


def test_l1i_that_does_not_fit_is_modelled_exactly(tmp_path: Path) -> None:
    """Ten times over 64 lines of straight code, in a cache of 32 lines: every fetch misses."""
    body = "\n".join(
        ["li t0, 10", ".balign 64", "1:", *["addi t1, t1, 1"] * 1022, "addi t0, t0, -1", "bnez t0, 2f"]
    )
    text = program("riscv64", ".option norvc\n" + body + "\n j 3f\n2: j 1b\n3:")
    executable = assemble(tmp_path, "riscv64", text)
    fits = counters(simulate(executable, machine("riscv64", l1i=(64, 4, 64), l1d=(64, 4, 64))))
    small = counters(simulate(executable, machine("riscv64", l1i=(16, 2, 64), l1d=(64, 4, 64))))
    assert fits["l1i.read_misses"] <= 68
    assert small["l1i.read_misses"] >= 10 * 64
    assert (
        small["l1i.read_hits"] + small["l1i.read_misses"] == fits["l1i.read_hits"] + fits["l1i.read_misses"]
    )
    assert small["instructions"] == fits["instructions"]


@pytest.mark.parametrize("api", [1, 4])
@pytest.mark.parametrize("compiler", ["cc", "clang"])
def test_both_plugin_interfaces_compile_without_warnings(api: int, compiler: str, tmp_path: Path) -> None:
    import shutil

    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    sources = sorted((native.sources() / "qemu").glob("*.c"))
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    product = tmp_path / "plugin.so"
    command = [compiler, *flags, f"-DQEMU_PLUGIN_API={api}", "-o", product, *sources, "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_probe_explains_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = QemuSimulator(path=tmp_path).probe()
    assert not missing.available
    assert "not installed" in missing.reason
    assert missing.fix
    old = tmp_path / "qemu-riscv64"
    old.write_text("#!/bin/sh\necho 'qemu-riscv64 version 10.0.2 (Debian)'\n")
    old.chmod(0o755)
    u74 = load_machine("sifive-u74")
    capability = QemuSimulator(path=tmp_path).probe(u74)
    assert not capability.available
    assert capability.version == "10.0.2"
    assert "without plugin support" in capability.reason
    monkeypatch.setenv("SIMTUNE_QEMU_RISCV64", str(old))
    assert QemuSimulator().probe(u74).path == str(old)
    outcome = QemuSimulator().run(SimJob(tmp_path / "none", u74))
    assert outcome.status == Status.INFRASTRUCTURE
    assert "without plugin support" in outcome.error


def test_unknown_model_is_refused(tmp_path: Path) -> None:
    executable = assemble(tmp_path, "riscv64", program("riscv64", "nop"))
    outcome = simulate(executable, machine("riscv64"), ("brnach",))
    assert outcome.status == Status.INVALID
    assert "brnach" in outcome.error


def test_reproducer_runs_in_a_shell(tmp_path: Path) -> None:
    executable = assemble(tmp_path, "riscv64", program("riscv64", "nop"))
    outcome = simulate(executable, machine("riscv64"))
    done = subprocess.run(["sh", "-c", outcome.command], capture_output=True, text=True, timeout=30)
    assert "insn.int_alu 1" in done.stdout
    assert "status complete" in done.stdout


def test_native_adapter_runs_here_and_refuses_elsewhere(tmp_path: Path) -> None:
    native_simulator = get_simulator("native")
    ours = machine("x86_64")
    if not native_simulator.probe(ours).available:
        pytest.skip("the host is not x86-64")
    executable = assemble(tmp_path, "x86_64", program("x86_64", "nop", code=3))
    assert native_simulator.run(SimJob(executable, ours)).status == Status.WRONG_OUTPUT
    other = replace(ours, isa=replace(ours.isa, name="aarch64"))
    assert "this host is x86_64" in native_simulator.probe(other).reason
