# SPDX-License-Identifier: Apache-2.0
"""The options that say where jobs run."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from simtune.cli.executing import ExecutorChoice, executor_options
from simtune.errors import ConfigurationError


@click.command()
@executor_options
def probe(executor: ExecutorChoice) -> None:
    with executor.elsewhere() as made:
        click.echo(f"{executor.name} {executor.jobs} {type(made).__name__}")


def said(*arguments: str) -> str:
    result = CliRunner().invoke(probe, arguments, catch_exceptions=False)
    return result.output.strip()


def test_an_executor_is_made_only_for_another_place() -> None:
    assert said() == "local None NoneType"
    assert said("-j", "3") == "local 3 NoneType"
    assert said("--executor", "inline") == "inline None InlineExecutor"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--executor", "local", "--scheduler", "tcp://a:1"), "--scheduler means nothing"),
        (("--executor", "dask"), "needs a scheduler"),
        (("--scheduler", "tcp://a:1", "--jobs", "2"), "--jobs means nothing for dask"),
        (("--executor", "nosuch"), "no executor is called 'nosuch'"),
        (("--executor", "inline", "--jobs", "2"), "cannot be made"),
    ],
)
def test_contradictions_are_refused(arguments: tuple[str, ...], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        said(*arguments)


def test_tls_takes_all_three_files(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ConfigurationError, match="only --tls-ca-file is given") as caught:
        said("--scheduler", "tls://a:1", "--tls-ca-file", str(tmp_path / "ca.pem"))
    assert "--tls-cert, --tls-key" in caught.value.hint
