# SPDX-License-Identifier: Apache-2.0
"""The table inside an executable: which kernels run on which tensors.

The layout mirrors simulators/harness/image.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

from simtune.errors import InputFileError

MAGIC = 0x31304547414D4953
MAX_DIMS = 8
ALIGN = 64
_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}
_DTYPE = re.compile(r"(bool|(bfloat|float|uint|int)(\d+))")


class Role(IntEnum):
    """What a tensor is for; the harness fills inputs and checks outputs."""

    INPUT = 0
    OUTPUT = 1
    TEMPORARY = 2


@dataclass(frozen=True)
class Tensor:
    """One tensor of a plan: numpy-style dtype name, static shape, role."""

    dtype: str
    shape: tuple[int, ...]
    role: Role = Role.INPUT

    def __post_init__(self) -> None:
        if not _DTYPE.fullmatch(self.dtype) or self.bits not in (1, 8, 16, 32, 64):
            raise InputFileError(
                f"tensor type '{self.dtype}' is not supported",
                "use bool, int, uint or float of 8 to 64 bits, or bfloat16",
            )
        if len(self.shape) > MAX_DIMS or any(extent < 0 for extent in self.shape):
            raise InputFileError(
                f"tensor shape {self.shape} is not supported",
                f"at most {MAX_DIMS} dimensions, all known and not negative",
            )

    @property
    def bits(self) -> int:
        return 8 if self.dtype == "bool" else int(re.sub(r"\D", "", self.dtype))

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ((self.bits + 7) // 8)

    def __str__(self) -> str:
        return f"{self.dtype}:{'x'.join(map(str, self.shape)) or 'scalar'}"

    @classmethod
    def parse(cls, text: str, role: Role = Role.INPUT) -> Tensor:
        """Reads ``"float32:1x64x56x56"``; ``"float32:scalar"`` has no dimensions."""
        dtype, _, shape = text.partition(":")
        try:
            extents = () if shape == "scalar" else tuple(int(part) for part in shape.split("x"))
        except ValueError:
            raise InputFileError(f"'{text}' is no tensor", "write it like float32:1x64x56x56") from None
        return cls(dtype, extents, role)


@dataclass(frozen=True)
class Step:
    """One kernel call: its name and the numbers of its tensors, in argument order."""

    kernel: str
    tensors: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Everything an executable does. A candidate is a plan with one step."""

    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]

    @classmethod
    def single(cls, tensors: Sequence[Tensor], kernel: str = "main") -> Plan:
        """One call of one kernel on all tensors in order."""
        return cls(tuple(tensors), (Step(kernel, tuple(range(len(tensors)))),))

    def as_json(self) -> list[Any]:
        """The plan as plain lists."""
        return [
            [[tensor.dtype, tensor.shape, int(tensor.role)] for tensor in self.tensors],
            [[step.kernel, step.tensors] for step in self.steps],
        ]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Plan:
        """The inverse of `as_json`."""
        tensors, steps = data
        return cls(
            tuple(Tensor(dtype, tuple(shape), Role(role)) for dtype, shape, role in tensors),
            tuple(Step(kernel, tuple(numbers)) for kernel, numbers in steps),
        )

    def offsets(self) -> tuple[list[int], int]:
        """Byte offset of each tensor in the tensor area, and the area's size."""
        offsets, end = [], 0
        for tensor in self.tensors:
            offsets.append(end)
            end += -(-max(tensor.nbytes, 1) // ALIGN) * ALIGN
        return offsets, end

    def encode(self, entries: Mapping[str, int]) -> bytes:
        """The bytes for the image window; `entries` maps kernel names to addresses."""
        offsets, area = self.offsets()
        args = [number for step in self.steps for number in step.tensors]
        parts = [struct.pack("<QIIIIQ", MAGIC, len(self.tensors), len(self.steps), len(args), 0, area)]
        for tensor, offset in zip(self.tensors, offsets, strict=True):
            name = _DTYPE.fullmatch(tensor.dtype)
            assert name is not None
            shape = tensor.shape + (0,) * (MAX_DIMS - len(tensor.shape))
            parts.append(
                struct.pack(
                    f"<IBBHQQ{MAX_DIMS}q",
                    tensor.role,
                    _CODES[name[2] or name[1]],
                    tensor.bits,
                    len(tensor.shape),
                    offset,
                    tensor.elements,
                    *shape,
                )
            )
        first = 0
        for step in self.steps:
            parts.append(struct.pack("<QII", entries[step.kernel], first, len(step.tensors)))
            first += len(step.tensors)
        parts.append(struct.pack(f"<{len(args)}I", *args))
        return b"".join(parts)
