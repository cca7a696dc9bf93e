# SPDX-License-Identifier: Apache-2.0
"""Speed of the QEMU plugin: plain QEMU, counting only (classes and issue model), all caches.

Of each kernel, TVM's default schedule and random MetaSchedule samples run on each machine. Times are
user CPU seconds of the whole process, the least of several runs, variants in turns so that drifting
machine speed hits all alike; the kernel is called as often as plain QEMU needs for a fixed time, so
start-up and translation hardly show. Goal: all caches within 1.5 times plain QEMU, and within 2 times
for RVV and int8.

    python benchmarks/throughput.py            # everything
    python benchmarks/throughput.py --quick    # under a minute
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conditions import conditions, emit, parser
from kernels import linked, sampled

from simtune.errors import SimtuneError
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.simulators.qemu import QemuSimulator, cpu_option
from simtune.simulators.qemu_report import configuration, parse_report
from simtune.tuning.workloads import parse

MACHINES = {
    "sifive-u74": "riscv64 scalar",
    "spacemit-x60": "riscv64 RVV 256",
    "sifive-x280": "riscv64 RVV 512",
    "cortex-a72": "aarch64 NEON",
    "x86-64-v3": "x86_64 AVX2",
}
FLOAT = ("conv2d:c=32,h=28,o=32", "matmul:m=128,n=128,k=128", "depthwise:c=64,h=56", "softmax:m=64,n=1000")
INT8 = ("matmul_int8:m=128,n=128,k=128",)


def schedules(workload: str, machine: Machine, samples: int, seed: int) -> Iterator[tuple[str, Any]]:
    """TVM's default schedule, then random samples of MetaSchedule's space."""
    module = parse(workload).module()
    yield "default", module
    if samples:
        for number, sample in enumerate(sampled(module, machine, 4 * samples, seed)):
            yield f"sample {number}", sample


def executables(
    workload: str, machine: Machine, samples: int, seed: int, folder: Path
) -> Iterator[tuple[str, Path]]:
    """The default schedule and `samples` others as executables; what cannot be built is skipped."""
    built = 0
    for name, module in schedules(workload, machine, samples, seed):
        # LLVM and the linker refuse some samples; others take their place.
        with contextlib.suppress(RuntimeError, SimtuneError):
            yield name, linked(module, machine, folder)[0]
            built += 1
        if built > samples:
            return


def user_seconds(argv: Sequence[str]) -> float:
    """User CPU time of a program, which must end well."""
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(argv)}")
    return usage.ru_utime


def measure(program: Path, machine: Machine, runs: int, seconds: float) -> dict[str, Any]:
    """One row: user seconds and MIPS of the three variants, and the two ratios."""
    simulator = QemuSimulator()
    capability = simulator.probe(machine)
    if not capability.available:
        raise SystemExit(capability.reason)
    plugin = simulator.plugin_for(capability.version.partition("+")[0])
    plain = [capability.path, *cpu_option(machine)]
    report, commands = program.with_suffix(".report"), {"plain": [*plain, str(program)]}
    for variant, model in {"count": replace(machine, caches={}), "full": machine}.items():
        config = program.with_suffix(f".{variant}")
        config.write_text(configuration(model))
        options = ["-plugin", f"{plugin},config={config},out={report}"]
        commands[variant] = [*plain, *options, str(program)]
    number, spent = 1, user_seconds(commands["plain"])
    while spent < 0.8 * seconds:
        number = math.ceil(number * min(30.0, 1.1 * seconds / max(spent, 0.01)))
        spent = user_seconds([*commands["plain"], "--number", str(number)])
    least = dict.fromkeys(commands, math.inf)
    for _ in range(runs):
        for variant, command in commands.items():
            least[variant] = min(least[variant], user_seconds([*command, "--number", str(number)]))
    counted = parse_report(report.read_bytes())
    if counted.status != "complete":
        raise SystemExit(f"{program}: {counted.status or 'no report'}")
    instructions = counted.counters["instructions"]
    return {
        "calls": number,
        "instructions": int(instructions),
        **{f"{variant}_user_s": round(value, 3) for variant, value in least.items()},
        **{f"{variant}_mips": round(instructions / value / 1e6, 1) for variant, value in least.items()},
        "count_ratio": round(least["count"] / least["plain"], 3),
        "full_ratio": round(least["full"] / least["plain"], 3),
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Worst and geometric mean of the ratios, per instruction set and kind of data."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["isa"], row["data"]), []).append(row)
    return [
        {
            "isa": isa,
            "data": data,
            "rows": len(group),
            "goal": 2.0 if data == "int8" or "RVV" in isa else 1.5,
            **{
                f"{ratio}_{what}": round(function([row[f"{ratio}_ratio"] for row in group]), 3)
                for ratio in ("full", "count")
                for what, function in (("worst", max), ("mean", _geometric_mean))
            },
        }
        for (isa, data), group in groups.items()
    ]


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--quick", action="store_true", help="three kernels, default schedules, two short runs"
    )
    options.add_argument("--samples", type=int, default=3, help="random schedules per kernel")
    options.add_argument("--runs", type=int, default=5, help="runs of each variant")
    options.add_argument("--seconds", type=float, default=0.3, help="of plain QEMU per run")
    options.add_argument("--machine", choices=MACHINES, action="append", help="only these")
    args = options.parse_args()
    if args.quick:
        args.samples, args.runs, args.seconds = 0, 2, 0.08
    result: dict[str, Any] = {"conditions": conditions()}
    result |= {"seed": args.seed, "runs": args.runs, "samples": args.samples}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.machine or MACHINES:
            machine = load_machine(name)
            for workload in (*(FLOAT[:2] if args.quick else FLOAT), *INT8):
                data = "int8" if workload in INT8 else "float32"
                for schedule, program in executables(
                    workload, machine, args.samples, args.seed, Path(folder)
                ):
                    row = {"machine": name, "isa": MACHINES[name], "data": data, "workload": workload}
                    row["schedule"] = schedule
                    rows.append(row | measure(program, machine, args.runs, args.seconds))
    result |= {"rows": rows, "summary": summary(rows)}
    emit(result, args.output)


if __name__ == "__main__":
    main()
