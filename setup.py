# SPDX-License-Identifier: Apache-2.0
"""Package build: compiles the native parts, and lets their sources travel with the package.

`simtune.native` compiles a part at first use when the build could not, so a package that was built
without a compiler still works where one is. The harness is cross-compiled at first use in any case.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))


class BuildWithNative(build_py):
    """Builds launcher, plugin and accelerator core beside the Python modules."""

    def run(self) -> None:
        super().run()
        from simtune.errors import ToolMissingError
        from simtune.execution.supervise import launcher
        from simtune.simulators.qemu import build_plugin
        from simtune.vta.build import build_core

        if self.editable_mode:
            target = ROOT / "simtune" / "_native"
        else:
            target = Path(self.build_lib) / "simtune" / "_native"
            shutil.copytree(ROOT / "simulators", target / "simulators", dirs_exist_ok=True)
        shutil.rmtree(target / "built", ignore_errors=True)  # of other sources
        try:
            launcher(target / "built")
            for api in (1, 4):
                build_plugin(api, target / "built")
            build_core(target / "built")
        except ToolMissingError as error:
            print(f"native parts will be built at first use: {error}", file=sys.stderr)


class WithBinaries(Distribution):
    """Makes the wheel one for this platform only."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=WithBinaries, cmdclass={"build_py": BuildWithNative})
