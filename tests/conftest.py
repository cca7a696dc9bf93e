# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: machines, the real simulator, candidates built by TVM."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simtune.machines.load import load_machine
from simtune.machines.model import Machine

# A job that a shell or a CI system started in the background ignores Ctrl-C, and so would all that
# the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: One machine per instruction set, and RVV beside scalar RISC-V.
MACHINES = ("sifive-u74", "spacemit-x60", "cortex-a72", "x86-64-v3")


@pytest.fixture(scope="session")
def u74() -> Machine:
    return load_machine("sifive-u74")


@pytest.fixture(scope="session")
def qemu() -> Any:
    from simtune.simulators.base import get_simulator

    simulator = get_simulator("qemu")
    capability = simulator.probe()
    assert capability.available, f"{capability.reason}: {capability.fix}"
    return simulator


@pytest.fixture(scope="session")
def build_default(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Machine], Path]:
    """Builds TVM's default schedule of a workload for a machine, once per session."""
    from tvm.ir import save_json
    from tvm.target import Target

    from simtune.build import codegen
    from simtune.build.artifact import write_side_file
    from simtune.tuning.workloads import parse

    known: dict[tuple[str, str], Path] = {}

    def build(workload: str, machine: Machine) -> Path:
        key = (workload, machine.name)
        if key not in known:
            path = tmp_path_factory.mktemp("object") / "candidate.o"
            target = Target(dict(machine.target))
            with target:
                info = codegen.emit(save_json(parse(workload).module()), target, str(path))
            write_side_file(path, info)
            known[key] = path
        return known[key]

    return build


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Dask scheduler with two workers of one slot each, which share nothing but the loopback device."""
    from cluster_helpers import Cluster

    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()
