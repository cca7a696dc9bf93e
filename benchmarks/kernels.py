# SPDX-License-Identifier: Apache-2.0
"""Schedules of a workload as executables, for the benchmarks that need no search around them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from simtune.build import codegen
from simtune.build.artifact import load, write_side_file
from simtune.build.link import linker
from simtune.machines.model import Machine
from simtune.tvm_setup import load as load_tvm


def linked(module: Any, machine: Machine, folder: Path) -> tuple[Path, Any]:
    """A scheduled module as an executable in a folder of its own below `folder`, and its plan.

    Raises:
        RuntimeError: LLVM refuses it.
        SimtuneError: the linker does.
    """
    from tvm.ir import save_json
    from tvm.target import Target

    path = Path(tempfile.mkdtemp(dir=folder)) / "candidate.o"
    target = Target(dict(machine.target))
    with target:
        write_side_file(path, codegen.emit(save_json(module), target, str(path)))
    artifact = load(path, path.parent)
    plan = artifact.plan()
    return linker(artifact.isa).link(artifact.objects, plan, path.with_suffix(".elf")), plan


def sampled(module: Any, machine: Machine, number: int, seed: int) -> list[Any]:
    """Modules of random samples of MetaSchedule's space."""
    from tvm.target import Target

    ms, target = load_tvm(), Target(dict(machine.target))
    with target:
        context = ms.TuneContext(
            mod=module,
            target=target,
            space_generator="post-order-apply",
            search_strategy="replay-trace",
            rand_state=seed + 1,
            num_threads=1,
        )
        context.pre_tuning(
            max_trials=number,
            num_trials_per_iter=number,
            design_spaces=context.generate_design_space(),
            database=ms.database.MemoryDatabase(),
            cost_model=ms.cost_model.RandomModel(),
        )
        return [candidate.sch.mod for candidate in context.generate_measure_candidates()]
