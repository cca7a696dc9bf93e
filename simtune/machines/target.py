# SPDX-License-Identifier: Apache-2.0
"""The structure of a TVM target, checked without importing TVM."""

from __future__ import annotations

import re
from typing import Any

from simtune.errors import MachineFileError
from simtune.machines.model import Isa
from simtune.machines.section import Section

#: Key -> kind of value, of TVM 0.27's "llvm" targets. TVM aborts on any other key.
TARGET_KEYS: dict[str, type] = {
    "kind": str,
    "mtriple": str,
    "mcpu": str,
    "mattr": list,
    "mabi": str,
    "mfloat-abi": str,
    "num-cores": int,
    "vector-width": int,
    "opt-level": int,
    "fast-math": bool,
    "fast-math-nnan": bool,
    "fast-math-ninf": bool,
    "fast-math-nsz": bool,
    "fast-math-arcp": bool,
    "fast-math-contract": bool,
    "fast-math-reassoc": bool,
    "cl-opt": list,
    "jit": str,
    "keys": list,
    "libs": list,
    "device": str,
    "model": str,
    "tag": str,
}
_KINDS = {str: "text", list: "a list of text", int: "an integer from 0 to 4096", bool: "true or false"}

_AVX512_CPU = re.compile(
    r"x86-64-v4|skylake-avx512|skx|cannonlake|cascadelake|cooperlake|icelake.*|tigerlake|rocketlake"
    r"|sapphirerapids|emeraldrapids|graniterapids.*|diamondrapids|novalake|knl|knm|mic_avx512|znver[4-9]"
)


def read_target(section: Section, isa: Isa) -> dict[str, Any]:
    """The target as a dict that TVM accepts, matching `isa`, for one core.

    Raises:
        MachineFileError: a key, value or combination that TVM or the simulators refuse.
    """
    section.choice("kind", ("llvm",))
    section.close(also=TARGET_KEYS)
    target = {key: _value(section, key) for key in TARGET_KEYS if key in section}
    triple = section.text("mtriple", f'a triple that begins with "{isa.name}-"')
    if triple.split("-")[0] != isa.name:
        section.wrong("mtriple", f'a triple that begins with "{isa.name}-", because isa.name is "{isa.name}"')
    if target.setdefault("num-cores", 1) != 1:
        section.wrong("num-cores", "1, because a kernel is simulated and predicted on one core")
    if isa.name == "x86_64":
        _refuse_avx512(section, target)
    if isa.name == "riscv64":
        _check_vector(section, target, isa)
    return target


def _value(section: Section, key: str) -> Any:
    kind = TARGET_KEYS[key]
    value = section.get(key, _KINDS[kind])
    ok = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if ok and kind is list:
        ok = all(isinstance(word, str) for word in value)
    if ok and kind is int:
        ok = 0 <= value <= 4096
    if ok and key == "mattr":
        ok = all(re.fullmatch(r"[+-][\w.-]+", word) for word in value)
    if not ok:
        section.wrong(key, 'a list such as ["+m", "+a"]' if key == "mattr" else _KINDS[kind])
    return list(value) if kind is list else value


def _refuse_avx512(section: Section, target: dict[str, Any]) -> None:
    reason = "because QEMU emulates x86 up to AVX2 and FMA, not AVX-512"
    if _AVX512_CPU.fullmatch(target.get("mcpu", "")):
        section.wrong("mcpu", f'"x86-64-v3" or an older CPU, {reason}')
    if any(word.startswith(("+avx512", "+avx10")) for word in target.get("mattr", ())):
        section.wrong("mattr", f"features up to AVX2 and FMA, {reason}")


def _check_vector(section: Section, target: dict[str, Any], isa: Isa) -> None:
    """Code compiled for longer registers than the simulated ones computes wrong results."""
    attributes = target.get("mattr", [])
    if "+v" in attributes and not isa.vlen:
        raise MachineFileError(
            f"{section.file}: target.mattr has '+v' and isa.vlen is 0; allowed: the length in bits of the "
            "vector registers",
            "set isa.vlen, such as 256, or remove '+v'",
        )
    lengths = [int(match[1]) for word in attributes if (match := re.fullmatch(r"\+zvl(\d{1,9})b", word))]
    if lengths and max(lengths) > isa.vlen:
        section.wrong("mattr", f'at most "+zvl{isa.vlen}b", because isa.vlen is {isa.vlen}')
