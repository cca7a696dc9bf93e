# SPDX-License-Identifier: Apache-2.0
"""`simtune breakeven`: from how many parallel simulators on tuning needs no board."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.markup import escape

from simtune.cli.output import count, emit_json, json_option, make_table, print_out, seconds
from simtune.cli.stored import records_option


@click.command()
@records_option
@click.option("--machine", "-m", required=True, help="Machine of the simulations.")
@click.option("--target", help="Whose measurements count: host, ssh:HOST, …  [default: all]")
@click.option("--repeats", type=click.IntRange(1), help="Of a board: timings per candidate.")
@click.option("--cooldown-ms", type=click.FloatRange(0), help="Of a board: pause with each timing.")
@click.option(
    "--min-repeat-ms", type=click.FloatRange(0), help="Of a board: a timing lasts so long at least."
)
@click.option("--setup-ms", type=click.FloatRange(0), help="Of a board: copying and starting a candidate.")
@click.option(
    "--call-ms",
    type=click.FloatRange(0, min_open=True),
    help="Of a board: time of a call  [default: of each candidate, measured or predicted]",
)
@click.option(
    "--measure-top", "top", help="Share that is measured on the board all the same, such as 3%.", default="0%"
)
@json_option
def command(
    records: Path,
    machine: str,
    target: str | None,
    repeats: int | None,
    cooldown_ms: float | None,
    min_repeat_ms: float | None,
    setup_ms: float | None,
    call_ms: float | None,
    top: str,
    as_json: bool,
) -> None:
    """How many simulators at once do the work of one board?

    K = seconds of a simulation / seconds of a measurement, rounded up, from stored wall times. With any
    option "of a board" the second is what that board would need for a candidate: setup + repeats x
    (call + cool-down), a call lasting --min-repeat-ms at least; repeats are 15 unless given.

    \b
    Example:
      simtune breakeven --records records.db --machine host
      simtune breakeven --records records.db -m sifive-u74 --repeats 15 --cooldown-ms 500 --measure-top 3%
    """
    from simtune.breakeven import Board, overall, sides
    from simtune.machines.load import load_machine
    from simtune.records.store import open_existing

    share = _share(top)
    milliseconds = {
        "cooldown_s": cooldown_ms,
        "min_repeat_s": min_repeat_ms,
        "setup_s": setup_ms,
        "call_s": call_ms,
    }
    given = {name: value / 1e3 for name, value in milliseconds.items() if value is not None}
    board = None
    if given or repeats is not None:
        board = Board(**given, **({} if repeats is None else {"repeats": repeats}))  # type: ignore[arg-type]
    with open_existing(records) as store:
        parts = sides(store, load_machine(machine), target, board)
    rows = [*parts, overall(parts)]
    if as_json:
        emit_json(
            {
                "machine": machine,
                "target": target,
                "board": asdict(board) if board else None,
                "measured_share": share,
                "workloads": [{**asdict(r), "k": r.k(share), "board_k": r.board_k(share)} for r in rows],
            }
        )
        return
    table = make_table(
        "workload", "candidates*", "call*", "simulate*", "measure*", "K*", "board*", "K board*"
    )
    for row in rows:
        if row is rows[-1]:
            table.add_section()
        figures = [row.call_s, row.simulate_s, row.measure_s]
        table.add_row(
            escape(row.workload),
            count(row.candidates),
            *("-" if figure is None else seconds(figure) for figure in figures),
            str(row.k(share) or "-"),
            "-" if row.board_s is None else seconds(row.board_s),
            str(row.board_k(share) or "-"),
        )
    print_out(table)
    total = rows[-1]
    other = total.board_s if board else total.measure_s
    if other is None:
        click.echo("not everything was measured; describe a board with --repeats, --cooldown-ms, …")
    else:
        k = total.board_k(share) if board else total.k(share)
        what = "this board" if board else target or "the target"
        fraction = total.simulate_s / ((1 - share) * other)
        figure = f"{fraction:,.1f}" if fraction >= 1 else f"{fraction:.2g}"
        click.echo(f"K = {k}: the work of {what} takes {figure} simulators")


def _share(text: str) -> float:
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / (100 if "%" in text else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise click.UsageError(f"--measure-top is '{text}': give a share from 0% to below 100%")
    return share
