# SPDX-License-Identifier: Apache-2.0
"""Counters against an independent count, and answers against numpy.

On x86, valgrind's callgrind counts the same SSE executables (it cannot run FMA code fast, hence SSE).
Both count a run with one kernel call and a run with two; the difference is the second call alone, with
the caches in the state that the first one left, on either side. Goals: equal instruction counts; L1D
misses within 0.5 %. On every instruction set the output is compared with numpy in double precision.

    python benchmarks/accuracy_counters.py       # two minutes
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conditions import conditions, emit, parser
from kernels import linked

from simtune.build.inputs import inputs, numpy_dtype
from simtune.jobs import SimJob
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.simulators.base import get_simulator
from simtune.tuning.workloads import parse

CALLGRIND_WORKLOADS = (
    "conv2d:c=32,h=28,o=32",
    "matmul:m=256,n=256,k=256",
    "dense:m=8,n=512,k=1024",
    "depthwise:c=64,h=56",
    "softmax:m=512,n=1000",
    "matmul_int8:m=256,n=256,k=256",
)


def conv2d(x: Any, w: Any, bias: Any) -> Any:
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((x.shape[0], w.shape[0], x.shape[2] - 2, x.shape[3] - 2))
    for i in range(3):
        for j in range(3):
            part = x[:, :, i : i + y.shape[2], j : j + y.shape[3]]
            y += np.einsum("nchw,oc->nohw", part, w[:, :, i, j].astype(np.float64))
    return np.maximum(y + bias, 0)


def softmax(x: Any) -> Any:
    e = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


NUMPY: dict[str, Callable[..., Any]] = {
    "conv2d:c=16,h=14,o=16": conv2d,
    "depthwise:c=16,h=14": lambda x, w, b: np.concatenate(
        [conv2d(x[:, c : c + 1], w[c : c + 1], b[:, c : c + 1]) for c in range(x.shape[1])], axis=1
    ),
    "matmul:m=64,n=64,k=64": lambda a, b: a.astype(np.float64) @ b.astype(np.float64),
    "softmax:m=16,n=200": softmax,
    "matmul_int8:m=64,n=64,k=64": lambda a, b: a.astype(np.int32) @ b.astype(np.int32).T,
}


def callgrind(program: Path, machine: Machine, folder: Path) -> Counter[str]:
    """Events of the second kernel call."""
    geometry = {name: f"{c.size},{c.ways},{c.line}" for name, c in machine.caches.items()}
    last = geometry.get("l3") or geometry["l2"]
    events: list[Counter[str]] = []
    for calls in ("1", "2"):
        out = folder / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", "--cache-sim=yes", f"--callgrind-out-file={out}"]
        command += ["--collect-atstart=no"]  # the harness toggles it on for its region
        command += [f"--I1={geometry['l1i']}", f"--D1={geometry['l1d']}", f"--LL={last}"]
        subprocess.run([*command, str(program), "--number", calls], check=True, capture_output=True)
        lines = out.read_text().splitlines()
        names = next(line.split()[1:] for line in lines if line.startswith("events:"))
        totals = next(line.split()[1:] for line in lines if line.startswith("totals:"))
        events.append(Counter(dict(zip(names, map(int, totals), strict=True))))
    events[1].subtract(events[0])
    return events[1]


def plugin(program: Path, machine: Machine) -> Counter[str]:
    """Counters of the second kernel call."""
    counted: list[Counter[str]] = []
    for calls in ("1", "2"):
        outcome = get_simulator("qemu").run(SimJob(program, machine, ("--number", calls)))
        assert outcome.counters is not None, outcome.error
        counted.append(Counter({name: int(value) for name, value in outcome.counters.items()}))
    counted[1].subtract(counted[0])
    return counted[1]


def against_callgrind(folder: Path) -> list[dict[str, Any]]:
    """Plugin and callgrind on the same SSE executables."""
    generic = load_machine("x86-64-v3")
    machine = replace(generic, target={**generic.target, "mcpu": "x86-64"})
    rows = []
    for workload in CALLGRIND_WORKLOADS:
        program, _ = linked(parse(workload).module(), machine, folder)
        counters, events = plugin(program, machine), callgrind(program, machine, folder)
        misses = counters["l1d.read_misses"] + counters["l1d.write_misses"]
        theirs = events["D1mr"] + events["D1mw"]
        rows.append(
            {
                "workload": workload,
                "instructions": counters["instructions"],
                "instructions_difference": counters["instructions"] - events["Ir"],
                "loads_difference": counters["loads"] - events["Dr"],
                "stores_difference": counters["stores"] - events["Dw"],
                "l1d_misses": misses,
                "l1d_misses_callgrind": theirs,
                "l1d_misses_difference_percent": round(100 * (misses - theirs) / max(1, theirs), 3),
            }
        )
    return rows


def against_numpy(folder: Path) -> list[dict[str, Any]]:
    """Largest error relative to the largest element, on every instruction set."""
    simulator, rows = get_simulator("qemu"), []
    for name in ("sifive-u74", "spacemit-x60", "sifive-x280", "cortex-a72", "x86-64-v3"):
        machine = load_machine(name)
        for workload, reference in NUMPY.items():
            program, plan = linked(parse(workload).module(), machine, folder)
            dump = folder / "out.bin"
            outcome = simulator.run(SimJob(program, machine, ("--dump", str(dump))))
            assert outcome.ok, outcome.error
            output = plan.tensors[-1]
            got = (
                np.frombuffer(dump.read_bytes(), numpy_dtype(output)).reshape(output.shape).astype(np.float64)
            )
            expected = np.asarray(reference(*inputs(plan).values()), np.float64)
            error = float(np.abs(got - expected).max() / np.abs(expected).max())
            rows.append({"machine": name, "workload": workload, "relative_error": error})
    return rows


def main() -> None:
    args = parser(__doc__).parse_args()
    result: dict[str, Any] = {"conditions": conditions()}
    with tempfile.TemporaryDirectory() as scratch:
        if shutil.which("valgrind"):
            result["callgrind"] = against_callgrind(Path(scratch))
        result["numpy"] = against_numpy(Path(scratch))
    result["worst_numpy_error"] = max(row["relative_error"] for row in result["numpy"])
    emit(result, args.output)


if __name__ == "__main__":
    main()
