# SPDX-License-Identifier: Apache-2.0
"""The plugin's pipeline scoreboard against timelines that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qemu_helpers import assemble, machine, program, simulate

from simtune.counters import PIPELINE_CAUSES
from simtune.jobs import SimJob
from simtune.machines.model import (
    BranchPredictor,
    Cache,
    InstructionTiming,
    Machine,
    Memory,
    MemoryUnit,
    Pipeline,
    Prefetcher,
    Tlb,
)
from simtune.simulators.qemu import QemuSimulator

ROUNDS = 1000
BEFORE = {
    "riscv64": "lla t0, buffer\n lla s2, buffer\n",
    "aarch64": "adrp x9, buffer\n add x9, x9, :lo12:buffer\n",
    "x86_64": "lea buffer(%rip), %rdi\n",
}
LEVELS = {"l1i": (64, 8, 64), "l1d": (64, 8, 64), "l2": (1024, 8, 64)}
L1, L2, DRAM = 3, 13, 103  # load-to-use cycles


def core(isa: str = "riscv64", kind: str = "out-of-order", **changes: Any) -> Machine:
    """Four wide, every class one cycle on any of four ports, loads 3; changes go to whom they belong."""
    base = machine(isa, **LEVELS)
    ports = ("A", "B", "C", "D")
    timing = {name: InstructionTiming(1, 1, ports) for name in base.pipeline.classes}
    timing |= {name: InstructionTiming(L1, 1, ports) for name in ("load", "vec_load")}
    timing |= changes.pop("classes", {})
    latencies = {"l1i": L1, "l1d": L1, "l2": L2}
    unit = {f: changes.pop(f) for f in MemoryUnit.__dataclass_fields__ if f in changes}
    values: dict[str, Any] = {
        "memory_unit": replace(MemoryUnit(forward_latency=4, forward_fail=10), **unit),
        "memory": Memory(DRAM, 1.0),
        "prefetcher": Prefetcher(),
        "branch_predictor": BranchPredictor("gshare", 12, 8),
        "tlb": changes.pop("tlb", Tlb()),
    }
    values |= {key: changes.pop(key) for key in list(values) if key in changes}
    settings: dict[str, Any] = {"issue_width": 4, "mispredict_penalty": 10, "rob": 64} | changes
    return replace(
        base,
        clock_hz=1e9,
        pipeline=Pipeline(kind, ports=ports, classes=timing, **settings),
        caches={
            name: Cache(sets * ways * line, ways, line, latencies[name], 1.0)
            for name, (sets, ways, line) in LEVELS.items()
        },
        **values,
    )


def run(
    folder: Path,
    body: str,
    target: Machine,
    *,
    before: str = "",
    share: str = "pipeline:1",
    also: str = "branch",
) -> dict[str, float]:
    isa = target.isa.name
    executable = assemble(folder, isa, program(isa, body, before=BEFORE[isa] + before))
    outcome = simulate(executable, target, ("branch", share, also))
    assert outcome.ok, outcome.error
    assert outcome.counters is not None
    return dict(outcome.counters)


def cycles(folder: Path, body: str, target: Machine, **options: str) -> float:
    return run(folder, body, target, **options)["pipeline_cycles"]


def repeated(text: str, times: int = ROUNDS) -> str:
    return f".rept {times}\n{text}\n.endr"


def about(value: float) -> Any:
    return pytest.approx(value, abs=30)  # the pipeline fills once


# Width, ports, chains --------------------------------------------------------------------------

CHAINS = {"riscv64": "addi t1, t1, 1", "aarch64": "add x1, x1, #1", "x86_64": "add $1, %eax"}


@pytest.mark.parametrize("kind", ["in-order", "out-of-order"])
@pytest.mark.parametrize("isa", list(CHAINS))
def test_a_chain_takes_its_latencies(tmp_path: Path, isa: str, kind: str) -> None:
    slow = core(isa, kind, classes={"int_alu": InstructionTiming(3, 1, ("A", "B"))})
    assert cycles(tmp_path, repeated(CHAINS[isa]), core(isa, kind)) == about(ROUNDS)
    assert cycles(tmp_path, repeated(CHAINS[isa]), slow) == about(3 * ROUNDS)


@pytest.mark.parametrize("kind", ["in-order", "out-of-order"])
def test_what_is_independent_is_as_wide_as_the_core(tmp_path: Path, kind: str) -> None:
    body = repeated("\n".join(f"addi t{n}, x0, 1" for n in (1, 2, 3, 4)))
    assert cycles(tmp_path, body, core(kind=kind)) == about(ROUNDS)
    assert cycles(tmp_path, body, core(kind=kind, issue_width=2)) == about(2 * ROUNDS)
    one_port = {"int_alu": InstructionTiming(1, 1, ("B",))}
    assert cycles(tmp_path, body, core(kind=kind, classes=one_port)) == about(4 * ROUNDS)
    busy = {"int_alu": InstructionTiming(1, 2, ("A", "B"))}
    assert cycles(tmp_path, body, core(kind=kind, classes=busy)) == about(4 * ROUNDS)
    assert cycles(tmp_path, body, core(kind=kind, retire_width=1)) == about(4 * ROUNDS)


def test_order_decides_whether_a_stall_is_overtaken(tmp_path: Path) -> None:
    """A chain of slow multiplications beside independent additions behind each use of it."""
    slow = {"int_mul": InstructionTiming(8, 1, ("A",))}
    body = repeated("mul t1, t1, t1\n add t2, t1, t1\n addi t3, x0, 1\n addi t4, x0, 1\n addi t5, x0, 1", 200)
    assert cycles(tmp_path, body, core(classes=slow)) == about(8 * 200)
    assert cycles(tmp_path, body, core(kind="in-order", classes=slow)) == about(8 * 200 + 200)
    # With room for one round only, the next multiplication waits until this round has retired.
    assert cycles(tmp_path, body, core(classes=slow, rob=5)) > 8 * 200 + 200


def test_a_larger_window_is_never_slower(tmp_path: Path) -> None:
    body = repeated("ld t1, 0(t0)\n mul t2, t1, t1\n add t3, t2, t2\n addi t0, t0, 64\n sd t3, -64(t0)", 400)
    for setting in ("rob", "scheduler", "load_queue", "store_queue"):
        times = [cycles(tmp_path, body, core(**{setting: size})) for size in (2, 8, 32, 128)]
        assert times == sorted(times, reverse=True)
        assert times[0] > times[-1]


def test_operands_that_are_read_late(tmp_path: Path) -> None:
    """A latency of 3 with operands needed 2 cycles late: additions follow each other, loads do not."""
    late = {
        "int_alu": InstructionTiming(3, 1, ("A", "B"), early=2),
        "load": InstructionTiming(L1, 1, ("C",)),
    }
    target = core(kind="in-order", classes=late)
    assert cycles(tmp_path, repeated(CHAINS["riscv64"]), target) == about(ROUNDS)
    chase = repeated("ld t1, 0(t0)\n add t0, t0, t1")  # the buffer is zero
    assert cycles(tmp_path, chase, target) == about((3 + 1) * ROUNDS)


def test_moves_are_renamed_and_zeroing_breaks_chains(tmp_path: Path) -> None:
    slow = {"int_mul": InstructionTiming(5, 1, ("A",)), "vec_misc": InstructionTiming(4, 1, ("A",))}
    target = core("x86_64", classes=slow)
    assert cycles(tmp_path, repeated("mov %eax, %ebx\n mov %ebx, %eax"), target) < 2 * ROUNDS
    assert cycles(tmp_path, repeated("vmovaps %ymm0, %ymm1\n vmovaps %ymm1, %ymm0"), target) < 2 * ROUNDS
    chain = "imul %eax, %eax\n"
    assert cycles(tmp_path, repeated(chain), target) == about(5 * ROUNDS)
    assert cycles(tmp_path, repeated(chain + "xor %eax, %eax"), target) < 2.5 * ROUNDS


# Memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["in-order", "out-of-order"])
def test_levels_serve_with_their_latencies(tmp_path: Path, kind: str) -> None:
    chase = "ld t1, 0(t0)\n add t0, t0, t1"
    assert cycles(tmp_path, repeated(chase), core(kind=kind)) == about((L1 + 1) * ROUNDS)
    # Every line is new, hence would be in L2 when the kernel runs again: see resident_level().
    walk = repeated("ld t1, 0(t0)\n add t0, t0, t1\n addi t0, t0, 64", 500)
    assert cycles(tmp_path, walk, core(kind=kind)) == pytest.approx((L2 + 2) * 500, rel=0.02)


def test_misses_overlap_as_far_as_there_are_buffers(tmp_path: Path) -> None:
    body = repeated("ld t1, 0(t0)\n addi t0, t0, 64", 500)
    alone, few, many = (cycles(tmp_path, body, core(misses=n)) for n in (1, 4, 16))
    assert alone == pytest.approx((L2 - L1) * 500, rel=0.05)
    assert few == pytest.approx(alone / 4, rel=0.1)
    assert many < few
    slow = replace(
        core(misses=16), caches={**core().caches, "l2": replace(core().caches["l2"], line_interval=6.0)}
    )
    assert cycles(tmp_path, body, slow) == pytest.approx(6 * 500, rel=0.05)


def test_a_prefetcher_hides_a_stream(tmp_path: Path) -> None:
    chase = repeated("ld t1, 0(t0)\n add t0, t0, t1\n addi t0, t0, 64", 800)
    plain = cycles(tmp_path, chase, core())
    assert cycles(tmp_path, chase, core(prefetcher=Prefetcher("stride", 8, 1, 8))) < plain / 2
    jumping = repeated(
        "ld t1, 0(t0)\n add t0, s2, t1\n xori t2, t2, 0x155\n slli t3, t2, 6\n add t0, t0, t3", 200
    )
    helped = cycles(tmp_path, jumping, core(prefetcher=Prefetcher("stride", 8, 1, 8)))
    assert helped == pytest.approx(cycles(tmp_path, jumping, core()), rel=0.02)


def test_one_prefetcher_hides_a_stream_not_two(tmp_path: Path) -> None:
    """Every load is another instruction, so the cache model's prefetcher finds none that goes on."""
    chase = repeated("ld t1, 0(t0)\n add t0, t0, t1\n addi t0, t0, 64", 800)
    target = core(prefetcher=Prefetcher("stride", 8, 1, 8))
    found = run(tmp_path, chase, target, also="prefetch")
    assert found["l1d.read_misses"] == 800
    assert found["pipeline_cycles"] == pytest.approx(cycles(tmp_path, chase, core()), rel=0.01)
    turns = "li s3, 800\n1: ld t1, 0(t0)\n add t0, t0, t1\n addi t0, t0, 64\n addi s3, s3, -1\n bnez s3, 1b"
    found = run(tmp_path, turns, target, also="prefetch")
    assert found["l1d.read_misses"] < 20
    assert found["pipeline_cycles"] == pytest.approx((L1 + 2) * 800, rel=0.1)


