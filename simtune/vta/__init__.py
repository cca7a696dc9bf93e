# SPDX-License-Identifier: Apache-2.0
"""The Versatile Tensor Accelerator: template space, validity, functional and timing simulation.

Example:
    >>> layer, machine = load_layer("resnet18.c2"), load_machine("vta-pynq")
    >>> space(layer, machine).size
    2304
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simtune.vta import validity
    from simtune.vta.backend import Backend, Compiled, Result
    from simtune.vta.hwspec import VtaMachine, load_machine
    from simtune.vta.layers import Layer, load_layer
    from simtune.vta.tileplan import features, space

# On first use: the package's build imports `simtune.vta.build` where there is no numpy.
_PLACES = {
    "Backend": "backend",
    "Compiled": "backend",
    "Layer": "layers",
    "Result": "backend",
    "VtaMachine": "hwspec",
    "features": "tileplan",
    "load_layer": "layers",
    "load_machine": "hwspec",
    "space": "tileplan",
    "validity": "validity",
}

__all__ = [
    "Backend",
    "Compiled",
    "Layer",
    "Result",
    "VtaMachine",
    "features",
    "load_layer",
    "load_machine",
    "space",
    "validity",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PLACES[name]}")
    return module if name == "validity" else getattr(module, name)
