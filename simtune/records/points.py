# SPDX-License-Identifier: Apache-2.0
"""Trials of a template space: a point with its configuration in the place of a schedule's trace."""

from __future__ import annotations

import json
from collections.abc import Mapping

from simtune.records.model import Run, Trial


def is_template(run: Run) -> bool:
    """Whether a run searched a template space."""
    return run.config.get("kind") == "template"


def trace(space: str, point: int, config: Mapping[str, int]) -> str:
    """What a trial keeps of its point, in the place of a schedule's trace."""
    return json.dumps({"space": space, "point": point, "config": dict(config)}, separators=(",", ":"))


def point_of(trial: Trial) -> int | None:
    """The point of a template's trial; None for a trial of another kind."""
    try:
        return int(json.loads(trial.trace_json)["point"])
    except (ValueError, TypeError, KeyError):
        return None


def config_of(trial: Trial) -> dict[str, int] | None:
    """The knobs of a template's trial; None for a trial of another kind."""
    try:
        return {str(k): int(v) for k, v in json.loads(trial.trace_json)["config"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def reason_of(trial: Trial) -> str:
    """The code of a failed trial, which its message starts with."""
    return trial.error.partition(":")[0] or str(trial.status)
