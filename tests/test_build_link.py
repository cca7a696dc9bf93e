# SPDX-License-Identifier: Apache-2.0
"""Linking: right answers on every ISA, natively and simulated; clear errors; its cost."""

from __future__ import annotations

import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MACHINES
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simtune.build.artifact import load
from simtune.build.elf import is_static_program
from simtune.build.image import Plan, Role, Tensor
from simtune.build.inputs import inputs, numpy_dtype
from simtune.build.link import LinkFailed, linker
from simtune.build.toolchain import find
from simtune.errors import InputFileError
from simtune.jobs import SimJob, Status
from simtune.machines.load import load_machine
from simtune.simulators.qemu_report import OPTIONAL_MODELS


def conv2d(x: Any, w: Any, bias: Any, stride: int, pad: int) -> Any:
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    k = w.shape[2]
    out = (x.shape[2] - k) // stride + 1
    y = np.zeros((x.shape[0], w.shape[0], out, out))
    for i in range(k):
        for j in range(k):
            part = x[:, :, i : i + out * stride : stride, j : j + out * stride : stride]
            y += np.einsum("nchw,oc->nohw", part, w[:, :, i, j].astype(np.float64))
    return np.maximum(y + bias, 0)


def depthwise(x: Any, w: Any, bias: Any) -> Any:
    return np.concatenate(
        [conv2d(x[:, c : c + 1], w[c : c + 1], bias[:, c : c + 1], 1, 1) for c in range(x.shape[1])], axis=1
    )


def softmax(x: Any) -> Any:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


#: workload -> the same in numpy, double precision
WORKLOADS: dict[str, Callable[..., Any]] = {
    "conv2d:c=8,h=14,o=16,k=3,s=2,p=1": lambda x, w, b: conv2d(x, w, b, 2, 1),
    "matmul:m=33,n=40,k=24": lambda a, b: a.astype(np.float64) @ b.astype(np.float64),
    "depthwise:c=8,h=14": depthwise,
    "softmax:m=7,n=100": softmax,
    "matmul_int8:m=32,n=24,k=48": lambda a, b: a.astype(np.int32) @ b.astype(np.int32).T,
}


@pytest.mark.parametrize("machine_name", MACHINES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_answers_equal_numpy_on_every_isa(
    workload: str, machine_name: str, build_default: Any, qemu: Any, tmp_path: Path
) -> None:
    machine = load_machine(machine_name)
    artifact = load(build_default(workload, machine), tmp_path)
    plan = artifact.plan()
    executable = linker(artifact.isa).link(artifact.objects, plan, tmp_path / "k.elf")
    dump = tmp_path / "out.bin"
    outcome = qemu.run(SimJob(executable, machine, ("--seed", "3", "--dump", str(dump))))
    assert outcome.status is Status.OK, outcome.error
    got = np.frombuffer(dump.read_bytes(), numpy_dtype(plan.tensors[-1])).reshape(plan.tensors[-1].shape)
    expected = WORKLOADS[workload](*inputs(plan, seed=3).values())
    if got.dtype.kind == "i":
        np.testing.assert_array_equal(got, expected)
    else:
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("machine_name", MACHINES)
def test_counters_do_not_depend_on_where_the_executable_lies(
    machine_name: str, build_default: Any, qemu: Any, tmp_path: Path
) -> None:
    """Its path is on the stack and, by the folder's length, on the heap; a line of the cache is 64 bytes."""
    machine = load_machine(machine_name)
    artifact = load(build_default("softmax:m=7,n=100", machine), tmp_path)
    executable = linker(artifact.isa).link(artifact.objects, artifact.plan(), tmp_path / "k.elf")
    counters = []
    for length in (1, 17, 33, 49, 200):
        (tmp_path / ("x" * length)).mkdir()
        place = shutil.copy(executable, tmp_path / ("x" * length))
        outcome = qemu.run(SimJob(Path(place), machine, count=OPTIONAL_MODELS))
        assert outcome.ok, outcome.error
        counters.append(dict(outcome.counters))
    assert counters == [counters[0]] * 5


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 host to run x86-64 code natively")
def test_the_same_executable_runs_natively(build_default: Any, tmp_path: Path) -> None:
    machine = load_machine("x86-64-v3")
    artifact = load(build_default("matmul:m=33,n=40,k=24", machine), tmp_path)
    executable = linker("x86_64").link(artifact.objects, artifact.plan(), tmp_path / "k.elf")
    sums = set()
    for layout in ("0", "1", "17"):
        command = [str(executable), "--repeat", "3", "--warmup", "1", "--layout", layout]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        assert all(float(lines[f"seconds.{i}"]) > 0 for i in range(3))
        sums.add(lines["checksum"])
    assert len(sums) == 1, "the address layout must not change the answer"


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]
)
@pytest.mark.parametrize("constant", [False, True])
def test_inputs_in_numpy_equal_those_of_the_harness(dtype: str, constant: bool, tmp_path: Path) -> None:
    """A kernel that copies its input shows what the harness filled in."""
    source = tmp_path / "copy.c"
    source.write_text(
        """
        #include <string.h>
        typedef struct { void *data; } T;
        typedef struct { int i, z; T *p; } A;
        int __tvm_ffi_copy(void *s, A *a, int n, A *r) { (void)s; (void)n; (void)r;
            memcpy(a[1].p->data, a[0].p->data, BYTES); return 0; }
        """
    )
    tensor = Tensor(dtype, (5, 7))
    obj = tmp_path / "copy.o"
    subprocess.run(
        [find("x86_64").cc, "-c", "-O1", f"-DBYTES={tensor.nbytes}", source, "-o", obj], check=True
    )
    plan = Plan.single([tensor, Tensor(dtype, (5, 7), Role.OUTPUT)], "copy")
    executable = linker("x86_64").link([obj], plan, tmp_path / "k.elf")
    arguments = ["--seed", "11", "--dump", str(tmp_path / "out"), *(["--constant"] if constant else [])]
    subprocess.run([executable, *arguments], check=True, capture_output=True)
    filled = inputs(plan, 11, constant)[0]
    assert (tmp_path / "out").read_bytes() == filled.tobytes()
    assert len(np.unique(filled.astype(np.float64))) == 1 if constant else filled.std() > 0 or dtype == "bool"


