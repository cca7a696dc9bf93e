# SPDX-License-Identifier: Apache-2.0
"""The harness's deterministic inputs, computed in numpy (simulators/harness/tensors.c)."""

from __future__ import annotations

from typing import Any

import numpy as np

from simtune.build.image import Plan, Role, Tensor

Array = np.ndarray[Any, np.dtype[Any]]


def numpy_dtype(tensor: Tensor) -> np.dtype[Any]:
    """The numpy type of a tensor; bfloat16 comes from ml_dtypes, which TVM depends on."""
    if tensor.dtype == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(tensor.dtype)


def fill(tensor: Tensor, number: int, seed: int = 0, constant: bool = False) -> Array:
    """Values of input `number` of an executable.

    Args:
        tensor: its type and shape.
        number: its number in the plan.
        seed: the job's seed.
        constant: give every element the value of element 0.

    Returns:
        Array of the tensor's shape. Floats lie in [-0.5, 0.5) with full mantissas, bytes take
        their whole range, wider integers are small and not negative.
    """
    key = np.uint64(((seed * 1000003 + number + 1) * 0xC2B2AE3D27D4EB4F) & 0xFFFFFFFFFFFFFFFF)
    index = np.zeros(tensor.elements, np.uint64) if constant else np.arange(tensor.elements, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key
        x ^= x >> np.uint64(32)
        x *= np.uint64(0xD6E8FEB86659FD93)
    bits = (x >> np.uint64(40)).astype(np.uint32)
    return _convert(bits, tensor).reshape(tensor.shape)


def _convert(bits: np.ndarray[Any, np.dtype[np.uint32]], tensor: Tensor) -> Array:
    dtype = numpy_dtype(tensor)
    if tensor.dtype.startswith(("float", "bfloat")):
        values = bits.astype(np.float32) * np.float32(2**-24) - np.float32(0.5)
        if tensor.bits >= 32:
            return values.astype(dtype)
        raw = values.view(np.uint32)
        if tensor.dtype == "bfloat16":
            return (raw >> 16).astype(np.uint16).view(dtype)
        exponent = (raw >> 23 & 0xFF).astype(np.int32) - 112
        half = (raw >> 16 & 0x8000) | (exponent.astype(np.uint32) << 10) | (raw >> 13 & 0x3FF)
        return np.where(exponent <= 0, raw >> 16 & 0x8000, half).astype(np.uint16).view(dtype)
    if tensor.dtype == "bool":
        return (bits & 1).astype(dtype)
    if tensor.bits == 8:
        low = (bits & 0xFF).astype(np.int32)
        return (low - 128 if tensor.dtype == "int8" else low).astype(dtype)
    return (bits & {16: 0xFF, 32: 7, 64: 3}[tensor.bits]).astype(dtype)


def inputs(plan: Plan, seed: int = 0, constant: bool = False) -> dict[int, Array]:
    """All inputs of a plan by tensor number."""
    return {
        number: fill(tensor, number, seed, constant)
        for number, tensor in enumerate(plan.tensors)
        if tensor.role is Role.INPUT
    }