def test_store_to_load_forwarding(tmp_path: Path) -> None:
    """Whole words come from the queue; a load of two half words has to wait until both have left."""
    whole = cycles(tmp_path, repeated("sd t1, 0(t0)\n ld t1, 0(t0)"), core())
    assert whole == about(4 * ROUNDS)
    halves = repeated("sw t1, 0(t0)\n sw t1, 4(t0)\n ld t1, 0(t0)")
    assert cycles(tmp_path, halves, core()) > 10 * ROUNDS
    found = run(tmp_path, halves, core())
    assert found["pipeline.forwarding"] > 0.5 * found["pipeline_cycles"]
    elsewhere = cycles(tmp_path, repeated("sd t1, 0(t0)\n ld t1, 64(t0)"), core())
    assert elsewhere < whole


def test_loads_are_sent_back_by_stores_nearby_only_where_pieces_are_compared(tmp_path: Path) -> None:
    """The store waits for a slow product; the load reads 8 bytes beside it."""
    slow = {"int_mul": InstructionTiming(20, 1, ("A",))}
    body = "li s3, 300\n1: mul t2, t1, t1\n sd t2, 0(t0)\n ld t1, 8(t0)\n addi s3, s3, -1\n bnez s3, 1b"
    assert cycles(tmp_path, body, core(classes=slow, dependence_bytes=1)) < 4 * 300
    assert cycles(tmp_path, body, core(classes=slow, dependence_bytes=16)) > 20 * 300


