# SPDX-License-Identifier: Apache-2.0
"""What predictors learn of VTA programs: counters that need no timed run, as named features.

The cycle model that they correct adds up the bounds of the three modules. Without virtual threads the
modules take turns; with them all but the longest bound is hidden, up to a share (`EXPOSED`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.features import Array, Features
from simtune.inputs import Inputs
from simtune.vta.counters import FEATURES, SCHEMA, SCHEMA_VERSION
from simtune.vta.estimate import EXPOSED
from simtune.vta.hwspec import VtaMachine

#: Counters in the store carry the accelerator's name.
PREFIX = "vta."
#: Raise it whenever the meaning or order of a feature changes: predictor files depend on it.
VERSION = 1

#: Costs one by one, which models that add up costs may take: see `simtune.features.COSTS`.
COSTS = (
    "cycles", "insns", "inp.rows", "inp.bursts", "inp.bytes", "wgt.bursts", "wgt.bytes", "acc.bursts",
    "acc.bytes", "uop.bytes", "out.bursts", "out.bytes", "pad_elements", "gemm.insns", "gemm.uops",
    "reset.uops", "alu.imm_vectors", "alu.tt_vectors", "bound.load", "bound.compute", "bound.store",
    "bound.max", "bound.sum",
)  # fmt: skip

# Keep zeros finite, and differences that are too small to matter small.
_COUNT_FLOOR, _RATIO_FLOOR = 1.0, 1e-3
_FLOORS = np.array([_RATIO_FLOOR if SCHEMA[name].unit == "ratio" else _COUNT_FLOOR for name in FEATURES])


def bound_cycles(counters: Sequence[Counters]) -> Array:
    """(N,) cycles by the bounds of the modules, NaN where they were not counted."""
    longest, total, threads = (column(counters, name) for name in ("bound.max", "bound.sum", "threads"))
    return longest + np.where(threads > 1, EXPOSED, 1.0) * (total - longest)


def column(counters: Sequence[Counters], name: str) -> Array:
    """(N,) values of a counter by its name in VTA's schema, NaN where it was not counted."""
    return np.array([row.get(PREFIX + name, np.nan) for row in counters], float)


def extract(
    counters: Sequence[Counters],
    machine: VtaMachine,
    use_pipeline: bool = True,
    optional: Collection[str] = (),
) -> Features:
    """Features of programs; see `simtune.features.extract`, of whose options none means anything here.

    Raises:
        ConfigurationError: a program has no bounds.
    """
    del use_pipeline, optional
    cycles = bound_cycles(counters)
    if not np.all(np.isfinite(cycles) & (cycles > 0)):
        raise ConfigurationError(
            "a program has no bounds in cycles", "its counters are damaged: run it again"
        )
    known = {name: column(counters, name) for name in FEATURES}
    values = np.column_stack([known[name] for name in FEATURES]) + _FLOORS
    costs = [cycles if name == "cycles" else known[name] for name in COSTS]
    return Features(
        np.column_stack([cycles + _COUNT_FLOOR, values]),
        np.nan_to_num(np.column_stack(costs)),
        np.array([machine.seconds(each) for each in cycles]),
        np.zeros(len(cycles), bool),
    )


INPUTS = Inputs(
    accelerator="vta",
    features=("cycles", *FEATURES),
    costs=COSTS,
    extract=extract,
    version=VERSION,
    schema_version=SCHEMA_VERSION,
    least=(f"{PREFIX}bound.max",),
    cycle_model="bounds",
    timed_by="vta-tsim",
    hint="run some points: simtune tune vta:resnet18.c2 --machine vta-pynq --tuner random --judge exact",
)
