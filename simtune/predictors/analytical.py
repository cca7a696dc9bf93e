# SPDX-License-Identifier: Apache-2.0
"""Cycles from first principles: issue, cache misses, bandwidth, mispredictions. No training.

The simulator's scoreboard is the best model there is: when it was on, its `pipeline_cycles` are the
prediction, and its own account of them the explanation. Without it, for a machine with levels l1d,
l2, ..., memory::

    cycles = max(issue + stalls + mispredicts, busiest link)

    issue       cycles of the pipeline with every access hitting L1 (see `issue_cycles`)
    mispredicts branch_mispredicts x mispredict_penalty
    stalls      for each level, lines fetched from the next one x stall per line
    link        for each level, (lines fetched + prefetched + written back) x line_interval of the next

Stall per line fetched from the level `next` through the level `this`::

    stall   = overlap(next) x (exposed(next.latency) - exposed(this.latency))
    exposed(latency) = max(0, latency - l1d.latency - hidden)

The L1 latency is already part of `issue`. The differences telescope: a line from memory pays
memory - L1 in all, of which the L2 miss adds memory - L2.

* An out-of-order core goes on until its reorder buffer is full, so hidden = rob / issue_width
  cycles; misses in one window share the rest, so overlap = line_interval / latency, the inverse of
  the number of misses in flight. This is interval analysis (Karkhanis and Smith, ISCA 2004; Eyerman
  et al., ACM TOCS 2009). On x86, charging full latencies makes predictions worse than none at all.
* An in-order core hides nothing behind the first use of a missing load. Loads that the compiler
  has grouped ahead of their uses overlap, the others do not: overlap = (1 + line_interval / latency) / 2,
  the middle between a miss alone and misses at full throughput. A core that blocks on a miss has
  line_interval = latency, and pays the latency in full.
* Instruction misses starve the front end of either kind, apart from sequential fetch: as in-order.

`line_interval` and `latency` are measured on boards as parallel and single pointer chases, see the
machine files. Write-backs wait in buffers: they take link time and never stall by themselves.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from simtune.counters import INSTRUCTION_CLASSES, PIPELINE_CAUSES, Counters
from simtune.errors import ConfigurationError
from simtune.machines.model import Machine, Pipeline

_DATA_LEVELS = ("l1d", "l2", "l3")


@dataclass(frozen=True)
class _Source:
    """Where a level's misses are served: the next cache or memory, in core cycles."""

    name: str
    latency: float
    interval: float


@dataclass(frozen=True)
class _Link:
    """Traffic between a level and its source."""

    part: str
    stall: float
    fill_cycles: float
    writeback_cycles: float


class AnalyticalPredictor:
    """The model above. Counters that are absent leave their part out; nothing is assumed zero."""

    name = "analytical"

    def predict(self, counters: Counters, machine: Machine) -> float:
        """Seconds.

        Raises:
            ConfigurationError: there are neither issue cycles nor instruction counts.
        """
        return sum(self.explain(counters, machine).values()) / machine.clock_hz

    def explain(self, counters: Counters, machine: Machine) -> dict[str, float]:
        """Cycles per part; they add up to the prediction.

        With a scoreboard the parts are its causes, see `simtune.counters.PIPELINE_CAUSES`, otherwise
        those of `static_parts`.
        """
        if counters.get("pipeline_cycles", 0) > 0:
            return _scoreboard_parts(counters)
        return static_parts(counters, machine)


def static_parts(counters: Counters, machine: Machine) -> dict[str, float]:
    """Cycles per part of the model that needs no scoreboard, whether there was one or not.

    Parts are "issue", "mispredicts", "l1i", one per link such as "l1d->l2" or "l2->memory"
    and, where a link is the bottleneck, "write-backs" for its share of that.
    """
    parts = {"issue": issue_cycles(counters, machine)}
    if "branch_mispredicts" in counters:
        parts["mispredicts"] = counters["branch_mispredicts"] * machine.pipeline.mispredict_penalty
    if "l1i.read_misses" in counters:
        parts["l1i"] = counters["l1i.read_misses"] * _instruction_stall(machine)
    links = _links(counters, machine)
    for link in links:
        parts[link.part] = link.stall
    _add_bottleneck(parts, links)
    return parts


def _scoreboard_parts(counters: Counters) -> dict[str, float]:
    causes = {name: counters.get(f"pipeline.{name}", 0.0) for name in PIPELINE_CAUSES}
    rest = counters["pipeline_cycles"] - sum(causes.values())
    causes["core"] += max(0.0, rest)  # rounding, or a simulator that gives no causes
    return {name: cycles for name, cycles in causes.items() if cycles > 0 or name == "core"}


