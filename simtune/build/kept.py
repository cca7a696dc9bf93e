# SPDX-License-Identifier: Apache-2.0
"""Failed candidates that are kept, each in a folder of its own with the command that repeats it."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import threading
from pathlib import Path

#: How many are kept; the newest win.
KEEP_FAILED = 50

_lock = threading.Lock()


def keep_folder(parent: Path, name: str) -> Path:
    """The folder for a failed candidate; the oldest ones go when there are too many."""
    folder = parent.absolute() / name
    with _lock:
        folder.mkdir(parents=True, exist_ok=True)
        ages = []
        for path in folder.parent.iterdir():
            with contextlib.suppress(OSError):  # another process may be pruning, too
                if path != folder:
                    ages.append((path.stat().st_mtime, path))
        for _age, path in sorted(ages)[: max(0, len(ages) - KEEP_FAILED + 1)]:
            shutil.rmtree(path, ignore_errors=True)
    return folder


def keep_module(parent: Path, name: str, module_json: str, target_json: str) -> str:
    """Keeps a module that could not be built; returns the shell command that builds it again."""
    folder = keep_folder(parent, name)
    module, target = folder / "module.json", folder / "target.json"
    module.write_text(module_json)
    target.write_text(json.dumps(json.loads(target_json), indent=1))
    # This very Python: the module's JSON form belongs to the TVM that wrote it.
    command = [sys.executable, "-m", "simtune.build.codegen", str(module), str(target)]
    return shlex.join([*command, str(folder / "candidate.o")])
