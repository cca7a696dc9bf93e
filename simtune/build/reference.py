# SPDX-License-Identifier: Apache-2.0
"""Reference outputs: what a workload must compute, from TVM's unscheduled code on this host."""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simtune.build.codegen import signature
from simtune.build.expectation import Expectation
from simtune.build.image import Plan, Role, Tensor
from simtune.build.inputs import Array, inputs, numpy_dtype

#: Relative tolerance by type: reordered sums of a few thousand products stay well inside.
_RTOL = {"float64": 1e-7, "float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}


class Reference:
    """The right answers of one workload, computed when first asked for.

    Args:
        module: unscheduled IRModule with one PrimFunc.
        seed: seed of the inputs.
        folder: where the expectation files go; the caller removes it.
    """

    def __init__(self, module: Any, seed: int, folder: Path) -> None:
        _name, function = module.functions_items()[0]
        self.tensors = tuple(signature(function))
        #: TVM may let candidates work on operands that they take for re-packed.
        self.layout_free = bool(function.attrs and "layout_free_buffers" in function.attrs)
        self._module, self._seed, self._folder = module, seed, folder
        self._known: dict[bool, Expectation] = {}
        self._lock = threading.Lock()

    def expectation(self, constant: bool = False) -> Expectation:
        """The expected output for random inputs, or for inputs that are constant per tensor."""
        with self._lock:
            if constant not in self._known:
                self._known[constant] = self._compute(constant)
            return self._known[constant]

    def _compute(self, constant: bool) -> Expectation:
        outputs = run_on_host(self._module, self.tensors, self._seed, constant)
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in outputs)
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / f"{digest[:16]}.expected"
        path.write_bytes(data)
        dtypes = {tensor.dtype for tensor in self.tensors if tensor.role is Role.OUTPUT}
        rtol = max((_RTOL.get(dtype, 0.0) for dtype in dtypes), default=0.0)
        largest = max(
            (float(np.max(np.abs(array.astype(np.float64)), initial=0.0)) for array in outputs), default=0.0
        )
        # Elements near zero come from sums that cancel: their error follows the largest terms.
        return Expectation(path, digest, rtol, rtol / 10 * largest, constant)


def run_on_host(module: Any, tensors: Sequence[Tensor], seed: int, constant: bool = False) -> list[Array]:
    """Runs the unscheduled module on this host with the harness's inputs; returns the outputs."""
    import tvm
    from tvm.target import Target

    kind = {"kind": "llvm", "mtriple": f"{platform.machine()}-linux-gnu", "num-cores": 1}
    library = tvm.compile(module, target=Target(kind))
    plan = Plan.single(list(tensors))
    values = inputs(plan, seed, constant)
    arrays = [
        tvm.runtime.tensor(values[i] if i in values else np.zeros(t.shape, numpy_dtype(t)))
        for i, t in enumerate(tensors)
    ]
    name = module.functions_items()[0][0].name_hint
    library[name](*arrays)
    return [
        array.numpy() for array, tensor in zip(arrays, tensors, strict=True) if tensor.role is Role.OUTPUT
    ]
