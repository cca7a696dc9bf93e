# SPDX-License-Identifier: Apache-2.0
"""How fast the record store is: groups of outcomes with trials, single commits, look-ups, resume, merging.

Trials of a search have a trace (1.3 kB here), those of a batch of objects have none; each has a store of
its own. Prints one JSON document. Example:
  python benchmarks/records.py --records 1000000 --seed 7
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from simtune.counters import SCHEMA, Counters
from simtune.jobs import Outcome, Status
from simtune.records import Conditions, RecordStore, Run, Simulation, Trial, Workload
from simtune.records.merge import merge

BATCH = 1000
SINGLE = 1000
LOOKUPS = 2000


def simulation(number: int, chosen: random.Random) -> Simulation:
    """An outcome with every counter of the schema, as large and of the same types as QEMU's adapter gives."""
    counts: dict[str, float] = {name: chosen.randrange(10**9) for name in SCHEMA}
    counts |= {
        name: round(chosen.random() * 1e9, 3) for name, spec in SCHEMA.items() if spec.unit == "cycles"
    }
    counters = Counters(counts, "qemu 7.2.22")
    outcome = Outcome(
        Status.OK,
        counters=counters,
        output={"checksum": f"{chosen.getrandbits(64):016x}", "max_error": "1.2e-07"},
        command="qemu-riscv64 -plugin simtune.so,config=machine.cfg ./candidate --seed 7",
        wall_s=chosen.random(),
        cpu_s=chosen.random(),
        peak_rss=50 << 20,
    )
    conditions = Conditions(
        f"{chosen.getrandbits(256):064x}", "qemu", "7.2.22", "0f3a", ("--seed", "7"), number
    )
    return Simulation(conditions, outcome)


def trial(run: Run, index: int, key: str, chosen: random.Random, traces: bool) -> Trial:
    tiles = [[f"SamplePerfectTile{i}", [chosen.randrange(64) for _ in range(4)]] for i in range(30)]
    trace = json.dumps([tiles, []]) if traces else ""
    return Trial(run.id, index, key, Status.OK, trace, key, value=chosen.random(), predicted_s=1e-3)


def measure(path: Path, records: int, seed: int, traces: bool) -> dict[str, float]:
    """Rates and times; making the values is left out of them."""
    chosen = random.Random(seed)
    inserting = inserting_cpu = 0.0
    keys: list[str] = []
    with RecordStore(path) as store:
        workload = store.put_workload(Workload("benchmark", []))
        run = store.start_run(workload, "sifive-u74", "0f3a")
        for first in range(0, records, BATCH):
            batch = [simulation(number, chosen) for number in range(first, min(first + BATCH, records))]
            # A key is computed once, when its owner asks for it: that is part of the cost.
            start, start_cpu = time.perf_counter(), time.process_time()
            keys = [item.key for item in batch]
            inserting += time.perf_counter() - start
            inserting_cpu += time.process_time() - start_cpu
            trials = [trial(run, first + i, key, chosen, traces) for i, key in enumerate(keys)]
            start, start_cpu = time.perf_counter(), time.process_time()
            store.put_results(batch, trials)
            inserting += time.perf_counter() - start
            inserting_cpu += time.process_time() - start_cpu
        single = [simulation(records + number, chosen) for number in range(SINGLE)]
        start = time.perf_counter()
        for item in single:
            store.put_simulation(item.conditions, item.outcome)
        single_s = time.perf_counter() - start
        start = time.perf_counter()
        for _ in range(LOOKUPS):
            assert store.get_simulation(chosen.choice(keys)) is not None
        lookup_s = time.perf_counter() - start
        size = store.size()
    start, start_cpu = time.perf_counter(), time.process_time()
    with RecordStore(path, create=False) as store:
        found = sum(1 for _ in store.trial_briefs(run.id))
    resume_s, resume_cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    assert found == records
    return {
        "outcomes_per_s": records / inserting,
        "outcomes_per_cpu_s": records / inserting_cpu,
        "single_commits_per_s": SINGLE / single_s,
        "lookups_per_s": LOOKUPS / lookup_s,
        "resume_scan_s": resume_s,
        "resume_scan_cpu_s": resume_cpu_s,
        "bytes_per_record": size / records,
    }


def measure_merge(folder: Path) -> dict[str, float]:
    """Merges both stores: into a new one, and one into the other, which happens in one transaction."""
    first, second = folder / "with_traces.db", folder / "without_traces.db"
    start = time.perf_counter()
    report = merge([first, second], folder / "merged.db")
    new_s = time.perf_counter() - start
    start = time.perf_counter()
    merge([first], second)
    return {
        "rows": sum(report.total.values()),
        "into_new_s": new_s,
        "into_existing_s": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000, help="simulations, each with a trial")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to put the store (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results: dict[str, dict[str, float]] = {
            name: measure(Path(folder) / f"{name}.db", options.records, options.seed, name == "with_traces")
            for name in ("with_traces", "without_traces")
        }
        results["merge"] = measure_merge(Path(folder))
    conditions = {
        "records": options.records,
        "seed": options.seed,
        "batch": BATCH,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
    }
    print(json.dumps({"benchmark": "records", "conditions": conditions, "results": results}, indent=2))


if __name__ == "__main__":
    main()
