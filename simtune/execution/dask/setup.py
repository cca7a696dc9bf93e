# SPDX-License-Identifier: Apache-2.0
"""Dask, loaded when it is needed, and its keys and certificates."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from simtune.errors import ConfigurationError, ToolMissingError

#: Names of the files that encryption takes, as `distributed.Security` calls them.
TLS_FILES = ("tls_ca_file", "tls_client_cert", "tls_client_key", "tls_worker_cert", "tls_worker_key")


def dask_distributed() -> Any:
    """The package `distributed`.

    Raises:
        ToolMissingError: it is not installed.
    """
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ToolMissingError(
            f"running jobs on other machines needs the package 'distributed': {error}",
            "pip install 'simtune[cluster]'",
        ) from None


def check_address(address: str, encrypted: bool) -> None:
    """Tells an address that can never work from one that does not answer yet.

    Args:
        address: of a scheduler.
        encrypted: files for TLS are given.

    Raises:
        ConfigurationError: it can never work.
    """
    dask_distributed()
    comm = importlib.import_module("distributed.comm")
    hint = "give one such as tcp://head:8786"
    scheme = address.partition("://")[0]
    try:
        if scheme != "inproc":
            comm.get_address_host_port(address)
    except ValueError as error:
        raise ConfigurationError(f"'{address}' is no address of a scheduler: {error}", hint) from None
    if scheme == "tls" and not encrypted and not _configured():
        raise ConfigurationError(
            f"{address} takes encrypted connections only, and no files for TLS are given",
            "give a CA, a certificate and its key, see docs/security.md",
        )


def _configured() -> bool:
    """Whether Dask's own configuration names a certificate."""
    import dask

    return bool(dask.config.get("distributed.comm.tls.ca-file", None))


def security_of(files: Mapping[str, str | os.PathLike[str]] | None) -> Any:
    """Dask's `Security` with these files; None without any.

    Raises:
        ConfigurationError: a name is unknown, or Dask refuses them.
    """
    if not files:
        return None
    unknown = set(files) - set(TLS_FILES)
    if unknown:
        raise ConfigurationError(
            f"TLS has no file called {', '.join(sorted(unknown))}", f"known: {', '.join(TLS_FILES)}"
        )
    try:
        return dask_distributed().Security(
            require_encryption=True, **{name: os.fspath(path) for name, path in files.items()}
        )
    except (TypeError, OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"the files for TLS cannot be used: {error}") from error
