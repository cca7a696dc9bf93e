# SPDX-License-Identifier: Apache-2.0
"""How well counters of VTA programs rank their cycles, on layers that were left out of the training.

Every valid configuration of each layer is simulated. The model families of `simtune.predictors` learn
from all layers but one, and rank that one. They see either the knobs, the compile-time features, or the
counters (all that needs no timed run), or knobs and counters together. What the timed run counts (names
that begin with "t.") is never a feature. Values are relative to the mean of their layer, as on CPUs.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conditions import conditions, emit, parser
from vta_validity import LAYERS, LESSONS, QUICK_LAYERS

from simtune.metrics import all_metrics
from simtune.predictors.families.base import Design
from simtune.predictors.families.registry import create
from simtune.templates import boosting
from simtune.templates.encode import Array, feature_rows, values
from simtune.tuning.vta_task import PREFIX, VtaTask
from simtune.vta.counters import FEATURES, TIMED
from simtune.vta.estimate import EXPOSED

FAMILIES = ("ridge", "ridge-res", "nnls", "gp-res", "extra-trees", "extra-trees-res", "ensemble")
QUICK_FAMILIES = ("ridge", "extra-trees-res")
MORE = ("resnet18.c3", "resnet18.c5", "resnet18.c6", "deepbench.face3", "mobilenet.pw7")
#: Counters that cost time one by one; what a non-negative model may add up.
COSTS = (
    "insns", "inp.rows", "inp.bursts", "inp.bytes", "wgt.bursts", "wgt.bytes", "acc.bursts", "acc.bytes",
    "uop.bytes", "out.bursts", "out.bytes", "pad_elements", "gemm.insns", "gemm.uops", "reset.uops",
    "alu.imm_vectors", "alu.tt_vectors", "bound.load", "bound.compute", "bound.store", "bound.max",
    "bound.sum",
)  # fmt: skip
KINDS = ("knobs", "compile-time", "counters", "knobs and counters")
SHOWN = ("counters", "extra-trees-res")
METRICS = ("tau_b", "pairwise", "R_top1", "E_top1", "recall_top10", "ndcg")


@dataclass(frozen=True)
class Group:
    """The valid configurations of one layer."""

    layer: str
    cycles: Array
    features: dict[str, Array]
    costs: Array
    base: dict[str, Array]
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
    cycles = np.array([float(result.output["cycles"]) for result in found])
    counters = [{name: r.counters[PREFIX + name] for name in FEATURES} for r in found]
    assert not any(name.startswith(TIMED) for row in counters for name in row)
    compiled = [task.features(config) for config in configs]
    names = sorted(compiled[0])
    knobs = values(task.space, valid)
    counted = feature_rows(counters, FEATURES)
    column = {name: np.array([row[name] for row in counters]) for name in FEATURES}
    rest = column["bound.sum"] - column["bound.max"]
    overlap = column["bound.max"] + np.where(column["threads"] > 1, EXPOSED, 1.0) * rest
    estimate = np.array([row["estimate.total"] for row in compiled])
    return Group(
        layer,
        cycles,
        {
            "knobs": knobs,
            "compile-time": feature_rows(compiled, names),
            "counters": counted,
            "knobs and counters": np.hstack([knobs, counted]),
        },
        np.array([[row[name] for name in COSTS] for row in counters]),
        {"compile-time": estimate, "counters": overlap, "knobs and counters": overlap},
        {
            "bound.max": column["bound.max"],
            "bound.sum": column["bound.sum"],
            "bounds by threads": overlap,
            "estimate": estimate,
            "inp.bytes": column["inp.bytes"],
        },
        elapsed,
    )


def design(groups: list[Group], kind: str, low: Array | None = None, high: Array | None = None) -> Design:
    """What a model sees, relative to each layer's mean, clipped to the training range."""
    # Knobs have values of their own in every layer; logarithms less their mean are ratios.
    logs = np.vstack([g.features[kind] - g.features[kind].mean(axis=0) for g in groups])
    if low is not None:
        logs = np.clip(logs, low, high)
    bases = [g.base.get(kind, np.ones(len(g.cycles))) for g in groups]
    mean = np.concatenate([np.full(len(base), base.mean()) for base in bases])
    base = np.concatenate(bases)
    numbers = np.repeat(np.arange(len(groups)), [len(g.cycles) for g in groups])
    return Design(logs, np.vstack([g.costs for g in groups]) / mean[:, None], numbers, np.log(base / mean))


def target(groups: list[Group]) -> Array:
    return np.concatenate([np.log(g.cycles / g.cycles.mean()) for g in groups])


def leave_one_out(groups: list[Group], kind: str, family: str, seed: int) -> tuple[dict[str, Array], float]:
    """Scores of every layer by a model that has not seen it, and the seconds that this took."""
    scores = {}
    start = time.perf_counter()
    for out in groups:
        seen = [group for group in groups if group is not out]
        training = design(seen, kind)
        model = create(family, seed)
        model.fit(training, target(seen))
        low, high = training.logs.min(axis=0), training.logs.max(axis=0)
        scores[out.layer] = model.predict(design([out], kind, low, high))[0]
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
        "features": {"counters": len(FEATURES), "compile-time": groups[0].features["compile-time"].shape[1]},
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
