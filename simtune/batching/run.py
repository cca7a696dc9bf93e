# SPDX-License-Identifier: Apache-2.0
"""`simtune.batch`: simulates given candidates, many at once, and records how each one ended."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from simtune.batching.feed import Feed
from simtune.batching.find import Found, find, nothing_to_do
from simtune.batching.identity import Digests
from simtune.batching.ledger import Ledger
from simtune.batching.model import BatchResult, Observer, Plan
from simtune.batching.sitting import Sitting
from simtune.build.image import Tensor
from simtune.evaluate import Evaluator
from simtune.execution.base import Executor
from simtune.jobs import Limits, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.base import Predictor
from simtune.predictors.objective import resolve_objective
from simtune.records.lease import lease
from simtune.records.model import Run, Workload, config_digest
from simtune.records.store import RecordStore, default_store_path, open_existing
from simtune.simulators.base import Simulator, get_simulator, models_to_count

Sources = Sequence[str | os.PathLike[str]] | Found

#: Jobs that a plan names.
_NAMED = 10


def batch(
    sources: Sources,
    machine: str | Path | Machine,
    *,
    name: str = "",
    simulator: str | Simulator = "qemu",
    predictor: Predictor | str | Path | None = None,
    count: Sequence[str] | None = None,
    signature: Sequence[Tensor] = (),
    limits: Limits | None = None,
    executor: Executor | None = None,
    jobs: int | None = None,
    records: str | Path | RecordStore | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    keep_failed: Path | None = None,
    observer: Observer | None = None,
) -> BatchResult:
    """Simulates every job of `sources`, and records one trial for each in a run of kind "batch".

    A job is named by its content: file, tensors and arguments; or module, schedule and target. The
    same call again takes up the run and runs only jobs that have no record, or one of a failure of
    the machine. Records are committed as jobs end, so that an interruption loses those under way.

    Args:
        sources: see `simtune.batching.find.find`; or what that found.
        machine: name, path of a machine file, "host", or a `Machine`.
        name: of the batch; the folder that all sources are in by default. Batches of the same name,
            machine and options are one run.
        simulator, predictor, count, limits, keep_failed: see `SimulatorRunner`.
        signature: tensors of objects without side file, the last one the output.
        executor: where jobs run, also the builds of a TVM database's candidates; it is not closed
            here. By default as many at once here as cores and memory allow.
        jobs: upper bound on the jobs at once, without an executor.
        records: the store or its path; by default `$SIMTUNE_RECORDS` or ``simtune-records.db``.
        fresh: start a new run; simulations that the store holds are used nevertheless.
        retry_failed: run jobs again whose record is a failure.
        observer: is told of all that happens.

    Raises:
        InputFileError: a source cannot be read.
        ConfigurationError: nothing to do, a run that another process works on, an option that the
            simulator cannot serve.
        SimtuneError: no machine of the executor can run the jobs.
        RecordError: the store cannot be written; jobs that ended before are recorded.

    Example:
        >>> result = simtune.batch(["objects"], "sifive-u74")              # doctest: +SKIP
        >>> result.tally.statuses[simtune.Status.OK]                        # doctest: +SKIP
        5000
    """
    found = _found(sources)
    loaded = machine if isinstance(machine, Machine) else load_machine(machine)
    adapter = get_simulator(simulator) if isinstance(simulator, str) else simulator
    model = _predictor(predictor, loaded)
    config = _config(adapter, count, model, signature)
    with _opened(records) as store:
        evaluator = Evaluator(
            loaded,
            adapter,
            model,
            resolve_objective("latency"),
            store,
            executor=executor,
            jobs=jobs,
            limits=limits,
            count=count,
            straggler_factor=None,  # slow candidates are results, too
            keep_failed=keep_failed,
        )
        try:
            run = _open_run(store, loaded, name or found.name, config, fresh)
            with lease(store.path, run.id):
                sitting = Sitting(
                    store,
                    run,
                    evaluator,
                    found,
                    tuple(signature),
                    retry_failed=retry_failed,
                    machine_name=_machine_name(machine),
                    builder_executor=executor,
                    observer=observer or Observer(),
                )
                return sitting.work(name or found.name)
        finally:
            evaluator.close(cancel=True)


def plan_batch(
    sources: Sources,
    machine: str | Path | Machine,
    *,
    name: str = "",
    simulator: str | Simulator = "qemu",
    predictor: Predictor | str | Path | None = None,
    count: Sequence[str] | None = None,
    signature: Sequence[Tensor] = (),
    records: str | Path | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
) -> Plan:
    """What `batch` would do with these arguments; writes nothing and runs nothing."""
    found = _found(sources)
    loaded = machine if isinstance(machine, Machine) else load_machine(machine)
    adapter = get_simulator(simulator) if isinstance(simulator, str) else simulator
    config = _config(adapter, count, _predictor(predictor, loaded), signature)
    path = Path(records or default_store_path())
    settled: Counter[Status] = Counter()
    duplicates = 0

    def on_settled(_index: int, status: Status) -> None:
        settled[status] += 1

    def on_duplicate() -> None:
        nonlocal duplicates
        duplicates += 1

    with open_existing(path) if path.exists() else RecordStore(":memory:") as store:
        workload = Workload(name or found.name, [])
        run = None if fresh else store.find_run(workload.id, loaded.digest(), config_digest(config))
        digests = Digests()
        ledger = Ledger(store, run, digests, retry_failed)
        feed = Feed(found, ledger, digests, tuple(signature), None, lambda: 1, on_settled, on_duplicate)
        pending = feed.pending()
        due = tuple(islice(pending, _NAMED))
        number = len(due) + sum(1 for _ in pending)
    jobs = settled.total() + number
    return Plan(run.id if run else "", jobs, settled, due, number, duplicates, dict(found.skipped))


def _found(sources: Sources) -> Found:
    found = sources if isinstance(sources, Found) else find(sources)
    if not len(found):
        raise nothing_to_do(found)
    return found


def _predictor(given: Predictor | str | Path | None, machine: Machine) -> Predictor:
    if isinstance(given, str | Path):
        from simtune.predictors.storage import load_predictor

        return load_predictor(given, machine)
    return given or AnalyticalPredictor()


@contextlib.contextmanager
def _opened(records: str | Path | RecordStore | None) -> Iterator[RecordStore]:
    if isinstance(records, RecordStore):
        yield records
        return
    with RecordStore(records or default_store_path()) as store:
        yield store


def _config(
    simulator: Simulator, count: Sequence[str] | None, predictor: Predictor, signature: Sequence[Tensor]
) -> dict[str, Any]:
    """What decides the results; another one is another run."""
    config: dict[str, Any] = {
        "kind": "batch",
        "simulator": simulator.name,
        "count": sorted(set(models_to_count(simulator, count))),
        "predictor": [predictor.name, getattr(predictor, "digest", "")],
    }
    if signature:
        config["args"] = ",".join(map(str, signature))
    return config


def _open_run(store: RecordStore, machine: Machine, name: str, config: dict[str, Any], fresh: bool) -> Run:
    workload = store.put_workload(Workload(name, []))
    known = None if fresh else store.find_run(workload, machine.digest(), config_digest(config))
    return known or store.start_run(
        workload, machine.name, machine.digest(), config=config, versions={"simtune": version("simtune")}
    )


def _machine_name(machine: str | Path | Machine) -> str:
    """What names the machine in a command for another day and another folder."""
    if isinstance(machine, Machine):
        return machine.name
    return str(Path(machine).absolute()) if Path(machine).is_file() else str(machine)
