# SPDX-License-Identifier: Apache-2.0
"""Options of every verb that measures natively."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from simtune.measure.base import Settings

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULT = Settings()
_OPTIONS = (
    ("processes", int, 1, "Processes per candidate, each with another address layout."),
    ("max-processes", int, 1, "Processes of a candidate whose times disagree."),
    ("max-spread", float, 1, "Share of the median that the middle half of the processes may differ by."),
    ("repeat", int, 1, "Timings per process."),
    ("min-repeat-ms", float, 1e3, "Milliseconds that one timing lasts at least."),
    ("cooldown-ms", float, 1e3, "Pause in milliseconds before each process."),
    ("core", int, 1, "Core to run on  [default: the last usable one]"),
)


def measuring_options(function: F) -> F:
    """Adds the options; `settings_from` reads them."""
    for name, kind, scale, text in reversed(_OPTIONS):
        default = getattr(_DEFAULT, _field(name))
        function = click.option(
            f"--{name}",
            type=kind,
            default=None if default is None else kind(default * scale),
            show_default=default is not None,
            help=text,
        )(function)
    return function


def settings_from(options: dict[str, Any]) -> Settings:
    """The settings behind the options' values.

    Raises:
        ConfigurationError: a value that is not allowed.
    """
    values = {}
    for name, _kind, scale, _text in _OPTIONS:
        value = options[name.replace("-", "_")]
        values[_field(name)] = value if value is None or scale == 1 else value / scale
    values["max_processes"] = max(values["max_processes"], values["processes"])
    return Settings(**values)


def _field(option: str) -> str:
    return option.replace("-ms", "_s").replace("-", "_")
