# SPDX-License-Identifier: Apache-2.0
"""The functional simulator: answers bit for bit, any order of modules, and what breaks them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_vta_validity import random_layer
from vta_helpers import assembled, conv, run_fsim, valid_configs, with_hardware

from simtune.vta import Backend, Layer, load_layer, load_machine, validity
from simtune.vta.core import Program, core, natives
from simtune.vta.reference import answer, data, operands
from simtune.vta.tileplan import as_rows

SIM = load_machine("vta-sim")
ORDERS = [(seed, first) for seed in (0, 1) for first in (-1, 0, 1, 2)]


def test_reference_against_plain_loops() -> None:
    layer = conv(5, 6, ci=3, co=2, k=3, kw=2, stride=2, pad=1, pw=1, n=2)
    inp, wgt, bias = operands(layer, 3)
    expected = np.zeros((layer.n, layer.co, layer.oh, layer.ow), dtype=np.int64)
    for n, co, y, x in np.ndindex(*expected.shape):
        total = 0
        for ci, kh, kw in np.ndindex(layer.ci, layer.kh, layer.kw):
            row, column = y * 2 + kh - 1, x * 2 + kw - 1
            if 0 <= row < layer.h and 0 <= column < layer.w:
                total += int(inp[n, ci, row, column]) * int(wgt[co, ci, kh, kw])
        expected[n, co, y, x] = min(127, max(0, (total >> 8) + int(bias[co])))
    assert np.array_equal(answer(layer, inp, wgt, bias), expected)


def test_operands_exercise_the_whole_range() -> None:
    layer = load_layer("resnet18.c2")
    inp, wgt, bias = operands(layer, 0)
    out = answer(layer, inp, wgt, bias)
    for tensor in (inp, wgt):
        assert (tensor.min(), tensor.max()) == (-128, 127)
    assert len(np.unique(out)) == 128
    assert ((out > 0) & (out < 127)).mean() > 0.4  # a wrong sum shows in most places


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_valid_configurations_compute_the_right_answer(drawn: st.DataObject) -> None:
    layer = random_layer(drawn, largest=9)
    machine = with_hardware(
        SIM, inp_bytes=1 << drawn.draw(st.integers(10, 15)), uop_bytes=1 << drawn.draw(st.integers(6, 15))
    )
    configs = valid_configs(layer, machine)
    if not configs:
        return
    config = drawn.draw(st.sampled_from(configs))
    seed, first = drawn.draw(st.sampled_from(ORDERS))
    program = Backend(layer, machine).program(config)
    assert run_fsim(layer, machine, program, seed, first) == ("", "", True)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_dense_layers_too(drawn: st.DataObject) -> None:
    n, ci, co = (drawn.draw(st.sampled_from((1, 2, 4))), *(16 * drawn.draw(st.integers(1, 6)) for _ in "io"))
    layer = Layer("tiny", "dense", n, 1, 1, ci, co)
    for config in valid_configs(layer, SIM):
        assert run_fsim(layer, SIM, Backend(layer, SIM).program(config), first=2) == ("", "", True)


def test_other_shapes_of_the_core() -> None:
    machine = load_machine("vta-4x8")
    layer = conv(6, ci=16, co=32, k=3, pad=1, n=4)
    configs = valid_configs(layer, machine)
    results = Backend(layer, machine).evaluate(configs)
    assert len(results) > 20
    assert all(result.ok for result in results)


@pytest.mark.parametrize("kind", ["portable", "avx2", "avx512vnni"])
def test_all_ways_to_compute_are_right(kind: str) -> None:
    """Layers whose loops fold in different ways, on each kind of instructions that is here."""
    best = core().gemm_kind()
    if not core().use_gemm(kind):
        pytest.skip(f"this processor has no {kind}")
    try:
        for layer in (load_layer("resnet18.c10"), conv(6, ci=32, co=64, k=3, pad=1), conv(5, 7, ci=48, k=2)):
            results = Backend(layer, SIM, check="always").evaluate(valid_configs(layer, SIM), jobs=2)
            assert {result.code for result in results} == {""}
    finally:
        assert core().use_gemm(best)


def small() -> tuple[Layer, dict[str, int]]:
    """Two virtual threads, several tiles, two rounds of reduction."""
    layer = conv(4, ci=32, co=64, k=3, pad=1)
    config = {
        "tile_b": 1,
        "tile_h": 4,
        "tile_w": 2,
        "tile_ci": 1,
        "tile_co": 1,
        "oc_nthread": 2,
        "h_nthread": 1,
    }
    assert validity.check(layer, SIM, config) == ""
    return layer, config


def without(program: Program, index: int, bit: int) -> Program:
    insns = program.insns.copy()
    insns[index, 0] &= ~np.uint64(1 << bit)
    return Program(insns, program.uops, program.segments)


def flags(program: Program, kinds: tuple[int, ...]) -> list[tuple[int, int]]:
    return [
        (index, bit)
        for index, word in enumerate(program.insns[:, 0])
        for bit in kinds
        if int(word) >> bit & 1
    ]


def test_dropping_any_push_is_a_deadlock() -> None:
    layer, config = small()
    program = Backend(layer, SIM).program(config)
    dropped = flags(program, (5, 6))
    assert len(dropped) > 40
    for index, bit in dropped:
        code, message, _ = run_fsim(layer, SIM, without(program, index, bit))
        assert code == "DEADLOCK"
        assert "no module can go on; load at " in message
        assert "tokens: l2g=" in message


def test_dropping_any_pop_leaves_a_token_or_a_wrong_answer() -> None:
    layer, config = small()
    program = Backend(layer, SIM).program(config)
    for index, bit in flags(program, (3, 4)):
        broken = without(program, index, bit)
        endings = {run_fsim(layer, SIM, broken, seed, first)[::2] for seed, first in ORDERS}
        assert ("", True) not in endings


def test_dropping_an_edge_shows_as_a_wrong_answer_in_some_order() -> None:
    """Push and pop of the same token gone: no deadlock, but the modules race."""
    layer, config = small()
    program = Backend(layer, SIM).program(config)
    text = program.text(SIM)
    edges = {"l2g": (6, 3, "load.wgt", ("load.uop", "gemm ")), "g2s": (6, 3, "alu.max", ("store.out",))}
    for token, (push, pop, sender, receivers) in edges.items():
        sends = [i for i, line in enumerate(text) if f"push:{token}" in line and line.startswith(sender)]
        takes = [i for i, line in enumerate(text) if f"pop:{token}" in line and line.startswith(receivers)]
        for first, second in zip(sends, takes, strict=False):
            broken = without(without(program, first, push), second, pop)
            endings = {run_fsim(layer, SIM, broken, seed, order)[::2] for seed, order in ORDERS}
            assert any(not right for _, right in endings), (token, first, second)


def test_deadlock_reports_who_waits_for_what() -> None:
    layer = conv(2)
    program = assembled(["load.inp pop:g2l y=1 x=1 stride=1", "store.out pop:g2s y=1 x=1 stride=1", "finish"])
    code, message, _ = run_fsim(layer, SIM, program)
    assert code == "DEADLOCK"
    assert message == (
        "no module can go on; load at 0 of 1 (instruction 0: load.inp waits for g2l); compute at 1 of 1; "
        "store at 0 of 1 (instruction 1: store.out waits for g2s); tokens: l2g=0 g2l=0 g2s=0 s2g=0"
    )


def test_left_tokens_are_reported() -> None:
    code, message, _ = run_fsim(conv(2), SIM, assembled(["load.inp push:l2g", "finish"]))
    assert (code, message) == ("TOKENS", "1 tokens are left in l2g at the end")


@pytest.mark.parametrize(
    ("line", "fits", "what"),
    [
        ("load.inp sram={} dram=0 y=1 x=1 stride=1", 2047, "input buffer index 2048"),
        ("load.inp sram=0 dram={} y=1 x=1 stride=1", 3, "input tensor index 4"),
        ("load.wgt sram={} dram=0 y=1 x=1 stride=1", 1023, "weight buffer index 1024"),
        ("load.wgt sram=0 dram={} y=1 x=1 stride=1", 0, "weight tensor index 1"),
        ("load.acc sram={} dram=0 y=1 x=1 stride=1", 2047, "accumulator index 2048"),
        ("load.uop sram={} dram=0 y=1 x=1 stride=1", 8191, "micro-op buffer index 8192"),
        ("load.uop sram=0 dram={} y=1 x=1 stride=1", 0, "micro-op memory index 1"),
        ("store.out sram={} dram=0 y=1 x=1 stride=1", 2047, "output buffer index 2048"),
        ("store.out sram=0 dram={} y=1 x=1 stride=1", 3, "output tensor index 4"),
        ("gemm.reset uop_bgn=0 uop_end=1 out={} in=1 dst_out=1", 2048, "accumulator index 2048"),
    ],
)
def test_accesses_stop_at_the_last_element(line: str, fits: int, what: str) -> None:
    layer = conv(2)
    lines = ["load.uop sram=0 dram=0 y=1 x=1 stride=1", line.format(fits), "finish"]
    assert run_fsim(layer, SIM, assembled(lines))[0] == ""
    lines[1] = line.format(fits + 1)
    code, message, _ = run_fsim(layer, SIM, assembled(lines))
    assert code == "OOB"
    assert message.startswith(what)


def test_flags_that_no_module_has_are_refused() -> None:
    program = assembled(["load.inp", "finish"])
    program.insns[0, 0] |= np.uint64(1 << 3)
    code, message, _ = run_fsim(conv(2), SIM, program)
    assert (code, "instruction 0 has a token flag" in message) == ("OOB", True)


def test_what_is_not_written_is_wrong() -> None:
    layer, config = small()
    program = Backend(layer, SIM).program(config)
    stores = [
        i for i, line in enumerate(program.text(SIM)) if line.startswith("store") and " x=0" not in line
    ]
    insns = program.insns.copy()
    insns[stores[-1], 1] = 0  # the last store moves nothing
    assert run_fsim(layer, SIM, Program(insns, program.uops, program.segments)) == ("", "", False)


def test_wrong_answers_are_counted() -> None:
    layer, config = small()
    backend = Backend(layer, SIM)
    native = natives(layer, SIM)
    known = data(layer, SIM, 0)
    expected = known.expected.copy()
    expected[5] ^= 1
    found = core().evaluate(
        native.hardware,
        native.timing,
        native.layer,
        as_rows([config]),
        np.ones(1, dtype=np.uint8),
        core().pack(native.hardware, known.inp, known.wgt, known.bias, expected.size),
        expected,
        np.zeros(1, dtype=np.uint64),
        1,
    )
    assert backend.evaluate([config])[0].ok
    assert found["messages"][0].startswith(f"1 of {len(expected)} bytes are wrong, the first at 5: ")


def test_a_full_instruction_buffer_synchronises() -> None:
    layer, config = small()
    native = natives(layer, SIM)
    hardware = core().Hardware()
    for key in ("insn_limit", "uop_limit"):
        assert getattr(hardware, key) > 1 << 20
    hardware.insn_limit = 64
    verdict, arrays = core().emit(hardware, native.layer, as_rows([config]))
    program = Program(*arrays)
    assert not verdict[1]
    assert len(program.segments) > 2
    assert sum(line == "finish" for line in program.text(SIM)) == len(program.segments)
    for seed in range(3):
        assert run_fsim(layer, SIM, program, seed, hardware=hardware) == ("", "", True)


def test_the_cores_real_micro_op_buffer_wraps() -> None:
    """The runtime places kernels in 8192 entries; a core with 16 of them computes nonsense."""
    layer, config = small()
    machine = with_hardware(SIM, uop_core_entries=16)
    assert Backend(layer, SIM).evaluate([config])[0].ok
    assert Backend(layer, machine).evaluate([config])[0].code == "WRONG"


def test_a_core_without_interlock_refuses_close_accumulators() -> None:
    """As counted on the original: 9 of C2's 182 use an accumulator again within three cycles."""
    machine = load_machine("vta-pynq-hls")
    layer = load_layer("resnet18.c2")
    results = Backend(layer, machine).evaluate(valid_configs(layer, machine))
    assert Counter(result.code for result in results) == {"": 173, "HLS_HAZARD": 9}


def test_same_seed_same_run() -> None:
    layer, config = small()
    broken = without(Backend(layer, SIM).program(config), 9, 4)
    runs = [[run_fsim(layer, SIM, broken, seed) for seed in range(6)] for _ in range(2)]
    assert runs[0] == runs[1]
