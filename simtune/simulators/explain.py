# SPDX-License-Identifier: Apache-2.0
"""Why two simulators count differently: what is known about each, applied to what differs."""

from __future__ import annotations

from collections.abc import Mapping

from simtune.counters import Counters
from simtune.machines.model import Machine

#: Instructions, and lines, that the two ends of a region may cost.
_EDGE, _LINE_EDGE = 16, 4
_SMALL = 0.01


def explain(counted: Mapping[str, Counters], machine: Machine) -> dict[str, dict[str, str]]:
    """For each simulator but the first: what differs from the first, and why.

    A counter that is equal, or that only one of the two has, is left out; so are classes of
    instructions once their sum is explained.
    """
    names = list(counted)
    if len(names) < 2:
        return {}
    first = counted[names[0]]
    return {name: _differences(first, counted[name], name, machine) for name in names[1:]}


def _differences(first: Counters, other: Counters, name: str, machine: Machine) -> dict[str, str]:
    mine, theirs = other.get("instructions"), first.get("instructions")
    if mine is not None and theirs is not None and abs(mine - theirs) > max(_EDGE, _SMALL * theirs):
        share = change(mine, theirs) if theirs else "some where there were none"
        text = f"{share}: one of the two is wrong, or does not run the same code; the rest follows from that"
        return {"instructions": text}
    found: dict[str, str] = {}
    # Of a cache's counters the misses are what people look at.
    for counter in sorted(first, key=lambda name: not name.endswith("misses")):
        if counter not in other or first[counter] == other[counter]:
            continue
        difference = other[counter] - first[counter]
        family = counter.partition(".")[0]
        text = _reason(counter, difference, first, other, name, machine)
        found.setdefault(family if family in ("insn", "l1i", "l1d", "l2", "l3") else counter, text)
    return found


def change(value: float, reference: float) -> str:
    """How a count differs from one that is not zero, in percent, or as a factor where that is large."""
    percent = 100 * (value / reference - 1)
    if abs(percent) >= 1000:
        return f"x {value / reference:.3g}"
    return f"{percent:+.0f} %" if abs(percent) >= 10 else f"{percent:+.2g} %"


def _reason(
    counter: str, difference: float, first: Counters, other: Counters, name: str, machine: Machine
) -> str:
    """The likely cause of one difference."""
    cache = counter.partition(".")[0] in ("l1i", "l1d", "l2", "l3") or counter.startswith("dram_")
    base = name.partition("-")[0]
    if cache and first.replacement != other.replacement:
        return (
            f"replacement: {name} replaces {other.replacement}, {first.simulator} {first.replacement}; "
            "misses of the two are different quantities"
        )
    lines = difference / max(cache.line for cache in machine.caches.values())
    if cache and abs(lines if counter.startswith("dram_") else difference) <= _LINE_EDGE:
        return "start-up: a few lines that were, or were not, in the cache when the region began"
    if counter == "l1i.read_hits" or (counter.startswith("l1i") and base in ("cachegrind", "callgrind")):
        return "unit: fetches are counted by instruction, by line or by block"
    if base in ("cachegrind", "callgrind") and "l3" in machine.caches and counter.startswith(("l3", "dram")):
        return (
            "levels: valgrind has no L2 between L1 and the last level, so the last level sees all L1 misses"
        )
    if base == "gem5" and "-" in name and cache:
        return "timing: speculation and lines in flight change what a detailed model asks its caches for"
    if cache and "prefetches" in first:
        return "prefetch: the first one models the machine's prefetcher, which brings lines in early"
    if counter in ("issue_cycles", "blocks"):
        return "blocks: they end where the simulator ends its translations"
    if counter in ("load_bytes", "store_bytes", "loads", "stores") or counter.endswith("_hits"):
        if machine.isa.vlen or machine.isa.name == "x86_64":
            return "accesses: wide or vector accesses are counted whole by one and in parts by the other"
        return "accesses: one counts lines, the other accesses; an access may cross two lines"
    if counter.startswith("insn."):
        return "classes: the simulators sort a few instructions differently; the sums tell"
    if abs(difference) <= _EDGE:
        return "edge: instructions that begin and end the region"
    if counter == "branch_mispredicts":
        return "predictor: each simulator has its own"
    many = change(other[counter], first[counter]) if first[counter] else f"{difference:+,.0f}"
    return f"{many}: no cause is known"
