# SPDX-License-Identifier: Apache-2.0
"""The job of one build: a scheduled module becomes an object, on whatever machine has a slot.

It never imports TVM: the process-wide pool of build workers does, once on each machine.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from simtune import tvm_setup
from simtune.build.pool import BuildRequest, shared_pool
from simtune.errors import SimtuneError
from simtune.execution.base import PortableJob, Refused, Site


@dataclass(frozen=True)
class Built:
    """What became of one build.

    Attributes:
        code: the object file's bytes, empty when it could not be built.
        info: what the linker must know, see `simtune.build.codegen.emit`.
        error: why it could not be built.
        seconds: wall time of the build.
        lost: the machine is at fault, so that another one may do better.
    """

    code: bytes
    info: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    lost: bool = False


@dataclass(frozen=True)
class BuildJob(PortableJob[Built]):
    """One candidate's build.

    Attributes:
        module_json: the scheduled module as TVM's JSON.
        target_json: its target as JSON.
        timeout_s: wall seconds after which the build is given up.
        versions: of TVM where the module comes from; its JSON is read by no other.
    """

    module_json: str
    target_json: str
    timeout_s: float = 60.0
    versions: Mapping[str, str] = field(default_factory=tvm_setup.installed)

    def run(self, site: Site) -> Built:
        """Builds in the process-wide pool of this machine."""
        request = BuildRequest(self.module_json, self.target_json, site.folder / "candidate.o")
        try:
            reply = shared_pool().build_one(request, site.cancel, self.timeout_s)
            code = b"" if reply.error else request.path.read_bytes()
        except Refused:
            raise
        except (SimtuneError, OSError) as error:
            return Built(b"", error=str(error), lost=True)
        return Built(code, reply.info, reply.error, reply.seconds, reply.lost and not site.cancel.is_set())

    # ---- on the way to another machine ------------------------------------------------------

    def files(self) -> Mapping[str, Path]:
        return {}

    def encode(self) -> dict[str, Any]:
        return {
            "module": _packed(self.module_json.encode()),
            "target": self.target_json,
            "timeout_s": self.timeout_s,
            "versions": dict(self.versions),
        }

    @classmethod
    def decode(cls, data: Mapping[str, Any], files: Mapping[str, Path]) -> Self:
        here = tvm_setup.installed()
        if data["versions"] != here:
            raise Refused(
                f"TVM is {tvm_setup.in_words(here)} there, {tvm_setup.in_words(data['versions'])} here",
                "install the same versions on both machines",
            )
        return cls(_unpacked(data["module"]).decode(), data["target"], data["timeout_s"], here)

    @classmethod
    def encode_result(cls, result: Built) -> dict[str, Any]:
        return {
            "code": _packed(result.code),
            "info": dict(result.info),
            "error": result.error,
            "seconds": result.seconds,
            "lost": result.lost,
        }

    @classmethod
    def decode_result(cls, data: Mapping[str, Any]) -> Built:
        code = _unpacked(data["code"])
        return Built(code, data["info"], data["error"], data["seconds"], data["lost"])

    @classmethod
    def transient(cls, result: Built) -> bool:
        return result.lost

    def failed(self, reason: str) -> Built:
        return Built(b"", error=reason, lost=True)


def _packed(data: bytes) -> str:
    """Bytes for JSON; modules and objects shrink to a fifth in a fraction of a millisecond."""
    return base64.b64encode(zlib.compress(data, 1)).decode()


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
