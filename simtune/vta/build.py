# SPDX-License-Identifier: Apache-2.0
"""Builds the C++ core (`simulators/vta`) as a Python module. Needs nothing but the standard library."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path

from simtune import native
from simtune.errors import ToolMissingError

_FLAGS = ("-std=c++17", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden", "-shared", "-fPIC", "-pthread")


def build_core(out: Path | None = None) -> Path:
    """The compiled module, built at first use.

    Args:
        out: folder for the product; by default `simtune.native.build` decides.

    Raises:
        ToolMissingError: there is no built core, and compiler, pybind11 or Python's headers are missing.
    """
    folder = native.sources() / "vta"
    sources = sorted(folder.glob("*.cpp"))
    python = Path(sysconfig.get_paths()["include"])
    binding = _pybind11()
    abi = sysconfig.get_config_var("SOABI")  # a module belongs to one interpreter
    command = ["c++", *_FLAGS, f"-DBUILT_FOR={abi}", "-o", "{out}", *map(str, sources)]
    include = [python, *([binding] if binding else [])]
    try:
        return native.build("_vta.so", command, [*sources, *folder.glob("*.hpp")], out, include)
    except ToolMissingError:
        if binding is None:
            raise ToolMissingError(
                "the VTA core is not built, and pybind11 is not here", "pip install 'pybind11>=3'"
            ) from None
        if not (python / "Python.h").is_file():
            raise ToolMissingError(
                f"the VTA core is not built, and Python's headers are not in {python}",
                "sudo apt-get install --no-install-recommends python3-dev",
            ) from None
        raise


def _pybind11() -> Path | None:
    """Folder of pybind11's headers; found without importing it."""
    spec = importlib.util.find_spec("pybind11")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "include"
