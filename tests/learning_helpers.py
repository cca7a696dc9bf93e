# SPDX-License-Identifier: Apache-2.0
"""Made-up workloads whose times follow a known rule, as counters, groups and record stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simtune.counters import Counters
from simtune.dataset import Group
from simtune.jobs import Outcome, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.records import Conditions, Measurement, RecordStore, Run, Trial, Workload

U74 = load_machine("sifive-u74")


def planted_counters(number: int, seed: int, size: float = 1e6) -> list[Counters]:
    """Random candidates of one workload; `size` is its amount of work."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(number):
        instructions = size * random.uniform(1, 6)
        loads, stores = instructions * random.uniform(0.1, 0.4), instructions * random.uniform(0.01, 0.2)
        misses = loads * 10 ** random.uniform(-4, -1.5)
        fma = instructions * random.uniform(0.1, 0.3)
        counts = {
            "instructions": instructions,
            "loads": loads,
            "stores": stores,
            "load_bytes": 4 * loads,
            "store_bytes": 4 * stores,
            "branches": instructions * 0.05,
            "insn.fp_fma": fma,
            "insn.load": loads,
            "insn.store": stores,
            "insn.branch": instructions * 0.05,
            "insn.int_alu": instructions * 0.95 - loads - stores - fma,
            "issue_cycles": instructions * 0.8 + fma,
            "l1d.read_misses": misses,
            "l1d.read_hits": loads - misses,
        }
        rows.append(Counters({name: float(round(value)) for name, value in counts.items()}, "made up"))
    return rows


def planted_seconds(counters: Counters) -> float:
    """The rule: 1 ns per instruction, 3 more per FMA, 40 more per L1 miss. Not the analytical model."""
    return 1e-9 * (counters["instructions"] + 3 * counters["insn.fp_fma"] + 40 * counters["l1d.read_misses"])


def planted_group(seed: int, number: int = 60, noise: float = 0.0, machine: Machine = U74) -> Group:
    random = np.random.default_rng(1000 + seed)
    rows = planted_counters(number, seed, 1e5 * 3**seed)
    seconds = np.array([planted_seconds(row) for row in rows])
    halves = seconds[:, None] * np.exp(noise * random.standard_normal((number, 2)))
    trials = tuple(f"r{seed}:{i}" for i in range(number))
    name = f"workload{seed}"
    return Group(name, name, machine, tuple(rows), halves.mean(axis=1), halves, trials, True)


def planted_groups(workloads: int = 4, **options: float) -> list[Group]:
    return [planted_group(seed, **options) for seed in range(workloads)]  # type: ignore[arg-type]


def add_run(
    store: RecordStore, seed: int, rows: list[Counters], machine: Machine = U74, target: str = "host"
) -> Run:
    """A collecting run: each candidate simulated, and measured three times without noise."""
    workload = store.put_workload(Workload(f"workload{seed}", [["TENSOR", "float32", [8 + seed]]]))
    run = store.start_run(workload, machine.name, machine.digest(), config={"kind": "collect", "seed": seed})
    for index, counters in enumerate(rows):
        key = store.put_simulation(
            Conditions(f"{seed}-{index}", "made up", "1", machine.digest()),
            Outcome(Status.OK, counters=counters),
        )
        store.put_trial(
            Trial(
                run.id,
                index,
                f"c{index}",
                Status.OK,
                simulation=key,
                value=planted_seconds(counters),
                is_reference=index == 0,
            )
        )
        seconds = planted_seconds(counters)
        store.put_measurement(Measurement(key, target, [seconds] * 3, seconds, 0.0))
    return run


def planted_store(path: Path, workloads: int = 4, number: int = 40) -> list[Run]:
    with RecordStore(path) as store:
        return [
            add_run(store, seed, planted_counters(number, seed, 1e5 * 3**seed)) for seed in range(workloads)
        ]
