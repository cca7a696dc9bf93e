# SPDX-License-Identifier: Apache-2.0
"""A cluster that talks to holders of a certificate only."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_helpers import Node, Worker, free_port
from execution_helpers import wait_for

import simtune
from simtune.errors import ConfigurationError
from simtune.execution.base import run_all
from simtune.testing.jobs import FakeJob


def authority(folder: Path) -> tuple[Path, Path, Path]:
    """An authority and one certificate of it, for all who take part: three files."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    ca, ca_key, certificate, key = (folder / n for n in ("ca.pem", "ca-key.pem", "cert.pem", "key.pem"))
    request = folder / "request.pem"
    new = ("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj")
    for command in (
        (*new, "/CN=authority", "-x509", "-days", "2", "-keyout", ca_key, "-out", ca),
        (*new, "/CN=member", "-keyout", key, "-out", request),
        ("openssl", "x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
         "-days", "2", "-out", certificate),
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return ca, certificate, key


def test_only_holders_of_a_certificate_take_part(tmp_path: Path) -> None:
    ca, certificate, key = authority(tmp_path)
    address = f"tls://127.0.0.1:{free_port()}"
    files = ["--tls-ca-file", str(ca), "--tls-cert", str(certificate), "--tls-key", str(key)]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    where = ["--protocol", "tls", "--port", address.rpartition(":")[2], "--dashboard-address", "127.0.0.1:0"]
    scheduler = Node([*command, *where, *files], tmp_path / "scheduler", {})
    worker = Worker(address, tmp_path / "worker", 1, *files)
    try:
        assert wait_for(worker.joined, 40), scheduler.log() + worker.log()
        security = {"tls_ca_file": ca, "tls_client_cert": certificate, "tls_client_key": key}
        with simtune.DaskExecutor(address, security=security) as executor:
            assert len(run_all(executor, [FakeJob(n) for n in range(5)])) == 5
        with pytest.raises(ConfigurationError, match=address):
            simtune.DaskExecutor(address, connect_s=1.0)
        with pytest.raises(ConfigurationError, match="no file called key"):
            simtune.DaskExecutor(address, security={"key": key})
    finally:
        worker.stop()
        scheduler.stop()