def issue_cycles(counters: Counters, machine: Machine) -> float:
    """Cycles of the pipeline alone, from the best counters there are.

    The simulator's own issue model first (it knows dependences). Otherwise the throughput bound
    from instruction classes, otherwise instructions over issue width.

    Raises:
        ConfigurationError: none of these counters is there.
    """
    classes = {name: counters[f"insn.{name}"] for name in INSTRUCTION_CLASSES if f"insn.{name}" in counters}
    if "issue_cycles" in counters:
        return counters["issue_cycles"]
    width = machine.pipeline.issue_width
    if classes:
        # x86 instructions with a memory operand are classed by their operation, yet use a load port.
        extra = counters.get("loads", 0) - sum(classes.get(n, 0) for n in ("load", "vec_load", "atomic"))
        classes["load"] = classes.get("load", 0) + max(0, extra)
        total = counters.get("instructions", sum(classes.values()))
        return max(total / width, _port_bound(classes, machine.pipeline))
    if "instructions" in counters:
        return counters["instructions"] / width
    raise ConfigurationError(
        f"cannot predict a time from {', '.join(counters) or 'no counters'}",
        "count issue_cycles, instruction classes (insn.*) or at least instructions",
    )


def _port_bound(classes: dict[str, float], pipeline: Pipeline) -> float:
    """The least time in which the ports can do the work, however it is spread over them.

    By the max-flow min-cut theorem that is the largest (work that only fits a set of ports) / (size
    of the set); only unions of the classes' own port sets need to be tried.
    """
    work: dict[int, float] = {}  # set of ports as bits -> cycles of one port
    for name, executed in classes.items():
        timing = pipeline.classes[name]
        ports = sum(1 << pipeline.ports.index(port) for port in timing.ports)
        work[ports] = work.get(ports, 0) + executed * timing.busy
    return max(
        sum(cycles for ports, cycles in work.items() if ports & union == ports) / union.bit_count()
        for union in _unions(frozenset(work))
    )


@functools.lru_cache(maxsize=64)
def _unions(sets: frozenset[int], enough: int = 4096) -> frozenset[int]:
    """Unions of overlapping sets; a union of disjoint ones is never the tightest bound.

    Stops when there are `enough`, which no real core comes near: fewer make a looser bound.
    """
    found = fresh = sets
    while fresh and len(found) < enough:
        fresh = frozenset(a | b for a in fresh for b in sets if a & b) - found
        found |= fresh
    return found


def _links(counters: Counters, machine: Machine) -> list[_Link]:
    """The links whose traffic was counted, from the core outwards."""
    levels = [level for level in _DATA_LEVELS if level in machine.caches]
    prefetched = counters.get("prefetches", 0)
    wanted = (counters.misses("l1d") or 0) + counters.get("l1i.read_misses", 0)
    demand = wanted / (wanted + prefetched) if prefetched else 1.0  # share that the core waits for
    links = []
    for level in levels:
        source = _source(level, levels, machine)
        written = counters.get(f"{level}.writebacks", 0.0)
        if level == "l1d":
            waited = counters.misses(level)
            fetched = None if waited is None else waited + prefetched
        else:  # write misses are write-backs passing through: nothing is fetched for them
            fetched = counters.get(f"{level}.read_misses")
            waited = None if fetched is None else demand * fetched
        if source.name == "memory":
            line = machine.caches[level].line
            if "dram_read_bytes" in counters:
                fetched = counters["dram_read_bytes"] / line
            if "dram_write_bytes" in counters:
                written = counters["dram_write_bytes"] / line
        if fetched is None:
            continue
        if waited is None:
            waited = demand * fetched
        stall = _stall(machine, machine.caches[level].latency, source)
        links.append(
            _Link(
                part=f"{level}->{source.name}",
                stall=waited * stall,
                fill_cycles=fetched * source.interval,
                writeback_cycles=written * source.interval,
            )
        )
    return links


def _source(level: str, levels: list[str], machine: Machine) -> _Source:
    position = levels.index(level) + 1
    if position < len(levels):
        cache = machine.caches[levels[position]]
        return _Source(levels[position], cache.latency, cache.line_interval)
    cycles = machine.clock_hz * 1e-9  # per nanosecond
    return _Source("memory", machine.memory.latency_ns * cycles, machine.memory.line_interval_ns * cycles)


def _stall(machine: Machine, this_latency: float, source: _Source) -> float:
    """Cycles that one line fetched from `source` costs beyond a hit in the level that missed."""
    alone = min(1.0, source.interval / source.latency)
    base: float = machine.caches["l1d"].latency
    if machine.pipeline.kind == "in-order":
        overlap = (1 + alone) / 2
    else:
        overlap = alone
        base += machine.pipeline.rob / machine.pipeline.issue_width
    return overlap * (max(0.0, source.latency - base) - max(0.0, this_latency - base))


def _instruction_stall(machine: Machine) -> float:
    """Up to L2; what misses there is part of the L2 counters."""
    levels = [level for level in ("l1i", "l2") if level in machine.caches]
    source = _source("l1i", levels, machine)
    overlap = (1 + min(1.0, source.interval / source.latency)) / 2
    return overlap * (source.latency - machine.caches["l1i"].latency)


def _add_bottleneck(parts: dict[str, float], links: list[_Link]) -> None:
    """Charges what the busiest link needs beyond all other parts to that link."""
    if not links:
        return
    busiest = max(links, key=lambda link: link.fill_cycles + link.writeback_cycles)
    excess = busiest.fill_cycles + busiest.writeback_cycles - sum(parts.values())
    if excess > 0:
        written = min(excess, busiest.writeback_cycles)
        parts[busiest.part] += excess - written
        if written:
            parts["write-backs"] = written
