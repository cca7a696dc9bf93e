# SPDX-License-Identifier: Apache-2.0
"""The executors' common behaviour: local, inline, and on a Dask cluster of processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster_helpers import Cluster

import simtune
from simtune.execution.base import Executor
from simtune.testing.executors import ExecutorConformance


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


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
