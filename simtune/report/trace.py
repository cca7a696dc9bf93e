# SPDX-License-Identifier: Apache-2.0
"""A schedule's trace as readable text, from its JSON and without importing TVM."""

from __future__ import annotations

import json
import re
from typing import Any

#: Parameter names of the common instructions: inputs, a bar, attributes; a star takes the rest
#: of the inputs as a list. Instructions that are not here are shown by position.
_SIGNATURES = {
    "GetSBlock": "| name func_name",
    "GetLoops": "block |",
    "GetChildBlocks": "block_or_loop |",
    "GetProducers": "block |",
    "GetConsumers": "block |",
    "SamplePerfectTile": "loop | n max_innermost_factor",
    "SampleCategorical": "| candidates probs",
    "SampleComputeLocation": "block |",
    "Split": "loop *factors | preserve_unit_iters disable_predication",
    "Fuse": "*loops | preserve_unit_iters",
    "Reorder": "*loops |",
    "Parallel": "loop |",
    "Vectorize": "loop |",
    "Unroll": "loop |",
    "Bind": "loop | thread",
    "ComputeAt": "block loop | preserve_unit_loops index",
    "ReverseComputeAt": "block loop | preserve_unit_loops index",
    "ComputeInline": "block |",
    "ReverseComputeInline": "block |",
    "DecomposeReduction": "block loop |",
    "RFactor": "loop | factor_axis",
    "Blockize": "target | preserve_unit_iters",
    "Tensorize": "block_or_loop | tensor_intrin preserve_unit_iters",
    "CacheRead": "block consumers | read_buffer_index storage_scope",
    "CacheWrite": "block consumers | write_buffer_index storage_scope",
    "Annotate": "block_or_loop ann_val | ann_key",
    "Unannotate": "block_or_loop | ann_key",
}


def trace_lines(trace_json: str) -> list[str]:
    """One line per instruction, with the decisions that the search took.

    Anything that is not a trace of the form that TVM writes comes back as its raw text.
    """
    if not trace_json:
        return []
    try:
        instructions, decisions = json.loads(trace_json)
        chosen = {int(index): decision for index, decision in decisions}
        return [_line(item, chosen.get(number)) for number, item in enumerate(instructions)]
    except (ValueError, TypeError, RecursionError):
        return [trace_json]


def _line(instruction: Any, decision: Any) -> str:
    kind, inputs, attributes, outputs = instruction
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(kind)).lower()
    arguments = _arguments(kind, list(inputs), list(attributes))
    call = f"{name}({', '.join(arguments)})"
    left = f"{', '.join(map(str, outputs))} = " if outputs else ""
    right = f"  -> {_plain(decision)}" if decision is not None else ""
    return left + call + right


def _arguments(kind: str, inputs: list[Any], attributes: list[Any]) -> list[str]:
    before, _, after = _SIGNATURES.get(kind, "|").partition("|")
    shown = []
    for parameter in before.split():
        if parameter.startswith("*"):
            values = ", ".join(_input(value) for value in inputs)
            shown.append(f"{parameter[1:]}=[{values}]")
            inputs = []
        elif inputs:
            shown.append(f"{parameter}={_input(inputs.pop(0))}")
    shown += [_input(value) for value in inputs]
    for parameter in after.split():
        if attributes:
            shown.append(f"{parameter}={_plain(attributes.pop(0))}")
    return shown + [_plain(value) for value in attributes]


def _input(value: Any) -> str:
    """Inputs are names of earlier outputs, or literals; texts among them come in quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_input, value))}]"
    return str(value)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
