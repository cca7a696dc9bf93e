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


def check_address(address: str, encrypted: bool | None) -> None:
    """Refuses what can never be a scheduler's address, since one that is only not up yet is waited for.

    Args:
        address: of a scheduler.
        encrypted: whether files for TLS are given; None when that cannot be told.

    Raises:
        ConfigurationError: unknown protocol, no port, or a protocol that does not fit the files.
    """
    dask_distributed()
    addressing = importlib.import_module("distributed.comm.addressing")
    registry = importlib.import_module("distributed.comm.registry")
    try:
        scheme, place = addressing.parse_address(address)
        registry.get_backend(scheme)
        if scheme in ("tcp", "tls"):
            _host, port = addressing.parse_host_port(place)
            if not 0 < port < 65536:
                raise ValueError(f"there is no port {port}")
    except ValueError as error:
        raise ConfigurationError(
            f"'{address}' is no address of a scheduler: {error}", "write it like tcp://head:8786"
        ) from None
    if encrypted and scheme == "tcp":
        raise ConfigurationError(
            f"{address} is not encrypted, and files for TLS are given",
            f"tls://{place}, or leave the files out",
        )
    if scheme == "tls" and encrypted is False and not _configured():
        raise ConfigurationError(
            f"{address} takes encrypted connections only, and no files for TLS are given",
            "give a CA, a certificate and its key, see docs/security.md",
        )


def _configured() -> bool:
    """Whether Dask's own configuration names a certificate."""
    import dask

    return bool(dask.config.get("distributed.comm.tls.ca-file", None))
