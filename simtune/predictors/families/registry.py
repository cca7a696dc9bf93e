# SPDX-License-Identifier: Apache-2.0
"""Model families by name, variants on the residual of the cycle model, and the ensemble."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simtune.errors import ConfigurationError
from simtune.predictors.families.base import Array, Arrays, Design, Model
from simtune.predictors.families.linear import NonNegative, Ridge
from simtune.predictors.families.smooth import GaussianProcess, NeuralNetwork
from simtune.predictors.families.trees import BoostedTrees, ExtraTrees, Ranker

_KINDS: dict[str, type[Model]] = {
    kind.name: kind
    for kind in (Ridge, NeuralNetwork, GaussianProcess, BoostedTrees, ExtraTrees, NonNegative, Ranker)
}
_RESIDUAL = "-res"

#: What the ensemble is the mean of: one of each way of generalising, all on top of the cycle model. Without
#: XGBoost it is the mean of the others. Non-negative costs were in it, and made it worse (docs/measured.md).
MEMBERS = ("ridge-res", "gp-res", "extra-trees-res", "xgb-res")

#: Name to description, for `--help` and error messages.
FAMILIES: dict[str, str] = {name: (kind.__doc__ or "").splitlines()[0] for name, kind in _KINDS.items()} | {
    f"{name}{_RESIDUAL}": f"{name} that learns log(time / cycles), a correction of the cycle model"
    for name, kind in _KINDS.items()
    if kind.residual_allowed
}


class Residual(Model):
    """A family that corrects the cycle model: prediction = log cycles + what was learned."""

    def __init__(self, inner: Model) -> None:
        super().__init__(inner.seed)
        self._inner = inner

    def fit(self, design: Design, target: Array) -> None:
        self._inner.fit(design, target - design.cycles)

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        mean, deviation = self._inner.predict(design)
        return mean + design.cycles, deviation

    def mean(self, design: Design) -> Array:
        return self._inner.mean(design) + design.cycles

    def state(self) -> dict[str, NDArray[Any]]:
        return self._inner.state()

    def restore(self, state: Arrays) -> None:
        self._inner.restore(state)


class Ensemble(Model):
    """Mean of several families; the uncertainty is the spread of their predictions."""

    name = "ensemble"

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        boosted = importlib.util.find_spec("xgboost") is not None
        self._members = {name: create(name, seed) for name in MEMBERS if boosted or name != "xgb-res"}

    def fit(self, design: Design, target: Array) -> None:
        for member in self._members.values():
            member.fit(design, target)

    def predict(self, design: Design) -> tuple[Array, Array | None]:
        outputs = np.stack([member.mean(design) for member in self._members.values()])
        return outputs.mean(axis=0), outputs.std(axis=0)

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            f"{name}/{key}": array
            for name, member in self._members.items()
            for key, array in member.state().items()
        }

    def restore(self, state: Arrays) -> None:
        self._members = {
            name: create(name, self.seed)
            for name in MEMBERS
            if name != "xgb-res" or any(key.startswith(f"{name}/") for key in state)
        }
        for name, member in self._members.items():
            prefix = f"{name}/"
            member.restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


FAMILIES["ensemble"] = f"mean of {', '.join(MEMBERS)}"


def create(name: str, seed: int = 0) -> Model:
    """An unfitted model by its name in `FAMILIES`.

    Raises:
        ConfigurationError: there is no such family.
    """
    if name not in FAMILIES:
        raise ConfigurationError(f"model '{name}' is unknown", f"allowed: {', '.join(FAMILIES)}")
    if name == Ensemble.name:
        return Ensemble(seed)
    kind = _KINDS[name.removesuffix(_RESIDUAL)]
    return Residual(kind(seed)) if name.endswith(_RESIDUAL) else kind(seed)
