# SPDX-License-Identifier: Apache-2.0
"""What it costs a job to run without network, and in bubblewrap: wall and CPU milliseconds per process.

    python benchmarks/confinement.py [--jobs N]

Prints JSON. The settings take turns, so that a change of the machine's load meets all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from simtune.errors import ToolMissingError
from simtune.execution.confine import NETWORK_VARIABLE, SANDBOX_VARIABLE
from simtune.execution.supervise import Command, check_confinement, run

SETTINGS = {
    "free": ("on", "none"),
    "no network": ("off", "none"),
    "bubblewrap": ("on", "bwrap"),
    "both": ("off", "bwrap"),
}


def cpu_s() -> float:
    """CPU seconds of this process and its finished children."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200, help="per setting")
    jobs = parser.parse_args().jobs
    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    said = {}
    with tempfile.TemporaryDirectory() as folder:
        job = Command(("true",), cwd=Path(folder))
        for _ in range(jobs):
            for name, (network, sandbox) in SETTINGS.items():
                os.environ[NETWORK_VARIABLE], os.environ[SANDBOX_VARIABLE] = network, sandbox
                if name not in said:
                    try:
                        said[name] = check_confinement()
                    except ToolMissingError as error:
                        said[name] = error.what
                if "bubblewrap" not in said[name] and sandbox == "bwrap":
                    continue
                start, used = time.perf_counter(), cpu_s()
                run(job)
                wall.setdefault(name, []).append(time.perf_counter() - start)
                cpu.setdefault(name, []).append(cpu_s() - used)
    result = {
        name: {
            "jobs": len(wall[name]),
            "wall_ms": round(1e3 * statistics.median(wall[name]), 3),
            "cpu_ms": round(1e3 * statistics.mean(cpu[name]), 3),
            "says": said[name],
        }
        for name in wall
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
