# SPDX-License-Identifier: Apache-2.0
"""Inputs of a layer, its exact answer in numpy, and both in VTA's packed layouts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from simtune.vta.hwspec import VtaMachine
from simtune.vta.layers import SHIFT, Layer


@dataclass(frozen=True, eq=False)
class Data:
    """Packed operands and the packed right answer, all flat."""

    inp: np.ndarray
    wgt: np.ndarray
    bias: np.ndarray
    expected: np.ndarray


def operands(layer: Layer, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random input (n, ci, h, w) and weights (co, ci, kh, kw) in int8, bias (co) in int32.

    Inputs go over the whole range. Weights are scaled so that most outputs are not clipped, with both
    extremes among them.
    """
    random = np.random.default_rng([seed, layer.ci, layer.co, layer.h, layer.w])
    inp = random.integers(-128, 128, (layer.n, layer.ci, layer.h, layer.w), dtype=np.int8)
    spread = 64 * (1 << SHIFT) / (74 * np.sqrt(layer.ci * layer.kh * layer.kw))
    wgt = random.normal(0, spread, (layer.co, layer.ci, layer.kh, layer.kw)).round().clip(-128, 127)
    wgt.flat[:: max(1, wgt.size // 64)] = -128
    wgt.flat[1 :: max(1, wgt.size // 64)] = 127
    bias = random.integers(0, 96, layer.co, dtype=np.int32)
    return inp, wgt.astype(np.int8), bias


def answer(layer: Layer, inp: np.ndarray, wgt: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The exact output (n, co, oh, ow) in int8.

    Sums are taken in double precision, which holds these integers exactly, and wrap to 32 bits as
    the accumulators do.
    """
    padded = np.pad(inp, ((0, 0), (0, 0), (layer.ph, layer.ph), (layer.pw, layer.pw))).astype(np.float64)
    total = np.zeros((layer.n, layer.co, layer.oh, layer.ow))
    for kh in range(layer.kh):
        for kw in range(layer.kw):
            window = padded[
                :,
                :,
                kh : kh + (layer.oh - 1) * layer.stride + 1 : layer.stride,
                kw : kw + (layer.ow - 1) * layer.stride + 1 : layer.stride,
            ]
            columns = window.reshape(layer.n, layer.ci, -1)
            total += (wgt[:, :, kh, kw].astype(np.float64) @ columns).reshape(total.shape)
    sums = total.astype(np.int64).astype(np.int32)  # wraps
    shifted = (sums >> SHIFT) + bias[None, :, None, None]
    narrowed: np.ndarray = np.clip(shifted, 0, 127).astype(np.int8)
    return narrowed


@lru_cache(maxsize=8)
def data(layer: Layer, machine: VtaMachine, seed: int) -> Data:
    """Operands and answer of a layer in the layouts of a machine."""
    batch, block = machine.hardware.batch, machine.hardware.block
    inp, wgt, bias = operands(layer, seed)
    out = answer(layer, inp, wgt, bias)

    def images(tensor: np.ndarray) -> np.ndarray:
        n, c, h, w = tensor.shape
        packed = tensor.reshape(n // batch, batch, c // block, block, h, w)
        return np.ascontiguousarray(packed.transpose(0, 2, 4, 5, 1, 3)).reshape(-1)

    kernels = wgt.reshape(layer.co // block, block, layer.ci // block, block, layer.kh, layer.kw)
    rows = np.broadcast_to(bias.reshape(-1, 1, block), (layer.co // block, batch, block))
    return Data(
        images(inp),
        np.ascontiguousarray(kernels.transpose(0, 2, 4, 5, 1, 3)).reshape(-1),
        np.ascontiguousarray(rows).reshape(-1),
        images(out),
    )
