# SPDX-License-Identifier: Apache-2.0
"""The executors' common behaviour: local, inline, and on a Dask cluster of processes on this machine."""

from __future__ import annotations

import sys
import time

import distributed
import pytest
from cluster_helpers import Cluster
from execution_helpers import wait_for

import simtune
from simtune.errors import ConfigurationError, ToolMissingError
from simtune.execution.base import Executor, run_all
from simtune.execution.registry import executor_names
from simtune.testing.executors import ExecutorConformance
from simtune.testing.jobs import FakeJob


class TestLocal(ExecutorConformance):
    def make(self) -> Executor:
        return simtune.LocalExecutor(2)


class TestInline(ExecutorConformance):
    immediate = True

    def make(self) -> Executor:
        return simtune.InlineExecutor()


class TestDask(ExecutorConformance):
    retries = True

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: Cluster) -> None:
        self.address = cluster.address

    def make(self) -> Executor:
        return simtune.DaskExecutor(self.address)


def test_a_client_or_a_cluster_object_will_do(cluster: Cluster) -> None:
    """What others have submitted goes on, whatever becomes of the executor."""
    with distributed.Client(cluster.address, set_as_default=False) as client:
        foreign = client.map(lambda n: time.sleep(0.3) or n * n, range(3), pure=False)
        with simtune.DaskExecutor(client) as executor:
            assert executor.dashboard_link.startswith("http://")
            executor.submit(FakeJob(1, does="hang"))
            executor.close(cancel=True)
        assert client.gather(foreign) == [0, 1, 4]
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as local,
        simtune.get_executor("dask", cluster=local) as named,
    ):
        assert wait_for(lambda: named.capacity() == 2, 10)
        assert [r.number for r in run_all(named, [FakeJob(n) for n in range(5)])] == list(range(5))
    with pytest.raises(ConfigurationError, match="a dict is no Dask cluster"):
        simtune.DaskExecutor({})


def test_executors_by_name() -> None:
    assert {"local", "inline", "dask"} <= set(executor_names())
    with simtune.get_executor("local", jobs=1) as executor:
        assert executor.capacity() == 1
    with pytest.raises(ConfigurationError, match="no executor is called 'ray'"):
        simtune.get_executor("ray")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        simtune.get_executor("local", slots=3)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ToolMissingError, match="pip install 'simtune\\[cluster\\]'"):
        simtune.DaskExecutor("tcp://127.0.0.1:1")
