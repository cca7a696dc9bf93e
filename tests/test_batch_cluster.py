# SPDX-License-Identifier: Apache-2.0
"""A batch on a cluster: the same records as on one machine, whatever happens to a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_helpers import MATMULS, copy_object, run_batch, spinner, trials_of, work_directory
from cluster_helpers import Cluster
from execution_helpers import wait_for

import simtune
from simtune.batching.model import Observer
from simtune.execution.view import View
from simtune.machines.model import Machine
from simtune.records import RecordStore
from simtune.records.origins import origin_of


class Looks(Observer):
    """Keeps what it saw of the executor."""

    def __init__(self) -> None:
        self.views: list[View] = []
        self.ended = 0

    def on_job(self, finished: Any) -> None:
        self.ended += 1

    def on_view(self, view: View, under_way: int) -> None:
        self.views.append(view)


def everything(folder: Path, build_default: Callable[[str, Machine], Path], machine: Machine) -> Path:
    """Objects, a TVM work directory, and a list that names both and programs."""
    for number, workload in enumerate(MATMULS):
        copy_object(build_default(workload, machine), folder / "objects" / f"c{number}.o")
    work = work_directory(folder / "work", 2)
    program = spinner(folder / "bin", "spin", 3_000_000)
    lines = [f"{program} {n}{' x' * (n % 4)}" for n in range(10)]
    (folder / "list.txt").write_text("\n".join([*lines, str(folder / "objects"), str(work)]))
    return folder / "list.txt"


def test_the_same_on_a_cluster_that_loses_a_worker(
    tmp_path: Path, build_default: Callable[[str, Machine], Path], u74: Machine, qemu: Any
) -> None:
    listed = everything(tmp_path, build_default, u74)
    here = run_batch(listed, "-m", "sifive-u74", "--records", tmp_path / "here.db")
    cluster, looks = Cluster(tmp_path / "cluster", workers=2), Looks()
    try:

        def kill() -> None:
            wait_for(lambda: looks.ended >= 3, 60)
            cluster.workers[0].kill_process()

        killer = threading.Thread(target=kill)
        killer.start()
        with simtune.DaskExecutor(cluster.address) as executor:
            there = simtune.batch(
                [listed], u74, records=tmp_path / "there.db", executor=executor, observer=looks
            )
            killer.join()
        assert there.ok
        assert there.tally.simulated == here["simulated"]
        assert max(view.slots for view in looks.views) == 2
        assert max(view.running for view in looks.views) >= 1
        with_worker_lost = trials_of(tmp_path / "there.db", there.run)
        undisturbed = trials_of(tmp_path / "here.db", here["run"])
        assert len(with_worker_lost) == len(undisturbed) == 16
        with RecordStore(tmp_path / "here.db") as one, RecordStore(tmp_path / "there.db") as other:
            for expected, found in zip(
                sorted(undisturbed, key=lambda t: t.candidate),
                sorted(with_worker_lost, key=lambda t: t.candidate),
                strict=True,
            ):
                assert (expected.candidate, expected.predicted_s) == (found.candidate, found.predicted_s)
                assert str(origin_of(expected)) == str(origin_of(found))
                a, b = one.simulation(expected.simulation or ""), other.simulation(found.simulation or "")
                assert a is not None
                assert b is not None
                assert a.outcome.counters == b.outcome.counters
        # The command does the same, and finds nothing left to do.
        again = run_batch(
            listed, "-m", "sifive-u74", "--records", tmp_path / "there.db", "--scheduler", cluster.address
        )
        assert (again["settled_before"], again["simulated"]) == (16, 0)
    finally:
        cluster.close()