def test_accesses_across_lines_take_another_turn(tmp_path: Path) -> None:
    one = {"load": InstructionTiming(L1, 1, ("A",))}
    body = repeated("ld t1, {at}(t0)\n ld t2, {at}(t0)", 500)
    inside = cycles(tmp_path, body.replace("{at}", "0"), core(classes=one))
    across = cycles(tmp_path, body.replace("{at}", "60"), core(classes=one))
    assert (inside, across) == (about(2 * 500), about(4 * 500))


def test_stores_leave_in_order_and_fill_their_queue(tmp_path: Path) -> None:
    body = repeated("sd x0, 0(t0)\n addi t0, t0, 64", 500)
    target = core(store_queue=4, early_fetch=False, misses=1)
    found = run(tmp_path, body, target)
    assert found["pipeline_cycles"] == pytest.approx((L2 - L1) * 500, rel=0.15)
    assert found["pipeline.stores"] > 0.8 * found["pipeline_cycles"]
    assert (
        cycles(tmp_path, body, core(store_queue=64, early_fetch=True, misses=16))
        < found["pipeline_cycles"] / 4
    )


def test_pages_beyond_the_tlb(tmp_path: Path) -> None:
    """Sixteen pages in turn, by loads that wait for each other."""
    body = repeated(
        "\n".join(
            f"ld t1, 0(t0)\n add t0, t0, t1\n add t0, t0, {'s4' if n < 15 else 's5'}" for n in range(16)
        ),
        50,
    )
    before = "li s4, 4096\n li s5, -61440\n"
    without = cycles(tmp_path, body, core(), before=before)
    enough = cycles(tmp_path, body, core(tlb=Tlb(64, 1024, 7, 30)), before=before)
    second = cycles(tmp_path, body, core(tlb=Tlb(8, 1024, 7, 30)), before=before)
    walks = cycles(tmp_path, body, core(tlb=Tlb(8, 8, 7, 30)), before=before)
    only = cycles(tmp_path, body, core(tlb=Tlb(8, 0, 7, 30)), before=before)
    assert enough == pytest.approx(without, rel=0.15)
    assert second == pytest.approx(without + 7 * 800, rel=0.15)
    assert walks == pytest.approx(without + 37 * 800, rel=0.15)
    assert walks - only == pytest.approx(7 * 800, rel=0.15)  # there is no second level to be looked into


