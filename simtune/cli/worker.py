# SPDX-License-Identifier: Apache-2.0
"""`simtune worker`: offers this machine's cores to drivers elsewhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from simtune.cli.output import emit_json, json_option
from simtune.execution.capacity import slots
from simtune.execution.confine import NETWORK_VARIABLE, SANDBOX_VARIABLE

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("address")
@click.option("--jobs", type=click.IntRange(1), help="Jobs at once; by default what cores and memory allow.")
@click.option(
    "--memory-per-job",
    type=click.FloatRange(0, min_open=True),
    default=0.5,
    show_default=True,
    help="GiB that one job is expected to need.",
)
@click.option("--host", default="", help="Address under which the others reach this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the worker; any by default.")
@click.option("--network/--no-network", default=False, help="Whether jobs may reach the network.")
@click.option(
    "--sandbox",
    type=click.Choice(["none", "bwrap"]),
    default="none",
    show_default=True,
    help="bwrap: jobs see programs and their own files only, through bubblewrap.",
)
@click.option("--tls-ca-file", type=_FILE, help="Certificate of the authority that all machines trust.")
@click.option("--tls-cert", type=_FILE, help="This worker's certificate.")
@click.option("--tls-key", type=_FILE, help="This worker's key.")
@json_option
def command(
    address: str,
    jobs: int | None,
    memory_per_job: float,
    host: str,
    port: int,
    network: bool,
    sandbox: str,
    tls_ca_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    as_json: bool,
) -> None:
    """Run jobs for drivers that use the Dask scheduler at ADDRESS.

    Stays until it is stopped: it waits for a scheduler that is not there yet, comes back to one that
    was restarted, and starts again when it was killed. Ctrl-C or SIGTERM makes it leave in good order;
    with --json it then says how often it was started.

    \b
    Example:
      dask scheduler                          # on one machine
      simtune worker tcp://head:8786          # on each machine with cores to spare
      simtune batch objects/ --machine sifive-u74 --scheduler tcp://head:8786
    """
    from simtune.execution.dask.setup import check_address, dask_distributed, security_of
    from simtune.execution.dask.worker import WorkerOptions, guard
    from simtune.execution.supervise import check_confinement

    dask_distributed()
    files = {"tls_ca_file": tls_ca_file, "tls_worker_cert": tls_cert, "tls_worker_key": tls_key}
    tls = {name: str(path.absolute()) for name, path in files.items() if path is not None}
    check_address(address, bool(tls))
    os.environ[NETWORK_VARIABLE] = "on" if network else "off"
    os.environ[SANDBOX_VARIABLE] = sandbox
    confinement = check_confinement()
    click.echo(confinement, err=True)
    security_of(tls)
    options = WorkerOptions(address, slots(jobs, int(memory_per_job * (1 << 30))), host, port, tls or None)
    start = time.monotonic()
    starts = guard(options, lambda text: click.echo(f"[{time.monotonic() - start:6.1f} s] {text}", err=True))
    if as_json:
        seconds = round(time.monotonic() - start, 1)
        emit_json(
            {
                "address": address,
                "jobs": options.slots,
                "confinement": confinement,
                "starts": starts,
                "seconds": seconds,
            }
        )
