# SPDX-License-Identifier: Apache-2.0
"""`simtune report`: the report of a tuning run as an HTML page and PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simtune.cli.output import emit_json, json_option
from simtune.cli.stored import records_option
from simtune.errors import ConfigurationError, RecordError
from simtune.records.model import Trial
from simtune.records.store import open_existing

_FILE = click.Path(path_type=Path)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("report")
@click.argument("run", required=False)
@records_option
@click.option("-o", "out", type=_FILE, default="report.html", show_default=True, help="The page to write.")
@click.option(
    "--png", type=_FOLDER, metavar="DIR", help="Write the figures as PNG files into this folder, too."
)
@click.option(
    "--work-dir", type=_FOLDER, help="Where the run left its wall times  [default: simtune-runs/RUN]"
)
@click.option("--machine", "-m", help="The run's machine file, when it is not found by name.")
@json_option
def command(
    run: str | None,
    records: Path,
    out: Path,
    png: Path | None,
    work_dir: Path | None,
    machine: str | None,
    as_json: bool,
) -> None:
    """Write the report of a tuning run: one HTML page that needs no other file.

    RUN is the beginning of a run's id (see 'simtune records list'); the newest run by default.

    \b
    Example:
      simtune report
      simtune report 3f2a --records tuning.db -o conv2d.html --png figures
    """
    if out.is_dir():
        raise ConfigurationError(f"{out} is a folder", "give a file with -o, such as report.html")
    from simtune.machines.load import load_machine
    from simtune.records.points import is_template
    from simtune.report import collect, find_timings, save, work_folders
    from simtune.tuning.targets import codes_of

    with open_existing(records) as store:
        if run is None:
            runs = store.runs()
            if not runs:
                raise RecordError(f"{records} holds no runs yet", "tune something first: simtune tune --help")
            run = runs[-1].id
        full = store.run(run).id
        places = [work_dir] if work_dir else work_folders(records, full, out)
        loaded, codes = None, None
        if machine and is_template(store.run(full)):
            found = store.run(full)
            codes = codes_of(store.workload(found.workload).name, machine, found.machine_digest)
        elif machine:
            loaded = load_machine(machine)
        report = collect(store, full, find_timings(*places), loaded, codes)
    page, *figures = save(report, out, png)
    if as_json:
        emit_json(
            {
                "report": page,
                "png": figures,
                "run": full,
                "workload": report.workload.name,
                "machine": report.run.machine,
                "objective": report.objective,
                "trials": len(report.trials),
                "statuses": {str(status): number for status, number in report.statuses.items()},
                "best": _brief(report.best),
                "reference": _brief(report.reference),
                "gain": report.gain,
                "timings": dict(report.timings),
            }
        )
        return
    click.echo(f"run {full}, {report.workload.name} on {report.run.machine}: {page}")
    if png is not None:
        click.echo(f"figures: {png}")


def _brief(trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    return {
        "index": trial.index,
        "status": trial.status,
        "value": trial.value,
        "predicted_s": trial.predicted_s,
        "measured_s": trial.measured_s,
    }
