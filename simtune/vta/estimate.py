# SPDX-License-Identifier: Apache-2.0
"""How long a configuration takes, roughly, from its tile plan and the machine's timing alone.

Nothing is compiled or run: sums of bytes, bursts and vectors in closed form. It knows how the modules
overlap only as far as virtual threads go. A search starts from it and learns what it misses.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from simtune.vta.hwspec import TimingSpec, VtaMachine
from simtune.vta.layers import Layer
from simtune.vta.tileplan import TilePlan, plan

#: The share of the shorter modules' work that virtual threads do not hide. Read off the timing simulator
#: for layers C2 and C5 of ResNet-18 on the machine vta-pynq; no other layer or machine went into it.
EXPOSED = 0.2

_ACC_BYTES, _INP_BYTES = 4, 1


def estimate(layer: Layer, machine: VtaMachine, config: Mapping[str, int]) -> dict[str, float]:
    """Cycles by module, and in all: ``load``, ``compute``, ``store``, ``total``.

    The figures of an invalid configuration are those it would have if its buffers were large enough.
    """
    p, timing = plan(layer, machine, config), machine.timing
    tiles = p.b0 * p.i0 * p.j0 * p.c0
    load = _load(layer, machine, p, tiles)
    vectors = p.tb * p.tco * p.th * p.tw
    bias = _transfer(timing, 1, p.tco * machine.hardware.batch * machine.hardware.block * _ACC_BYTES)
    gemm = p.iter_out * p.iter_in * p.uops * timing.gemm_ii + timing.gemm_ov + timing.insn_ov
    reset = vectors * timing.gemm_ii + timing.gemm_ov + timing.insn_ov
    alu = vectors * (3 * timing.alu_imm + timing.alu_tt) + 4 * (timing.alu_ov + timing.insn_ov)
    compute = tiles * (p.tb * p.k0 * gemm + reset + alu + bias)
    store = tiles * _store(layer, machine, p, vectors)
    if p.threads > 1:
        # Each thread fills its part of the buffers while another is worked on, but not quite hidden.
        longest = max(load, compute, store)
        total = longest + EXPOSED * (load + compute + store - longest)
    else:
        # Loads wait for the work on what was loaded before; only stores overlap.
        total = load + compute + max(0.0, store - compute / 2)
    return {"load": load, "compute": compute, "store": store, "total": total}


def _transfer(timing: TimingSpec, rows: float, row_bytes: float) -> float:
    """Cycles of a load of so many rows; each is at least one burst."""
    beats = ceil(row_bytes / timing.bus_bytes)
    bursts = ceil(beats / timing.max_beats)
    return rows * (beats * timing.beat_cycles + bursts * timing.rd_ov) + timing.lat


def _load(layer: Layer, machine: VtaMachine, p: TilePlan, tiles: int) -> float:
    hardware, timing = machine.hardware, machine.timing
    element = hardware.batch * hardware.block * _INP_BYTES
    rounds = tiles * p.k0 * p.tb  # each row of a batch loads its own operands
    # Padding is at the edges of the image only.
    across = p.i0 * p.hin * 2 * layer.pw + p.j0 * p.win * 2 * layer.ph
    padding = p.b0 * p.tb * p.c0 * p.k0 * p.tci * across
    elements = max(0.0, rounds * p.tci * p.hin * p.win - padding)
    rows = p.tci * p.hin
    if not (layer.ph or layer.pw) and p.win == layer.w:
        rows = p.tci if p.hin < layer.h else 1
    inp = rounds * _transfer(timing, rows, elements / rounds / rows * element)
    if not timing.pad_overlap:
        inp += padding * timing.pad_cycles
    wgt_rows = 1 if p.k0 == 1 else p.tco
    wgt = rounds * _transfer(timing, wgt_rows, p.wgt_size / wgt_rows * hardware.block**2)
    return inp + wgt + rounds * 2 * timing.insn_ov


def _store(layer: Layer, machine: VtaMachine, p: TilePlan, vectors: int) -> float:
    timing = machine.timing
    if layer.kind == "dense":
        rows = p.tb
    elif p.tw < layer.ow:
        rows = p.tco * p.th
    else:
        rows = p.tco if p.th < layer.oh else 1
    row_bytes = vectors / rows * machine.hardware.batch * machine.hardware.block
    beats = ceil(row_bytes / timing.bus_bytes)
    bursts = ceil(beats / timing.max_beats)
    return rows * (beats * timing.beat_cycles + bursts * timing.wr_ov) + vectors * timing.out_read
