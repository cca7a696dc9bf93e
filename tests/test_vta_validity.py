# SPDX-License-Identifier: Apache-2.0
"""Validity: the closed form against the emitter, published counts, limits one below, at and above."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vta_helpers import conv, with_hardware

from simtune.errors import ConfigurationError
from simtune.vta import Backend, Layer, VtaMachine, load_layer, load_machine, space, validity
from simtune.vta.codes import CODES, REASONS, STAGES
from simtune.vta.core import core, natives
from simtune.vta.layers import LAYERS
from simtune.vta.tileplan import as_rows

SIM = load_machine("vta-sim")
CONV = {"tile_b": 1, "tile_h": 1, "tile_w": 1, "tile_ci": 1, "tile_co": 1, "oc_nthread": 1, "h_nthread": 1}
RESNET18 = [name for name in LAYERS if name.startswith("resnet18")]
OTHERS = [name for name in LAYERS if name.startswith(("deepbench", "dense"))]


@pytest.mark.parametrize("name", [*RESNET18, *OTHERS])
def test_closed_form_and_emitter_agree_on_whole_spaces(name: str) -> None:
    layer = load_layer(name)
    assert validity.check_all(layer, SIM) == Backend(layer, SIM).emit_all()


@pytest.mark.parametrize("machine", ["vta-inp14", "vta-inp16", "vta-acc16"])
@pytest.mark.parametrize("name", ["resnet18.c5", "resnet18.c7", "mobilenet.pw6"])
def test_they_agree_on_other_buffer_sizes(name: str, machine: str) -> None:
    layer, target = load_layer(name), load_machine(machine)
    assert validity.check_all(layer, target) == Backend(layer, target).emit_all()


def test_resnet18_has_13760_points() -> None:
    assert sum(space(load_layer(name), SIM).size for name in RESNET18) == 13_760


@pytest.mark.parametrize(("name", "size", "valid"), [("resnet18.c2", 2304, 182), ("resnet18.c7", 1280, 295)])
def test_valid_points_as_counted_on_the_original(name: str, size: int, valid: int) -> None:
    codes = validity.check_all(load_layer(name), SIM)
    assert (len(codes), codes.count("")) == (size, valid)


@pytest.mark.parametrize(("name", "size"), [("dense.256x128", 40), ("dense.4x256x128", 120)])
def test_dense_fails_for_threads_only(name: str, size: int) -> None:
    codes = Counter(validity.check_all(load_layer(name), SIM))
    assert codes == {"": size * 7 // 8, "VT_DIV": size // 8}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_they_agree_on_random_layers_and_machines(data: st.DataObject) -> None:
    layer = random_layer(data)
    machine = with_hardware(
        SIM,
        inp_bytes=1 << data.draw(st.integers(8, 15)),
        wgt_bytes=1 << data.draw(st.integers(10, 18)),
        acc_bytes=1 << data.draw(st.integers(9, 17)),
        uop_bytes=1 << data.draw(st.integers(4, 15)),
    )
    codes = validity.check_all(layer, machine)
    assert codes == Backend(layer, machine).emit_all()
    points = space(layer, machine)
    assert codes == [validity.check(layer, machine, points.config(i)) for i in range(points.size)]


def random_layer(data: st.DataObject, largest: int = 12) -> Layer:
    kernel = data.draw(st.integers(1, 5))
    kw = data.draw(st.sampled_from((kernel, 1, 2, 3)))
    layer = conv(
        data.draw(st.integers(1, largest)),
        data.draw(st.integers(1, largest)),
        ci=16 * data.draw(st.sampled_from((1, 2, 3, 4))),
        co=16 * data.draw(st.sampled_from((1, 2, 4))),
        k=kernel,
        kw=kw,
        stride=data.draw(st.integers(1, 3)),
        pad=data.draw(st.integers(0, max(0, kernel - 1))),
        pw=data.draw(st.integers(0, max(0, kw - 1))),
        n=data.draw(st.integers(1, 2)),
    )
    if layer.h + 2 * layer.ph < layer.kh or layer.w + 2 * layer.pw < layer.kw:
        return dataclasses.replace(layer, h=layer.h + layer.kh, w=layer.w + layer.kw)
    return layer


def code_of(layer: Layer, config: dict[str, int], machine: VtaMachine = SIM) -> str:
    """The code on which both ways agree."""
    closed = validity.check(layer, machine, config)
    native = natives(layer, machine)
    (stage, number, message), _ = core().emit(native.hardware, native.layer, as_rows([config]))
    assert (closed, bool(closed)) == (CODES[number], bool(message))
    assert STAGES[stage] == (REASONS[closed].stage if closed else "")
    return closed


# One layer per limit: the configuration fills the buffer to one element less, exactly, one more.


@pytest.mark.parametrize(("width", "code"), [(2047, ""), (2048, ""), (2049, "SRAM_INP")])
def test_input_buffer_of_2048_elements(width: int, code: str) -> None:
    """One output column that reads a whole row; the weight buffer is large enough for its taps."""
    weights = with_hardware(SIM, wgt_bytes=1 << 20)
    assert code_of(conv(1, width, k=1, kw=width), CONV, weights) == code


@pytest.mark.parametrize(("taps", "code"), [(1023, ""), (1024, ""), (1025, "SRAM_WGT")])
def test_weight_buffer_of_1024_elements(taps: int, code: str) -> None:
    assert code_of(conv(1, taps, ci=16, co=16, k=1, kw=taps), CONV) == code


@pytest.mark.parametrize(("width", "code"), [(2046, ""), (2047, ""), (2048, "SRAM_ACC")])
def test_2048_accumulators_hold_a_tile_and_its_bias(width: int, code: str) -> None:
    layer = conv(1, width, ci=16, co=16, k=1)
    assert code_of(layer, {**CONV, "tile_w": width}) == code


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "code"), [(7, ""), (8, ""), (9, "SRAM_INP")])
def test_virtual_threads_share_the_buffers(rows: int, code: str, threads: int) -> None:
    width = 256 // threads
    layer = conv(rows, width, ci=16, co=32, k=1)
    accumulators = with_hardware(SIM, acc_bytes=1 << 18)
    config = {**CONV, "tile_h": rows, "tile_w": width, "oc_nthread": threads}
    assert code_of(layer, config, accumulators) == code


@pytest.mark.parametrize(("entries", "code"), [(13, ""), (12, ""), (11, "UOP_CNT")])
def test_a_kernel_fits_into_the_micro_op_buffer(entries: int, code: str) -> None:
    """Columns and tap columns fold into the instruction; 3 tap rows by 4 rows are left."""
    layer = conv(6, ci=16, co=16, k=3)
    machine = with_hardware(SIM, uop_bytes=4 * entries)
    assert code_of(layer, {**CONV, "tile_h": 4, "tile_w": 4}, machine) == code


@pytest.mark.parametrize(("rows", "code"), [(1, "UOP_DEP"), (2, "UOP_DEP"), (3, "")])
def test_three_accumulators_keep_micro_ops_apart(rows: int, code: str) -> None:
    layer = conv(8, ci=16, co=16, k=3)
    config = {**CONV, "tile_h": rows, "tile_w": 2}
    assert code_of(layer, config) == code


@pytest.mark.parametrize(("pad", "code"), [(14, ""), (15, ""), (16, "FIELD_PAD")])
@pytest.mark.parametrize("side", ["h", "w"])
def test_padding_has_four_bits(pad: int, code: str, side: str) -> None:
    kernel = 18
    layer = (
        conv(4, 2, k=kernel, kw=1, pad=pad, pw=0)
        if side == "h"
        else conv(2, 4, k=1, kw=kernel, pad=0, pw=pad)
    )
    assert code_of(layer, CONV) == code


@pytest.mark.parametrize(("blocks", "code"), [(4094, ""), (4095, ""), (4096, "FIELD_STRIDE")])
def test_strides_have_16_bits(blocks: int, code: str) -> None:
    """The kernel's rows are as far apart as all taps of all input channels."""
    layer = conv(1, 16, ci=16 * blocks, co=32, k=1, kw=16)
    assert blocks * 16 == layer.ci // 16 * layer.kw
    assert code_of(layer, {**CONV, "tile_co": 2}) == code


