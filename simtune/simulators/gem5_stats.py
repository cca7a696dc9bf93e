# SPDX-License-Identifier: Apache-2.0
"""Reads gem5's statistics files and maps them to the counter schema (table: docs/simulators.md).

Traps of these files, all met in real ones: several sections with differing sets of names; zero-valued
statistics that are left out; totals that no reset clears (`simInsts`, `hostInstRate`, `finalTick`);
load and store counts that Minor prints as 0; after a switch of CPUs the core is ``system.cpu2`` while
the caches stay ``system.cpu.*``; misses that count each access to a line in flight; ``nan``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_BEGIN, _END = "---------- Begin Simulation Statistics", "---------- End Simulation Statistics"

Section = Mapping[str, float]

_INST_TYPE, _CONTROL = "commitStats0.committedInstType::", "commitStats0.committedControl::"
_VECTOR_LOAD, _VECTOR_STORE = "Load", "Store"

#: gem5's classes of operations by class of the schema. IntAlu is split further down.
_CLASSES: dict[str, tuple[str, ...]] = {
    "int_mul": ("IntMult",),
    "int_div": ("IntDiv",),
    "load": ("MemRead", "FloatMemRead"),
    "store": ("MemWrite", "FloatMemWrite"),
    "fp_add": ("FloatAdd",),
    "fp_mul": ("FloatMult",),
    "fp_fma": ("FloatMultAcc",),
    "fp_div": ("FloatDiv", "FloatSqrt"),
    "fp_misc": ("FloatCmp", "FloatCvt", "FloatMisc"),
    "vec_alu": ("SimdAdd", "SimdAddAcc", "SimdAlu", "SimdShift", "SimdShiftAcc"),
    "vec_mul": ("SimdMult", "SimdMultAcc", "SimdMatMultAcc"),
    "vec_fp_add": ("SimdFloatAdd", "SimdFloatAlu"),
    "vec_fp_mul": ("SimdFloatMult",),
    "vec_fp_fma": ("SimdFloatMultAcc", "SimdFloatMatMultAcc"),
    "vec_fp_div": ("SimdDiv", "SimdSqrt", "SimdFloatDiv", "SimdFloatSqrt"),
    "vec_config": ("SimdConfig",),
}
#: Vector classes that stand for whole groups of gem5's.
_VECTOR_GROUPS = ("vec_load", "vec_store", "vec_misc")


def parse_sections(data: bytes) -> list[dict[str, float]]:
    """The whole sections of a statistics file, in order. Never raises: what is cut off is left out.

    Values that are no numbers, or not finite, are left out as well.
    """
    sections: list[dict[str, float]] = []
    current: dict[str, float] | None = None
    for line in data.decode("utf-8", errors="replace").split("\n"):
        if line.startswith(_BEGIN):
            current = {}
        elif line.startswith(_END) and line.rstrip().endswith("-" * 10):
            if current is not None:
                sections.append(current)
            current = None
        elif current is not None:
            name, _, rest = line.partition(" ")
            words = rest.split(None, 1)
            if not name or name.startswith("#") or not words:
                continue
            try:
                value = float(words[0].rstrip("%"))
            except ValueError:
                continue
            if math.isfinite(value):
                current[name] = value
    return sections


def core_of(section: Section) -> str:
    """The core that executed most instructions, such as ``system.cpu2``; empty when none did."""
    suffix = ".commitStats0.numInsts"
    cores = {name.removesuffix(suffix): value for name, value in section.items() if name.endswith(suffix)}
    best = max(cores, key=lambda core: cores[core], default="")
    return best if cores.get(best, 0) > 0 else ""


def map_section(
    section: Section, line: int, *, levels: tuple[str, ...] = ("l1i", "l1d", "l2"), micro_ops: bool = False
) -> dict[str, float]:
    """One section as counters of the schema; empty when no core executed anything.

    Args:
        line: bytes per line of the last cache.
        levels: caches that the system has; where a statistic of theirs is absent, it is zero.
        micro_ops: the instruction set is one whose classes count micro-operations (x86): no classes.
    """
    core = core_of(section)
    if not core:
        return {}
    counts = {"instructions": section[f"{core}.commitStats0.numInsts"]}
    counts |= _branches(section, core)
    if not micro_ops:
        counts |= _classes(section, core, counts)
    for level, name in (("l1i", "cpu.icache"), ("l1d", "cpu.dcache"), ("l2", "l2"), ("l3", "l3")):
        if level in levels:
            counts |= _level(section, level, f"system.{name}")
    last = max(level for level in levels if level != "l1i")
    if last != "l1d":
        counts["dram_read_bytes"] = counts[f"{last}.read_misses"] * line
        counts["dram_write_bytes"] = counts[f"{last}.writebacks"] * line
    if f"{core}.numCycles" in section:
        counts["cycles"] = section[f"{core}.numCycles"]
    return counts


def _branches(section: Section, core: str) -> dict[str, float]:
    """Conditional branches and jumps: from the commit stage, which Minor has not, or the predictor."""
    predictor = f"{core}.branchPred"
    if f"{core}.{_CONTROL}IsControl" in section:
        conditional = section.get(f"{core}.{_CONTROL}IsCondControl", 0.0)
        jumps = section[f"{core}.{_CONTROL}IsControl"] - conditional
    elif f"{predictor}.committed_0::total" in section:
        kinds = ("DirectCond", "IndirectCond")
        conditional = sum(section.get(f"{predictor}.committed_0::{kind}", 0.0) for kind in kinds)
        jumps = section[f"{predictor}.committed_0::total"] - conditional
    else:
        return {}
    found = {"branches": conditional, "insn.branch": conditional, "insn.jump": max(0.0, jumps)}
    wrong = f"{predictor}.mispredicted_0::DirectCond"
    if wrong in section:
        found["branch_mispredicts"] = section[wrong]
    elif f"{predictor}.condIncorrect" in section:
        found["branch_mispredicts"] = section[f"{predictor}.condIncorrect"]
    return found


def _classes(section: Section, core: str, counts: Mapping[str, float]) -> dict[str, float]:
    """Instruction classes, and loads and stores, from the classes of committed operations."""
    prefix = f"{core}.{_INST_TYPE}"
    types = {name[len(prefix) :]: value for name, value in section.items() if name.startswith(prefix)}
    total = types.pop("total", 0.0)
    if not types or not total:
        return {}
    found = {f"insn.{name}": sum(types.pop(kind, 0.0) for kind in kinds) for name, kinds in _CLASSES.items()}
    integer = types.pop("IntAlu", 0.0)
    if "branches" in counts:
        found["insn.int_alu"] = max(0.0, integer - counts["insn.branch"] - counts["insn.jump"])
    vector = {name: value for name, value in types.items() if name.startswith("Simd")}
    for name in vector:
        del types[name]
    found["insn.vec_load"] = sum(value for name, value in vector.items() if name.endswith(_VECTOR_LOAD))
    found["insn.vec_store"] = sum(value for name, value in vector.items() if name.endswith(_VECTOR_STORE))
    found["insn.vec_misc"] = sum(vector.values()) - found["insn.vec_load"] - found["insn.vec_store"]
    found["insn.other"] = sum(types.values())
    if total != counts["instructions"]:
        # RVV: what is counted are micro-operations, several per vector instruction.
        return {name: value for name, value in found.items() if not name.startswith("insn.vec")}
    found["loads"] = found["insn.load"] + found["insn.vec_load"]
    found["stores"] = found["insn.store"] + found["insn.vec_store"]
    return found


def _level(section: Section, level: str, cache: str) -> dict[str, float]:
    """One cache. Real line fetches are the MSHR misses; the atomic model has none and misses once each."""
    detailed = any(name.startswith(f"{cache}.demandMshr") for name in section)
    kind = "mshrMisses" if detailed else "misses"
    accesses = section.get(f"{cache}.demandAccesses::total", 0.0)
    misses = section.get(
        f"{cache}.demandMshrMisses::total" if detailed else f"{cache}.demandMisses::total", 0.0
    )
    if level == "l1i":
        # Fetches are counted one by one, not line by line: hits would mean something else.
        return {"l1i.read_misses": misses}
    written_back = section.get(f"{cache}.writebacks::total", 0.0)
    if level == "l1d":
        writes = section.get(f"{cache}.WriteReq.accesses::total", 0.0)
        write_misses = min(misses, section.get(f"{cache}.WriteReq.{kind}::total", 0.0))
    else:  # what the level above writes back, and what it lets go clean
        names = ("WritebackDirty", "WritebackClean")
        write_misses = sum(section.get(f"{cache}.{name}.misses::total", 0.0) for name in names)
        writes = write_misses + sum(section.get(f"{cache}.{name}.hits::total", 0.0) for name in names)
        accesses, misses = accesses + writes, misses + write_misses
    reads, read_misses = accesses - writes, misses - write_misses
    return {
        f"{level}.read_hits": max(0.0, reads - read_misses),
        f"{level}.read_misses": read_misses,
        f"{level}.write_hits": max(0.0, writes - write_misses),
        f"{level}.write_misses": write_misses,
        f"{level}.writebacks": written_back,
    }
