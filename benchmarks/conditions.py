# SPDX-License-Identifier: Apache-2.0
"""What every benchmark prints beside its figures: machine, date, versions."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import version
from typing import Any


def conditions() -> dict[str, Any]:
    """The machine and the versions that figures depend on."""
    with open("/proc/cpuinfo") as cpuinfo:
        model = next(
            (line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown"
        )
    with open("/proc/loadavg") as loadavg:
        load = float(loadavg.read().split()[0])
    qemu = subprocess.run(["qemu-riscv64", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": load,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "qemu": qemu,
        "versions": {name: version(name) for name in ("simtune", "apache-tvm", "scikit-learn", "numpy")},
    }


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that all benchmarks share."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("-o", "--output", help="also write the JSON here")
    return made


def emit(result: dict[str, Any], output: str | None) -> None:
    """Prints the JSON document, and writes it where asked."""
    text = json.dumps(result, indent=2)
    print(text)
    if output:
        with open(output, "w") as stream:
            stream.write(text + "\n")
