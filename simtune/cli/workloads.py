# SPDX-License-Identifier: Apache-2.0
"""`simtune workloads`: what can be tuned by name."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from simtune.cli.output import emit_json, json_option
from simtune.tuning.workloads import KINDS, NAMED, parse


@click.group()
def command() -> None:
    """List the named and parametric workloads.

    \b
    Example:
      simtune workloads list
    """


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all workloads.

    A parametric workload is written KIND:KEY=VALUE,...; what is left out takes its default.

    \b
    Example:
      simtune workloads list
      simtune tune matmul:m=64,n=256,k=64 --machine cortex-a72 --trials 32
    """
    named = [parse(name) for name in NAMED]
    if as_json:
        emit_json(
            {
                "named": [
                    {
                        "name": w.name,
                        "kind": w.kind,
                        "parameters": dict(w.parameters),
                        "operations": w.operations,
                    }
                    for w in named
                ],
                "parametric": [
                    {"kind": name, "summary": kind.summary, "defaults": dict(kind.defaults)}
                    for name, kind in KINDS.items()
                ],
            }
        )
        return
    console = Console()
    table = Table(title="named", title_justify="left")
    for column in ("name", "kind", "parameters"):
        table.add_column(column)
    table.add_column("Mop", justify="right")
    for workload in named:
        parameters = " ".join(f"{key}={value}" for key, value in workload.parameters.items())
        table.add_row(workload.name, workload.kind, parameters, f"{workload.operations / 1e6:.1f}")
    console.print(table)
    table = Table(title="parametric", title_justify="left")
    for column in ("kind", "computes", "defaults"):
        table.add_column(column)
    for name, kind in KINDS.items():
        table.add_row(name, kind.summary, ",".join(f"{key}={value}" for key, value in kind.defaults.items()))
    console.print(table)
