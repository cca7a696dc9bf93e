# SPDX-License-Identifier: Apache-2.0
"""The template package: copied, built, found by its entry point, and conforming."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process_helpers import ROOT

TEMPLATE = ROOT / "examples" / "simtune-example-simulator"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package built from a copy, as pip would do it, but without its network."""
    folder = tmp_path_factory.mktemp("template")
    copy = shutil.copytree(TEMPLATE, folder / "copy", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    (folder / "site").mkdir()
    build = ["build_py", "--build-lib", "../site", "egg_info", "--egg-base", "../site"]
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", *build]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=copy)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (installed / "site", ROOT)))
    return subprocess.run(
        [sys.executable, "-m", *argv],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=installed / "copy",
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_it_conforms(installed: Path) -> None:
    done = run(installed, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_doctor_lists_it(installed: Path) -> None:
    done = run(installed, "simtune.cli.main", "doctor")
    assert "simulator example" in done.stdout
