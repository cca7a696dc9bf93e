# SPDX-License-Identifier: Apache-2.0
"""Branch predictor, prefetcher and issue model of the plugin: truths that need no reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from qemu_helpers import assemble, counters, machine, program, simulate

from simtune.machines.model import BranchPredictor, InstructionTiming, Machine, Pipeline, Prefetcher


def run(folder: Path, body: str, target: Machine, count: tuple[str, ...] = ()) -> dict[str, int]:
    before = "lla t0, buffer\n lla s2, buffer\n"
    return counters(
        simulate(assemble(folder, "riscv64", program("riscv64", body, before=before)), target, count)
    )


def test_predictor_learns_loops_and_patterns(tmp_path: Path) -> None:
    target = replace(machine("riscv64"), branch_predictor=BranchPredictor("gshare", 12, 8))
    always = "li t1, 1000\n1: addi t1, t1, -1\n bnez t1, 1b"
    found = run(tmp_path, always, target, ("branch",))
    assert found["branches"] == 1000
    assert 1 <= found["branch_mispredicts"] <= 12  # the history fills up, then the exit
    alternating = "li t1, 1000\n1: andi t2, t1, 1\n beqz t2, 2f\n nop\n2: addi t1, t1, -1\n bnez t1, 1b"
    found = run(tmp_path, alternating, target, ("branch",))
    assert found["branches"] == 2000
    assert found["branch_mispredicts"] < 40
    without_history = replace(target, branch_predictor=BranchPredictor("gshare", 12, 0))
    assert run(tmp_path, alternating, without_history, ("branch",))["branch_mispredicts"] > 300


def test_absent_models_give_absent_counters(tmp_path: Path) -> None:
    found = run(tmp_path, "nop", machine("riscv64"))
    assert "branch_mispredicts" not in found
    assert "prefetches" not in found
    assert "l3.read_hits" not in found


def test_prefetcher_hides_a_stream_and_leaves_memory_traffic(tmp_path: Path) -> None:
    walk = "li t1, 512\n1: ld t2, 0(t0)\n addi t0, t0, 64\n addi t1, t1, -1\n bnez t1, 1b"
    levels = {"l1i": (64, 4, 64), "l1d": (64, 8, 64), "l2": (512, 8, 64)}
    target = replace(machine("riscv64", **levels), prefetcher=Prefetcher("stride", 8, 2, 1))
    plain, helped = run(tmp_path, walk, target), run(tmp_path, walk, target, ("prefetch",))
    assert plain["l1d.read_misses"] == 512
    assert helped["l1d.read_misses"] <= 4
    assert 508 <= helped["prefetches"] <= 516
    assert abs(helped["dram_read_bytes"] - plain["dram_read_bytes"]) <= 4 * 64
    random_walk = walk.replace("addi t0, t0, 64", "xori t3, t1, 0x2a\n slli t3, t3, 6\n add t0, s2, t3")
    assert run(tmp_path, random_walk, target, ("prefetch",))["prefetches"] < 300


def timed(kind: str, width: int, **latencies: tuple[int, int, tuple[str, ...]]) -> Machine:
    ports = ("A", "B", "M")
    base = machine("riscv64", 256)
    classes = {name: InstructionTiming(1, 1, ("A", "B")) for name in base.pipeline.classes}
    classes |= {name: InstructionTiming(*value) for name, value in latencies.items()}
    return replace(base, pipeline=Pipeline(kind, width, 3, ports, classes, 64))


LOOP = "li t1, 1000\n1: {body}\n addi t1, t1, -1\n bnez t1, 1b"


@pytest.mark.parametrize(
    ("kind", "body", "per_iteration"),
    [
        # independent operations: two per cycle, with the loop's own two
        ("in-order", "add t2, t3, t4\n add t5, t3, t4", 2.0),
        ("out-of-order", "add t2, t3, t4\n add t5, t3, t4", 2.0),
        # a chain of two multiplications of latency 4
        ("in-order", "mul t2, t2, t3\n mul t2, t2, t3", 8.0),
        ("out-of-order", "mul t2, t2, t3\n mul t2, t2, t3", 8.0),
        # one port, each operation holds it for two cycles
        ("in-order", "fdiv.s fa0, fa1, fa2\n fdiv.s fa3, fa1, fa2", 14.0),
        ("out-of-order", "fdiv.s fa0, fa1, fa2\n fdiv.s fa3, fa1, fa2", 14.0),
        # a consumer stalls an in-order core; the next iteration of an out-of-order one goes ahead
        ("in-order", "mul t2, t3, t4\n add t5, t2, t2", 5.0),
        ("out-of-order", "mul t2, t3, t4\n add t5, t2, t2", 2.0),
        # accumulators
        ("in-order", "fmadd.s fa0, fa1, fa2, fa0", 5.0),
        ("out-of-order", "fmadd.s fa0, fa1, fa2, fa0", 5.0),
    ],
)
def test_issue_model_steady_state(kind: str, body: str, per_iteration: float, tmp_path: Path) -> None:
    target = timed(
        kind, 2, int_mul=(4, 1, ("M",)), fp_div=(7, 7, ("M",)), fp_fma=(5, 1, ("M",)), load=(3, 1, ("M",))
    )
    found = run(tmp_path, LOOP.format(body=body), target)
    assert found["issue_cycles"] / 1000 == pytest.approx(per_iteration, abs=0.02)


def test_scalar_width_one(tmp_path: Path) -> None:
    found = run(tmp_path, LOOP.format(body="add t2, t3, t4\n nop"), timed("in-order", 1))
    assert found["issue_cycles"] == pytest.approx(found["instructions"], rel=0.01)
