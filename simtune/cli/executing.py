# SPDX-License-Identifier: Apache-2.0
"""`--executor` and its companions, of every verb that runs many jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from simtune.errors import ConfigurationError
from simtune.execution.base import Executor

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class ExecutorChoice:
    """Where the user wants jobs to run.

    Attributes:
        name: of an executor, see `simtune.execution.registry`.
        scheduler: address that a remote executor connects to.
        jobs: upper bound on the jobs at once; None leaves it to the executor.
        tls_ca_file, tls_cert, tls_key: PEM files for a ``tls://`` address.
    """

    name: str = "local"
    scheduler: str | None = None
    jobs: int | None = None
    tls_ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @property
    def local(self) -> bool:
        """Whether jobs run as without any of these options."""
        return self.name == "local"

    def check(self) -> None:
        """Refuses combinations that cannot work, before anything slow is imported.

        Raises:
            ConfigurationError: naming the options that contradict each other.
        """
        tls = {"--tls-ca-file": self.tls_ca_file, "--tls-cert": self.tls_cert, "--tls-key": self.tls_key}
        given = [option for option, path in tls.items() if path is not None]
        if self.local and (self.scheduler or given):
            options = ", ".join([*(["--scheduler"] if self.scheduler else []), *given])
            raise ConfigurationError(
                f"{options} means nothing for jobs on this machine", "choose --executor dask, or leave it out"
            )
        if self.name == "dask" and not self.scheduler:
            raise ConfigurationError(
                "the executor dask needs a scheduler",
                "--scheduler tcp://HOST:8786, see docs/howto/cluster.md",
            )
        if self.name == "dask" and self.jobs is not None:
            raise ConfigurationError(
                "--jobs means nothing for dask", "leave it out: each worker says how many run there at once"
            )
        if given and len(given) < len(tls):
            raise ConfigurationError(
                f"TLS needs a CA, a certificate and its key, and only {', '.join(given)} is given",
                f"add {', '.join(option for option in tls if option not in given)}",
            )

    def open(self) -> Executor:
        """Makes the executor; the caller closes it, best as a context manager.

        Raises:
            ConfigurationError: unknown name, contradictory options.
            SimtuneError: its scheduler cannot be reached.
        """
        from simtune.execution.registry import get_executor

        self.check()
        tls = {
            "tls_ca_file": self.tls_ca_file,
            "tls_client_cert": self.tls_cert,
            "tls_client_key": self.tls_key,
        }
        security = {name: str(path.absolute()) for name, path in tls.items() if path is not None}
        settings = {"cluster": self.scheduler, "jobs": self.jobs, "security": security}
        return get_executor(self.name, **{name: value for name, value in settings.items() if value})

    @contextmanager
    def elsewhere(self) -> Iterator[Executor | None]:
        """The executor while a block runs; None for this machine, as without options."""
        self.check()
        if self.local:
            yield None
        else:
            with self.open() as executor:
                yield executor


def executor_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--executor``, ``--scheduler``, ``--jobs`` and the TLS files; the command gets them as one
    keyword argument, ``executor``, an `ExecutorChoice`."""

    @click.option(
        "--executor",
        help="Where jobs run: local, inline, dask, or a plug-in  [default: dask with a --scheduler]",
    )
    @click.option("--scheduler", metavar="ADDRESS", help="Of the executor, such as tcp://HOST:8786.")
    @click.option(
        "--jobs", "-j", type=click.IntRange(1), help="Jobs at once  [default: all usable cores, or slots]"
    )
    @click.option("--tls-ca-file", type=_FILE, help="Certificate of the authority that signed the cluster's.")
    @click.option("--tls-cert", type=_FILE, help="Certificate to show to the cluster.")
    @click.option("--tls-key", type=_FILE, help="Key of that certificate.")
    @functools.wraps(function)
    def command(
        *arguments: Any,
        executor: str | None,
        scheduler: str | None,
        jobs: int | None,
        tls_ca_file: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        **others: Any,
    ) -> Any:
        name = executor or ("dask" if scheduler else "local")
        choice = ExecutorChoice(name, scheduler, jobs, tls_ca_file, tls_cert, tls_key)
        return function(*arguments, executor=choice, **others)

    return command
