# SPDX-License-Identifier: Apache-2.0
"""Template spaces and the tuners that search them, by asking and telling.

Example:
    >>> from simtune.templates import Knob, Result, Space, create
    >>> space = Space("toy", (Knob("tile", (1, 2, 4, 8)), Knob("threads", (1, 2))))
    >>> tuner = create("random", space, seed=1)
    >>> for _ in range(4):
    ...     points = tuner.ask(2)
    ...     tuner.tell(Result(p, float(p)) if p % 2 else Result(p, None, "lower", "ODD") for p in points)
    >>> space.config(tuner.best.index)
    {'tile': 1, 'threads': 2}
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simtune.templates.space import Knob, Space

if TYPE_CHECKING:
    from simtune.templates.base import Lesson, Options, Result, Tuner
    from simtune.templates.registry import TUNERS, create, load, save

# On first use: a space alone needs neither numpy nor scipy.
_PLACES = {
    "Lesson": "base",
    "Options": "base",
    "Result": "base",
    "TUNERS": "registry",
    "Tuner": "base",
    "create": "registry",
    "load": "registry",
    "save": "registry",
}

__all__ = ["TUNERS", "Knob", "Lesson", "Options", "Result", "Space", "Tuner", "create", "load", "save"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
