# SPDX-License-Identifier: Apache-2.0
"""Tuners by name: making, saving and loading them."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simtune.errors import ConfigurationError
from simtune.records.files import whole_file
from simtune.templates.annealing import AnnealingTuner
from simtune.templates.base import Features, Lesson, Prior, Tuner
from simtune.templates.checks import Check
from simtune.templates.initialised import InitialisedTuner
from simtune.templates.simple import GeneticTuner, GridTuner, RandomTuner
from simtune.templates.space import Space
from simtune.templates.validity import ValidityTuner

#: All tuners by name.
TUNERS: Mapping[str, type[Tuner]] = {
    tuner.name: tuner
    for tuner in (RandomTuner, GridTuner, GeneticTuner, AnnealingTuner, InitialisedTuner, ValidityTuner)
}


def create(
    name: str,
    space: Space,
    *,
    seed: int = 0,
    oracle: Check | None = None,
    constraints: Check | Sequence[str] | None = None,
    features: Features | None = None,
    prior: Prior | None = None,
    lessons: Sequence[Lesson] = (),
    **options: Any,
) -> Tuner:
    """Makes a tuner.

    Args:
        name: a key of `TUNERS`.
        space, seed, oracle, constraints, features, prior, lessons: see `simtune.templates.base.Tuner`.
        options: of this tuner, such as ``plan=32``; see its `options_type`.

    Raises:
        ConfigurationError: an unknown name or option, or a tuner that misses something it needs.
    """
    if name not in TUNERS:
        close = difflib.get_close_matches(name, TUNERS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"one of {', '.join(TUNERS)}"
        raise ConfigurationError(f"'{name}' is no tuner", hint)
    return TUNERS[name](
        space,
        seed=seed,
        oracle=oracle,
        constraints=constraints,
        features=features,
        prior=prior,
        lessons=lessons,
        options=options,
    )


def save(tuner: Tuner, path: str | os.PathLike[str]) -> None:
    """Writes the state of a tuner as JSON; whole or not at all."""
    with whole_file(Path(path)) as file:
        file.write(json.dumps(tuner.state()).encode())


def load(
    path: str | os.PathLike[str],
    space: Space,
    *,
    oracle: Check | None = None,
    constraints: Check | Sequence[str] | None = None,
    features: Features | None = None,
    prior: Prior | None = None,
    lessons: Sequence[Lesson] = (),
) -> Tuner:
    """A tuner in the state that `save` wrote; it goes on as if it had never stopped.

    Raises:
        ConfigurationError: the file cannot be read, or belongs to another space.
    """
    try:
        state = json.loads(Path(path).read_text())
        name, seed, options = str(state["tuner"]), int(state["seed"]), dict(state["options"])
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"{path} is not the state of a tuner", "give a file of simtune.templates.save"
        ) from None
    tuner = create(
        name,
        space,
        seed=seed,
        oracle=oracle,
        constraints=constraints,
        features=features,
        prior=prior,
        lessons=lessons,
        **options,
    )
    tuner.restore(state)
    return tuner
