# SPDX-License-Identifier: Apache-2.0
"""Random candidates of a workload's design space, without any tuning, the same ones for a seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from simtune import tvm_setup
from simtune.machines.model import Machine

ms = tvm_setup.load()

#: Candidates per round. A part of what a seed means: another size gives other candidates.
ROUND = 32


def rounds(module: Any, machine: Machine, seed: int, name: str = "workload") -> Iterator[list[Any]]:
    """Yields MetaSchedule schedules, round after round, without end; rounds may repeat candidates.

    Each round has its own random state, so a run that is taken up again sees the same sequence.
    """
    from tvm.target import Target

    target = Target(dict(machine.target))
    quiet = logging.getLogger("simtune.sample")
    quiet.propagate = False
    number = 0
    while True:
        with target:  # TVM registers RVV intrinsics for the target in scope
            context = ms.TuneContext(
                mod=module,
                target=target,
                space_generator="post-order-apply",
                search_strategy="replay-trace",
                task_name=name,
                rand_state=1 + (seed * 7919 + number * 104729) % (2**31 - 2),
                num_threads=1,  # with more, threads race for random numbers
                logger=quiet,
            )
            context.pre_tuning(
                max_trials=ROUND,
                num_trials_per_iter=ROUND,
                design_spaces=context.generate_design_space(),
                database=ms.database.MemoryDatabase(),
                cost_model=ms.cost_model.RandomModel(),
            )
            found = context.generate_measure_candidates() or []
        yield [candidate.sch for candidate in found]
        number += 1
