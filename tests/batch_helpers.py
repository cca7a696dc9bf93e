# SPDX-License-Identifier: Apache-2.0
"""Small jobs of every kind for batches, and what the store must hold after one."""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from qemu_helpers import assemble, program

from simtune.build.artifact import side_file
from simtune.cli.main import cli
from simtune.records import RecordStore, Trial
from simtune.records.check import check
from simtune.records.origins import origin_of
from simtune.records.tvm_format import RECORD_FILE, WORKLOAD_FILE

DATA = Path(__file__).resolve().parents[1] / "benchmarks" / "data" / "gem5" / "u74-like-minor"

#: As `build_default` builds them, with their tensors in argument order.
MATMULS = {f"matmul:m={m},n=16,k=16": f"float32:{m}x16,float32:16x16,float32:{m}x16" for m in (8, 16, 24, 32)}


def copy_object(source: Path, target: Path) -> Path:
    """Copies an object with its side file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    shutil.copy(side_file(source), side_file(target))
    return target


def tar_of(source: Path, target: Path) -> Path:
    """What TVM's own builder leaves: a tar of objects that says nothing of tensors."""
    with tarfile.open(target, "w") as archive:
        archive.add(source, "lib0.o")
    return target


def spinner(folder: Path, name: str, instructions: int) -> Path:
    """A program that runs so many instructions for every word of its command line."""
    body = f"ld t0, 0(sp)\n li t1, {instructions // 2}\n mul t0, t0, t1\n1: addi t0, t0, -1\n bnez t0, 1b"
    scratch = folder / f"{name}.build"
    scratch.mkdir(parents=True)
    path = assemble(scratch, "riscv64", program("riscv64", body)).rename(folder / name)
    shutil.rmtree(scratch)
    return path


def work_directory(folder: Path, candidates: int) -> Path:
    """A work directory of MetaSchedule with candidates of one matmul."""
    folder.mkdir(parents=True)
    (folder / WORKLOAD_FILE).write_bytes(lzma.decompress((DATA / f"{WORKLOAD_FILE}.xz").read_bytes()))
    (folder / RECORD_FILE).write_text("\n".join(tuning_records()[:candidates]))
    return folder


def tuning_records() -> list[str]:
    """Lines of MetaSchedule's file of records, of one matmul."""
    lines = lzma.decompress((DATA / f"{RECORD_FILE}.xz").read_bytes()).decode().splitlines()
    return [line for line in lines if line.startswith("[4,")]


def run_batch(*arguments: object, code: int = 0, stdin: str | None = None) -> dict[str, Any]:
    """`simtune batch ... --json` in this process; checks the exit code."""
    result = CliRunner().invoke(cli, ["batch", *map(str, arguments), "--json"], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def trials_of(path: Path, run: str) -> list[Trial]:
    """The trials of a sound store, after seeing that there is one for each job."""
    assert check(path) == []
    with RecordStore(path, create=False) as store:
        trials = list(store.trials(run))
    twice = {name: number for name, number in Counter(t.candidate for t in trials).items() if number > 1}
    assert not twice
    return trials


def by_name(trials: list[Trial]) -> dict[str, Trial]:
    """Trials by the name of their file."""
    return {Path(origin_of(trial).path).name: trial for trial in trials}  # type: ignore[union-attr]
