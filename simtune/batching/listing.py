# SPDX-License-Identifier: Apache-2.0
"""The few recorded jobs that a summary lists."""

from __future__ import annotations

from collections.abc import Iterable

from simtune.batching.model import Named
from simtune.records.origins import origin_of
from simtune.records.store import RecordStore

#: How many failures a summary lists, and how many of the fastest and the slowest.
FAILED = 20
EXTREMES = 5


def listed(store: RecordStore, run: str, indices: Iterable[int]) -> tuple[Named, ...]:
    """Trials with what names them for people."""
    trials = (store.trial(run, index) for index in indices)
    return tuple(Named(trial, str(origin_of(trial) or trial.candidate)) for trial in trials if trial)


def extremes(store: RecordStore, run: str, number: int) -> tuple[tuple[Named, ...], tuple[Named, ...]]:
    """The fastest and the slowest of a run by predicted time; of a small run, some are in both."""
    sql = (
        "SELECT idx FROM trial WHERE run = ? AND status = 'ok' AND typeof(value) = 'real'"
        " ORDER BY value {order}, idx LIMIT ?"
    )
    fastest = [index for (index,) in store.query(sql.format(order="ASC"), (run, number))]
    slowest = [index for (index,) in store.query(sql.format(order="DESC"), (run, number))]
    return listed(store, run, fastest), listed(store, run, slowest)
