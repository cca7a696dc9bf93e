# SPDX-License-Identifier: Apache-2.0
"""Several tasks of one tuning overlap; several tunings share one executor and leave each other alone."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import simtune
from simtune.build.pool import shared_pool
from simtune.candidates import Candidate
from simtune.errors import ConfigurationError
from simtune.evaluate import Evaluator
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import resolve_objective
from simtune.records.store import RecordStore
from simtune.tuning.workloads import parse
from simtune.tvm_setup import load

ms = load()
from tvm.ir.utils import derived_object  # noqa: E402
from tvm.target import Target  # noqa: E402

WORKLOADS = ("matmul:m=64,n=64,k=64", "matmul:m=48,n=64,k=80", "matmul:m=32,n=32,k=32")


@derived_object
class Watched(ms.builder.PyBuilder):  # type: ignore[misc, name-defined]
    """Builds, and notes which task it built when."""

    def __init__(self, builder: Any) -> None:
        super().__init__()
        self.builder = builder
        #: Begin, end, extents of the task's output.
        self.builds: list[tuple[float, float, tuple[int, ...]]] = []
        #: The same extents by artifact.
        self.whose: dict[str, tuple[int, ...]] = {}

    def build(self, inputs: list[Any]) -> list[Any]:
        start = time.monotonic()
        results = self.builder.build(inputs)
        output = tuple(map(int, inputs[0].mod["main"].params[-1].ty.shape))
        self.builds.append((start, time.monotonic(), output))
        self.whose.update({str(one.artifact_path): output for one in results})
        return results


@pytest.fixture(scope="module")
def builder() -> Iterator[Any]:
    """With one worker, whose start is the most expensive part of all this."""
    builder = simtune.Builder(1)
    yield builder
    builder.close()


class Tuning:
    """One call of tune_tasks with random traces, and when what was built and simulated."""

    def __init__(
        self,
        builder: Any,
        folder: Path,
        scheduler: Any,
        workloads: tuple[str, ...],
        weights: list[float],
        **trials: int,
    ) -> None:
        machine = load_machine("sifive-u74")
        target = Target(dict(machine.target))
        tasks = [
            ms.TuneContext(
                mod=parse(name).module(),
                target=target,
                space_generator="post-order-apply",
                search_strategy="replay-trace",
                task_name=name,
                rand_state=1,
                num_threads=1,
            )
            for name in workloads
        ]
        #: When a simulation ended, extents of its output.
        self.simulated: list[tuple[float, tuple[int, ...]]] = []
        # One slot, so that a batch is simulated for a while.
        runner = simtune.SimulatorRunner(
            machine, records=":memory:", workloads=tasks, jobs=1, listener=self._note
        )
        self._builder = Watched(builder)
        logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()
        try:
            self.database = ms.tune.tune_tasks(
                tasks=tasks,
                task_weights=weights,
                work_dir=str(folder),
                builder=self._builder,
                runner=runner,
                database=ms.database.MemoryDatabase(),
                cost_model="random",
                task_scheduler=scheduler,
                **trials,
            )
        finally:
            runner.close()
        self.builds = self._builder.builds

    def _note(self, path: str, evaluation: Any) -> None:
        assert evaluation.ok, evaluation.error
        self.simulated.append((time.monotonic(), self._builder.whose[path]))

    def overlaps(self) -> int:
        """How many builds another task's simulation ended in."""
        return sum(
            any(begin < when < end and whose != built for when, whose in self.simulated)
            for begin, end, built in self.builds
        )


@pytest.mark.parametrize("scheduler", ["round-robin", "overlapping"])
def test_one_task_builds_while_another_simulates(scheduler: str, builder: Any, tmp_path: Path) -> None:
    made = simtune.OverlappingScheduler() if scheduler == "overlapping" else scheduler
    tuning = Tuning(
        builder, tmp_path, made, WORKLOADS[:2], [1.0, 1.0], max_trials_global=18, num_trials_per_iter=3
    )
    assert len(tuning.simulated) == 18
    assert [built for _, _, built in tuning.builds] == [(64, 64), (48, 64)] * 3
    # All but the first build have another task's batch beside them.
    assert tuning.overlaps() >= 3
    assert len(tuning.database.get_all_tuning_records()) == 18


