# SPDX-License-Identifier: Apache-2.0
"""Targets with template spaces, by the prefix of their workloads: ``vta:resnet18.c2``."""

from __future__ import annotations

from simtune.errors import ConfigurationError
from simtune.tuning.template_task import Task

#: Prefixes of workloads that are searched in a template space.
PREFIXES: tuple[str, ...] = ("vta",)


def has_template(workload: str) -> bool:
    """Whether a workload's name is that of a template space."""
    return workload.partition(":")[0] in PREFIXES and ":" in workload


def load_task(workload: str, machine: str, seed: int = 0) -> Task:
    """The search task of a workload on a machine.

    Args:
        workload: with its prefix, such as ``vta:resnet18.c2``.
        machine: name, or path of a file.
        seed: of inputs.

    Raises:
        ConfigurationError: an unknown prefix, layer or machine.
    """
    if not has_template(workload):
        raise ConfigurationError(
            f"'{workload}' has no template space", f"names start with {', '.join(p + ':' for p in PREFIXES)}"
        )
    from simtune.tuning.vta_task import VtaTask

    return VtaTask(workload.partition(":")[2], machine, seed)


def codes_of(workload: str, machine: str, digest: str) -> tuple[str, ...]:
    """The exact constraints of every point; empty when the machine's file is another one by now.

    Raises:
        SimtuneError: the target is not known here.
    """
    task = load_task(workload, machine)
    return tuple(task.codes()) if task.machine_digest == digest else ()
