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