def test_the_scheduler_prefers_what_gains_most_and_never_waits_for_what_it_sent(
    builder: Any, tmp_path: Path
) -> None:
    scheduler = simtune.OverlappingScheduler()
    orders = []
    for sitting in range(2):  # the same scheduler again: it begins anew
        tuning = Tuning(
            builder,
            tmp_path / str(sitting),
            scheduler,
            WORKLOADS,
            [1.0, 1.0, 1000.0],
            max_trials_global=9,
            num_trials_per_iter=1,
        )
        orders.append([built for _, _, built in tuning.builds])
    order = orders[0]
    assert set(order[:3]) == {(64, 64), (48, 64), (32, 32)}
    assert order[4::2] == [(32, 32)] * 3
    assert all(one != other for one, other in zip(order, order[1:], strict=False))
    assert orders[1] == order  # whatever finished first


def test_tasks_end_with_their_trials_and_the_last_one_goes_on_alone(builder: Any, tmp_path: Path) -> None:
    tuning = Tuning(
        builder,
        tmp_path,
        simtune.OverlappingScheduler(ahead=3),
        WORKLOADS[1:],
        [1.0, 1.0],
        max_trials_global=100,
        max_trials_per_task=4,
        num_trials_per_iter=2,
    )
    assert Counter(whose for _, whose in tuning.simulated) == {(48, 64): 4, (32, 32): 4}
    with pytest.raises(ConfigurationError, match="ahead is 0"):
        simtune.OverlappingScheduler(ahead=0)


def test_closing_one_evaluator_leaves_the_jobs_of_another_alone(
    build_default: Any, u74: Machine, qemu: Any, tmp_path: Path
) -> None:
    path = build_default("matmul:m=64,n=64,k=64", u74)

    def evaluator(name: str, executor: Any, seed: int) -> Evaluator:
        return Evaluator(
            u74,
            qemu,
            AnalyticalPredictor(),
            resolve_objective("latency"),
            RecordStore(tmp_path / name),
            executor=executor,
            seed=seed,
        )

    with simtune.LocalExecutor(1) as executor:
        staying, leaving = evaluator("staying.db", executor, 0), evaluator("leaving.db", executor, 1)
        kept, dropped = [], []
        for warmup in range(4):  # another key each time, so that nothing comes from the store
            staying.warmup = leaving.warmup = warmup
            kept.append(staying.submit(Candidate(path)))
            dropped.append(leaving.submit(Candidate(path)))
        leaving.close(cancel=True)
        assert all(future.done() for future in dropped)
        assert not all(future.done() for future in kept)
        assert [future.result().error for future in kept] == [""] * 4
        staying.close()
        for one in (staying, leaving):
            one.store.close()
        assert sum(future.cancelled() or not future.result().ok for future in dropped) >= 3


def test_closing_waits_until_what_was_found_is_stored(
    build_default: Any, u74: Machine, qemu: Any, tmp_path: Path
) -> None:
    path = build_default("matmul:m=32,n=32,k=32", u74)
    with simtune.LocalExecutor(2) as executor, RecordStore(tmp_path / "r.db") as store:
        evaluator = Evaluator(
            u74, qemu, AnalyticalPredictor(), resolve_objective("latency"), store, executor=executor
        )
        futures = []
        for seed in range(6):
            evaluator.seed = seed
            futures.append(evaluator.submit(Candidate(path)))
        evaluator.close()
        assert all(future.done() for future in futures)
        assert all(store.simulation(future.result().key) for future in futures)


def test_two_tunings_share_an_executor(tmp_path: Path) -> None:
    results: dict[str, Any] = {}

    def sit(workload: str) -> None:
        results[workload] = simtune.tune(
            workload,
            "sifive-u74",
            trials=4,
            executor=executor,
            records=tmp_path / "shared.db",
            work_dir=tmp_path / workload.replace(":", "-"),
            search=simtune.tuning.tune.Search(batch=4, population=32, generations=1),
        )

    logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()
    with simtune.LocalExecutor(2) as executor:
        threads = [threading.Thread(target=sit, args=(name,)) for name in WORKLOADS[:2]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {name: (one.trials, one.failures) for name, one in results.items()} == {
        name: (4, 0) for name in WORKLOADS[:2]
    }
    assert all(one.best is not None for one in results.values())
    shared_pool().close()