def test_an_unwritten_output_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "lazy.c"
    source.write_text("int __tvm_ffi_lazy(void *s, void *a, int n, void *r) { return 0; }")
    subprocess.run([find("x86_64").cc, "-c", source, "-o", tmp_path / "lazy.o"], check=True)
    plan = Plan.single([Tensor("float32", (4,), Role.OUTPUT)], "lazy")
    executable = linker("x86_64").link([tmp_path / "lazy.o"], plan, tmp_path / "k.elf")
    (tmp_path / "zeros").write_bytes(bytes(16))
    command = [executable, "--expect", tmp_path / "zeros", "--rtol", "1e-3", "--atol", "1e-3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert "wrong output: 4 elements differ" in done.stderr


def test_undefined_symbols_are_named(tmp_path: Path) -> None:
    source = tmp_path / "needy.c"
    source.write_text("int nowhere(void); int __tvm_ffi_main(void) { return nowhere(); }")
    subprocess.run([find("x86_64").cc, "-c", source, "-o", tmp_path / "needy.o"], check=True)
    plan = Plan.single([Tensor("float32", (4,), Role.OUTPUT)])
    with pytest.raises(LinkFailed, match="nowhere"):
        linker("x86_64").link([tmp_path / "needy.o"], plan, tmp_path / "k.elf")


@pytest.mark.alone
def test_linking_costs_at_most_ten_milliseconds(build_default: Any, u74: Any, tmp_path: Path) -> None:
    artifact = load(build_default("matmul:m=33,n=40,k=24", u74), tmp_path)
    link, plan = linker("riscv64").link, artifact.plan()
    costs = []
    for _ in range(10):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = time.process_time()
        link(artifact.objects, plan, tmp_path / "k.elf")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        child = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        costs.append(child + time.process_time() - own)
    assert sorted(costs)[len(costs) // 2] < 0.010


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not an ELF"), (b"garbage" * 100, "not an ELF"), (b"\x7fELF" + bytes(60), "64-bit")],
)
def test_garbage_objects_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=message):
        load(path, tmp_path)


def test_an_object_cut_anywhere_is_refused_or_whole(build_default: Any, u74: Any, tmp_path: Path) -> None:
    data = build_default("matmul:m=33,n=40,k=24", u74).read_bytes()
    for size in range(0, len(data) - 1, 997):
        path = tmp_path / "cut.o"
        path.write_bytes(data[:size])
        with pytest.raises(InputFileError):
            load(path, tmp_path)


@settings(max_examples=200, deadline=None, database=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=80).map(lambda rest: b"\x7fELF\x02\x01" + rest)))
@example(b"\xff" * 4096)
@example(b"\x7fELF\x02\x01" + b"\xff" * 4090)
def test_any_file_may_be_asked_whether_it_is_a_program(head: bytes) -> None:
    """A folder of jobs may hold anything."""
    assert is_static_program(head) in (True, False)


def test_missing_file_and_symbolic_names() -> None:
    with pytest.raises(InputFileError, match="cannot read"):
        load(Path("/nonexistent/x.o"), Path("/tmp"))
    with pytest.raises(InputFileError, match="is no tensor"):
        Tensor.parse("float32:axb")
    with pytest.raises(InputFileError, match="not supported"):
        Tensor.parse("complex64:4")
