# SPDX-License-Identifier: Apache-2.0
"""All installed simulators on the same executables: speed, start-up, memory, and whether they agree.

Executables are TVM's default schedules (on x86 of SSE code, since valgrind runs FMA in software). Each
is run as the tuner does it, once with one call of the kernel in the region and once with several:

    MIPS      more instructions / more CPU seconds: what a longer kernel costs, with all runs that an
              adapter makes of it (Spike and cachegrind run a program several times)
    start-up  CPU seconds of a program of 5,001 instructions without a library
    agreement difference from QEMU's user mode, of instructions and of L1D misses

Goals: instructions equal to within the region's edges, L1D misses within 1 % where both replace by LRU;
QEMU with all caches at least 10 times as fast as Spike with caches, and 100 times gem5's atomic model.

    python benchmarks/simulators.py            # five minutes on a busy core
    python benchmarks/simulators.py --quick    # under a minute
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from conditions import conditions, emit, parser
from kernels import linked

from simtune.jobs import Limits, Outcome, SimJob
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.simulators.base import get_simulator, simulator_names
from simtune.testing.programs import Programs
from simtune.tuning.workloads import parse

MACHINES = ("sifive-u74", "spacemit-x60", "cortex-a72", "x86-64-v3")
WORKLOADS = ("matmul:m=96,n=96,k=96", "conv2d:c=16,h=28,o=16", "softmax:m=64,n=500")
QUICK = ("matmul:m=64,n=64,k=64",)
#: Not simulators of a machine: the host itself, and answers from records.
OTHERS = ("native", "replay")


def machine_of(name: str) -> Machine:
    """The machine; x86 without FMA."""
    machine = load_machine(name)
    if machine.isa.name == "x86_64":
        machine = replace(machine, target={**machine.target, "mcpu": "x86-64"})
    return machine


def run(simulator: Any, program: Path, machine: Machine, calls: int, repeats: int) -> Outcome:
    """The run with the least CPU time."""
    arguments = ("--number", str(calls)) if calls else ()
    job = SimJob(program, machine, arguments, Limits(wall_s=1800, cpu_s=1800))
    outcomes = [simulator.run(job) for _ in range(repeats)]
    best = min(outcomes, key=lambda outcome: outcome.cpu_s)
    if not best.ok or best.counters is None:
        raise SystemExit(f"{simulator.name} on {machine.name}: {best.status}: {best.error}")
    return best


def difference(counted: Outcome, reference: Outcome) -> dict[str, Any]:
    """How far a simulator is from QEMU's user mode, on the first call of a kernel."""
    assert counted.counters is not None
    assert reference.counters is not None
    mine, theirs = counted.counters, reference.counters
    row: dict[str, Any] = {"instructions_difference": mine["instructions"] - theirs["instructions"]}
    misses, known = mine.misses("l1d"), theirs.misses("l1d")
    if misses is not None and known:
        row["l1d_misses"] = misses
        row["l1d_misses_difference_percent"] = round(100 * (misses - known) / known, 3)
    row["replacement"] = mine.replacement
    return row


def measure(workloads: tuple[str, ...], calls: int, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """One row per machine, workload and simulator."""
    rows = []
    for name in MACHINES:
        machine = machine_of(name)
        simulators = [get_simulator(n) for n in simulator_names() if n not in OTHERS]
        simulators = [simulator for simulator in simulators if simulator.probe(machine).available]
        simulators.sort(key=lambda simulator: simulator.name != "qemu")
        tiny = Programs(machine.isa.name, Path(tempfile.mkdtemp(dir=folder))).loop()
        start = {s.name: run(s, tiny, machine, 0, repeats) for s in simulators}
        for workload in workloads:
            program, _ = linked(parse(workload).module(), machine, folder)
            first: Outcome | None = None
            for simulator in simulators:
                one = run(simulator, program, machine, 1, repeats)
                many = run(simulator, program, machine, calls, repeats)
                first = first or one
                assert one.counters is not None
                assert many.counters is not None
                more = many.counters["instructions"] - one.counters["instructions"]
                row = {
                    "machine": name,
                    "workload": workload,
                    "simulator": one.counters.simulator,
                    "name": simulator.name,
                    "instructions": one.counters["instructions"],
                    "mips": round(more / max(many.cpu_s - one.cpu_s, 1e-3) / 1e6, 2),
                    "start_up_s": round(start[simulator.name].cpu_s, 4),
                    "memory_mib": round(many.peak_rss / 2**20, 1),
                }
                rows.append(row | difference(one, first))
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per simulator: geometric mean of the speed relative to QEMU, and the worst disagreement."""
    by_case = {(row["machine"], row["workload"]): row for row in rows if row["name"] == "qemu"}
    result: dict[str, Any] = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        ratios = [by_case[row["machine"], row["workload"]]["mips"] / row["mips"] for row in mine]
        lines = [
            abs(row["l1d_misses_difference_percent"])
            for row in mine
            if "l1d_misses_difference_percent" in row and row["replacement"] == "lru"
        ]
        result[name] = {
            "runs": len(mine),
            "qemu_is_faster_by": round(math.exp(sum(map(math.log, ratios)) / len(ratios)), 2),
            "mips_least": min(row["mips"] for row in mine),
            "mips_most": max(row["mips"] for row in mine),
            "start_up_s": max(row["start_up_s"] for row in mine),
            "memory_mib": max(row["memory_mib"] for row in mine),
            "worst_instructions_difference": max(abs(row["instructions_difference"]) for row in mine),
            "worst_l1d_misses_difference_percent": max(lines, default=None),
        }
    return result


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="one small kernel per machine")
    args = options.parse_args()
    absent = {
        name: capability.reason
        for name in simulator_names()
        if name not in OTHERS and not (capability := get_simulator(name).probe()).available
    }
    with tempfile.TemporaryDirectory() as folder:
        workloads, calls, repeats = (QUICK, 33, 2) if args.quick else (WORKLOADS, 9, 3)
        rows = measure(workloads, calls, repeats, Path(folder))
    emit({"conditions": conditions(), "absent": absent, "summary": summary(rows), "rows": rows}, args.output)


if __name__ == "__main__":
    main()
