# SPDX-License-Identifier: Apache-2.0
"""Package build: the native sources travel with the package and are compiled where a compiler is.

`simtune.native` compiles a part at first use when the build could not, so a wheel made on a machine
without QEMU or cross compilers still works.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithNative(build_py):
    """Copies `simulators/` into the package when it is built outside the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "simtune" / "_native" / "simulators"
            shutil.copytree(ROOT / "simulators", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithNative})
