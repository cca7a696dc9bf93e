# SPDX-License-Identifier: Apache-2.0
"""The C++ core as seen from Python: its module, its value types, programs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from simtune.errors import ConfigurationError, ToolMissingError
from simtune.vta.build import build_core
from simtune.vta.codes import CODES
from simtune.vta.hwspec import VtaMachine
from simtune.vta.layers import SHIFT, Layer
from simtune.vta.tileplan import pack

_MODULE = "simtune.vta._vta"


@cache
def core() -> Any:
    """The compiled module.

    Raises:
        ToolMissingError: it is not built and cannot be.
    """
    path = build_core()
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    if spec is None or spec.loader is None:
        raise ToolMissingError(f"{path} is no Python module", "remove it, it will be built again")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise ToolMissingError(f"{path} cannot be loaded: {error}", f"remove {path}") from error
    sys.modules[_MODULE] = module
    return module


@dataclass(frozen=True)
class Natives:
    """Layer and machine as the C++ core takes them."""

    hardware: Any
    timing: Any
    layer: Any


def hardware_of(machine: VtaMachine) -> Any:
    """The core's view of a machine's hardware."""
    made = core().Hardware()
    for key in ("batch", "block", "uop_depth", "inp_depth", "wgt_depth", "acc_depth", "hls_hazard"):
        setattr(made, key, getattr(machine.hardware, key))
    made.uop_core_depth = machine.hardware.uop_core_entries
    return made


def timing_of(machine: VtaMachine) -> Any:
    """The core's view of a machine's timing."""
    made = core().Timing()
    for key, value in vars(machine.timing).items():
        if key not in ("beat_cycles", "host_overhead_us"):
            setattr(made, key, value)
    made.beat_milli = round(machine.timing.beat_cycles * 1000)
    return made


@lru_cache(maxsize=64)
def natives(layer: Layer, machine: VtaMachine) -> Natives:
    """Both, with the layer in blocks."""
    packed = pack(layer, machine)
    made = core().Layer()
    made.dense = layer.kind == "dense"
    made.n, made.ci, made.co = packed.n, packed.ci, packed.co
    for key in ("h", "w", "kh", "kw", "stride", "ph", "pw", "oh", "ow"):
        setattr(made, key, getattr(layer, key))
    made.shift = SHIFT
    return Natives(hardware_of(machine), timing_of(machine), made)


@dataclass(frozen=True, eq=False)
class Program:
    """An instruction stream.

    Attributes:
        insns: n x 2 words of 64 bits.
        uops: micro-ops in memory.
        segments: one past each FINISH.
    """

    insns: np.ndarray
    uops: np.ndarray
    segments: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.insns, self.uops, self.segments

    def text(self, machine: VtaMachine) -> list[str]:
        """The program disassembled, one line per instruction."""
        lines: list[str] = core().disassemble(hardware_of(machine), self.insns)
        return lines


def assemble(lines: Sequence[str], machine: VtaMachine) -> np.ndarray:
    """Instructions from their text; the reverse of `Program.text`.

    Raises:
        ConfigurationError: a line is no instruction, or a value does not fit its field.
    """
    try:
        (_, code, message), words = core().assemble(hardware_of(machine), list(lines))
    except ValueError as error:
        raise ConfigurationError(str(error), "write it as 'simtune vta disasm' does") from error
    if code:
        raise ConfigurationError(f"{CODES[code]}: {message}")
    found: np.ndarray = words
    return found
