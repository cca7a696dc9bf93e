# SPDX-License-Identifier: Apache-2.0
"""`simtune resimulate`: stored candidates again, for another machine file or with other models."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.markup import escape

from simtune.cli.counting import count_option, models_from
from simtune.cli.output import count as number
from simtune.cli.output import emit_json, json_option, make_table, print_out
from simtune.cli.stored import records_option
from simtune.cli.train import features_option
from simtune.mca import MCA


@click.command()
@records_option
@click.option("--from", "source", required=True, help="Name of the machine that they were simulated for.")
@click.option("--machine", "-m", help="Machine to simulate them for  [default: the same]")
@click.option(
    "-o", "out", type=click.Path(path_type=Path, dir_okay=False), help="Store to write  [default: the same]"
)
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@count_option
@features_option
@click.option("--jobs", "-j", type=click.IntRange(1), help="Builds and simulations at once.")
@json_option
def command(
    records: Path,
    source: str,
    machine: str | None,
    out: Path | None,
    simulator: str,
    models: tuple[str, ...],
    optional: tuple[str, ...],
    jobs: int | None,
    as_json: bool,
) -> None:
    """Simulate stored candidates again, for another machine file or with other models switched on.

    Candidates are built again from their traces. Native times go with them where the code is the one
    that was measured, so nothing is measured again.

    Exits with 0 when every run has candidates that could be simulated, with 1 otherwise.

    \b
    Example:
      simtune resimulate --records records.db --from host --machine my-host.toml -o again.db
    """
    from simtune.cli.progress import leave_soon_after_interrupt
    from simtune.machines.load import load_machine
    from simtune.records.store import RecordStore, open_existing
    from simtune.simulators.qemu_report import configuration

    loaded = load_machine(machine or source)
    models = models_from(models, simulator, optional)
    if simulator == "qemu":
        configuration(loaded, [name for name in models if name != MCA])  # refuses unknown models now
    with open_existing(records) as old, leave_soon_after_interrupt():
        from simtune.tuning.resimulated import resimulate

        say = (lambda _text: None) if as_json else (lambda text: click.echo(text, err=True))
        target = RecordStore(out or records)
        try:
            results = resimulate(
                old,
                source,
                loaded,
                target,
                simulator=simulator,
                count=models,
                jobs=jobs,
                progress=say,
            )
        finally:
            target.close()
    if as_json:
        emit_json({"records": out or records, "machine": loaded.name, "runs": [asdict(r) for r in results]})
    else:
        table = make_table("workload", "run", "candidates*", "failed*", "with times*")
        for row in results:
            counts = (number(row.trials), number(row.failures), number(row.timed))
            table.add_row(escape(row.workload), row.run, *counts)
        print_out(table)
    sys.exit(0 if all(row.trials > row.failures for row in results) else 1)
