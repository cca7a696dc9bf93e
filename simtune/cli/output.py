# SPDX-License-Identifier: Apache-2.0
"""What every verb shares: `--json`, tables, number formats, error output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
from rich import box
from rich.console import Console
from rich.table import Table

from simtune.errors import SimtuneError

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """Adds ``--json`` as the parameter `as_json`."""
    option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
    return option(function)


def emit_json(data: Any) -> None:
    """Prints one JSON document; values JSON does not know are printed as text."""
    click.echo(json.dumps(data, indent=2, default=str))


def fail(kind: str, error: SimtuneError) -> NoReturn:
    """Prints what happened and what to do next, and exits with status 2."""
    if "--json" in sys.argv:
        emit_json({"error": {"kind": kind, "what": error.what, "next": error.hint}})
    click.echo(f"simtune: {error}", err=True)
    sys.exit(2)


def seconds(value: float) -> str:
    """A duration with three significant digits and a unit, such as ``1.23 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def count(value: float) -> str:
    """A count with thousands separators, fractions kept to three digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"


def make_table(*columns: str, title: str | None = None) -> Table:
    """A table; columns with a star are numbers, on the right."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for name in columns:
        table.add_column(name.rstrip("*"), justify="right" if name.endswith("*") else "left", overflow="fold")
    return table


def make_pairs(title: str) -> Table:
    """A table without a head, of names and values."""
    table = Table(box=None, show_header=False, title=title, title_justify="left", padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def print_out(content: Table | str) -> None:
    """Prints a table, or text as it is."""
    # Output into a pipe or a file is for other programs: it is not folded to a made-up width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
    console.print(content, markup=isinstance(content, Table))
