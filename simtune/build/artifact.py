# SPDX-License-Identifier: Apache-2.0
"""What a builder leaves behind: an object or a tar of objects, and perhaps our side file."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simtune.build.elf import Elf
from simtune.build.image import Plan, Role, Tensor
from simtune.errors import InputFileError

_ELF = b"\x7fELF"


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
        scratch: folder for unpacked objects; made when there are any.

    Raises:
        InputFileError: missing, truncated, garbage, an executable, or of mixed instruction sets.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileError(f"cannot read {path}: {error.strerror}", "check the path") from None
    if not data.startswith(_ELF) and tarfile.is_tarfile(io.BytesIO(data)):
        contents = _unpack(path, data)
        scratch.mkdir(parents=True, exist_ok=True)
        objects = tuple(scratch / f"{number}.o" for number in range(len(contents)))
        for unpacked, (_, content) in zip(objects, contents, strict=True):
            unpacked.write_bytes(content)
    else:  # the usual case; each file is read once, since thousands of them may come in a second
        contents, objects = [(str(path), data)], (path,)
    elves = [Elf(content, name) for name, content in contents]
    for elf in elves:
        if not elf.is_object:
            raise InputFileError(f"{elf.name} is no object file", "give the .o or .tar that TVM wrote")
    isas = {elf.isa for elf in elves}
    if len(isas) != 1:
        raise InputFileError(f"{path} mixes objects for {', '.join(sorted(isas))}", "build it again")
    digest = hashlib.sha256()
    for _, content in contents:
        digest.update(content)
    info = _read_side_file(side_file(path))
    # Reading the symbols costs more than all else here; the side file knows the names already.
    kernels = tuple(info.get("kernels", ())) or tuple(name for elf in elves for name in elf.kernels)
    return Artifact(objects, isas.pop(), kernels, digest.hexdigest(), info)


def _read_side_file(path: Path) -> dict[str, Any]:
    """What the side file says, nothing without one."""
    try:
        info = json.loads(path.read_text())
        kernels = info.get("kernels", {})
        for tensors in kernels.values():
            for dtype, shape, role in tensors:
                Tensor(dtype, tuple(shape), Role(role))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputFileError(
            f"the side file {path} is damaged: {error}", "remove it, and give the tensors with --args"
        ) from None
    return dict(info)


def _unpack(path: Path, data: bytes) -> list[tuple[str, bytes]]:
    """The objects in a tar, each with a name for messages."""
    objects: list[tuple[str, bytes]] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive.getmembers():
                stream = (
                    archive.extractfile(member) if member.isfile() and member.name.endswith(".o") else None
                )
                if stream is not None:
                    objects.append((f"{member.name} in {path}", stream.read()))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputFileError(f"{path} is a damaged tar: {error}", "build or copy it again") from None
    if not objects:
        raise InputFileError(f"{path} holds no object files", "give the tar that TVM's local builder wrote")
    return objects
