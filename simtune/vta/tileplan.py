# SPDX-License-Identifier: Apache-2.0
"""The template's knobs, what they mean for a layer, and what is known before anything is compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np

from simtune.errors import ConfigurationError
from simtune.templates.space import Knob, Space
from simtune.vta.hwspec import VtaMachine
from simtune.vta.layers import Layer

#: Half a gigabyte of instructions, and a gigabyte for an operand of the reference.
_MOST_INSNS = 1 << 25
_MOST_ELEMENTS = 1 << 27

#: In the order in which the C++ core takes them.
KNOBS = ("tile_b", "tile_h", "tile_w", "tile_ci", "tile_co", "oc_nthread", "h_nthread")


@dataclass(frozen=True)
class Packed:
    """A layer in units of blocks."""

    n: int
    ci: int
    co: int


def pack(layer: Layer, machine: VtaMachine) -> Packed:
    """Channels and batch in blocks of the machine.

    Raises:
        ConfigurationError: the layer does not fill whole blocks.
    """
    hardware = machine.hardware
    for value, unit, what in (
        (layer.ci, hardware.block, "input channels"),
        (layer.co, hardware.block, "output channels"),
        (layer.n, hardware.batch, "rows of its batch"),
    ):
        if value % unit:
            raise ConfigurationError(
                f"{layer.name}: {value} {what} do not fill blocks of {unit} of {machine.name}",
                f"pad to {ceil(value / unit) * unit}, or choose another machine",
            )
    packed = Packed(layer.n // hardware.batch, layer.ci // hardware.block, layer.co // hardware.block)
    # What the smallest tiles take, as `emit.cpp` counts it, and the operands of the reference.
    insns = packed.n * layer.oh * layer.ow * packed.co * (3 * packed.ci + 10)
    elements = max(layer.n * layer.ci * layer.h * layer.w, layer.ci * layer.co * layer.kh * layer.kw)
    if insns > _MOST_INSNS or elements > _MOST_ELEMENTS:
        raise ConfigurationError(
            f"{layer.name} is too large to simulate: {insns:,} instructions with the smallest tiles, "
            f"{elements:,} elements in its largest operand",
            f"{_MOST_INSNS:,} and {_MOST_ELEMENTS:,} are allowed; take a part of it",
        )
    return packed


def divisors(number: int) -> tuple[int, ...]:
    return tuple(part for part in range(1, number + 1) if number % part == 0)


@lru_cache(maxsize=256)
def space(layer: Layer, machine: VtaMachine) -> Space:
    """The template's space: inner tile sizes and virtual threads."""
    packed = pack(layer, machine)
    tiles = [("tile_b", packed.n)]
    if layer.kind == "conv2d":
        tiles += [("tile_h", layer.oh), ("tile_w", layer.ow)]
    tiles += [("tile_ci", packed.ci), ("tile_co", packed.co)]
    threads = ["oc_nthread", "h_nthread"] if layer.kind == "conv2d" else ["oc_nthread"]
    knobs = [Knob(name, divisors(extent)) for name, extent in tiles]
    return Space(layer.name, (*knobs, *(Knob(name, (1, 2)) for name in threads)))


def as_rows(configs: Iterable[Mapping[str, int]]) -> np.ndarray:
    """Configurations as rows of integers for the C++ core; knobs that a template lacks are 1."""
    rows = [[config.get(name, 1) for name in KNOBS] for config in configs]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(KNOBS))


@lru_cache(maxsize=16)
def all_rows(layer: Layer, machine: VtaMachine) -> np.ndarray:
    """Every point of the space, in order, as rows for the C++ core."""
    points = space(layer, machine)
    grid = np.meshgrid(*(np.array(knob.values) for knob in points.knobs), indexing="ij")
    rows = np.ones((points.size, len(KNOBS)), dtype=np.int64)
    for knob, values in zip(points.knobs, grid, strict=True):
        rows[:, KNOBS.index(knob.name)] = values.ravel()
    rows.flags.writeable = False
    return rows


@dataclass(frozen=True)
class TilePlan:
    """What a configuration comes to; element counts are for one virtual thread.

    Attributes:
        tb, th, tw, tci, tco: inner tiles; `tb` is 1 for a convolution, whose template ignores tile_b.
        b0, i0, j0, c0, k0: tiles along batch, rows, columns, output and input channels.
        threads: virtual threads.
        hin, win: input rows and columns of a tile.
        iter_out, iter_in: loops of the GEMM kernel that fold into the instruction.
        uops: micro-ops of the GEMM kernel.
        reuse: micro-ops between two uses of an accumulator.
    """

    tb: int
    th: int
    tw: int
    tci: int
    tco: int
    b0: int
    i0: int
    j0: int
    c0: int
    k0: int
    threads: int
    hin: int
    win: int
    inp_size: int
    wgt_size: int
    acc_size: int
    iter_out: int
    iter_in: int
    uops: int
    reuse: int


