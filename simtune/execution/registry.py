# SPDX-License-Identifier: Apache-2.0
"""Executors by name.

Executors outside simtune register a class or function under the entry-point group
``simtune.executors``; its keyword arguments are what `get_executor` was given.
"""

from __future__ import annotations

from typing import Any

from simtune.errors import ConfigurationError, SimtuneError
from simtune.execution.base import Executor
from simtune.plugins import Plugins

ENTRY_POINT_GROUP = "simtune.executors"

_EXECUTORS = Plugins(
    "executor",
    ENTRY_POINT_GROUP,
    {
        "local": "simtune.execution.local:LocalExecutor",
        "inline": "simtune.execution.local:InlineExecutor",
        "dask": "simtune.execution.dask:DaskExecutor",
    },
)


def executor_names() -> tuple[str, ...]:
    """Names that `get_executor` knows, sorted."""
    return _EXECUTORS.names()


def get_executor(name: str, **options: Any) -> Executor:
    """Makes the executor of that name.

    Args:
        name: "local", "inline", "dask", or one that another package registers.
        options: keyword arguments of its class.

    Raises:
        ConfigurationError: no such executor, or it does not take these options.
        SimtuneError: what the executor itself raises.
    """
    factory = _EXECUTORS.load(name)
    try:
        executor: Executor = factory(**options)
    except SimtuneError:
        raise  # it says itself what is wrong
    except TypeError as error:
        raise ConfigurationError(f"executor '{name}' cannot be made: {error}") from error
    except Exception as error:
        raise _EXECUTORS.broken(name, error) from error
    return executor
