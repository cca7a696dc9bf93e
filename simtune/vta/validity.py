# SPDX-License-Identifier: Apache-2.0
"""Validity in closed form: the answer of emitter and runtime without running them.

The conditions are written down here from the rules; the C++ core finds the same failures by
building descriptors, kernels and buffers. Tests hold both equal over whole spaces.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simtune.vta.hwspec import VtaMachine
from simtune.vta.layers import Layer
from simtune.vta.tileplan import KNOBS, all_rows, pack

_MAX_PAD = (1 << 4) - 1
_MAX_STRIDE = (1 << 16) - 1


def check(layer: Layer, machine: VtaMachine, config: Mapping[str, int]) -> str:
    """The code of the first failure, empty for a configuration that compiles and runs."""
    hardware, packed = machine.hardware, pack(layer, machine)
    dense = layer.kind == "dense"
    tb = config.get("tile_b", 1) if dense else 1
    th, tw = config.get("tile_h", 1), config.get("tile_w", 1)
    tci, tco = config["tile_ci"], config["tile_co"]
    oc, ht = config.get("oc_nthread", 1), config.get("h_nthread", 1)
    if packed.co // tco % oc or layer.oh // th % ht:
        return "VT_DIV"
    if tw < layer.ow and 1 < th < layer.oh and tco > 1:
        return "ST_2D"
    hin, win = (th - 1) * layer.stride + layer.kh, (tw - 1) * layer.stride + layer.kw
    if tci > 1:
        if layer.ph or layer.pw:
            return "INP_PAD"
        if hin > 1 and win < layer.w and hin < layer.h:
            return "INP_2D"
    threads, taps = oc * ht, layer.kh * layer.kw
    if threads * tci * hin * win > hardware.inp_depth:
        return "SRAM_INP"
    if threads * tco * tci * taps > hardware.wgt_depth:
        return "SRAM_WGT"
    if threads * (tb * tco * th * tw + tco) > hardware.acc_depth:
        return "SRAM_ACC"
    if oc == ht == 2:
        return "UOP_SIG"
    uops, reuse = _unrolled(layer, tci, tw, tco, th)
    if uops > reuse and reuse <= 2:
        return "UOP_DEP"
    if uops > hardware.uop_depth:
        return "UOP_CNT"
    return _fields(layer, packed.ci, tci, tco, th)


def _unrolled(layer: Layer, tci: int, tw: int, tco: int, th: int) -> tuple[int, int]:
    """Micro-ops of the GEMM kernel, and over how many different accumulators they go."""
    left = [(tci, 1), (tw, 1), (layer.kw, 1), (layer.kh, 1), (tco, tco), (th, th)]
    uops = reuse = 1
    for extent, accumulators in [loop for loop in left if loop[0] > 1][2:]:
        uops *= extent
        reuse *= accumulators
    return uops, reuse


def _fields(layer: Layer, ci: int, tci: int, tco: int, th: int) -> str:
    """Fields that a transfer overflows, in order of use: input, weights, output.

    Sizes and index steps cannot overflow where buffers are as small as a machine may have them.
    """
    if max(layer.ph, layer.pw) > _MAX_PAD:
        return "FIELD_PAD"
    hin = (th - 1) * layer.stride + layer.kh
    if tci > 1 and hin < layer.h and layer.h * layer.w > _MAX_STRIDE:
        return "FIELD_STRIDE"  # from channel to channel; whole planes follow one another
    if tco > 1 and tci < ci and ci * layer.kh * layer.kw > _MAX_STRIDE:
        return "FIELD_STRIDE"
    if tco > 1 and th < layer.oh and layer.oh * layer.ow > _MAX_STRIDE:
        return "FIELD_STRIDE"
    return ""


def check_all(layer: Layer, machine: VtaMachine) -> list[str]:
    """The code of every point of the space, in order."""
    rows = all_rows(layer, machine)
    hardware, packed = machine.hardware, pack(layer, machine)
    column = {name: rows[:, number] for number, name in enumerate(KNOBS)}
    tb = column["tile_b"] if layer.kind == "dense" else np.ones(len(rows), dtype=np.int64)
    th, tw, tci, tco = (column[name] for name in ("tile_h", "tile_w", "tile_ci", "tile_co"))
    oc, ht = column["oc_nthread"], column["h_nthread"]
    threads, taps = oc * ht, layer.kh * layer.kw
    hin, win = (th - 1) * layer.stride + layer.kh, (tw - 1) * layer.stride + layer.kw
    padded = bool(layer.ph or layer.pw)
    uops, reuse = _unrolled_all(layer, tci, tw, tco, th)
    conditions = [
        ("VT_DIV", (packed.co // tco % oc != 0) | (layer.oh // th % ht != 0)),
        ("ST_2D", (tw < layer.ow) & (th > 1) & (th < layer.oh) & (tco > 1)),
        ("INP_PAD", (tci > 1) & padded),
        ("INP_2D", (tci > 1) & (hin > 1) & (win < layer.w) & (hin < layer.h)),
        ("SRAM_INP", threads * tci * hin * win > hardware.inp_depth),
        ("SRAM_WGT", threads * tco * tci * taps > hardware.wgt_depth),
        ("SRAM_ACC", threads * (tb * tco * th * tw + tco) > hardware.acc_depth),
        ("UOP_SIG", (oc == 2) & (ht == 2)),
        ("UOP_DEP", (uops > reuse) & (reuse <= 2)),
        ("UOP_CNT", uops > hardware.uop_depth),
    ]
    codes = np.full(len(rows), "", dtype=object)
    for code, fails in reversed(conditions):
        codes[fails] = code
    if _may_overflow_fields(layer, packed.ci):
        for number in np.flatnonzero(codes == ""):
            codes[number] = _fields(layer, packed.ci, tci[number], tco[number], th[number])
    return [str(code) for code in codes]


def _unrolled_all(
    layer: Layer, tci: np.ndarray, tw: np.ndarray, tco: np.ndarray, th: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    one = np.ones(len(tci), dtype=np.int64)
    uops, reuse, folded = one.copy(), one.copy(), np.zeros(len(tci), dtype=np.int64)
    for extent, moves in ((tci, 0), (tw, 0), (layer.kw * one, 0), (layer.kh * one, 0), (tco, 1), (th, 1)):
        unroll = (extent > 1) & (folded >= 2)
        uops = np.where(unroll, uops * extent, uops)
        if moves:
            reuse = np.where(unroll, reuse * extent, reuse)
        folded += extent > 1
    return uops, reuse


def _may_overflow_fields(layer: Layer, ci: int) -> bool:
    largest = max(layer.h * layer.w, layer.oh * layer.ow, ci * layer.kh * layer.kw)
    return largest > _MAX_STRIDE or max(layer.ph, layer.pw) > _MAX_PAD
