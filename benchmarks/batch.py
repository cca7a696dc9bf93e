# SPDX-License-Identifier: Apache-2.0
"""What `simtune.batch` itself costs: a simulator that answers at once, jobs by the ten thousand.

Jobs are lines of a list that name one program with different arguments, and objects in a folder, each with
a side file. Reported are CPU milliseconds of the driver per job, seconds that the same call takes when
all is recorded, resident memory, and bytes of the store per job. Goals: 5 ms per job; a resume of 100,000
jobs in 10 s.

    python benchmarks/batch.py                 # 100,000 lines, 20,000 objects
    python benchmarks/batch.py --quick         # a tenth
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from conditions import conditions, emit, parser

import simtune
from simtune.batching.find import find
from simtune.batching.model import Observer
from simtune.build.artifact import load, side_file, write_side_file
from simtune.build.image import Plan
from simtune.build.link import linker
from simtune.counters import Counters
from simtune.execution.view import View
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.simulators.base import Capability
from simtune.tuning.workloads import parse

WORKLOAD = "matmul:m=8,n=16,k=16"


class Immediate:
    """A simulator that takes no time."""

    name = "immediate"
    default_models = ()

    def probe(self, machine: Machine | None = None) -> Capability:
        return Capability(True, version="1", counters=frozenset({"instructions"}))

    def run(self, job: SimJob, cancel: Any = None) -> Outcome:
        return Outcome(Status.OK, counters=Counters({"instructions": 1000}, self.name))


class Memory(Observer):
    """The most memory that was in use when it looked, and the most jobs under way."""

    def __init__(self) -> None:
        self.most_mb, self.under_way, self.descriptors = 0.0, 0, 0

    def on_view(self, view: View, under_way: int) -> None:
        process = psutil.Process()
        self.most_mb = max(self.most_mb, process.memory_info().rss / 1e6)
        self.descriptors = max(self.descriptors, process.num_fds())
        self.under_way = max(self.under_way, under_way)


def build(machine: Machine, folder: Path) -> tuple[Path, Path]:
    """An object with its side file, and a program."""
    from tvm.ir import save_json
    from tvm.target import Target

    from simtune.build import codegen

    path, target = folder / "kernel.o", Target(dict(machine.target))
    with target:
        info = codegen.emit(save_json(parse(WORKLOAD).module()), target, str(path))
    write_side_file(path, info)
    plan: Plan = load(path, folder).plan()
    return path, linker(machine.isa.name).link([path], plan, folder / "program")


def measure(source: Path, machine: Machine, records: Path) -> dict[str, Any]:
    start = time.perf_counter()
    jobs = len(find([source]))
    found_s = time.perf_counter() - start
    memory = Memory()
    start, cpu = time.perf_counter(), time.process_time()
    first = simtune.batch([source], machine, simulator=Immediate(), records=records, observer=memory)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert first.ok
    assert first.tally.simulated == jobs
    start = time.perf_counter()
    again = simtune.batch([source], machine, simulator=Immediate(), records=records)
    resume_s = time.perf_counter() - start
    assert again.tally.settled == jobs
    return {
        "jobs": jobs,
        "find_s": round(found_s, 2),
        "jobs_per_s": round(jobs / wall),
        "driver_cpu_ms_per_job": round(1e3 * cpu / jobs, 3),
        "resume_s": round(resume_s, 2),
        "resident_mb": round(memory.most_mb),
        "descriptors": memory.descriptors,
        "under_way": memory.under_way,
        "store_bytes_per_job": round(records.stat().st_size / jobs),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    chosen = options.parse_args()
    scale = 10 if chosen.quick else 1
    machine = load_machine("sifive-u74")
    with tempfile.TemporaryDirectory(prefix="simtune-batch-") as name:
        folder = Path(name)
        (folder / "build").mkdir()
        with ProcessPoolExecutor(1, get_context("spawn")) as other:  # TVM's memory is not the batch's
            path, program = other.submit(build, machine, folder / "build").result()
        listed = folder / "list.txt"
        listed.write_text("".join(f"{program} {number}\n" for number in range(100_000 // scale)))
        objects = folder / "objects"
        objects.mkdir()
        content, side = path.read_bytes(), side_file(path).read_bytes()
        for number in range(20_000 // scale):
            copy = objects / f"{number}.o"
            copy.write_bytes(
                content[:8] + number.to_bytes(8, "little") + content[16:]
            )  # padding of the header
            side_file(copy).write_bytes(side)
        time.sleep(3)  # states of files are trusted when they are older than two seconds
        result = {
            "objects": measure(objects, machine, folder / "objects.db"),
            "lines": measure(listed, machine, folder / "lines.db"),
        }
    emit({"conditions": conditions(), **result}, chosen.output)


if __name__ == "__main__":
    main()
