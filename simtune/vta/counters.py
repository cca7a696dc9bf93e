# SPDX-License-Identifier: Apache-2.0
"""What is counted of a VTA program: names, units, and which of them a predictor may see.

A schema of its own: a CPU's counters have no meaning here. Names that start with ``t.`` come from
the timed run. They hold the answer that a predictor is to give, so they are never features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simtune.counters import CounterSpec, Counts

SCHEMA_VERSION = 1
TIMED = "t."

_MEMORIES = {
    "inp": "inputs",
    "wgt": "weights",
    "acc": "bias",
    "uop": "micro-ops",
    "out": "outputs",
}
_MODULES = ("load", "compute", "store")
_QUEUES = {
    "l2g": "load to compute",
    "g2l": "compute to load",
    "g2s": "compute to store",
    "s2g": "store to compute",
}


def _schema() -> dict[str, CounterSpec]:
    spec = {
        "insns": CounterSpec("instructions", "of the whole program"),
        "noops": CounterSpec("instructions", "that only move tokens"),
        "insn_bytes": CounterSpec("bytes", "of instructions read"),
        "segments": CounterSpec("launches", "more than one when the instruction buffer overflows"),
    }
    for short, what in _MEMORIES.items():
        transfers = "stores" if short == "out" else "loads"
        spec[f"{short}.{transfers}"] = CounterSpec("instructions", f"that move {what}")
        spec[f"{short}.rows"] = CounterSpec("rows", f"of {what}; rows never share a burst")
        spec[f"{short}.bursts"] = CounterSpec("bursts", f"of {what}")
        spec[f"{short}.bytes"] = CounterSpec("bytes", f"of {what} moved")
    spec |= {
        "pad_elements": CounterSpec("elements", "of padding written"),
        "inp.redundancy": CounterSpec("ratio", "input bytes loaded to the size of the tensor"),
        "wgt.redundancy": CounterSpec("ratio", "weight bytes loaded to the size of the tensor"),
        "gemm.insns": CounterSpec("instructions", "GEMM without resets"),
        "gemm.uops": CounterSpec("micro-ops", "executed, loops included"),
        "gemm.longest": CounterSpec("micro-ops", "of the longest GEMM"),
        "gemm.kernel_uops": CounterSpec("micro-ops", "of the GEMM kernel"),
        "gemm.iter_out": CounterSpec("iterations", "of the outer folded loop"),
        "gemm.iter_in": CounterSpec("iterations", "of the inner folded loop"),
        "gemm.reuse": CounterSpec("micro-ops", "between two uses of an accumulator"),
        "reset.insns": CounterSpec("instructions", "GEMM that clear accumulators"),
        "reset.uops": CounterSpec("micro-ops", "that clear accumulators"),
        "alu.insns": CounterSpec("instructions", "ALU"),
        "alu.imm_vectors": CounterSpec("vectors", "ALU with an immediate"),
        "alu.tt_vectors": CounterSpec("vectors", "ALU with two operands"),
        "uop.misses": CounterSpec("events", "kernels loaded because they were not resident"),
    }
    for queue, what in _QUEUES.items():
        spec[f"tokens.{queue}"] = CounterSpec("tokens", f"sent from {what}")
    spec |= {
        "tiles": CounterSpec("tiles", "of the output"),
        "reduction_rounds": CounterSpec("rounds", "over input channels per tile"),
        "threads": CounterSpec("threads", "virtual ones"),
        "fill.inp": CounterSpec("ratio", "of the input buffer in use"),
        "fill.wgt": CounterSpec("ratio", "of the weight buffer in use"),
        "fill.acc": CounterSpec("ratio", "of the accumulators in use"),
        "macs_per_byte": CounterSpec("ratio", "multiply-adds per byte moved"),
        "bound.load": CounterSpec("cycles", "lower bound of the load module, from the program alone"),
        "bound.compute": CounterSpec("cycles", "lower bound of the compute module's own work and transfers"),
        "bound.store": CounterSpec("cycles", "lower bound of the store module"),
        "bound.max": CounterSpec("cycles", "largest of the three bounds"),
        "bound.sum": CounterSpec("cycles", "sum of the three bounds"),
    }
    for module in _MODULES:
        spec[f"t.{module}.busy"] = CounterSpec("cycles", f"in which {module} works")
        spec[f"t.{module}.wait_token"] = CounterSpec("cycles", f"in which {module} waits for a token")
        spec[f"t.{module}.wait_insn"] = CounterSpec("cycles", f"in which {module} has no instruction")
        spec[f"t.{module}.wait_bus"] = CounterSpec("cycles", f"in which {module} waits for the bus")
    spec["t.bus.busy"] = CounterSpec("cycles", "in which the bus is in use")
    spec["t.bus.bursts"] = CounterSpec("bursts", "instructions included")
    for queue in _QUEUES:
        spec[f"t.most_tokens.{queue}"] = CounterSpec("tokens", "most at a time")
    return spec


SCHEMA: Mapping[str, CounterSpec] = _schema()
#: Counters that a predictor may see, in order.
FEATURES: tuple[str, ...] = tuple(name for name in SCHEMA if not name.startswith(TIMED))


@dataclass(frozen=True)
class VtaCounters(Counts):
    """Immutable counters of one program; names from `SCHEMA` only.

    Raises:
        KeyError: on construction, for a name that is not in the schema.
    """

    def __post_init__(self) -> None:
        for name in self.counts:
            if name not in SCHEMA:
                raise KeyError(f"'{name}' is not in VTA's counter schema v{SCHEMA_VERSION}")

    def features(self) -> dict[str, float]:
        """What a predictor may see: nothing that the timed run gave."""
        return {name: self.counts[name] for name in FEATURES if name in self.counts}
