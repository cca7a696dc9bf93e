# SPDX-License-Identifier: Apache-2.0
"""What the tests of the accelerator share."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from simtune.vta import Layer, VtaMachine, load_machine, space, validity
from simtune.vta.codes import CODES, STAGES
from simtune.vta.core import Program, assemble, core, hardware_of, natives, timing_of
from simtune.vta.reference import Data, data

#: The prefix of a tiny layer's name.
TINY = "tiny"


def conv(
    h: int = 4,
    w: int | None = None,
    ci: int = 16,
    co: int = 16,
    k: int = 1,
    stride: int = 1,
    pad: int = 0,
    *,
    n: int = 1,
    kw: int | None = None,
    pw: int | None = None,
) -> Layer:
    """A small convolution; kernel and padding are square unless told otherwise."""
    kernel, padding = k if kw is None else kw, pad if pw is None else pw
    return Layer(TINY, "conv2d", n, h, h if w is None else w, ci, co, k, kernel, stride, pad, padding)


def valid_configs(layer: Layer, machine: VtaMachine) -> list[dict[str, int]]:
    points = space(layer, machine)
    codes = validity.check_all(layer, machine)
    return [points.config(index) for index, code in enumerate(codes) if not code]


def with_timing(machine: VtaMachine, **changes: Any) -> VtaMachine:
    return dataclasses.replace(machine, timing=dataclasses.replace(machine.timing, **changes))


def with_hardware(machine: VtaMachine, **changes: Any) -> VtaMachine:
    return dataclasses.replace(machine, hardware=dataclasses.replace(machine.hardware, **changes))


def run_fsim(
    layer: Layer,
    machine: VtaMachine,
    program: Program,
    seed: int = 0,
    first: int = -1,
    hardware: Any = None,
) -> tuple[str, str, bool]:
    """(code, message, whether the output is right) of a functional run."""
    known: Data = data(layer, machine, 0)
    out = ~known.expected
    (stage, code, message), out, _ = core().run_fsim(
        hardware or natives(layer, machine).hardware,
        *program.arrays,
        known.inp,
        known.wgt,
        known.bias,
        out,
        seed,
        first,
        1,
    )
    assert bool(STAGES[stage]) == bool(code)
    return CODES[code], message, bool(np.array_equal(out, known.expected))


def assembled(lines: list[str], uops: list[int] | None = None, machine: VtaMachine | None = None) -> Program:
    """A program from text."""
    machine = machine or load_machine("vta-sim")
    return Program(
        assemble(lines, machine),
        np.array(uops or [0], dtype=np.uint32),
        np.array([len(lines)], dtype=np.int64),
    )


def run_tsim(program: Program, machine: VtaMachine) -> tuple[str, str, int, np.ndarray]:
    """(code, message, cycles, spans) of a timed run."""
    (_, code, message), cycles, _, spans = core().run_tsim(
        hardware_of(machine), timing_of(machine), *program.arrays, True
    )
    return CODES[code], message, cycles, spans
