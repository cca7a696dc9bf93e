# SPDX-License-Identifier: Apache-2.0
"""Named and parametric workloads: ``resnet18.conv2_x``, ``matmul:m=128,n=128,k=64``.

Listing and parsing need no TVM; only `Workload.module` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from simtune.errors import ConfigurationError


@dataclass(frozen=True)
class Kind:
    """One parametric operator: its parameters with defaults, and how many operations it does."""

    summary: str
    defaults: Mapping[str, int]
    build: Callable[[Mapping[str, int]], list[Any]]
    operations: Callable[[Mapping[str, int]], int]


@dataclass(frozen=True)
class Workload:
    """One tensor program to tune.

    Attributes:
        name: as the user wrote it, or its canonical parametric form.
        kind: key into `KINDS`.
        parameters: all parameters, defaults filled in.
    """

    name: str
    kind: str
    parameters: Mapping[str, int]

    @property
    def operations(self) -> int:
        """Arithmetic operations; a multiply-add counts as two."""
        return KINDS[self.kind].operations(self.parameters)

    def module(self) -> Any:
        """The unscheduled TVM IRModule with one PrimFunc `main`.

        The attribute `layout_free_buffers` is removed: it lets TVM compute on operands that it
        takes for re-packed, and then a candidate's answer cannot be checked.
        """
        import tvm
        from tvm import te

        function = te.create_prim_func(KINDS[self.kind].build(self.parameters))
        if function.attrs and "layout_free_buffers" in function.attrs:
            function = function.without_attr("layout_free_buffers")
        return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def parse(text: str) -> Workload:
    """Reads a workload name or a parametric form.

    Args:
        text: a name from `NAMED`, or ``kind:key=value,...``; keys left out take their defaults.

    Raises:
        ConfigurationError: unknown name, kind or key, or a value that is not a positive number.
    """
    if text in NAMED:
        kind, changes = NAMED[text]
        return Workload(text, kind, {**KINDS[kind].defaults, **changes})
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        known = [*NAMED, *KINDS]
        # Without the parameters: of a form such as matmull:m=64 only the kind is misspelt.
        close = difflib.get_close_matches(kind, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see 'simtune workloads list'"
        raise ConfigurationError(f"'{text}' is no workload", hint)
    parameters = dict(KINDS[kind].defaults)
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if key not in parameters:
            raise ConfigurationError(f"'{key}' is no parameter of {kind}", f"it has {', '.join(parameters)}")
        smallest = 0 if key == "p" else 1
        if not value.isdigit() or int(value) < smallest:
            raise ConfigurationError(
                f"'{item}': {key} must be a whole number from {smallest}", f"{kind}:{key}=16"
            )
        parameters[key] = int(value)
    if "k" in parameters and "h" in parameters and parameters["k"] > parameters["h"] + 2 * parameters["p"]:
        raise ConfigurationError(f"'{text}': the kernel (k) is larger than the padded input (h + 2p)")
    canonical = ",".join(f"{key}={value}" for key, value in parameters.items())
    return Workload(f"{kind}:{canonical}", kind, parameters)


def _out(p: Mapping[str, int]) -> int:
    return (p["h"] + 2 * p["p"] - p["k"]) // p["s"] + 1


def _placeholder(shape: tuple[int, ...], name: str, dtype: str = "float32") -> Any:
    from tvm import te

    return te.placeholder(shape, dtype, name=name)


def _conv2d(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data = _placeholder((p["n"], p["c"], p["h"], p["h"]), "data")
    weight = _placeholder((p["o"], p["c"], p["k"], p["k"]), "weight")
    bias = _placeholder((1, p["o"], 1, 1), "bias")
    conv = topi.nn.conv2d(data, weight, p["s"], p["p"], 1, data_layout="NCHW")
    return [data, weight, bias, topi.nn.relu(topi.add(conv, bias))]


def _conv2d_nhwc(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data = _placeholder((p["n"], p["h"], p["h"], p["c"]), "data")
    weight = _placeholder((p["k"], p["k"], p["c"], p["o"]), "weight")
    bias = _placeholder((1, 1, 1, p["o"]), "bias")
    conv = topi.nn.conv2d(data, weight, p["s"], p["p"], 1, data_layout="NHWC", kernel_layout="HWIO")
    return [data, weight, bias, topi.nn.relu(topi.add(conv, bias))]


def _depthwise(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data = _placeholder((p["n"], p["c"], p["h"], p["h"]), "data")
    weight = _placeholder((p["c"], 1, p["k"], p["k"]), "weight")
    bias = _placeholder((1, p["c"], 1, 1), "bias")
    conv = topi.nn.depthwise_conv2d_nchw(data, weight, p["s"], p["p"], 1)
    return [data, weight, bias, topi.nn.relu(topi.add(conv, bias))]


def _matmul(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    a, b = _placeholder((p["m"], p["k"]), "a"), _placeholder((p["k"], p["n"]), "b")
    return [a, b, topi.nn.matmul(a, b)]


def _matmul_int8(p: Mapping[str, int]) -> list[Any]:
    from tvm import te

    a, b = _placeholder((p["m"], p["k"]), "a", "int8"), _placeholder((p["n"], p["k"]), "b", "int8")
    k = te.reduce_axis((0, p["k"]), "k")
    out = te.compute(
        (p["m"], p["n"]),
        lambda i, j: te.sum(a[i, k].astype("int32") * b[j, k].astype("int32"), axis=k),
        name="matmul",
    )
    return [a, b, out]


def _dense(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data, weight = _placeholder((p["m"], p["k"]), "data"), _placeholder((p["n"], p["k"]), "weight")
    bias = _placeholder((p["n"],), "bias")
    return [data, weight, bias, topi.nn.relu(topi.add(topi.nn.dense(data, weight), bias))]


def _softmax(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data = _placeholder((p["m"], p["n"]), "data")
    return [data, topi.nn.softmax(data)]


def _layer_norm(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data = _placeholder((p["m"], p["n"]), "data")
    gamma, beta = _placeholder((p["n"],), "gamma"), _placeholder((p["n"],), "beta")
    return [data, gamma, beta, topi.nn.layer_norm(data, gamma, beta, [1], 1e-5)]


def _max_pool(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    data = _placeholder((p["n"], p["c"], p["h"], p["h"]), "data")
    pad = [p["p"]] * 4
    pooled = topi.nn.pool2d(data, [p["k"], p["k"]], [p["s"], p["s"]], [1, 1], pad, "max", layout="NCHW")
    return [data, pooled]


def _add_relu(p: Mapping[str, int]) -> list[Any]:
    from tvm import topi

    a, b = _placeholder((p["m"], p["n"]), "a"), _placeholder((p["m"], p["n"]), "b")
    return [a, b, topi.nn.relu(topi.add(a, b))]


_CONV = {"n": 1, "c": 64, "h": 56, "o": 64, "k": 3, "s": 1, "p": 1}


def _conv_operations(p: Mapping[str, int]) -> int:
    return 2 * prod((p["n"], p["c"], p["o"], p["k"] ** 2, _out(p) ** 2))


def _matmul_operations(p: Mapping[str, int]) -> int:
    return 2 * p["m"] * p["n"] * p["k"]


KINDS: Mapping[str, Kind] = {
    "conv2d": Kind("conv2d + bias + relu, NCHW, float32", _CONV, _conv2d, _conv_operations),
    "conv2d_nhwc": Kind("conv2d + bias + relu, NHWC, float32", _CONV, _conv2d_nhwc, _conv_operations),
    "depthwise": Kind(
        "depthwise conv2d + bias + relu, NCHW, float32",
        {"n": 1, "c": 64, "h": 56, "k": 3, "s": 1, "p": 1},
        _depthwise,
        lambda p: 2 * prod((p["n"], p["c"], p["k"] ** 2, _out(p) ** 2)),
    ),
    "matmul": Kind("matrix product, float32", {"m": 128, "n": 128, "k": 128}, _matmul, _matmul_operations),
    "matmul_int8": Kind(
        "matrix product int8 x int8 -> int32",
        {"m": 128, "n": 128, "k": 128},
        _matmul_int8,
        _matmul_operations,
    ),
    "dense": Kind("dense + bias + relu, float32", {"m": 1, "n": 1000, "k": 512}, _dense, _matmul_operations),
    "softmax": Kind(
        "softmax over rows, float32", {"m": 64, "n": 1000}, _softmax, lambda p: 5 * p["m"] * p["n"]
    ),
    "layer_norm": Kind(
        "layer norm over rows, float32", {"m": 128, "n": 768}, _layer_norm, lambda p: 7 * p["m"] * p["n"]
    ),
    "max_pool": Kind(
        "max pooling, NCHW, float32",
        {"n": 1, "c": 64, "h": 112, "k": 3, "s": 2, "p": 1},
        _max_pool,
        lambda p: prod((p["n"], p["c"], p["k"] ** 2, _out(p) ** 2)),
    ),
    "add_relu": Kind(
        "element-wise add + relu, float32 (memory-bound)",
        {"m": 512, "n": 1024},
        _add_relu,
        lambda p: 2 * p["m"] * p["n"],
    ),
}


def _conv(c: int, h: int, o: int, k: int, s: int) -> tuple[str, dict[str, int]]:
    return "conv2d", {"c": c, "h": h, "o": o, "k": k, "s": s, "p": k // 2}


def _dw(c: int, h: int, s: int) -> tuple[str, dict[str, int]]:
    return "depthwise", {"c": c, "h": h, "s": s}


#: Layers of known networks: kind and the parameters that differ from its defaults.
#: Shapes from He et al. 2016 (ResNet-18) and Howard et al. 2017 (MobileNet v1), 224x224 input.
NAMED: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "resnet18.conv1": _conv(3, 224, 64, 7, 2),
    "resnet18.conv2_x": _conv(64, 56, 64, 3, 1),
    "resnet18.conv3_1": _conv(64, 56, 128, 3, 2),
    "resnet18.conv3_ds": _conv(64, 56, 128, 1, 2),
    "resnet18.conv3_x": _conv(128, 28, 128, 3, 1),
    "resnet18.conv4_1": _conv(128, 28, 256, 3, 2),
    "resnet18.conv4_ds": _conv(128, 28, 256, 1, 2),
    "resnet18.conv4_x": _conv(256, 14, 256, 3, 1),
    "resnet18.conv5_1": _conv(256, 14, 512, 3, 2),
    "resnet18.conv5_ds": _conv(256, 14, 512, 1, 2),
    "resnet18.conv5_x": _conv(512, 7, 512, 3, 1),
    "resnet18.pool1": ("max_pool", {}),
    "resnet18.fc": ("dense", {}),
    "mobilenet.dw1": _dw(32, 112, 1),
    "mobilenet.pw1": _conv(32, 112, 64, 1, 1),
    "mobilenet.dw3": _dw(128, 56, 1),
    "mobilenet.dw7": _dw(512, 14, 1),
    "mobilenet.pw7": _conv(512, 14, 512, 1, 1),
    "bert.matmul": ("matmul", {"m": 128, "n": 768, "k": 768}),
    "bert.layer_norm": ("layer_norm", {}),
    "bert.softmax": ("softmax", {"m": 1536, "n": 128}),
}