def test_lines_that_take_turns_in_a_set(tmp_path: Path) -> None:
    loads = "\n".join(f"ld t1, 0(t0)\n add t0, t0, {'s4' if n < 31 else 's5'}" for n in range(32))
    before = "li s4, 4096\n li s5, -126976\n"  # beyond the buffer: the stack of zeros is not needed, bss is
    body = f"lla t0, big\n{repeated(loads, 20)}\n.bss\n.balign 4096\nbig: .space 131072\n.text"
    plain = cycles(tmp_path, body, core(misses=16), before=before)
    slow = cycles(tmp_path, body, core(misses=16, set_interval=8), before=before)
    assert slow == pytest.approx(8 * 32 * 19, rel=0.1)  # the first round knows of none
    assert plain < slow / 3


def test_masked_stores_and_string_instructions(tmp_path: Path) -> None:
    body = repeated("vmaskmovps %ymm0, %ymm1, (%rdi)", 300)
    assert cycles(tmp_path, body, core("x86_64", masked_store=12)) > 2.5 * cycles(
        tmp_path, body, core("x86_64")
    )
    fill = "mov $4096, %ecx\n xor %eax, %eax\n rep stosb"
    assert cycles(tmp_path, fill, core("x86_64")) < 4096 / 8


# Front end -----------------------------------------------------------------------------------------


