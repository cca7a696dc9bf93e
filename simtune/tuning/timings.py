# SPDX-License-Identifier: Apache-2.0
"""Where the wall time of a run went, summed over its sittings in `timings.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simtune.records.files import whole_file


def split(total: float, builder: Any, runner: Any, measure: float = 0.0) -> dict[str, float]:
    """Wall seconds of building, running (linking and simulating), measuring, and the rest: the search."""
    build = getattr(builder, "wall_s", 0.0)  # other builders have no stopwatch
    rest = max(0.0, total - build - runner.wall_s - measure)
    stages = {"build": build, "run": runner.wall_s, "search": rest, "total": total}
    return stages | ({"measure": measure} if measure else {})


def add(path: Path, timings: dict[str, float]) -> None:
    """Adds a sitting to those in the file; a damaged file counts as none."""
    try:
        known = {str(name): float(seconds) for name, seconds in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        known = {}
    names = dict.fromkeys([*known, *timings])
    summed = {name: round(known.get(name, 0.0) + timings.get(name, 0.0), 3) for name in names}
    with whole_file(path) as file:
        file.write(json.dumps(summed).encode())
