# SPDX-License-Identifier: Apache-2.0
"""Which numbers of a machine file may be fitted, within which bounds, and how they move.

What is documented or can be asked of the system (widths, cache sizes, ports) is not free. Bounds
are physical: a fit that wants to leave them has found something else than the parameter's meaning.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simtune.counters import INSTRUCTION_CLASSES, Counters
from simtune.errors import ConfigurationError, MachineFileError
from simtune.machines.model import Machine
from simtune.machines.validate import build_machine

#: A class with a smaller share of the instructions tells nothing about its timing.
_SHARE = 1e-3


@dataclass(frozen=True)
class Parameter:
    """One free number.

    Attributes:
        path: its key in the machine file, such as ``caches.l2.latency``.
        low, high: physical bounds.
        whole: whether it is an integer.
    """

    path: str
    low: float
    high: float
    whole: bool = False

    def moves(self, value: float, scale: float) -> list[float]:
        """The next values upwards and downwards, about a share `scale` away, inside the bounds."""
        wanted = [value * (1 + scale), value / (1 + scale)]
        if self.whole:
            wanted = [max(round(wanted[0]), round(value) + 1), min(round(wanted[1]), round(value) - 1)]
        else:
            wanted = [float(f"{number:.4g}") for number in wanted]
        clipped = [min(self.high, max(self.low, number)) for number in wanted]
        return [number for number in dict.fromkeys(clipped) if number != value]


@dataclass(frozen=True)
class Rule:
    """Bounds of the parameters that match a pattern of keys, as factors of the file's value.

    Attributes:
        pattern: of dotted keys; the first rule that matches counts.
        down, up: bounds are value x down and value x up.
        low, high: absolute ones, which are never left.
        reach: an upper bound below it is raised to it, for values that may start at 0.
    """

    pattern: str
    down: float
    up: float
    low: float
    high: float
    reach: float = 0.0


#: Every number of a machine file that matches one of these is free.
RULES: tuple[Rule, ...] = (
    # Virtual machines do not tell the clock they really have.
    Rule("clock_hz", 0.6, 1.8, 1e6, 1e10),
    Rule("pipeline.classes.*.latency", 0.3, 3.0, 1, 60),
    Rule("pipeline.classes.*.busy", 0.5, 4.0, 1, 60),
    Rule("pipeline.mispredict_penalty", 0.4, 2.5, 1, 40),
    Rule("pipeline.taken_branch_penalty", 0.0, 2.0, 0, 4, reach=2),
    Rule("pipeline.scheduler", 0.4, 3.0, 0, 1024),
    Rule("memory_unit.forward_*", 0.3, 3.0, 0, 60),
    Rule("memory_unit.split_penalty", 0.0, 4.0, 0, 30, reach=4),
    Rule("memory_unit.store_interval", 0.5, 4.0, 1, 16),
    Rule("memory_unit.misses", 0.3, 4.0, 1, 64),
    Rule("memory_unit.masked_store", 0.3, 4.0, 1, 60, reach=20),
    Rule("memory_unit.set_interval", 0.3, 4.0, 1, 60),
    Rule("tlb.*_latency", 0.3, 4.0, 0, 500),
    Rule("prefetcher.distance", 0.2, 4.0, 1, 64),
    Rule("caches.l1i.*", 1.0, 1.0, 0, 0),
    Rule("caches.*.latency", 0.5, 2.5, 1, 300),
    Rule("caches.*.line_interval", 0.25, 8.0, 0.25, 300),
    Rule("memory.latency_ns", 0.4, 3.0, 20, 500),
    Rule("memory.line_interval_ns", 0.2, 6.0, 0.2, 200),
)


def free_parameters(
    machine: Machine, counters: Sequence[Counters] = (), only: Sequence[str] = ("*",)
) -> list[Parameter]:
    """The free numbers of a machine, in the order of its file.

    Args:
        counters: of the candidates to fit to; classes that they do not execute are not free.
        only: patterns of keys, such as ``caches.*``.

    Raises:
        ConfigurationError: nothing is left.
    """
    seen = _executed(counters)
    found = []
    for path, value in numbers(machine.as_dict()):
        rule = next((rule for rule in RULES if fnmatch.fnmatchcase(path, rule.pattern)), None)
        if rule is None or rule.high <= 0 or (value == 0 and not rule.reach):
            continue  # 0 switches a part off, or makes it unlimited
        if not any(fnmatch.fnmatchcase(path, each) for each in only):
            continue
        _, _, inner = path.partition("pipeline.classes.")
        if inner and counters and inner.partition(".")[0] not in seen:
            continue
        low, high = max(rule.low, value * rule.down), min(rule.high, max(rule.reach, value * rule.up))
        if isinstance(value, int):
            low, high = max(rule.low, int(low)), max(value + 1, int(high))
        # A file outside the bounds is its author's business: the value itself is always allowed.
        found.append(Parameter(path, min(low, value), max(high, value), isinstance(value, int)))
    if not found:
        raise ConfigurationError(
            f"no free parameter of {machine.name} matches {', '.join(only)}",
            "see 'simtune machines show' for the keys; free are "
            + ", ".join(r.pattern for r in RULES if r.high),
        )
    return found


def _executed(counters: Sequence[Counters]) -> set[str]:
    total = sum(row.get("instructions", 0.0) for row in counters)
    return {
        name
        for name in INSTRUCTION_CLASSES
        if sum(row.get(f"insn.{name}", 0.0) for row in counters) > _SHARE * total
    }


def numbers(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every number in a nested table."""
    for key, value in table.items():
        full = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from numbers(value, full)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield full, value


def value_of(machine: Machine, path: str) -> Any:
    """The number at a dotted key."""
    value: Any = machine.as_dict()
    for key in path.split("."):
        value = value[key]
    return value


def changed(machine: Machine, changes: Mapping[str, Any], name: str = "") -> Machine | None:
    """The machine with other numbers at some keys; None when the whole would make no sense."""
    data = machine.as_dict()
    for path, value in changes.items():
        *tables, key = path.split(".")
        table = data
        for part in tables:
            table = table[part]
        table[key] = int(value) if isinstance(table[key], int) else float(value)
    if name:
        data["name"] = name
    try:
        return build_machine(data, file=machine.name, default_name=machine.name)
    except MachineFileError:  # such as an L2 that is nearer than the L1
        return None
