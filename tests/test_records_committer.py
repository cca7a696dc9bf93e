# SPDX-License-Identifier: Apache-2.0
"""The thread that commits: what one of those who hand in does is nobody else's trouble."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import records_helpers as helpers

from simtune.records import RecordStore
from simtune.records.committer import Committer


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)])
def test_a_callback_that_raises_does_not_stop_the_others(error: BaseException, tmp_path: Path) -> None:
    told = threading.Event()

    def fail(reason: BaseException | None) -> None:
        raise error

    with RecordStore(tmp_path / "r.db") as store:
        committer = Committer(store)
        first, second = (helpers.simulation(number) for number in range(2))
        committer.put(first, fail)
        committer.put(second, lambda reason: told.set() if reason is None else None)
        assert told.wait(10)
        committer.close()
        assert all(store.simulation(one.conditions.key) for one in (first, second))
