# SPDX-License-Identifier: Apache-2.0
"""The soak of a cluster with faults of every kind, in small; `benchmarks/soak.py` is the long one."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_every_job_ends_in_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = importlib.import_module("soak").soak(300, seed=1, kill_s=5.0)
    assert found["records"] == 300
    faults = ("missing", "twice", "wrong", "wrong_values", "damage", "orphans")
    assert {name: found[name] for name in faults} == dict.fromkeys(faults, 0), found["first_wrong"]
    assert found["scratch_left"] == []
    assert found["lost"] >= 1
    assert found["retried"] >= 2
    assert found["resources_second_and_last_quarter"]["driver"]["descriptors"][1] < 60
