# SPDX-License-Identifier: Apache-2.0
"""Options of every verb that simulates: what is counted, what is run before, how long it may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from simtune.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_MODELS = ("branch", "prefetch", "blocks", "pipeline", "mca")
_HELP = (
    "Model to switch on besides the simulator's default ones (qemu: branch, pipeline): branch, prefetch, "
    "blocks, pipeline:SHARE for the share of instructions that the scoreboard replays; 'none' switches the "
    "default ones off. May be repeated."
)


def count_option(function: F) -> F:
    """Adds ``--count``; `models_from` reads it."""
    return click.option("--count", "models", multiple=True, metavar="MODEL", help=_HELP)(function)


def warmup_option(function: F) -> F:
    """Adds ``--warmup``."""
    return click.option(
        "--warmup",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Calls before the one that counts.",
    )(function)


def timeout_option(text: str, seconds: float = 120.0) -> Callable[[F], F]:
    """Adds ``--timeout`` with this help, and so many seconds as default."""
    return click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), default=seconds, show_default=True, help=text
    )


def models_from(count: Sequence[str], simulator: str, optional: Sequence[str] = ()) -> tuple[str, ...]:
    """The models to count with.

    Args:
        count: as the user gave them.
        optional: further ones that other options ask for.

    Raises:
        ConfigurationError: a model that no simulator has.
    """
    from simtune.simulators.base import get_simulator, models_to_count

    adapter = get_simulator(simulator)
    allowed = (*_MODELS, *getattr(adapter, "default_models", ()))
    given = [name for name in count if name != "none"]
    renamed = {name.partition(":")[0] for name in given}
    if unknown := sorted(renamed - set(allowed)):
        raise ConfigurationError(
            f"cannot count {', '.join(unknown)}",
            f"allowed for --count: {', '.join(dict.fromkeys(allowed))}, none",
        )
    default = () if "none" in count else models_to_count(adapter, None)
    return (*(name for name in default if name not in renamed), *given, *optional)
