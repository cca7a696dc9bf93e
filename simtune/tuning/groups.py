# SPDX-License-Identifier: Apache-2.0
"""Lists of workloads as a command line has them: names, networks, parametric forms."""

from __future__ import annotations

from simtune.errors import ConfigurationError
from simtune.tuning.workloads import NAMED, Workload, parse


def networks() -> tuple[str, ...]:
    """Names that stand for all named workloads of a network, such as ``resnet18``."""
    return tuple(sorted({name.partition(".")[0] for name in NAMED}))


def expand(text: str) -> list[Workload]:
    """Reads a list such as ``resnet18,matmul:m=64,n=64,bert.softmax``; each workload comes once.

    Raises:
        ConfigurationError: the list is empty, or holds something that is no workload.
    """
    items: list[str] = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        if "=" in piece and ":" not in piece and items and ":" in items[-1]:
            items[-1] += f",{piece}"  # a further parameter of the form before
        else:
            items.append(piece)
    found: dict[str, Workload] = {}
    for item in items:
        members = [name for name in NAMED if name.startswith(f"{item}.")] or [item]
        for workload in map(parse, members):
            found.setdefault(workload.name, workload)
    if not found:
        raise ConfigurationError("no workload is given", f"name some, or a network: {', '.join(networks())}")
    return list(found.values())
