# SPDX-License-Identifier: Apache-2.0
"""Layers for VTA by name (``resnet18.c2``) or by form (``conv2d:h=56,ci=64,co=64,k=3,pad=1``)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from simtune.errors import ConfigurationError

PREFIX = "vta:"


@dataclass(frozen=True)
class Layer:
    """A convolution or a dense layer with bias, shift right by 8, clip to 0..127 and cast to int8.

    Attributes:
        kind: "conv2d" or "dense"; a dense layer has 1x1 images.
        n: batch.
        h, w, ci, co: input rows and columns, input and output channels.
        kh, kw, stride, ph, pw: kernel, stride, and padding at each edge.
    """

    name: str
    kind: str
    n: int
    h: int
    w: int
    ci: int
    co: int
    kh: int = 1
    kw: int = 1
    stride: int = 1
    ph: int = 0
    pw: int = 0

    @property
    def oh(self) -> int:
        return (self.h + 2 * self.ph - self.kh) // self.stride + 1

    @property
    def ow(self) -> int:
        return (self.w + 2 * self.pw - self.kw) // self.stride + 1

    @property
    def macs(self) -> int:
        return prod((self.n, self.oh, self.ow, self.ci, self.co, self.kh, self.kw))

    @property
    def form(self) -> str:
        """The layer as a parametric name, which says all about it."""
        if self.kind == "dense":
            return f"dense:n={self.n},ci={self.ci},co={self.co}"
        return (
            f"conv2d:n={self.n},h={self.h},w={self.w},ci={self.ci},co={self.co},"
            f"kh={self.kh},kw={self.kw},stride={self.stride},ph={self.ph},pw={self.pw}"
        )


#: Shift of the epilogue, in bits.
SHIFT = 8

_Conv = tuple[int, int, int, int, int, int, int]  # h, w, ci, co, kernel, stride, padding

#: ResNet-18 behind its first layer, which stays on the CPU: 3 input channels fill no block.
_RESNET18: dict[str, _Conv] = {
    "c2": (56, 56, 64, 64, 3, 1, 1),
    "c3": (56, 56, 64, 128, 3, 2, 1),
    "c4": (56, 56, 64, 128, 1, 2, 0),
    "c5": (28, 28, 128, 128, 3, 1, 1),
    "c6": (28, 28, 128, 256, 3, 2, 1),
    "c7": (28, 28, 128, 256, 1, 2, 0),
    "c8": (14, 14, 256, 256, 3, 1, 1),
    "c9": (14, 14, 256, 512, 3, 2, 1),
    "c10": (14, 14, 256, 512, 1, 2, 0),
    "c11": (7, 7, 512, 512, 3, 1, 1),
}

#: DeepBench's inference convolutions (server set) with batch 1 of the OCR, face recognition, VGG and
#: GoogLeNet models, where input channels fill two blocks or more and the GEMM needs at most two
#: million cycles, without what ResNet-18 has. These are 13.
_DEEPBENCH: dict[str, _Conv] = {
    "ocr3": (12, 120, 32, 64, 3, 1, 1),
    "ocr4": (6, 60, 64, 128, 3, 1, 1),
    "face2": (54, 54, 64, 64, 3, 1, 1),
    "face3": (27, 27, 128, 128, 3, 1, 1),
    "face4": (14, 14, 128, 256, 3, 1, 1),
    "face5": (7, 7, 256, 512, 3, 1, 1),
    "vgg5": (14, 14, 512, 512, 3, 1, 1),
    "inception_a5": (28, 28, 192, 32, 5, 1, 2),
    "inception_a1": (28, 28, 192, 64, 1, 1, 0),
    "inception_b5": (14, 14, 512, 48, 5, 1, 2),
    "inception_b1": (14, 14, 512, 192, 1, 1, 0),
    "inception_c1": (7, 7, 832, 256, 1, 1, 0),
    "inception_c5": (7, 7, 832, 128, 5, 1, 2),
}

#: MobileNet (v1, width 1): its pointwise convolutions; depthwise ones have no channels to reduce over.
_MOBILENET: dict[str, _Conv] = {
    "pw1": (112, 112, 32, 64, 1, 1, 0),
    "pw2": (56, 56, 64, 128, 1, 1, 0),
    "pw3": (56, 56, 128, 128, 1, 1, 0),
    "pw4": (28, 28, 128, 256, 1, 1, 0),
    "pw5": (28, 28, 256, 256, 1, 1, 0),
    "pw6": (14, 14, 256, 512, 1, 1, 0),
    "pw7": (14, 14, 512, 512, 1, 1, 0),
    "pw12": (7, 7, 512, 1024, 1, 1, 0),
    "pw13": (7, 7, 1024, 1024, 1, 1, 0),
}

#: Dense layers: batch, input and output channels. ResNet-18's 1000 classes are padded to 1008.
_DENSE: dict[str, tuple[int, int, int]] = {
    "256x128": (1, 256, 128),
    "4x256x128": (4, 256, 128),
    "resnet18": (1, 512, 1008),
}


def _tables() -> dict[str, Layer]:
    layers = {}
    for family, table in (("resnet18", _RESNET18), ("deepbench", _DEEPBENCH), ("mobilenet", _MOBILENET)):
        for short, (h, w, ci, co, kernel, stride, pad) in table.items():
            name = f"{family}.{short}"
            layers[name] = Layer(name, "conv2d", 1, h, w, ci, co, kernel, kernel, stride, pad, pad)
    for short, (n, ci, co) in _DENSE.items():
        layers[f"dense.{short}"] = Layer(f"dense.{short}", "dense", n, 1, 1, ci, co)
    return layers


#: Every layer that has a name.
LAYERS: Mapping[str, Layer] = _tables()

_CONV_KEYS = ("n", "h", "w", "ci", "co", "k", "kh", "kw", "stride", "pad", "ph", "pw")
_DENSE_KEYS = ("n", "ci", "co")
_LARGEST = 1 << 14


def load_layer(name: str) -> Layer:
    """The layer of a name or form, with or without ``vta:`` before it.

    Raises:
        ConfigurationError: there is no such layer, or its numbers make no sense.
    """
    text = name.removeprefix(PREFIX)
    if text.lower() in LAYERS:
        return LAYERS[text.lower()]
    kind, colon, rest = text.partition(":")
    if colon and kind in ("conv2d", "dense"):
        return _parse(text, kind, rest)
    close = difflib.get_close_matches(text.lower(), LAYERS, n=3)
    raise ConfigurationError(
        f"'{text}' is no layer for VTA",
        f"did you mean {' or '.join(close)}?" if close else "see 'simtune vta layers'",
    )


def _parse(text: str, kind: str, rest: str) -> Layer:
    keys = _CONV_KEYS if kind == "conv2d" else _DENSE_KEYS
    values: dict[str, int] = {}
    for item in filter(None, rest.split(",")):
        key, _, number = item.partition("=")
        if key not in keys:
            raise ConfigurationError(f"'{text}': {kind} has no '{key}'", f"it takes {', '.join(keys)}")
        low = 0 if key in ("pad", "ph", "pw") else 1
        if not number.isascii() or not number.isdigit() or not low <= int(number) <= _LARGEST:
            raise ConfigurationError(
                f"'{text}': {key} is '{number}'; allowed: {low} to {_LARGEST}", f"correct {key}"
            )
        values[key] = int(number)
    n, ci, co = values.get("n", 1), values.get("ci", 64), values.get("co", 64)
    if kind == "dense":
        return Layer(text, kind, n, 1, 1, ci, co)
    h, kernel, pad = values.get("h", 14), values.get("k", 1), values.get("pad", 0)
    layer = Layer(
        text,
        kind,
        n,
        h,
        values.get("w", h),
        ci,
        co,
        values.get("kh", kernel),
        values.get("kw", kernel),
        values.get("stride", 1),
        values.get("ph", pad),
        values.get("pw", pad),
    )
    if layer.ph >= layer.kh or layer.pw >= layer.kw:
        raise ConfigurationError(
            f"'{text}': the padding must be smaller than the kernel", "outputs would see padding only"
        )
    if layer.h + 2 * layer.ph < layer.kh or layer.w + 2 * layer.pw < layer.kw:
        raise ConfigurationError(f"'{text}': the kernel is larger than the padded input", "enlarge h and w")
    return layer
