# SPDX-License-Identifier: Apache-2.0
"""What a builder leaves behind: an object or a tar of objects, and perhaps our side file."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simtune.build.elf import Elf
from simtune.build.image import Plan, Role, Tensor
from simtune.errors import InputFileError


@dataclass(frozen=True)
class Artifact:
    """One built candidate.

    Attributes:
        objects: its object files; those of a tar are unpacked into the given scratch folder.
        isa: their instruction set.
        kernels: names of the kernels they define.
        digest: SHA-256 over the objects' contents, in hex.
        info: the side file of `simtune.Builder`; empty for other builders.
    """

    objects: tuple[Path, ...]
    isa: str
    kernels: tuple[str, ...]
    digest: str
    info: dict[str, Any] = field(default_factory=dict)

    def plan(self, signature: Sequence[Tensor] | None = None) -> Plan:
        """The plan that calls the artifact's kernel once.

        Args:
            signature: the tensors, when the side file does not tell; without roles, that is with
                inputs only, the last one is taken as the output (TVM's convention).

        Raises:
            InputFileError: no kernel, several kernels, or no signature.
        """
        known = self.info.get("kernels", {})
        names = tuple(known) or self.kernels
        if len(names) != 1 and "main" not in names:
            raise InputFileError(
                f"the object defines {len(names)} kernels ({', '.join(names) or 'none'})",
                "simulate an object that TVM built from one function",
            )
        name = names[0] if len(names) == 1 else "main"
        if name in known:
            return Plan.single(
                [Tensor(dtype, tuple(shape), Role(role)) for dtype, shape, role in known[name]], name
            )
        if not signature:
            raise InputFileError(
                "the tensors of the kernel are not known",
                "give them in argument order: --args float32:1x64x56x56,float32:64x64x3x3,...",
            )
        tensors = list(signature)
        if all(tensor.role is Role.INPUT for tensor in tensors):
            tensors[-1] = Tensor(tensors[-1].dtype, tensors[-1].shape, Role.OUTPUT)
        return Plan.single(tensors, name)


def side_file(path: Path) -> Path:
    """Where the side file of an object lies."""
    return path.with_suffix(path.suffix + ".json")


def write_side_file(path: Path, info: dict[str, Any]) -> None:
    """Writes the side file of an object."""
    side_file(path).write_text(json.dumps(info))


def load(path: Path, scratch: Path) -> Artifact:
    """Opens an object or a TVM tar.

    Args:
        path: ``.o`` or ``.tar``.
        scratch: existing folder for unpacked objects.

    Raises:
        InputFileError: missing, truncated, garbage, an executable, or of mixed instruction sets.
    """
    unpacked = _unpack(path, scratch) if _is_tar(path) else {path: str(path)}
    objects = tuple(unpacked)
    elves = [Elf(item.read_bytes(), name) for item, name in unpacked.items()]
    for elf in elves:
        if not elf.is_object:
            raise InputFileError(f"{elf.name} is no object file", "give the .o or .tar that TVM wrote")
    isas = {elf.isa for elf in elves}
    if len(isas) != 1:
        raise InputFileError(f"{path} mixes objects for {', '.join(sorted(isas))}", "build it again")
    digest = hashlib.sha256()
    for item in objects:
        digest.update(item.read_bytes())
    info: dict[str, Any] = {}
    if side_file(path).exists():
        info = _read_side_file(side_file(path))
    # Reading the symbols costs more than all else here; the side file knows the names already.
    kernels = tuple(info.get("kernels", ())) or tuple(name for elf in elves for name in elf.kernels)
    return Artifact(tuple(objects), isas.pop(), kernels, digest.hexdigest(), info)


def _read_side_file(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text())
        kernels = info.get("kernels", {})
        for tensors in kernels.values():
            for dtype, shape, role in tensors:
                Tensor(dtype, tuple(shape), Role(role))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputFileError(
            f"the side file {path} is damaged: {error}", "remove it, and give the tensors with --args"
        ) from None
    return dict(info)


def _is_tar(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            is_elf = stream.read(4) == b"\x7fELF"  # the usual case, and cheaper to tell
        return not is_elf and tarfile.is_tarfile(path)
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror}", "check the path") from None


def _unpack(path: Path, scratch: Path) -> dict[Path, str]:
    """The unpacked objects with names for messages."""
    objects: dict[Path, str] = {}
    try:
        with tarfile.open(path) as archive:
            for number, member in enumerate(archive.getmembers()):
                stream = (
                    archive.extractfile(member) if member.isfile() and member.name.endswith(".o") else None
                )
                if stream is not None:
                    unpacked = scratch / f"{number}.o"
                    unpacked.write_bytes(stream.read())
                    objects[unpacked] = f"{member.name} in {path}"
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputFileError(f"{path} is a damaged tar: {error}", "build or copy it again") from None
    if not objects:
        raise InputFileError(f"{path} holds no object files", "give the tar that TVM's local builder wrote")
    return objects
