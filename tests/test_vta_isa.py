# SPDX-License-Identifier: Apache-2.0
"""Encodings, text and field limits of the accelerator's instructions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vta_helpers import conv, valid_configs

from simtune.vta import Backend, load_machine
from simtune.vta.core import assemble, core, hardware_of

SIM = load_machine("vta-sim")


def bits(*fields: tuple[int, int]) -> int:
    """A number from (value, lowest bit) pairs."""
    return sum(value << low for value, low in fields)


#: Text, low word and high word of one instruction of each kind, put together by hand from the table
#: of fields: [2:0] opcode, [3] pop_prev, [4] pop_next, [5] push_prev, [6] push_next, and so on.
GOLDEN = [
    (
        "load.inp pop:g2l push:l2g sram=580 dram=3136 y=9 x=56 stride=56 pad_top=1 pad_bottom=2 pad_left=3 "
        "pad_right=4",
        bits((0, 0), (1, 4), (1, 6), (2, 7), (580, 10), (3136, 26)),
        bits((9, 0), (56, 16), (56, 32), (1, 48), (2, 52), (3, 56), (4, 60)),
    ),
    (
        "load.wgt sram=1023 dram=4294967295 y=65535 x=65534 stride=65533",
        bits((0, 0), (1, 7), (1023, 10), (4294967295, 26)),
        bits((65535, 0), (65534, 16), (65533, 32)),
    ),
    (
        "load.uop pop:l2g pop:s2g push:g2l push:g2s sram=8 dram=16 y=1 x=48 stride=48",
        bits((0, 0), (1, 3), (1, 4), (1, 5), (1, 6), (0, 7), (8, 10), (16, 26)),
        bits((1, 0), (48, 16), (48, 32)),
    ),
    (
        "load.acc sram=1792 dram=3 y=1 x=2 stride=2",
        bits((0, 0), (3, 7), (1792, 10), (3, 26)),
        bits((1, 0), (2, 16), (2, 32)),
    ),
    (
        "store.out pop:g2s push:s2g sram=448 dram=6272 y=2 x=448 stride=3136",
        bits((1, 0), (1, 3), (1, 5), (4, 7), (448, 10), (6272, 26)),
        bits((2, 0), (448, 16), (3136, 32)),
    ),
    (
        "gemm pop:l2g push:g2l uop_bgn=16 uop_end=64 out=56 in=3 dst_out=1 dst_in=2 src_out=3 src_in=4 "
        "wgt_out=5 wgt_in=6",
        bits((2, 0), (1, 3), (1, 5), (16, 8), (64, 21), (56, 35), (3, 49)),
        bits((1, 0), (2, 11), (3, 22), (4, 33), (5, 44), (6, 54)),
    ),
    (
        "gemm.reset pop:s2g uop_bgn=8191 uop_end=8192 out=16383 in=16383 dst_out=2047 dst_in=2047 "
        "src_out=2047 src_in=2047 wgt_out=1023 wgt_in=1023",
        bits((2, 0), (1, 4), (1, 7), (8191, 8), (8192, 21), (16383, 35), (16383, 49)),
        (1 << 64) - 1,
    ),
    (
        "alu.shr.imm uop_bgn=1 uop_end=2 out=896 in=1 dst_out=1 dst_in=0 src_out=1 src_in=0 imm=8",
        bits((4, 0), (1, 8), (2, 21), (896, 35), (1, 49)),
        bits((1, 0), (1, 22), (3, 44), (1, 47), (8, 48)),
    ),
    (
        "alu.max.imm uop_bgn=1 uop_end=2 out=1 in=1 dst_out=0 dst_in=0 src_out=0 src_in=0 imm=-3",
        bits((4, 0), (1, 8), (2, 21), (1, 35), (1, 49)),
        bits((1, 44), (1, 47), (0x10000 - 3, 48)),
    ),
    (
        "alu.add push:g2s uop_bgn=3 uop_end=4 out=2 in=448 dst_out=448 dst_in=1 src_out=1 src_in=0",
        bits((4, 0), (1, 6), (3, 8), (4, 21), (2, 35), (448, 49)),
        bits((448, 0), (1, 11), (1, 22), (2, 44)),
    ),
    ("finish", 3, 0),
]


@pytest.mark.parametrize(("text", "low", "high"), GOLDEN, ids=[row[0].split()[0] for row in GOLDEN])
def test_golden_encoding(text: str, low: int, high: int) -> None:
    words = assemble([text], SIM)
    assert [hex(int(word)) for word in words[0]] == [hex(low), hex(high)]
    assert core().disassemble(hardware_of(SIM), words) == [text]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_emitted_programs_survive_their_text(data: st.DataObject) -> None:
    layer = conv(
        data.draw(st.integers(3, 8)),
        ci=32,
        co=32,
        k=data.draw(st.sampled_from((1, 3))),
        stride=data.draw(st.integers(1, 2)),
        pad=0,
    )
    machine = load_machine(data.draw(st.sampled_from(("vta-sim", "vta-inp14", "vta-inp16"))))
    config = data.draw(st.sampled_from(valid_configs(layer, machine)))
    program = Backend(layer, machine).program(config)
    text = program.text(machine)
    assert np.array_equal(assemble(text, machine), program.insns)
    assert not any("unknown" in line or "illegal" in line for line in text)


FIELDS = [
    ("load.inp sram={} dram=0 y=1 x=1 stride=1", 16, "FIELD_BASE"),
    ("load.inp sram=0 dram={} y=1 x=1 stride=1", 32, "FIELD_BASE"),
    ("load.inp sram=0 dram=0 y={} x=1 stride=1", 16, "FIELD_SIZE"),
    ("load.inp sram=0 dram=0 y=1 x={} stride=1", 16, "FIELD_SIZE"),
    ("load.inp sram=0 dram=0 y=1 x=1 stride={}", 16, "FIELD_STRIDE"),
    ("load.inp sram=0 dram=0 y=1 x=1 stride=1 pad_top={}", 4, "FIELD_PAD"),
    ("load.inp sram=0 dram=0 y=1 x=1 stride=1 pad_bottom={}", 4, "FIELD_PAD"),
    ("load.inp sram=0 dram=0 y=1 x=1 stride=1 pad_left={}", 4, "FIELD_PAD"),
    ("load.inp sram=0 dram=0 y=1 x=1 stride=1 pad_right={}", 4, "FIELD_PAD"),
    ("gemm uop_bgn={}", 13, "FIELD_BASE"),
    ("gemm uop_end={}", 14, "FIELD_BASE"),
    ("gemm out={}", 14, "FIELD_ITER"),
    ("gemm in={}", 14, "FIELD_ITER"),
    ("gemm dst_out={}", 11, "FIELD_FACTOR"),
    ("gemm dst_in={}", 11, "FIELD_FACTOR"),
    ("gemm src_out={}", 11, "FIELD_FACTOR"),
    ("gemm src_in={}", 11, "FIELD_FACTOR"),
    ("gemm wgt_out={}", 10, "FIELD_FACTOR"),
    ("gemm wgt_in={}", 10, "FIELD_FACTOR"),
    ("alu.add src_out={}", 11, "FIELD_FACTOR"),
    ("alu.add src_in={}", 11, "FIELD_FACTOR"),
]


@pytest.mark.parametrize(("text", "width", "code"), FIELDS, ids=[f"{row[0]}" for row in FIELDS])
def test_fields_hold_their_largest_value_and_no_more(text: str, width: int, code: str) -> None:
    most = (1 << width) - 1
    for value in (most - 1, most):
        words = assemble([text.format(value)], SIM)
        assert f"={value}" in core().disassemble(hardware_of(SIM), words)[0]
    for value in (most + 1, -1):
        with pytest.raises(ValueError, match=f"{code}.*{value}.*{width} bits"):
            assemble([text.format(value)], SIM)


@pytest.mark.parametrize(("value", "fits"), [(-32768, True), (32767, True), (-32769, False), (32768, False)])
def test_immediates_have_16_bits_with_sign(value: int, fits: bool) -> None:
    text = f"alu.min.imm uop_bgn=0 uop_end=1 out=1 in=1 dst_out=0 dst_in=0 src_out=0 src_in=0 imm={value}"
    if fits:
        assert core().disassemble(hardware_of(SIM), assemble([text], SIM)) == [text]
    else:
        with pytest.raises(ValueError, match="16 bits"):
            assemble([text], SIM)


@pytest.mark.parametrize(
    "text", ["lead.inp", "gemm x=3", "load.inp pop:l2g", "finish now", "alu.add.im", "load.inp x=", "alu.foo"]
)
def test_text_that_is_no_instruction_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no instruction|is not understood"):
        assemble([text], SIM)


def test_micro_ops_pack_three_indices() -> None:
    """[10:0] accumulator, [21:11] input, [31:22] weight."""
    layer = conv(4, ci=16, co=32, k=1)
    config = {
        "tile_b": 1,
        "tile_h": 4,
        "tile_w": 1,
        "tile_ci": 1,
        "tile_co": 2,
        "oc_nthread": 1,
        "h_nthread": 1,
    }
    program = Backend(layer, SIM).program({**config, "tile_w": 2, "tile_co": 1})
    gemm = next(line for line in program.text(SIM) if line.startswith("gemm "))
    begin = int(gemm.split("uop_bgn=")[1].split()[0])
    # Loops of 2 columns and 4 rows both fold, so one micro-op is left; all indices start at 0.
    assert program.uops[begin] == 0
    three = Backend(conv(4, ci=32, co=32, k=1), SIM).program(
        {**config, "tile_ci": 2, "tile_w": 4, "tile_h": 4, "tile_co": 2}
    )
    # Folded: input channels and columns. Unrolled: output channels (dst + 16, wgt + 2) over rows (+ 4).
    loaded = [line for line in three.text(SIM) if line.startswith("load.uop") and " x=8" in line]
    begin = int(loaded[-1].split("dram=")[1].split()[0])
    expected = [bits((16 * o + 4 * r, 0), (4 * r, 11), (2 * o, 22)) for o in (0, 1) for r in range(4)]
    assert [int(uop) for uop in three.uops[begin : begin + 8]] == expected