@pytest.mark.parametrize(("rows", "code"), [(255, ""), (256, "FIELD_STRIDE")])
def test_planes_of_more_than_65535_pixels_cannot_be_strided(rows: int, code: str) -> None:
    layer = conv(rows, 257 if rows == 255 else 256, ci=32, co=32)
    width = layer.w
    assert (layer.h * width > 65535) == (code != "")
    assert code_of(layer, {**CONV, "tile_co": 2, "tile_w": width}) == code  # the store
    assert code_of(layer, {**CONV, "tile_ci": 2, "tile_w": width}) == code  # the input


def test_every_reason_of_lowering_is_found_and_explained() -> None:
    seen: set[str] = set()
    for name in ("resnet18.c2", "resnet18.c7", "resnet18.c8", "deepbench.inception_b1"):
        backend = Backend(load_layer(name), SIM)
        for index, code in enumerate(validity.check_all(backend.layer, SIM)):
            if code and code not in seen:
                seen.add(code)
                compiled = backend.compile(backend.space.config(index))
                assert compiled.ok == (REASONS[code].stage == "run")
                result = backend.evaluate([backend.space.config(index)])[0]
                assert (result.code, result.stage) == (code, REASONS[code].stage)
                assert result.message
                assert result.status is REASONS[code].status
    assert {"VT_DIV", "ST_2D", "INP_PAD", "INP_2D", "SRAM_INP", "SRAM_ACC", "UOP_SIG", "UOP_DEP"} <= seen


def test_a_layer_that_fills_no_blocks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="20 input channels do not fill blocks of 16.*\n.*pad to 32"):
        space(conv(4, ci=20), SIM)
    with pytest.raises(ConfigurationError, match="rows of its batch"):
        space(conv(4), load_machine("vta-4x8"))
