# SPDX-License-Identifier: Apache-2.0
"""VTA machines: a hardware and a timing preset with a clock, from TOML files.

A file of a user may stand anywhere; presets are found by name among the built-in ones, or by path.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from simtune.errors import MachineFileError
from simtune.machines.load import read_toml
from simtune.machines.section import Section, power_of_two

FILES = Path(__file__).parent / "files"
PREFIX = "vta-"
#: Bits that the indices of one instruction or micro-op have together.
INDEX_BITS = 32


@dataclass(frozen=True)
class HwSpec:
    """The geometry of a core; 8-bit inputs and weights, 32-bit accumulators.

    Attributes:
        batch: rows of an input element.
        block: channels of a block.
        uop_core_entries: micro-ops that the core's buffer really holds; the runtime goes by `uop_bytes`.
        hls_hazard: the pipeline has no interlock for accumulators.
    """

    batch: int
    block: int
    uop_bytes: int
    inp_bytes: int
    wgt_bytes: int
    acc_bytes: int
    uop_core_entries: int
    hls_hazard: bool = False

    @property
    def uop_depth(self) -> int:
        return self.uop_bytes // 4

    @property
    def inp_depth(self) -> int:
        return self.inp_bytes // (self.batch * self.block)

    @property
    def wgt_depth(self) -> int:
        return self.wgt_bytes // self.block**2

    @property
    def acc_depth(self) -> int:
        return self.acc_bytes // (self.batch * self.block * 4)

    @property
    def config_string(self) -> str:
        """As in public tuning logs: batch, block, types and the logarithms of the buffer sizes."""
        sizes = (self.uop_bytes, self.inp_bytes, self.wgt_bytes, self.acc_bytes)
        return f"{self.batch}x{self.block}_i8w8a32_" + "_".join(str(size.bit_length() - 1) for size in sizes)


@dataclass(frozen=True)
class TimingSpec:
    """Cycles of the core and of its way to memory; files/timing/chisel21.toml explains each."""

    bus_bytes: int
    max_beats: int
    fetch_beats: int
    beat_cycles: float
    rd_ov: int
    wr_ov: int
    out_read: int
    lat: int
    outstanding: int
    shared_port: bool
    pad_cycles: int
    pad_overlap: bool
    gemm_ii: int
    gemm_ov: int
    alu_imm: int
    alu_tt: int
    alu_ov: int
    insn_ov: int
    queue_depth: int
    token_max: int
    token_lost: bool
    host_overhead_us: float


#: Key of a timing file to its lowest and highest value; the others are truth values.
_RANGES: dict[str, tuple[float, float]] = {
    "max_beats": (1, 4096),
    "fetch_beats": (1, 4096),
    "beat_cycles": (0.125, 100),
    "rd_ov": (0, 10000),
    "wr_ov": (0, 10000),
    "out_read": (0, 100),
    "lat": (0, 10000),
    "outstanding": (1, 256),
    "pad_cycles": (0, 100),
    "gemm_ii": (1, 100),
    "gemm_ov": (0, 10000),
    "alu_imm": (1, 100),
    "alu_tt": (1, 100),
    "alu_ov": (0, 10000),
    "insn_ov": (0, 10000),
    "queue_depth": (1, 1 << 20),
    "token_max": (1, 1 << 20),
    "host_overhead_us": (0, 1e6),
}


@dataclass(frozen=True)
class VtaMachine:
    """One accelerator to tune for."""

    accelerator: ClassVar[str] = "vta"

    name: str
    description: str
    clock_hz: float
    hardware: HwSpec
    timing: TimingSpec

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, ready for JSON."""
        return asdict(self)

    def digest(self) -> str:
        """Hex digest of everything that can change a result; the description does not."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        content = self.as_dict()
        del content["description"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def seconds(self, cycles: float) -> float:
        """Run time of a program of so many cycles, with what the host adds."""
        return cycles / self.clock_hz + self.timing.host_overhead_us * 1e-6


def list_machines() -> dict[str, Path]:
    """Name to file of every built-in VTA machine, in alphabetical order."""
    return {path.stem: path for path in sorted((FILES / "machines").glob("*.toml"))}


def is_machine_name(name: str | os.PathLike[str]) -> bool:
    """Whether a machine option means a VTA machine: by its name, or that of its file."""
    return Path(os.fspath(name)).name.startswith(PREFIX)


def load_machine(name_or_path: str | os.PathLike[str]) -> VtaMachine:
    """Reads and validates a VTA machine.

    Args:
        name_or_path: a built-in name such as ``"vta-pynq"``, or the path of a TOML file.

    Raises:
        MachineFileError: there is none, or its file is wrong; names file, key and what is allowed.
    """
    path = _find(os.fspath(name_or_path), "machines", None)
    top = Section(path, read_toml(path))
    name = top.text("name", default=path.stem)
    machine = VtaMachine(
        name=name,
        description=top.text("description", default=""),
        clock_hz=top.number("clock_hz", 1e6, 1e10),
        hardware=_hardware(_part(top, "hardware", path)),
        timing=_timing(_part(top, "timing", path)),
    )
    top.close()
    return machine


def _find(text: str, kind: str, beside: Path | None) -> Path:
    what = "machine" if kind == "machines" else f"{kind} preset"
    if text.endswith(".toml") or os.sep in text:
        path = Path(text).expanduser()
        path = beside.parent / path if beside else path
        if not path.is_file():
            raise MachineFileError(f"there is no VTA {what} file {path}", "check the path")
        return path
    path = FILES / kind / f"{text}.toml"
    if path.is_file() and os.sep not in text:
        return path
    names = sorted(file.stem for file in (FILES / kind).glob("*.toml"))
    close = difflib.get_close_matches(text, names, n=1)
    raise MachineFileError(
        f"there is no VTA {what} '{text}'; known: {', '.join(names)}",
        f"did you mean '{close[0]}'?" if close else "see 'simtune vta machines', or give the path of a file",
    )


def _part(top: Section, kind: str, file: Path) -> Section:
    """The keys of a preset, with what the machine file itself says on top."""
    own = dict(top.section(kind).data)
    preset = own.pop("preset", None)
    merged: dict[str, Any] = {}
    if preset is not None:
        if not isinstance(preset, str):
            top.section(kind).wrong("preset", "the name or path of a preset file")
        merged = _preset(preset, kind, file, ())
    return Section(file, {**merged, **own}, kind)


def _preset(name: str, kind: str, beside: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    path = _find(name, kind, beside)
    if path.resolve() in chain:
        raise MachineFileError(f"{path}: 'extends' is circular", "remove one 'extends'")
    data = read_toml(path)
    parent = data.pop("extends", None)
    if parent is None:
        return data
    if not isinstance(parent, str):
        raise MachineFileError(f"{path}: extends is {parent!r}; allowed: the name or path of a preset")
    return {**_preset(parent, kind, path, (*chain, path.resolve())), **data}


def _flag(section: Section, key: str, default: bool | None = None) -> bool:
    value = section.get(key, "true or false", default) if key in section or default is None else default
    if not isinstance(value, bool):
        section.wrong(key, "true or false")
    return value


def _hardware(section: Section) -> HwSpec:
    sizes = {}
    for key in ("uop_bytes", "inp_bytes", "wgt_bytes", "acc_bytes"):
        sizes[key] = section.size(key, 64, 1 << 24)
        if not power_of_two(sizes[key]):
            section.wrong(key, "a power of two")
    batch, block = section.integer("batch", 1, 64), section.integer("block", 2, 64)
    for key, value in (("batch", batch), ("block", block)):
        if not power_of_two(value):
            section.wrong(key, "a power of two")
    depth = sizes["uop_bytes"] // 4
    entries = section.integer("uop_core_entries", 1, depth, depth)
    hazard = _flag(section, "hls_hazard", False)
    section.close(also=("hls_hazard",))
    spec = HwSpec(batch, block, **sizes, uop_core_entries=entries, hls_hazard=hazard)
    _check_fields(section, spec)
    return spec


def _check_fields(section: Section, spec: HwSpec) -> None:
    """Indices into the buffers must fit the instruction's fields."""
    bits = {key: getattr(spec, f"{key}_depth").bit_length() - 1 for key in ("uop", "inp", "wgt", "acc")}
    for key, value in bits.items():
        if not 1 <= value <= 13:
            section.wrong(f"{key}_bytes", "room for 2 to 8192 elements")
    together = bits["inp"] + bits["wgt"] + bits["acc"]
    if together > INDEX_BITS:
        section.wrong(
            "inp_bytes",
            f"indices of {INDEX_BITS} bits together; inp, wgt and acc have "
            f"{bits['inp']} + {bits['wgt']} + {bits['acc']} here, so one buffer must shrink",
        )
    if bits["acc"] > 11:
        section.wrong(
            "acc_bytes", "at most 2048 accumulators: an ALU instruction has four indices of 11 bits"
        )


def _timing(section: Section) -> TimingSpec:
    values: dict[str, Any] = {"bus_bytes": section.integer("bus_bytes", 4, 128)}
    if not power_of_two(values["bus_bytes"]):
        section.wrong("bus_bytes", "a power of two")
    for spec in fields(TimingSpec):
        if spec.name in _RANGES:
            low, high = _RANGES[spec.name]
            integer = spec.type == "int"
            values[spec.name] = (
                section.integer(spec.name, int(low), int(high))
                if integer
                else section.number(spec.name, low, high)
            )
        elif spec.name != "bus_bytes":
            values[spec.name] = _flag(section, spec.name)
    for key in ("max_beats", "fetch_beats"):
        if not power_of_two(values[key]):
            section.wrong(key, "a power of two")
    section.close()
    return TimingSpec(**values)
