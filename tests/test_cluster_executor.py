# SPDX-License-Identifier: Apache-2.0
"""The executors' common behaviour: local, inline, and on a Dask cluster of processes on this machine."""

from __future__ import annotations

import pytest
from cluster_helpers import Cluster

import simtune
from simtune.execution.base import Executor
from simtune.testing.executors import ExecutorConformance


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
