# SPDX-License-Identifier: Apache-2.0
"""`simtune records merge`: stores of several machines into one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from simtune.cli.output import count, emit_json, json_option, make_table, print_out
from simtune.records import merge as merging

_SHOWN = 20
_SAY_EVERY_S = 5.0


@click.command("merge")
@click.argument("stores", nargs=-1, required=True, metavar="STORE...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The store to add to; it is created when it is not there.",
)
@json_option
def merge(stores: tuple[Path, ...], into: Path, as_json: bool) -> None:
    """Put the stores of several machines together in one.

    The order of the stores does not matter, and merging again changes nothing. Where two stores
    contradict each other, one version stays and the conflict is listed; damaged rows are left out and
    listed. The exit status is 1 when there is anything in these lists.

    \b
    Example: simtune records merge node1.db node2.db --into all.db
    """
    with _progress(quiet=as_json) as progress:
        report = merging.merge(stores, into, progress)
    if as_json:
        emit_json({"stores": [str(store) for store in stores], "into": str(into)} | asdict(report))
    else:
        _show(report)
        click.echo(f"merged into {into}")
    if report.conflicts or report.refused:
        sys.exit(1)


def _show(report: merging.MergeReport) -> None:
    table = make_table("table", "added*", "replaced*", "same*", "total*")
    for name, total in report.total.items():
        numbers = (report.added[name], report.replaced[name], report.same[name], total)
        table.add_row(name, *map(count, numbers))
    print_out(table)
    if report.conflicts:
        table = make_table(
            "table", "row", "kept", "lost", "differs (kept, lost)", "why kept", title="conflicts"
        )
        for conflict in report.conflicts[:_SHOWN]:
            differs = [f"{name}: {kept}, {lost}" for name, (kept, lost) in conflict.differs.items()]
            more = f"\n… and {len(differs) - 3} more" if len(differs) > 3 else ""
            cells = (conflict.table, conflict.row, conflict.kept, conflict.lost)
            table.add_row(*map(escape, (*cells, "\n".join(differs[:3]) + more, conflict.reason)))
        print_out(table)
        _say_more(len(report.conflicts))
    if report.refused:
        table = make_table("store", "table", "row", "problem", "what to do", title="left out")
        for item in report.refused[:_SHOWN]:
            table.add_row(*map(escape, (item.store, item.table, item.row, item.problem, item.advice)))
        print_out(table)
        _say_more(len(report.refused))


def _say_more(number: int) -> None:
    if number > _SHOWN:
        click.echo(f"… and {number - _SHOWN} more; --json lists all")


@contextmanager
def _progress(quiet: bool) -> Iterator[merging.Progress]:
    """A bar on a terminal, a line every few seconds elsewhere."""
    if not quiet and sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("")
            yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
        return
    last = time.monotonic()

    def say(done: int, total: int, what: str) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last > _SAY_EVERY_S:
            last = time.monotonic()
            click.echo(f"{what}: {count(done)} of {count(total)} rows", err=True)

    yield say
