# SPDX-License-Identifier: Apache-2.0
"""One candidate module → one object file, and what the linker must know about it.

Runs inside the build workers. The tensor intrinsics are already inlined in a scheduled module, so
their slow import never happens here.

As a program it builds one kept module again: ``python -m simtune.build.codegen MODULE.json
TARGET.json OUT.o``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from simtune.build.image import Role, Tensor
from simtune.errors import InputFileError

#: Blocks with this annotation re-pack an operand before the kernel; the builder removes them, and
#: the kernel then takes the operand in the packed shape.
REWRITE_MARK = "meta_schedule.layout_rewrite_preproc"


def signature(function: Any) -> list[Tensor]:
    """The tensors of a PrimFunc in argument order; written ones are outputs.

    Raises:
        InputFileError: a scalar parameter or a symbolic shape.
    """
    import tvm
    from tvm.s_tir import Schedule

    schedule = Schedule(tvm.IRModule({"main": function}))
    blocks = schedule.get_output_blocks(schedule.get_sblock("root"))
    written = [region.source for block in blocks for region in schedule.get(block).writes]
    tensors = []
    for parameter in function.params:
        if not hasattr(parameter.ty, "shape"):
            raise InputFileError(
                f"parameter '{parameter.name}' is not a tensor",
                "only kernels on tensors of known shape can run stand-alone",
            )
        try:
            shape = tuple(int(extent) for extent in parameter.ty.shape)
        except TypeError:
            raise InputFileError(
                f"tensor '{parameter.name}' has a symbolic shape {list(parameter.ty.shape)}",
                "bind the shape before tuning",
            ) from None
        role = Role.OUTPUT if any(parameter.same_as(source) for source in written) else Role.INPUT
        tensors.append(Tensor(str(parameter.ty.dtype), shape, role))
    return tensors


def emit(module_json: str, target: Any, path: str) -> dict[str, Any]:
    """Lowers a module (in TVM's JSON form), generates code and writes the object.

    Returns:
        The side information: kernels with their tensors, and whether operands are pre-packed.
    """
    import tvm
    from tvm import tirx
    from tvm.runtime.executable import Executable
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock
    from tvm.tirx import build

    # Packs away the blocks that would re-pack operands; parameters take the packed shape.
    module = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(tvm.ir.load_json(module_json))
    kernels = {}
    for name, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc):
            kernels[name.name_hint] = [[t.dtype, list(t.shape), int(t.role)] for t in signature(function)]
    library = build(module, target=target)
    library = library.mod if isinstance(library, Executable) else library
    partial = path + ".part"
    library.write_to_file(partial, "o")
    os.replace(partial, path)
    return {"kernels": kernels, "prepacked": REWRITE_MARK in module_json}


def main(arguments: list[str]) -> int:
    """Builds one module outside of the workers, where a debugger can look at it."""
    if len(arguments) != 3:
        print("usage: python -m simtune.build.codegen MODULE.json TARGET.json OUT.o", file=sys.stderr)
        return 2
    from simtune import tvm_setup
    from simtune.build.artifact import write_side_file

    module, target_file, out = (Path(argument) for argument in arguments)
    try:
        module_json, target_json = module.read_text(), json.loads(target_file.read_text())
    except (OSError, ValueError) as error:
        print(f"cannot read {module} and {target_file}: {error}", file=sys.stderr)
        return 2
    tvm_setup.prepare()
    from tvm.target import Target

    target = Target(target_json)
    with target:
        info = emit(module_json, target, str(out))
    write_side_file(out, info)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
