# SPDX-License-Identifier: Apache-2.0
"""The verbs of `simtune records` that take whole stores: check, salvage, export, import."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click
from rich.markup import escape

from simtune.cli.counting import count_option, models_from
from simtune.cli.output import count, emit_json, json_option, make_table, print_out
from simtune.cli.stored import records_option
from simtune.errors import ConfigurationError
from simtune.records.check import check as find_damage
from simtune.records.export import export_csv, export_parquet
from simtune.records.salvage import salvage as save_intact
from simtune.records.store import RecordStore, open_existing
from simtune.records.tvm_format import Times, export_tvm


@click.command()
@records_option
@json_option
def check(records: Path, as_json: bool) -> None:
    """Look for damage; the exit status is 1 when there is any.

    \b
    Example: simtune records check --records tuning.db
    """
    findings = find_damage(records)
    if as_json:
        emit_json({"records": str(records), "findings": [asdict(finding) for finding in findings]})
    elif findings:
        table = make_table("table", "row", "problem", "what to do")
        for finding in findings:
            table.add_row(finding.table, escape(finding.row), escape(finding.problem), escape(finding.advice))
        print_out(table)
    else:
        click.echo(f"{records} is sound")
    if findings:
        sys.exit(1)


@click.command()
@click.option("-o", "out", type=click.Path(path_type=Path), required=True, help="The new store to write.")
@records_option
@json_option
def salvage(out: Path, records: Path, as_json: bool) -> None:
    """Copy every intact row of a damaged store into a new one.

    \b
    Example: simtune records salvage --records broken.db -o salvaged.db
    """
    report = save_intact(records, out)
    if as_json:
        emit_json({"records": str(records), "out": str(out)} | asdict(report))
        return
    table = make_table("table", "saved*", "damaged*", "readable to its end")
    for name, number in report.saved.items():
        readable = "no" if name in report.unreadable else "yes"
        table.add_row(name, count(number), count(report.damaged.get(name, 0)), readable)
    print_out(table)
    click.echo(f"written to {out}")


@click.command()
@click.option("--format", "kind", type=click.Choice(["tvm", "csv", "parquet"]), required=True)
@click.option(
    "-o", "out", type=click.Path(path_type=Path), required=True, help="File; a folder for --format tvm."
)
@click.option("--run", "run_ids", multiple=True, help="Only this run; may be given more than once.")
@click.option(
    "--times",
    type=click.Choice(get_args(Times)),
    default="value",
    show_default=True,
    help="tvm: the number that TVM sees as run time.",
)
@click.option("--failures", is_flag=True, help="tvm: write failed trials too, with 1e10 s as TVM does.")
@records_option
@json_option
def export(
    kind: str, out: Path, run_ids: tuple[str, ...], times: Times, failures: bool, records: Path, as_json: bool
) -> None:
    """Write the trials as a TVM JSON database, CSV or Parquet.

    \b
    Example: simtune records export --format tvm -o work_dir
    """
    if kind == "tvm" and out.is_file():
        raise ConfigurationError(f"{out} is a file", "give a folder with -o: a TVM database is two files")
    if kind != "tvm" and out.is_dir():
        raise ConfigurationError(f"{out} is a folder", "give a file with -o")
    with open_existing(records) as store:
        runs = [store.run(name) for name in run_ids] or None
        if kind == "tvm":
            written = export_tvm(store, out, runs, times=times, failures=failures)
            number, skipped = written.records, written.skipped
        else:
            number = (export_csv if kind == "csv" else export_parquet)(store, out, runs)
            skipped = {}
    if as_json:
        emit_json({"out": str(out), "format": kind, "trials": number, "skipped": skipped})
        return
    click.echo(f"{count(number)} trials written to {out}")
    for reason, left_out in skipped.items():
        click.echo(f"{count(left_out)} left out: {reason}")


@click.command("import")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--machine", "-m", required=True, help="Machine to simulate the candidates for.")
@click.option(
    "--target", required=True, help="What the database's times were measured on, such as rpc:board."
)
@click.option("--simulator", default="qemu", show_default=True, help="See 'simtune doctor'.")
@count_option
@click.option(
    "--warmup", type=click.IntRange(0), default=0, show_default=True, help="Calls before the one that counts."
)
@click.option("--jobs", "-j", type=click.IntRange(1), help="Builds and simulations at once.")
@records_option
@json_option
def import_database(
    folder: Path,
    machine: str,
    target: str,
    simulator: str,
    models: tuple[str, ...],
    warmup: int,
    jobs: int | None,
    records: Path,
    as_json: bool,
) -> None:
    """Rebuild and simulate the candidates of a TVM database, and keep its times as measured.

    FOLDER holds database_workload.json and database_tuning_record.json of MetaSchedule, or both
    as .xz. Predictors can then be trained on them: 'simtune train --target TARGET'.

    \b
    Example: simtune records import work_dir -m cortex-a72 --target rpc:pi4
    """
    from simtune.machines.load import load_machine
    from simtune.tuning.imported import import_tvm

    loaded = load_machine(machine)
    with RecordStore(records) as store:
        found = import_tvm(
            folder,
            loaded,
            store,
            target=target,
            simulator=simulator,
            count=models_from(models, simulator),
            warmup=warmup,
            jobs=jobs,
            progress=lambda name: click.echo(name, err=True),
        )
    if as_json:
        emit_json({"records": str(records), "workloads": [asdict(item) for item in found]})
        return
    table = make_table("workload", "run", "candidates*", "failed*", "with time*")
    for item in found:
        table.add_row(
            escape(item.workload), item.run, count(item.trials), count(item.failures), count(item.timed)
        )
    print_out(table)


VERBS = (check, salvage, export, import_database)
