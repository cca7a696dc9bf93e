# SPDX-License-Identifier: Apache-2.0
"""What every verb shares that reads stored results: `--records`, and finding a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from simtune.errors import RecordError
from simtune.records.model import Run, Trial
from simtune.records.store import RecordStore, default_store_path

F = TypeVar("F", bound=Callable[..., Any])


def records_option(function: F) -> F:
    """Adds ``--records FILE`` as the parameter `records`, a Path."""
    option = click.option(
        "--records",
        type=click.Path(path_type=Path, dir_okay=False),
        default=default_store_path,
        show_default="$SIMTUNE_RECORDS, or simtune-records.db here",
        help="The record store.",
    )
    return option(function)


def find_trial(store: RecordStore, run: Run, index: str) -> Trial:
    """The trial of a run that `index` names: a number, or ``best``.

    Raises:
        RecordError: there is none.
    """
    trial = None
    if index == "best":
        trial = store.best_trial(run=run.id)
    elif index.isdecimal():
        trial = store.trial(run.id, int(index))
    if trial is None:
        raise RecordError(f"run {run.id} has no trial '{index}'", f"see: simtune records show {run.id}")
    return trial
