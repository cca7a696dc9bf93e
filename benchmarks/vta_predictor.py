# SPDX-License-Identifier: Apache-2.0
"""How well counters of VTA programs rank their cycles, on layers that were left out of the training.

Every valid configuration of each layer is simulated. The model families of `simtune.predictors` learn
from all layers but one, and rank that one. They see either the knobs, the compile-time features, or the
counters (all that needs no timed run), or knobs and counters together. What the timed run counts (names
that begin with "t.") is never a feature. Counters become features, and models are fitted, by the code
that `simtune train` and `simtune evaluate` use.

Families that end in -res correct a cycle model: the modules' bounds, added up or overlapped by virtual
threads, for counters, and the closed-form estimate that the tuner starts from for compile-time features.
Both are also judged alone, beside single counters. At last, how well a model of validity does on a layer
that it has not seen.

Example:
    python benchmarks/vta_predictor.py --quick
    python benchmarks/vta_predictor.py --plots figures -o vta_predictor.json
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from conditions import conditions, emit, parser
from vta_validity import LAYERS, LESSONS, QUICK_LAYERS

from simtune.counters import Counters
from simtune.features import Features
from simtune.metrics import all_metrics
from simtune.predictors.trained import fit
from simtune.templates import boosting
from simtune.templates.encode import Array, feature_rows, values
from simtune.tuning.vta_task import VtaTask
from simtune.vta.counters import TIMED
from simtune.vta.learning import INPUTS, bound_cycles, column

FAMILIES = ("ridge", "ridge-res", "nnls", "gp-res", "extra-trees", "extra-trees-res", "ensemble")
QUICK_FAMILIES = ("ridge", "extra-trees-res")
MORE = ("resnet18.c3", "resnet18.c5", "resnet18.c6", "deepbench.face3", "mobilenet.pw7")
KINDS = ("knobs", "compile-time", "counters", "knobs and counters")
SHOWN = ("counters", "extra-trees-res")
METRICS = ("tau_b", "pairwise", "R_top1", "E_top1", "recall_top10", "ndcg")


@dataclass(frozen=True)
class Group:
    """The valid configurations of one layer: times, what models may see by kind, scores without a model."""

    layer: str
    cycles: Array
    tables: dict[str, Features]
    single: dict[str, Array]
    simulate_s: float


def load(layer: str, machine: str, limit: int, seed: int) -> Group:
    """Simulates a layer; of a large space a random sample."""
    task = VtaTask(layer, machine)
    valid = [point for point, code in enumerate(task.codes()) if not code]
    if len(valid) > limit:
        valid = sorted(np.random.default_rng(seed).choice(valid, limit, replace=False).tolist())
    configs = [task.space.config(point) for point in valid]
    start = time.perf_counter()
    found = task.evaluate(configs, 2)
    elapsed = time.perf_counter() - start
    counters = [Counters(result.counters) for result in found]
    counted = INPUTS.extract(counters, task.target)
    assert not any(name.startswith(TIMED) for name in INPUTS.features)
    compiled = [task.features(config) for config in configs]
    estimate = np.array([row["estimate.total"] for row in compiled])
    # Models see logarithms less their mean; knobs and features are logarithms already.
    knobs = np.exp2(values(task.space, valid))
    known = np.exp(feature_rows(compiled, sorted(compiled[0])))
    tables = {
        "knobs": _table(counted, knobs, np.ones(len(valid))),
        "compile-time": _table(counted, known, estimate),
        "counters": counted,
        "knobs and counters": replace(counted, values=np.hstack([knobs, counted.values])),
    }
    single = {name: column(counters, name) for name in ("bound.max", "bound.sum", "inp.bytes")}
    single |= {"bounds by threads": bound_cycles(counters), "estimate": estimate}
    cycles = np.array([float(result.output["cycles"]) for result in found])
    return Group(layer, cycles, tables, single, elapsed)


def _table(counted: Features, rows: Array, cycles: Array) -> Features:
    """Other features, and another cycle model, in the place of those of the counters."""
    costs = np.hstack([cycles[:, None], counted.costs[:, 1:]])
    return replace(counted, values=rows, costs=costs, base_s=cycles)


def leave_one_out(groups: list[Group], kind: str, family: str, seed: int) -> tuple[dict[str, Array], float]:
    """Scores of every layer by a model that has not seen it, and the seconds that this took."""
    scores = {}
    start = time.perf_counter()
    for out in groups:
        seen = [group for group in groups if group is not out]
        model = fit([group.tables[kind] for group in seen], [group.cycles for group in seen], family, seed)
        scores[out.layer] = model.relative(out.tables[kind])
    return scores, time.perf_counter() - start


def judged(groups: list[Group], scores: dict[str, Array]) -> dict[str, Any]:
    rows = {g.layer: all_metrics(g.cycles, scores[g.layer], 10) for g in groups}
    found: dict[str, Any] = {}
    for name in METRICS:
        column = [row[name] for row in rows.values()]
        worst = max(column) if name in ("R_top1", "E_top1") else min(column)
        found[f"{name}_mean"], found[f"{name}_worst"] = (
            round(statistics.mean(column), 4),
            round(worst, 4),
        )
    return {**found, "layers": {layer: round(row["tau_b"], 4) for layer, row in rows.items()}}


def validity_model(layers: tuple[str, ...], machine: str, seed: int) -> dict[str, Any]:
    """A model of validity that has seen points of all layers but one, on all points of that one.

    Features are those of the tile plan. `top20_valid` is the share of valid points among the 20 that it
    is surest of.
    """
    rows: dict[str, tuple[Array, Array]] = {}
    for layer in layers:
        task = VtaTask(layer, machine)
        found = [task.features(task.space.config(point)) for point in range(task.space.size)]
        labels = np.array([float(not code) for code in task.codes()])
        rows[layer] = feature_rows(found, sorted(found[0])), labels
    random = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    for out in layers:
        seen = [rows[layer] for layer in layers if layer != out]
        picks = [random.choice(len(labels), LESSONS, replace=False) for _, labels in seen]
        inputs = np.vstack([x[pick] for (x, _), pick in zip(seen, picks, strict=True)])
        truth = np.concatenate([y[pick] for (_, y), pick in zip(seen, picks, strict=True)])
        model = boosting.fit(inputs, truth, "logistic", rounds=60, depth=4)
        odds, labels = model.predict(rows[out][0]), rows[out][1]
        right = float(((odds > 0) & (labels > 0)).sum())
        result[out] = {
            "precision": round(right / max(1, int((odds > 0).sum())), 4),
            "recall": round(right / labels.sum(), 4),
            "f1": round(2 * right / (float((odds > 0).sum()) + labels.sum()), 4),
            "top20_valid": float(labels[np.argsort(-odds, kind="stable")[:20]].mean()),
        }
    means = {key: round(statistics.mean(row[key] for row in result.values()), 4) for key in result[out]}
    return {"mean": means, "worst_f1": min(row["f1"] for row in result.values()), "layers": result}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--machine", default="vta-pynq")
    options.add_argument("--layers", nargs="+")
    options.add_argument("--limit", type=int, default=400, help="configurations per layer at most")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what the models see")
    options.add_argument("--families", nargs="+", choices=FAMILIES, help="of the models")
    options.add_argument("--quick", action="store_true", help="few layers and models")
    options.add_argument("--plots", type=Path, metavar="DIR")
    given = options.parse_args()
    names = given.layers or ((*QUICK_LAYERS, "resnet18.c2") if given.quick else (*LAYERS, *MORE))
    before = conditions()
    groups = [load(name, given.machine, given.limit, given.seed) for name in names]
    results: dict[str, dict[str, Any]] = {"single": {}}
    for name in groups[0].single:
        results["single"][name] = judged(groups, {g.layer: g.single[name] for g in groups})
    shown: dict[str, Array] = {}
    families = given.families or (QUICK_FAMILIES if given.quick else FAMILIES)
    for kind in given.kinds:
        results[kind] = {}
        for family in families:
            # Costs are counters, and knobs alone know no cycles that could be corrected.
            if family == "nnls" and kind != "counters" or family == "ensemble" and "counters" not in kind:
                continue
            if family.endswith("-res") and kind == "knobs":
                continue
            scores, seconds = leave_one_out(groups, kind, family, given.seed)
            results[kind][family] = {**judged(groups, scores), "train_and_predict_s": round(seconds, 2)}
            if (kind, family) == SHOWN:
                shown = scores
    document = {
        "benchmark": "vta_predictor",
        "conditions": before,
        "machine": given.machine,
        "seed": given.seed,
        "layers": {
            g.layer: {"configurations": len(g.cycles), "simulate_s": round(g.simulate_s, 3)} for g in groups
        },
        "features": {kind: table.values.shape[1] for kind, table in groups[0].tables.items()},
        "results": results,
        "validity_model": validity_model(tuple(names), given.machine, given.seed),
    }
    if given.plots and shown:
        from vta_figures import predictor_figures

        points = {g.layer: (g.cycles, np.exp(shown[g.layer]) * g.cycles.mean()) for g in groups}
        document["figures"] = [str(path) for path in predictor_figures(document, points, given.plots)]
    emit(document, given.output)


if __name__ == "__main__":
    main()