def test_mispredicted_branches_cost_their_penalty(tmp_path: Path) -> None:
    """Bits of a linear congruence: nobody can predict them."""
    step = "mul t1, t1, s4\n addi t1, t1, 1\n srli t2, t1, 40\n andi t2, t2, 1\n beqz t2, 2f\n nop\n2:"
    body = f"li s4, 1103515245\n li t3, 400\n1: {step}\n addi t3, t3, -1\n bnez t3, 1b"
    cheap, dear = (run(tmp_path, body, core(mispredict_penalty=n)) for n in (5, 25))
    missed = cheap["branch_mispredicts"]
    assert missed > 100
    assert dear["pipeline_cycles"] - cheap["pipeline_cycles"] == pytest.approx(20 * missed, rel=0.1)
    assert dear["pipeline.mispredicts"] > 0.5 * dear["pipeline_cycles"]


@pytest.mark.parametrize("kind", ["in-order", "out-of-order"])
def test_fetching(tmp_path: Path, kind: str) -> None:
    loop = f"li t1, {ROUNDS}\n1: addi t1, t1, -1\n bnez t1, 1b"
    free = {"kind": kind, "mispredict_penalty": 0}
    assert cycles(tmp_path, loop, core(**free)) == about(ROUNDS)
    assert cycles(tmp_path, loop, core(**free, taken_branch_penalty=5)) == about(5 * ROUNDS)
    body = ".balign 16\n.option norvc\n" + repeated("\n".join(f"addi t{n}, x0, 1" for n in (1, 2, 3, 4)))
    assert cycles(tmp_path, body, core(kind=kind, fetch_bytes=16)) == about(ROUNDS)
    assert cycles(tmp_path, body, core(kind=kind, fetch_bytes=8)) == about(2 * ROUNDS)


def test_code_that_does_not_fit_has_to_be_fetched(tmp_path: Path) -> None:
    body = f"li s3, 20\n1:\n{repeated('addi t1, x0, 1', 12000)}\naddi s3, s3, -1\n beqz s3, 2f\n j 1b\n2:"
    target = core()
    small = {**target.caches, "l1i": replace(target.caches["l1i"], size=4096, ways=1)}
    fits = {**target.caches, "l1i": replace(target.caches["l1i"], size=1 << 20, ways=8)}
    slow = run(tmp_path, body, replace(target, caches=small))
    fast = run(tmp_path, body, replace(target, caches=fits))
    lines = slow["l1i.read_misses"] - fast["l1i.read_misses"]
    assert lines > 5000
    assert slow["pipeline_cycles"] - fast["pipeline_cycles"] == pytest.approx(lines * (L2 - L1), rel=0.15)
    assert slow["pipeline.front_end"] > 0.4 * slow["pipeline_cycles"]


# The whole -----------------------------------------------------------------------------------------


def test_vectors_of_every_isa_are_replayed(tmp_path: Path) -> None:
    fma = {"vec_fp_fma": InstructionTiming(4, 1, ("A",)), "fp_fma": InstructionTiming(4, 1, ("A",))}
    for isa, text in {
        "riscv64": "fmadd.s fa0, fa1, fa2, fa0",
        "aarch64": "fmla v0.4s, v1.4s, v2.4s",
        "x86_64": "vfmadd231ps %ymm1, %ymm2, %ymm0",
    }.items():
        assert cycles(tmp_path, repeated(text), core(isa, classes=fma)) == about(4 * ROUNDS)


def test_rvv_holds_its_unit_for_every_register(tmp_path: Path) -> None:
    target = core(classes={"vec_fp_fma": InstructionTiming(4, 2, ("A",))})
    target = replace(target, isa=replace(target.isa, vlen=256))
    for group, scale in (("m1", 1), ("m4", 4)):
        body = f"li t1, 64\n vsetvli t2, t1, e32, {group}, ta, ma\n" + repeated("vfmacc.vv v8, v16, v24", 300)
        expected = max(4, 2 * scale) * 300
        assert cycles(tmp_path, body, target) == pytest.approx(expected, rel=0.05)


