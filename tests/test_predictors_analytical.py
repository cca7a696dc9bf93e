# SPDX-License-Identifier: Apache-2.0
"""The analytical predictor: worked examples, absent counters, monotonicity."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.counters import SCHEMA, Counters
from simtune.errors import ConfigurationError
from simtune.machines.load import list_machines, load_machine
from simtune.machines.model import InstructionTiming, Memory
from simtune.predictors.analytical import AnalyticalPredictor, issue_cycles
from simtune.predictors.base import Predictor

PREDICTOR = AnalyticalPredictor()
NAMES = sorted(list_machines())
FULL = {
    "instructions": 2_000_000.0,
    "issue_cycles": 1_000_000.0,
    "branch_mispredicts": 1000.0,
    "l1i.read_hits": 100_000.0,
    "l1i.read_misses": 100.0,
    "l1d.read_hits": 600_000.0,
    "l1d.read_misses": 10_000.0,
    "l1d.write_hits": 90_000.0,
    "l1d.write_misses": 2_000.0,
    "l1d.writebacks": 2_000.0,
    "l2.read_hits": 11_000.0,
    "l2.read_misses": 1_100.0,
    "l2.write_hits": 2_000.0,
    "l2.write_misses": 0.0,
    "l2.writebacks": 300.0,
    "dram_read_bytes": 70_400.0,
    "dram_write_bytes": 19_200.0,
}


def test_it_is_a_predictor() -> None:
    assert isinstance(PREDICTOR, Predictor)


def test_in_order_by_hand() -> None:
    """U74 at 1.2 GHz: L1 3, L2 20 every 18, memory 165 ns = 198 every 123 ns = 147.6 cycles."""
    parts = PREDICTOR.explain(Counters(FULL), load_machine("sifive-u74"))
    assert parts == pytest.approx(
        {
            "issue": 1_000_000,
            "mispredicts": 1000 * 3,
            "l1i": 100 * (1 + 18 / 20) / 2 * (20 - 2),
            "l1d->l2": 12_000 * (1 + 18 / 20) / 2 * (20 - 3),
            "l2->memory": 1_100 * (1 + 147.6 / 198) / 2 * (198 - 20),
        }
    )
    seconds = PREDICTOR.predict(Counters(FULL), load_machine("sifive-u74"))
    assert seconds == pytest.approx(sum(parts.values()) / 1.2e9)


def test_out_of_order_by_hand() -> None:
    """A72 at 1.5 GHz: the window of 128 / 3 cycles covers L2 (20) and part of memory (229.5)."""
    parts = PREDICTOR.explain(Counters(FULL), load_machine("cortex-a72"))
    assert parts["l1d->l2"] == 0
    assert parts["l2->memory"] == pytest.approx(1_100 * (23 / 153) * (229.5 - 4 - 128 / 3))
    assert parts["mispredicts"] == 14_000


def test_a_core_that_blocks_pays_the_latency() -> None:
    machine = load_machine("sifive-u74")
    machine = replace(machine, memory=Memory(165, 165))
    counters = Counters({"issue_cycles": 100_000, "l2.read_misses": 10})
    assert PREDICTOR.explain(counters, machine)["l2->memory"] == pytest.approx(10 * (198 - 20))


def test_bandwidth_bound_and_its_write_backs() -> None:
    """A72: one line per 34.5 cycles, however well latency is hidden."""
    lines = {"dram_read_bytes": 64e6, "dram_write_bytes": 32e6}
    counters = Counters({"issue_cycles": 1000, "l2.read_misses": 1000, **lines})
    parts = PREDICTOR.explain(counters, load_machine("cortex-a72"))
    assert sum(parts.values()) == pytest.approx(1.5e6 * 34.5)
    assert parts["write-backs"] == pytest.approx(0.5e6 * 34.5)


def test_prefetched_lines_cost_bandwidth_and_no_latency() -> None:
    machine = load_machine("cortex-a53")
    demand = {"issue_cycles": 1e6, "l1d.read_misses": 10_000, "l2.read_misses": 10_000}
    ahead = {**demand, "l1d.read_misses": 1_000, "prefetches": 9_000}
    slow, fast = (PREDICTOR.predict(Counters(values), machine) for values in (demand, ahead))
    assert fast < slow
    assert fast * machine.clock_hz >= 10_000 * 57 * 1.2


def test_issue_falls_back_step_by_step() -> None:
    machine = load_machine("sifive-u74")
    classes = {"insn.int_alu": 100.0, "insn.load": 150.0, "insn.fp_fma": 40.0, "insn.branch": 10.0}
    assert issue_cycles(Counters({"issue_cycles": 7, "instructions": 300, **classes}), machine) == 7
    # Pipe A is the bottleneck: 150 loads; 300 instructions two by two take 150 as well.
    assert issue_cycles(Counters({"instructions": 300, **classes}), machine) == 150
    assert issue_cycles(Counters(classes | {"insn.load": 250.0}), machine) == 250
    assert issue_cycles(Counters({"instructions": 300}), machine) == 150
    with pytest.raises(ConfigurationError, match=r"l1d\.read_misses") as caught:
        PREDICTOR.predict(Counters({"l1d.read_misses": 300}), machine)
    assert "insn." in caught.value.hint


def test_port_bound_spreads_work_over_shared_ports() -> None:
    machine = load_machine("cortex-a72")
    # F0 and F1 share 100 x 2 cycles of FMA and 60 x 1; vec_mul needs F0 for 10 x 2.
    counters = Counters({"insn.vec_fp_fma": 100, "insn.vec_alu": 60, "insn.vec_mul": 10})
    assert issue_cycles(counters, machine) == (200 + 60 + 20) / 2
    counters = Counters({"insn.vec_fp_fma": 10, "insn.vec_mul": 100})
    assert issue_cycles(counters, machine) == 200  # F0 alone


def test_memory_operands_use_load_ports() -> None:
    machine = load_machine("x86-64-v3")
    counters = Counters({"instructions": 300, "insn.vec_fp_fma": 300, "loads": 900})
    assert issue_cycles(counters, machine) == 300  # three load ports


def test_many_overlapping_port_sets_stay_fast() -> None:
    machine = load_machine("sifive-u74")
    ports = tuple(f"P{n}" for n in range(24))
    classes = {
        name: InstructionTiming(1, 1, (ports[n % 24], ports[(n * 7 + 1) % 24]))
        for n, name in enumerate(machine.pipeline.classes)
    }
    pipeline = replace(machine.pipeline, ports=ports, classes=classes)
    counters = Counters({name: 10.0 for name in SCHEMA if name.startswith("insn.")})
    assert issue_cycles(counters, replace(machine, pipeline=pipeline)) >= 25 * 10 / 24


def test_absent_counters_leave_their_part_out() -> None:
    machine = load_machine("x86-64-v3")
    assert PREDICTOR.explain(Counters({"issue_cycles": 10}), machine) == {"issue": 10}
    parts = PREDICTOR.explain(Counters({"issue_cycles": 10, "l1d.read_misses": 5}), machine)
    assert set(parts) == {"issue", "l1d->l2"}
    parts = PREDICTOR.explain(Counters({"issue_cycles": 10, "dram_read_bytes": 640}), machine)
    assert set(parts) == {"issue", "l3->memory"}


def test_a_core_with_l1_only() -> None:
    machine = load_machine("sifive-u74")
    machine = replace(machine, caches={level: machine.caches[level] for level in ("l1i", "l1d")})
    parts = PREDICTOR.explain(Counters(FULL), machine)
    assert parts["l1d->memory"] == pytest.approx(12_000 * (1 + 147.6 / 198) / 2 * (198 - 3))


@pytest.mark.parametrize("name", NAMES)
def test_parts_add_up_and_are_not_negative(name: str) -> None:
    machine = load_machine(name)
    parts = PREDICTOR.explain(Counters(FULL), machine)
    assert all(cycles >= 0 for cycles in parts.values())
    assert PREDICTOR.predict(Counters(FULL), machine) == sum(parts.values()) / machine.clock_hz


_COSTS = sorted(
    name
    for name in SCHEMA
    if name.endswith(("misses", "writebacks", "mispredicts"))
    or name in ("instructions", "issue_cycles", "dram_read_bytes", "dram_write_bytes", "loads")
    or name.startswith("insn.")
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(_COSTS), st.integers(0, 10**9), max_size=12),
    st.integers(0, 10**6),
    st.data(),
)
def test_more_of_anything_bad_is_never_faster(
    name: str, values: dict[str, float], prefetches: int, data: st.DataObject
) -> None:
    machine = load_machine(name)
    values = {"instructions": 1000, "prefetches": prefetches, **values}
    worse = dict(values)
    key = data.draw(st.sampled_from(sorted(set(values) - {"prefetches"})))
    more = data.draw(st.integers(1, 10**9))
    worse[key] += more
    if key in ("insn.load", "insn.vec_load", "insn.atomic") and "loads" in worse:
        worse["loads"] += more  # otherwise another instruction would have become a load
    before, after = (PREDICTOR.predict(Counters(v), machine) for v in (values, worse))
    assert math.isfinite(after)
    assert after >= before * (1 - 1e-12)
