# SPDX-License-Identifier: Apache-2.0
"""The record store: nothing is lost, nothing is done twice.

Example:
    >>> from simtune.records import Conditions, RecordStore
    >>> with RecordStore(":memory:") as store:
    ...     store.get_simulation(Conditions("ab12", "qemu", "7.2", "0f3a").key) is None
    True
"""

from simtune.records.model import (
    Conditions,
    Measurement,
    Run,
    RunState,
    RunSummary,
    Simulation,
    Trial,
    TrialBrief,
    Workload,
    config_digest,
    content_hash,
    simulation_key,
)
from simtune.records.store import RecordStore, default_store_path, open_existing

__all__ = [
    "Conditions",
    "Measurement",
    "RecordStore",
    "Run",
    "RunState",
    "RunSummary",
    "Simulation",
    "Trial",
    "TrialBrief",
    "Workload",
    "config_digest",
    "content_hash",
    "default_store_path",
    "open_existing",
    "simulation_key",
]
