# SPDX-License-Identifier: Apache-2.0
"""Executors by name.

Executors outside simtune register a class or function under the entry-point group
``simtune.executors``; its keyword arguments are what `get_executor` was given.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from simtune.errors import ConfigurationError, SimtuneError
from simtune.execution.base import Executor

ENTRY_POINT_GROUP = "simtune.executors"

#: Executors that come with simtune, also found when it runs from a checkout without metadata.
_BUILT_IN = {
    "local": "simtune.execution.local:LocalExecutor",
    "inline": "simtune.execution.local:InlineExecutor",
    "dask": "simtune.execution.dask:DaskExecutor",
}


def executor_names() -> tuple[str, ...]:
    """Names that `get_executor` knows, sorted."""
    return tuple(sorted({*_BUILT_IN, *_registered()}))


def get_executor(name: str, **options: Any) -> Executor:
    """Makes the executor of that name.

    Args:
        name: "local", "inline", "dask", or one that another package registers.
        options: keyword arguments of its class.

    Raises:
        ConfigurationError: no such executor, or it does not take these options.
        SimtuneError: what the executor itself raises.
    """
    registered = _registered()
    if name not in registered and name not in _BUILT_IN:
        raise ConfigurationError(f"no executor is called '{name}'", f"known: {', '.join(executor_names())}")
    try:
        if name in registered:
            factory = registered[name].load()
        else:
            module, _, attribute = _BUILT_IN[name].partition(":")
            factory = getattr(importlib.import_module(module), attribute)
        executor: Executor = factory(**options)
    except SimtuneError:
        raise  # it says itself what is wrong
    except TypeError as error:
        raise ConfigurationError(f"executor '{name}' cannot be made: {error}") from error
    except Exception as error:
        raise ConfigurationError(
            f"executor '{name}' cannot be loaded: {error}", "repair or remove the package that brings it"
        ) from error
    return executor


def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