LONG = """li s3, 60000
1: ld t1, 0(t0)
 mul t2, t1, t1
 add t3, t3, t2
 sd t3, 8(t0)
 addi s3, s3, -1
 bnez s3, 1b"""


def test_samples_stand_for_the_whole(tmp_path: Path) -> None:
    loop = f"{LONG}\n lla t0, buffer\n{LONG.replace('60000', '400000')}"
    whole, part = (cycles(tmp_path, loop, core(), share=share) for share in ("pipeline:1", "pipeline:0.1"))
    assert part == pytest.approx(whole, rel=0.02)


def test_a_share_of_one_leaves_nothing_to_be_extrapolated(tmp_path: Path) -> None:
    """What comes behind the first half million instructions is slow, and is what a window would skip."""
    slow = core(classes={"int_mul": InstructionTiming(20, 1, ("A",))})
    quick = "li s3, 250000\n1: addi s3, s3, -1\n bnez s3, 1b"
    body = f"{quick}\n{repeated('mul t1, t1, t1', 8000)}"
    assert cycles(tmp_path, body, slow) == pytest.approx(250_000 + 20 * 8000, rel=0.01)


def test_a_whole_program_is_replayed_too(tmp_path: Path) -> None:
    """Without marks everything counts, from the program's first instruction to its last."""
    body = repeated(CHAINS["riscv64"])
    executable = assemble(tmp_path, "riscv64", program("riscv64", body))
    job = SimJob(executable, core(), count=("branch", "pipeline"), region="all")
    outcome = QemuSimulator().run(job)
    assert outcome.ok, outcome.error
    assert outcome.counters is not None
    assert outcome.counters["pipeline_cycles"] == about(ROUNDS)


