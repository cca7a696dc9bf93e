# SPDX-License-Identifier: Apache-2.0
"""Makes this TVM usable: checks the pinned pair of packages and skips slow imports.

Import `ms` from here instead of `tvm.s_tir.meta_schedule`.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from simtune.errors import ConfigurationError

#: The only pair known to work: with other ffi versions MetaSchedule dies of a segmentation fault
#: in reference counting, which cannot be caught.
PINNED = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}


@lru_cache(maxsize=1)
def installed() -> dict[str, str]:
    """The versions of the pair that are installed here, "nothing" for a package that is not."""
    found = {}
    for package in PINNED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "nothing"
    return found


def in_words(versions: Mapping[str, str]) -> str:
    """The pair for messages."""
    return ", ".join(f"{name} {what}" for name, what in versions.items())


@lru_cache(maxsize=1)
def check_pair() -> None:
    """Refuses a TVM whose ffi library would crash.

    Raises:
        ConfigurationError: naming what is installed and the command that mends it.
    """
    found = installed()
    if found != PINNED:
        pins = " ".join(f"{name}=={what}" for name, what in PINNED.items())
        raise ConfigurationError(
            f"simtune needs exactly {pins}, and found {in_words(found)}; other pairs crash",
            f"pip install {pins}",
        )


def skip_gpu_intrinsics() -> None:
    """Keeps `tvm.s_tir.tensor_intrin` from parsing GPU and Hexagon intrinsics: 15 s per process.

    The CPU intrinsics stay. `SIMTUNE_KEEP_GPU_INTRINSICS=1` leaves TVM as it is, for a process that
    also tunes for a GPU.
    """
    if os.environ.get("SIMTUNE_KEEP_GPU_INTRINSICS") == "1":
        return
    for part in ("cuda", "rocm", "metal", "hexagon"):
        name = f"tvm.s_tir.tensor_intrin.{part}"
        sys.modules.setdefault(name, types.ModuleType(name))


def name_frozen_frames() -> None:
    """Tells `inspect` the modules of Python's frozen files: 2 s of CPU time per process.

    TVM takes `inspect.stack()` for each intrinsic that it parses, while it is being imported, and `inspect`
    goes through all of `sys.modules` for each frame of the importer, whose file is nowhere.
    """
    known: dict[str, str] = getattr(inspect, "modulesbyfile", {})  # its cache, in all Pythons so far
    for module in ("importlib._bootstrap", "importlib._bootstrap_external", "runpy"):
        known.setdefault(f"<frozen {module}>", module)


def prepare() -> None:
    """Before the first import of TVM in a process.

    Raises:
        ConfigurationError: it would crash; see `check_pair`.
    """
    check_pair()
    skip_gpu_intrinsics()
    name_frozen_frames()


def load() -> Any:
    """Checks, prepares and returns the module `tvm.s_tir.meta_schedule`."""
    prepare()
    import tvm.s_tir.meta_schedule as ms

    return ms
