# SPDX-License-Identifier: Apache-2.0
"""Real programs to measure, and real servers to measure on: sshd and TVM's RPC server, on this host."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from simtune.build.artifact import load
from simtune.build.reference import Reference
from simtune.machines.load import load_machine
from simtune.measure.base import Program, Settings
from simtune.measure.ssh import SshTarget
from simtune.tuning.workloads import parse

#: Small numbers: the tests are about what happens, not about the times.
QUICK = Settings(processes=3, max_processes=3, repeat=2, min_repeat_s=0.001, warmup_s=0.0, timeout_s=20.0)


def program(path: Path, workload: str, folder: Path, checked: bool = True) -> Program:
    """A built object of a workload as a program with its right answer."""
    artifact = load(path, folder)
    expected = Reference(parse(workload).module(), 0, folder).expectation() if checked else None
    return Program(artifact, artifact.plan(), expected=expected)


def falsified(right: Program) -> Program:
    """The same program with another answer expected: one byte of the exponent is changed."""
    assert right.expected is not None
    data = bytearray(right.expected.path.read_bytes())
    data[3] ^= 0x40
    path = right.expected.path.with_suffix(".wrong")
    path.write_bytes(data)
    return replace(right, expected=replace(right.expected, path=path, digest="0" * 64))


def endless(cc: str, folder: Path, isa: str) -> Program:
    """A kernel that never returns."""
    return _from_c(cc, folder, isa, "for (volatile int i = 0;; i = 1) { }")


def crashing(cc: str, folder: Path, isa: str) -> Program:
    """A kernel that writes where nothing is."""
    return _from_c(cc, folder, isa, "*(volatile int *)16 = 1; return 0;")


def _from_c(cc: str, folder: Path, isa: str, body: str) -> Program:
    source, product = folder / "kernel.c", folder / "kernel.o"
    source.write_text(f"int __tvm_ffi_main(void *s, const void *a, int n, void *r) {{ {body} }}\n")
    subprocess.run([cc, "-O1", "-fno-pic", "-c", str(source), "-o", str(product)], check=True)
    artifact = load(product, folder)
    assert artifact.isa == isa
    module = parse("matmul:m=4,n=4,k=4").module()
    return Program(artifact, artifact.plan(Reference(module, 0, folder).tensors))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, process: subprocess.Popen[bytes], patience_s: float = 30.0) -> None:
    end = time.monotonic() + patience_s
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"no server on port {port}, its process ended with {process.poll()}")


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[SshTarget]:
    """A real sshd on a high port with a throw-away key; gives a target that it accepts."""
    server = shutil.which("sshd") or "/usr/sbin/sshd"
    assert Path(server).exists(), "the tests need sshd: apt-get install openssh-server"
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\n"
    )
    key = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
    )
    command = [server, "-D", "-e", "-f", str(folder / "sshd_config")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    with ending(process):
        await_port(port, process)
        board = folder / "board"
        board.mkdir()
        target = SshTarget(f"{getpass.getuser()}@127.0.0.1", port, str(board), config=folder / "ssh_config")
        with target:
            yield target


@contextlib.contextmanager
def rpc_server(*options: str) -> Iterator[int]:
    """TVM's own RPC server; gives its port."""
    port = free_port()
    address = ("--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1))
    with _tvm_process("rpc_server", (*address, *options)) as process:
        await_port(port, process)
        yield port


@contextlib.contextmanager
def rpc_tracker() -> Iterator[int]:
    """TVM's own tracker; gives its port."""
    port = free_port()
    address = ("--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1))
    with _tvm_process("rpc_tracker", address) as process:
        await_port(port, process)
        yield port


@contextlib.contextmanager
def _tvm_process(name: str, options: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", f"tvm.exec.{name}", *options]
    # A session of its own: TVM serves in a child, which would outlive its parent.
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        with ending(process):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def host_machine_for(isa: str) -> str:
    """A machine whose code runs on an instruction set."""
    return {"x86_64": "x86-64-v3", "aarch64": "cortex-a72", "riscv64": "sifive-u74"}[isa]


def native_machine() -> str:
    return host_machine_for(load_machine("host").isa.name)