SAXPY = repeated("ld t1, 0(t0)\n mul t2, t1, t1\n addi t0, t0, 64\n sd t2, -64(t0)", 400)
FULLY_ASSOCIATIVE = Cache(512, 8, 64, L1, 1.0)
ODD: dict[str, Machine] = {
    "L1 is all there is": replace(core(), caches={"l1i": FULLY_ASSOCIATIVE, "l1d": FULLY_ASSOCIATIVE}),
    "one set": replace(core(set_interval=50), caches=dict.fromkeys(LEVELS, FULLY_ASSOCIATIVE)),
    "one line": replace(core(), caches=dict.fromkeys(LEVELS, Cache(64, 1, 64, L1, 1.0))),
    "short lines": replace(core(), caches=dict.fromkeys(LEVELS, Cache(4096, 4, 32, L1, 1.0))),
    "long lines": replace(core(), caches=dict.fromkeys(LEVELS, Cache(65536, 4, 256, L1, 1.0))),
    "no branch predictor": core(branch_predictor=BranchPredictor("none")),
    "as far ahead as a file may say": core(prefetcher=Prefetcher("stride", 1024, 64, 64)),
    "memory as slow as a file may say": replace(
        core(memory=Memory(1e5, 1e5), scheduler=8),
        caches={"l1i": FULLY_ASSOCIATIVE, "l1d": FULLY_ASSOCIATIVE},
    ),
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_machines(tmp_path: Path, name: str) -> None:
    for share in ("pipeline", "prefetch"):
        found = run(tmp_path, SAXPY, ODD[name], share=share)
        assert found["instructions"] == 4 * 400
    assert run(tmp_path, SAXPY, ODD[name])["pipeline_cycles"] >= 400


def test_causes_add_up_and_runs_repeat(tmp_path: Path) -> None:
    first, second = (run(tmp_path, LONG, core(), share="pipeline") for _ in range(2))
    assert first == second
    total = sum(first[f"pipeline.{cause}"] for cause in PIPELINE_CAUSES)
    assert total == pytest.approx(first["pipeline_cycles"], rel=1e-6)


def test_it_counts_only_when_asked_and_changes_no_other_counter(tmp_path: Path) -> None:
    with_it = run(tmp_path, LONG, core())
    without = run(tmp_path, LONG, core(), share="blocks")
    assert "pipeline_cycles" not in without
    assert {name: value for name, value in with_it.items() if not name.startswith("pipeline")} == without


def test_caches_are_warm_where_the_harness_says_so(tmp_path: Path) -> None:
    """Accesses after the warm mark fill the caches and are not counted."""
    warm = {"riscv64": "slti x0, x0, 0x513", "aarch64": "hint #0x53"}["riscv64"]
    walk = "lla t0, buffer\n li t1, 128\n9: ld t2, 0(t0)\n addi t0, t0, 64\n addi t1, t1, -1\n bnez t1, 9b\n"
    body = walk.replace("9", "8")
    cold = run(tmp_path, body, core(), before=walk)
    found = run(tmp_path, body, core(), before=f"{warm}\n{walk}")
    assert (cold["l1d.read_misses"], found["l1d.read_misses"]) == (128, 0)
    assert found["l1d.read_hits"] == 128
    assert found["dram_read_bytes"] == 64 * found["l1i.read_misses"]  # the code is cold
    assert found["instructions"] == cold["instructions"]


def test_a_loop_predictor_knows_when_a_loop_ends(tmp_path: Path) -> None:
    """Twenty turns are more than eight outcomes can tell; the count tells, up to its limit."""
    nest = "li s3, 50\n1: li t1, 20\n2: addi t1, t1, -1\n bnez t1, 2b\n addi s3, s3, -1\n bnez s3, 1b"
    missed = {
        trips: run(tmp_path, nest, core(branch_predictor=BranchPredictor("gshare", 12, 8, trips)))
        for trips in (0, 18, 19)  # the branch is taken nineteen times
    }
    assert missed[0]["branch_mispredicts"] > 45
    assert missed[18]["branch_mispredicts"] > 45
    assert missed[19]["branch_mispredicts"] < 25  # until it is sure


def test_sequential_code_can_be_asked_for_ahead(tmp_path: Path) -> None:
    body = f"li s3, 20\n1:\n{repeated('addi t1, x0, 1', 12000)}\naddi s3, s3, -1\n beqz s3, 2f\n j 1b\n2:"
    caches = {**core().caches, "l1i": replace(core().caches["l1i"], size=4096, ways=1)}
    plain, ahead = (run(tmp_path, body, replace(core(fetch_lines=lines), caches=caches)) for lines in (0, 4))
    assert ahead["l1i.read_misses"] == plain["l1i.read_misses"]
    assert ahead["pipeline.front_end"] < 0.35 * plain["pipeline.front_end"]


def test_a_comparison_and_its_branch_may_be_one(tmp_path: Path) -> None:
    body = repeated("cmp %eax, %ebx\n jne 9f\n cmp %ecx, %edx\n jne 9f") + "\n9:"
    before = "xor %eax, %eax\n xor %ebx, %ebx\n xor %ecx, %ecx\n xor %edx, %edx\n"
    apart, fused = (
        cycles(tmp_path, body, core("x86_64", issue_width=2, fuse_branches=fuse), before=before)
        for fuse in (False, True)
    )
    assert (apart, fused) == (about(2 * ROUNDS), about(ROUNDS))


def test_stores_find_their_line_gone_where_loads_run_far_ahead(tmp_path: Path) -> None:
    """Sixteen lines of one set, each read, changed and written; the window holds many of them."""
    step = "ld t1, 0(t0)\n addi t1, t1, 1\n sd t1, 0(t0)\n add t0, t0, s4"
    body = f"lla t0, big\n{repeated(step, 400)}\n.bss\n.balign 4096\nbig: .space 1638400\n.text"
    before = "li s4, 4096\n"
    wide = cycles(tmp_path, body, core(rob=256, set_interval=4, misses=16, store_queue=8), before=before)
    narrow = cycles(tmp_path, body, core(rob=16, set_interval=4, misses=16, store_queue=8), before=before)
    assert wide == pytest.approx(400 * (L2 - L1), rel=0.1)
    assert narrow < wide
