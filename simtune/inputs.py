# SPDX-License-Identifier: Apache-2.0
"""What predictors learn from, for each kind of machine: CPUs, and every accelerator with its own counters."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from simtune.counters import ACCELERATORS, SCHEMA_VERSION, Counters
from simtune.errors import ConfigurationError
from simtune.features import COSTS, FEATURES, FEATURES_VERSION, OPTIONAL, PIPELINE, Features, extract
from simtune.machines.load import load_machine as load_cpu
from simtune.machines.model import Machine
from simtune.vta.hwspec import VtaMachine, is_machine_name
from simtune.vta.hwspec import load_machine as load_vta

AnyMachine = Machine | VtaMachine


class Extract(Protocol):
    """Features of candidates that were simulated for a machine; see `simtune.features.extract`."""

    def __call__(
        self,
        counters: Sequence[Counters],
        machine: Any,
        use_pipeline: bool = True,
        optional: Collection[str] = (),
    ) -> Features: ...


@dataclass(frozen=True)
class Inputs:
    """What is learned from on one kind of machine.

    Attributes:
        accelerator: its name, "" for CPUs.
        features, costs: columns of `Features.values` and `Features.costs`; the first cost is the cycles of
            the cycle model.
        extract: makes both from counters.
        version: of the features' meaning and order; `schema_version` that of the counters behind them.
        least: counters of which a candidate needs one.
        cycle_model: name of the model that the others correct.
        optional: features beside the usual ones, with the counter behind them.
        timed_by: simulator whose own times are learned unless measured ones are asked for, "" for none.
        hint: how to get what can be learned from.
    """

    accelerator: str
    features: tuple[str, ...]
    costs: tuple[str, ...]
    extract: Extract
    version: int
    schema_version: int
    least: tuple[str, ...]
    cycle_model: str
    optional: Mapping[str, str] = field(default_factory=dict)
    timed_by: str = ""
    hint: str = "collect some: simtune collect --help"

    @property
    def columns(self) -> dict[str, tuple[int, int]]:
        """Every name to its columns among features and costs, -1 where it has none."""
        sides = self.features, self.costs
        return {
            name: (
                sides[0].index(name) if name in sides[0] else -1,
                sides[1].index(name) if name in sides[1] else -1,
            )
            for name in dict.fromkeys((*self.features, *self.costs))
        }


CPU = Inputs(
    accelerator="",
    features=FEATURES,
    costs=COSTS,
    extract=extract,
    version=FEATURES_VERSION,
    schema_version=SCHEMA_VERSION,
    least=("instructions", "issue_cycles", PIPELINE),
    cycle_model="analytical",
    optional=OPTIONAL,
)


def inputs_of(accelerator: str) -> Inputs:
    """The inputs of a kind of machine, "" for CPUs.

    Raises:
        KeyError: there is no such accelerator.
    """
    if not accelerator:
        return CPU
    if accelerator not in ACCELERATORS:
        raise KeyError(accelerator)
    found: Inputs = importlib.import_module(f"simtune.{accelerator}.learning").INPUTS
    return found


def common_inputs(machines: Iterable[AnyMachine]) -> Inputs:
    """The inputs of several machines, which must be of one kind.

    Raises:
        ConfigurationError: CPUs and accelerators are mixed.
    """
    kinds = {machine.accelerator: machine.name for machine in machines}
    if len(kinds) > 1:
        names = [f"{name} ({kind.upper() or 'a CPU'})" for kind, name in sorted(kinds.items())]
        raise ConfigurationError(
            f"{' and '.join(names)} have no counters in common",
            "learn from machines of one kind at a time: choose them with --machine",
        )
    return inputs_of(next(iter(kinds), ""))


def load_machines(names: Iterable[str]) -> list[AnyMachine]:
    """Machines by name or path; names of VTA machines start with ``vta-``.

    Raises:
        MachineFileError: there is none, or its file is wrong.
    """
    return [load_vta(name) if is_machine_name(name) else load_cpu(name) for name in names]
