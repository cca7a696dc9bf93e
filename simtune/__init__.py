# SPDX-License-Identifier: Apache-2.0
"""simtune: autotuning with instruction-accurate simulators in the place of hardware.

The names below load on first use, so that `import simtune` costs nothing and the command line
never waits for TVM when it does not need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from simtune.batching.run import batch
    from simtune.build.builder import Builder
    from simtune.counters import Counters
    from simtune.errors import SimtuneError
    from simtune.execution.dask import DaskExecutor
    from simtune.execution.local import InlineExecutor, LocalExecutor
    from simtune.execution.registry import get_executor
    from simtune.jobs import Limits, Outcome, SimJob, Status
    from simtune.machines.load import load_machine
    from simtune.machines.model import Machine
    from simtune.records.store import RecordStore
    from simtune.runner import SimulatorRunner
    from simtune.simulators.base import get_simulator
    from simtune.tuning.collect import Collected, collect
    from simtune.tuning.scheduler import OverlappingScheduler
    from simtune.tuning.tune import TuneResult, tune

_HOMES = {
    "Builder": "build.builder",
    "Collected": "tuning.collect",
    "Counters": "counters",
    "DaskExecutor": "execution.dask",
    "InlineExecutor": "execution.local",
    "Limits": "jobs",
    "LocalExecutor": "execution.local",
    "Machine": "machines.model",
    "Outcome": "jobs",
    "OverlappingScheduler": "tuning.scheduler",
    "RecordStore": "records.store",
    "SimJob": "jobs",
    "SimtuneError": "errors",
    "SimulatorRunner": "runner",
    "Status": "jobs",
    "TuneResult": "tuning.tune",
    "batch": "batching.run",
    "collect": "tuning.collect",
    "get_executor": "execution.registry",
    "get_simulator": "simulators.base",
    "load_machine": "machines.load",
    "tune": "tuning.tune",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'simtune' has no attribute '{name}'")
    return getattr(importlib.import_module(f"simtune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
