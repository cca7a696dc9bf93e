# SPDX-License-Identifier: Apache-2.0
"""Values for the record store's tests: a filled store, and hypothesis strategies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from simtune.counters import SCHEMA, Counters
from simtune.jobs import HotBlock, Outcome, Status
from simtune.records import Conditions, Measurement, RecordStore, Run, Simulation, Trial, Workload

#: For child processes: the package, and these helpers.
PYTHONPATH = os.pathsep.join(str(folder) for folder in Path(__file__).resolve().parents[:2])

TENSOR = ["TENSOR", "float32", [16, 16]]
COUNTERS = Counters({name: float(100 * i) for i, name in enumerate(SCHEMA)}, "qemu 7.2.22")


def conditions(number: int = 0) -> Conditions:
    return Conditions(f"{number:064x}", "qemu", "7.2.22", "0f3a", ("--seed", "7"), 7, ("branch",))


def ok(**changes: object) -> Outcome:
    values: dict[str, object] = {"counters": COUNTERS, "output": {"checksum": "ab"}, "wall_s": 0.25}
    return Outcome(Status.OK, **(values | changes))  # type: ignore[arg-type]


def simulation(number: int) -> Simulation:
    """The simulation of a candidate, every fifth of which fails in it."""
    failed = Outcome(Status.CRASHED, error="SIGSEGV", command="qemu x")
    return Simulation(conditions(number), failed if number % 5 == 4 else ok())


def fill(store: RecordStore, trials: int = 20) -> Run:
    """A run with trials, every fifth of which failed in its simulation; index 0 is the reference."""
    workload = store.put_workload(Workload("matmul", [TENSOR] * 3, '["123", "QUUA"]'))
    run = store.start_run(
        workload, "sifive-u74", "0f3a", target='{"kind":"llvm"}', config={"seed": 7}, versions={"tvm": "0.27"}
    )
    for index in range(trials):
        simulated = simulation(index)
        key, failed = simulated.key, not simulated.outcome.ok
        store.put_simulations([simulated])
        store.put_trial(
            Trial(
                run.id,
                index,
                f"c{index}",
                simulated.outcome.status,
                trace_json=f'[[["Step{index}"]],[]]' * 20,
                simulation=key,
                value=None if failed else 1e-3 * (trials - index),
                predicted_s=None if failed else 1e-3 * (trials - index),
                is_reference=index == 0,
            )
        )
        store.put_measurement(Measurement(key, "host", [1e-3, 2e-3], 1.5e-3, 0.67))
    return run


def contents(store: RecordStore) -> dict[str, list[object]]:
    """Everything in a store, comparable."""
    return {
        "runs": list(store.runs()),
        "workloads": [store.workload(run.workload) for run in store.runs()],
        "simulations": list(store.simulations()),
        "trials": [trial for run in store.runs() for trial in store.trials(run.id)],
        "measurements": list(store.measurements()),
    }


def filled_file(path: Path, trials: int = 20) -> dict[str, list[object]]:
    with RecordStore(path) as store:
        with store.batch():
            fill(store, trials)
        return contents(store)


def as_user(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python as a user whom permissions bind, which root is not."""
    prefix = "import os\nif os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
    # Imports come first: the unprivileged user may not be able to read the environment.
    imports = "import sys\nfrom simtune.errors import RecordError\nfrom simtune.records.store import *\n"
    imports += "from simtune.records.merge import merge\n"
    imports += "from simtune.records import *\nimport records_helpers as helpers\n"
    return subprocess.run(
        [sys.executable, "-c", imports + prefix + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        check=False,
    )


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that any user can reach; pytest's own are private."""
    path = Path(tempfile.mkdtemp(prefix="simtune-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        path.chmod(0o755)
        shutil.rmtree(path)


floats = st.floats(allow_nan=True, allow_infinity=True)
numbers = st.one_of(st.none(), floats)
texts = st.text(max_size=50)
# What errors="surrogateescape" leaves of bytes that are not UTF-8.
wild_texts = st.binary(max_size=50).map(lambda data: data.decode("utf-8", "surrogateescape"))
int64 = st.integers(-(2**63), 2**63 - 1)

counters = st.builds(
    Counters, st.dictionaries(st.sampled_from(sorted(SCHEMA)), floats, max_size=8), texts, texts
)
blocks = st.builds(HotBlock, st.integers(0, 2**64 - 1), int64, int64, st.binary(max_size=20))
outcomes = st.builds(
    Outcome,
    status=st.sampled_from(Status),
    stage=st.sampled_from(["build", "link", "simulate", "check"]),
    counters=st.one_of(st.none(), counters),
    output=st.dictionaries(texts, texts, max_size=4),
    error=texts,
    command=texts,
    wall_s=floats,
    cpu_s=floats,
    peak_rss=int64,
    blocks=st.lists(blocks, max_size=3).map(tuple),
)
simulations = st.builds(
    Simulation,
    st.builds(
        Conditions,
        object_sha256=texts,
        simulator=texts,
        simulator_version=texts,
        machine_digest=texts,
        arguments=st.lists(texts, max_size=3).map(tuple),
        seed=int64,
        count=st.lists(texts, max_size=3).map(tuple),
    ),
    outcomes,
    st.one_of(st.none(), st.integers(0, 2**62)),
    st.floats(allow_nan=False),
)
trials = st.builds(
    Trial,
    run=st.just("run"),
    index=st.integers(0, 2**40),
    candidate=texts,
    status=st.sampled_from(Status),
    trace_json=st.one_of(st.just(""), texts),
    stage=texts,
    error=texts,
    command=texts,
    value=numbers,
    predicted_s=numbers,
    measured_s=numbers,
    build_s=floats,
    link_s=floats,
    simulate_s=floats,
    is_reference=st.booleans(),
    created=floats,
)