def plan(layer: Layer, machine: VtaMachine, config: Mapping[str, int]) -> TilePlan:
    """The tile plan of a configuration, valid or not."""
    packed = pack(layer, machine)
    tb = config.get("tile_b", 1) if layer.kind == "dense" else 1
    th, tw = config.get("tile_h", 1), config.get("tile_w", 1)
    tci, tco = config["tile_ci"], config["tile_co"]
    hin, win = (th - 1) * layer.stride + layer.kh, (tw - 1) * layer.stride + layer.kw
    loops = [(tci, False), (tw, False), (layer.kw, False), (layer.kh, False), (tco, True), (th, True)]
    left = [loop for loop in loops if loop[0] > 1]
    uops = reuse = 1
    for extent, moves in left[2:]:
        uops *= extent
        reuse *= extent if moves else 1
    return TilePlan(
        tb=tb,
        th=th,
        tw=tw,
        tci=tci,
        tco=tco,
        b0=packed.n // tb,
        i0=layer.oh // th,
        j0=layer.ow // tw,
        c0=packed.co // tco,
        k0=packed.ci // tci,
        threads=config.get("oc_nthread", 1) * config.get("h_nthread", 1),
        hin=hin,
        win=win,
        inp_size=tci * hin * win,
        wgt_size=tco * tci * layer.kh * layer.kw,
        acc_size=tb * tco * th * tw + tco,
        iter_out=left[0][0] if left else 1,
        iter_in=left[1][0] if len(left) > 1 else 1,
        uops=uops,
        reuse=reuse,
    )


def features(layer: Layer, machine: VtaMachine, config: Mapping[str, int]) -> dict[str, float]:
    """What the compiler knows of a configuration before it compiles it, valid or not.

    No rule of validity is among them as such: a model may learn the rules from these.
    """
    p = plan(layer, machine, config)
    hardware = machine.hardware
    oc, h = config.get("oc_nthread", 1), config.get("h_nthread", 1)
    tiles = p.b0 * p.i0 * p.j0 * p.c0
    padded = layer.ph > 0 or layer.pw > 0
    store_rows = p.tb if p.acc_size == p.tco else 1
    if layer.kind == "conv2d":
        store_rows = (
            1 if p.tw == layer.ow and p.th == layer.oh else p.tco if p.tw == layer.ow else p.tco * p.th
        )
    inp_bytes = tiles * p.k0 * p.inp_size * hardware.batch * hardware.block
    wgt_bytes = tiles * p.k0 * p.wgt_size * hardware.block**2
    out_bytes = layer.n * layer.oh * layer.ow * layer.co
    return {
        **{name: float(config.get(name, 1)) for name in KNOBS},
        "outer_b": float(p.b0),
        "outer_h": float(p.i0),
        "outer_w": float(p.j0),
        "outer_ci": float(p.k0),
        "outer_co": float(p.c0),
        "threads": float(p.threads),
        "tiles": float(tiles),
        "odd_co_tiles": float(p.c0 % oc != 0),
        "odd_h_tiles": float(p.i0 % h != 0),
        "full_rows": float(p.tw == layer.ow),
        "full_columns": float(p.th == layer.oh),
        "padded": float(padded),
        "hin": float(p.hin),
        "win": float(p.win),
        "fill_inp": p.threads * p.inp_size / hardware.inp_depth,
        "fill_wgt": p.threads * p.wgt_size / hardware.wgt_depth,
        "fill_acc": p.threads * p.acc_size / hardware.acc_depth,
        "iter_out": float(p.iter_out),
        "iter_in": float(p.iter_in),
        "uops": float(p.uops),
        "reuse": float(p.reuse),
        "gemm_cycles": float(p.iter_out * p.iter_in * p.uops),
        "store_rows": float(store_rows),
        "inp_redundancy": inp_bytes / (layer.n * layer.h * layer.w * layer.ci),
        "wgt_redundancy": wgt_bytes / (layer.kh * layer.kw * layer.ci * layer.co),
        "macs_per_byte": layer.macs / (inp_bytes + wgt_bytes + out_bytes),
    }
