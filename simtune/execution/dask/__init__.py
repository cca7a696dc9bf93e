# SPDX-License-Identifier: Apache-2.0
"""Jobs on a Dask cluster: the executor, its connection, and the workers."""

from simtune.execution.dask.executor import DaskExecutor

__all__ = ["DaskExecutor"]
