# SPDX-License-Identifier: Apache-2.0
"""Tries hyper-parameters of the model families by leaving workloads out.

Compares other values with those in `simtune/predictors/families`, one at a time. The score is the mean
tau-b over the workloads of all record stores given; a choice made on few workloads is a choice made by
noise, so the gain over the present value is printed with its standard error over workloads.

    python benchmarks/tune_predictors.py --records records.db --machine host
    python benchmarks/tune_predictors.py --records records.db --machine host --family xgb-res -o xgb.json
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conditions import conditions, emit, parser

from simtune.crossvalidate import evaluate
from simtune.dataset import Dataset, load_dataset
from simtune.machines.load import load_machine
from simtune.predictors.families.smooth import GaussianProcess, NeuralNetwork
from simtune.predictors.families.trees import BoostedTrees, ExtraTrees, Ranker
from simtune.records.store import open_existing

#: Family, its class, its attribute (or key of `parameters`), the values to try. Ridge chooses its own
#: penalty in training, and non-negative least squares has nothing to choose.
GRID: list[tuple[str, type[Any], str, list[Any]]] = [
    ("mlp-res", NeuralNetwork, "penalty", [0.03, 0.1, 0.3, 1.0, 3.0]),
    ("mlp-res", NeuralNetwork, "hidden", [(16,), (32, 16), (64, 32)]),
    ("gp-res", GaussianProcess, "search_rows", [200, 400, 800]),
    ("extra-trees-res", ExtraTrees, "leaf", [1, 2, 4, 8]),
    ("extra-trees-res", ExtraTrees, "share", [0.2, 0.5, 1.0]),
    ("xgb-res", BoostedTrees, "rounds", [100, 300, 600]),
    ("xgb-res", BoostedTrees, "max_depth", [2, 4, 6]),
    ("xgb-res", BoostedTrees, "min_child_weight", [1, 4, 16]),
    ("rank", Ranker, "max_depth", [2, 4, 6]),
]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--records", type=Path, action="append", required=True)
    made.add_argument("--machine", required=True)
    made.add_argument("--target")
    made.add_argument("--family", action="append", help="only these, such as xgb-res")
    options = made.parse_args()
    machine, groups = load_machine(options.machine), []
    for path in options.records:
        with open_existing(path) as store:
            groups += load_dataset(store, [machine], options.target).groups
    data = Dataset(tuple(groups), options.target or "", {})
    rows: list[dict[str, Any]] = []
    usual: dict[str, list[float]] = {}
    for family, kind, name, values in GRID:
        if options.family and family not in options.family:
            continue
        usual.setdefault(family, scores(data, family, options.seed))
        for value in values:
            if value == present(kind, name):
                continue  # a gain of zero
            with changed(kind, name, value):
                found = scores(data, family, options.seed)
                gains = [new - old for new, old in zip(found, usual[family], strict=True)]
            error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
            mean = statistics.mean(gains)
            total = statistics.mean(usual[family]) + mean
            print(
                f"{family:16} {name} = {value!s:9} tau-b {total:.3f}, gain over {present(kind, name)} "
                f"{mean:+.4f} +- {error:.4f}",
                flush=True,
            )
            rows.append(
                {
                    "family": family,
                    "parameter": name,
                    "present": present(kind, name),
                    "value": value,
                    "tau_b": total,
                    "gain": mean,
                    "standard_error": None if math.isnan(error) else error,
                }
            )
    emit({"conditions": conditions(), "seed": options.seed, "tried": rows}, options.output)


def present(kind: type[Any], name: str) -> Any:
    """The value in use."""
    inside = hasattr(kind, "parameters") and name in kind.parameters
    return kind.parameters[name] if inside else getattr(kind, name)


def scores(data: Dataset, family: str, seed: int) -> list[float]:
    """tau-b per workload, left out of training."""
    summary = evaluate(data, [family], resamples=0, seed=seed).summaries[family]
    return [figures["tau_b"].value for figures in summary.workloads.values()]


@contextmanager
def changed(kind: type[Any], name: str, value: Any) -> Iterator[None]:
    """Sets a class attribute, or a key of the family's `parameters`, for a while."""
    whole = not (hasattr(kind, "parameters") and name in kind.parameters)
    key, new = (name, value) if whole else ("parameters", {**kind.parameters, name: value})
    old = getattr(kind, key)
    setattr(kind, key, new)
    try:
        yield
    finally:
        setattr(kind, key, old)


if __name__ == "__main__":
    main()
