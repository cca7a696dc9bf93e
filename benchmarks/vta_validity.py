# SPDX-License-Identifier: Apache-2.0
"""Trials to come within 1 % of the best configuration of a VTA layer, for every tuner and ablation.

Ground truth: all valid points of each space are simulated once, then the table answers the tuners. A
trial is a point that a tuner has evaluated, valid or not. The baseline is annealing from a random start
with AutoTVM's defaults. Runs end within 1 % of the best, or at the budget, which then counts.

Wall time per run is split: the tuner itself (measured), the compiler as oracle (questions times the
measured mean), and simulating the trials (their own measured times: emit, functional simulation, check
and timing simulation of valid ones).

Example:
    python benchmarks/vta_validity.py --quick
    python benchmarks/vta_validity.py --plots figures -o vta_validity.json
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import statistics
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from conditions import conditions, emit, parser

from simtune.jobs import Status
from simtune.records.files import whole_file
from simtune.templates import TUNERS, Lesson, Result, Tuner, create
from simtune.templates.annealing import AnnealingTuner, Model
from simtune.templates.boosting import average_recall
from simtune.tuning.template_task import BEFORE_RUNNING
from simtune.tuning.vta_task import VtaTask

LAYERS = (
    "resnet18.c2", "resnet18.c4", "resnet18.c7", "resnet18.c8",
    "deepbench.ocr3", "deepbench.face2", "deepbench.vgg5", "deepbench.inception_a1", "deepbench.inception_b1",
    "mobilenet.pw4",
)  # fmt: skip
QUICK_LAYERS = ("resnet18.c8", "deepbench.face3")
GOOD = 1.01
#: Points of each other layer that the learned model of validity has seen, in the cases with lessons.
LESSONS = 300
BASELINE = "annealing"
BEST = "validity"


@dataclass(frozen=True)
class Case:
    """A tuner and what it is given: "exact" constraints, "compiler", "features", "prior", "lessons"."""

    tuner: str
    given: tuple[str, ...] = ()
    batch: int = 8
    options: dict[str, Any] = field(default_factory=dict)
    what: str = ""


CASES: dict[str, Case] = {
    "random": Case("random", what="uniform"),
    "random, exact": Case("random", ("exact",), what="uniform over valid points"),
    "genetic": Case("genetic"),
    "genetic, exact": Case("genetic", ("exact",)),
    BASELINE: Case("annealing", what="AutoTVM's scheme and defaults from a random start, features: knobs"),
    "annealing, xgboost": Case("annealing-xgboost", what="the same with XGBoost itself as rank model"),
    "annealing, features": Case("annealing", ("features",), options={"learn_from": "features"}),
    "annealing, exact": Case("annealing", ("exact",), what="exact constraints as a filter"),
    "initialised": Case("initialised", ("compiler",), what="validity-driven initialisation as published"),
    "initialised, no pre-sampling": Case("initialised", ("compiler",), options={"presample": False}),
    "initialised, not balanced": Case("initialised", ("compiler",), options={"balanced": False}),
    "initialised, not biased": Case("initialised", ("compiler",), options={"biased": False}),
    "learned, no validity model": Case(
        "validity", ("features",), 4, {"validity_model": False}, "knows no validity, no prior"
    ),
    "learned": Case("validity", ("features",), 4, what="a learned model of validity only, no prior"),
    "learned, prior": Case("validity", ("features", "prior"), 4),
    "lessons": Case("validity", ("features", "lessons"), 4, what="has seen points of other layers, no prior"),
    "lessons, prior": Case("validity", ("features", "lessons", "prior"), 4),
    "compiler, no pre-sampling": Case("validity", ("compiler", "features"), 4, {"presample": False}),
    "compiler": Case("validity", ("compiler", "features"), 4, what="asks the compiler before each trial"),
    "compiler, prior": Case("validity", ("compiler", "features", "prior"), 4),
    "validity, knobs": Case("validity", ("exact",), 4, what="exact constraints, knobs only"),
    "validity, features": Case("validity", ("exact", "features"), 4, what="and compile-time features"),
    BEST: Case("validity", ("exact", "features", "prior"), 4, what="and the analytical prior: the default"),
}


class XgboostAnnealing(AnnealingTuner):
    """The baseline with XGBoost, as a check of this package's own trees."""

    name = "annealing-xgboost"

    def train(self, rows: Any, targets: Any) -> Model:
        import xgboost

        data = xgboost.DMatrix(rows, targets)
        figure = average_recall(targets, self.options.plan)
        parameters = {
            "max_depth": 3, "gamma": 1e-4, "eta": 0.3, "objective": "rank:pairwise", "nthread": 1,
            "disable_default_eval_metric": True, "seed": self.seed,
        }  # fmt: skip
        booster = xgboost.train(
            parameters, data, 300, evals=[(data, "train")], verbose_eval=False, early_stopping_rounds=20,
            custom_metric=lambda scores, _: ("recall", figure(scores)), maximize=True,
        )  # fmt: skip

        class Predictor:
            def predict(self, rows: Any) -> Any:
                return booster.predict(xgboost.DMatrix(rows)).astype(float)

        return Predictor()


class Truth:
    """All points of a space with their results, and what they cost to find out."""

    def __init__(self, layer: str, machine: str) -> None:
        self.task = VtaTask(layer, machine)
        self.space = self.task.space
        self.codes = self.task.codes()
        valid = [point for point, code in enumerate(self.codes) if not code]
        start = time.perf_counter()
        found = self.task.evaluate([self.space.config(point) for point in valid], 1)
        self.exhaustive_s = time.perf_counter() - start
        assert all(result.status is Status.OK for result in found), "a point that should work does not"
        self.seconds = {p: float(r.seconds or 0) for p, r in zip(valid, found, strict=True)}
        self.wall = {p: r.wall_s for p, r in zip(valid, found, strict=True)}
        self.best = min(self.seconds.values())
        wrong = [point for point, code in enumerate(self.codes) if code]
        sample = np.random.default_rng(0).choice(wrong, min(200, len(wrong)), replace=False).tolist()
        start = time.perf_counter()
        failed = self.task.evaluate([self.space.config(point) for point in sample], 1)
        self.reject_s = (time.perf_counter() - start) / len(sample)
        self.late = {p for p, r in zip(sample, failed, strict=True) if r.stage not in BEFORE_RUNNING}
        # The oracle is the compiler, which does not see what fails later, when code is made.
        self.verdicts = {}
        start = time.perf_counter()
        for point in range(self.space.size):
            self.verdicts[point] = self.task.compile(self.space.config(point))
        self.compile_s = (time.perf_counter() - start) / self.space.size
        self._features: dict[int, dict[str, float]] = {}
        self._prior: dict[int, float] = {}

    def oracle(self, config: Any) -> str:
        return self.verdicts[self.space.index(config)]

    def features(self, config: Any) -> dict[str, float]:
        point = self.space.index(config)
        if point not in self._features:
            self._features[point] = self.task.features(config)
        return self._features[point]

    def prior(self, config: Any) -> float:
        point = self.space.index(config)
        if point not in self._prior:
            self._prior[point] = self.task.prior(config)
        return self._prior[point]

    @cached_property
    def lessons(self) -> list[Lesson]:
        """Random points of the other layers, and whether they are valid."""
        found = []
        for number, layer in enumerate(name for name in LAYERS if f"vta:{name}" != self.task.name):
            task = VtaTask(layer, self.task.place)
            codes = task.codes()
            drawn = np.random.default_rng(number).choice(len(codes), LESSONS, replace=False).tolist()
            for point in drawn:
                config = task.space.config(point)
                found.append(Lesson(config, task.features(config), not codes[point]))
        return found

    def answer(self, point: int) -> Result:
        if point in self.seconds:
            return Result(point, self.seconds[point])
        return Result(point, None, "lower", self.codes[point])

    def tuner(self, case: Case, seed: int) -> Tuner:
        given: dict[str, Any] = {}
        if "exact" in case.given:
            given["constraints"] = self.codes
        if "compiler" in case.given:
            given["oracle"] = self.oracle
        if "features" in case.given:
            given["features"] = self.features
        if "prior" in case.given:
            given["prior"] = self.prior
        if "lessons" in case.given:
            given["lessons"] = self.lessons
        if case.tuner == "annealing-xgboost":
            return XgboostAnnealing(self.space, seed=seed)
        return create(case.tuner, self.space, seed=seed, **given, **case.options)


def run(truth: Truth, case: Case, seed: int, budget: int) -> dict[str, Any]:
    """One search; ends within 1 % of the best."""
    tuner = truth.tuner(case, seed)
    trials = invalid = 0
    tuner_s = simulate_s = 0.0
    best = np.inf
    curve: list[float] = []
    reached = False
    while trials < budget and not reached:
        start = time.perf_counter()
        points = tuner.ask(min(case.batch, budget - trials))
        tuner_s += time.perf_counter() - start
        if not points:
            break
        for point in points:
            trials += 1
            valid = point in truth.seconds
            invalid += not valid
            simulate_s += truth.wall[point] if valid else truth.reject_s
            best = min(best, truth.seconds.get(point, np.inf))
            curve.append(round(min(best / truth.best, 1e6), 5))
            reached = best <= GOOD * truth.best
            if reached:
                break
        start = time.perf_counter()
        tuner.tell(truth.answer(point) for point in points)
        tuner_s += time.perf_counter() - start
    return {
        "trials": trials,
        "reached": reached,
        "invalid": invalid,
        "compile_calls": tuner.oracle_calls,
        "tuner_s": tuner_s,
        "compile_s": tuner.oracle_calls * truth.compile_s,
        "simulate_s": simulate_s,
        "curve": curve,
    }


def one_layer(job: tuple[str, str, int, int, int, tuple[str, ...], Path | None]) -> dict[str, Any]:
    """All cases of one layer; those in the folder of kept runs are not run again."""
    name, machine, seed, seeds, budget, cases, keep = job
    truth = Truth(name, machine)
    task = truth.task
    what = [name, task.machine_digest, task.simulator_version, seed, seeds, budget]
    runs: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        digest = hashlib.sha256(json.dumps([*what, case, asdict(CASES[case])]).encode()).hexdigest()[:16]
        file = keep / f"{digest}.json" if keep else None
        if file is not None and file.exists():
            runs[case] = json.loads(file.read_text())
            continue
        most = min(budget, truth.space.size)
        runs[case] = [run(truth, CASES[case], seed + number, most) for number in range(seeds)]
        if file is not None:
            with whole_file(file) as stream:
                stream.write(json.dumps(runs[case]).encode())
    return {
        "layer": name,
        "space": truth.space.size,
        "valid": len(truth.seconds),
        "within_1_percent": sum(s <= GOOD * truth.best for s in truth.seconds.values()),
        "best_s": truth.best,
        "machine_digest": truth.task.machine_digest,
        "simulator": truth.task.simulator_version,
        "exhaustive_s": round(truth.exhaustive_s, 3),
        "compile_us": round(1e6 * truth.compile_s, 1),
        "reject_us": round(1e6 * truth.reject_s, 1),
        "runs": runs,
    }


def quartiles(values: list[float]) -> list[float]:
    return [round(float(value), 4) for value in np.percentile(values, [25, 50, 75])]


def summary(layer: dict[str, Any]) -> dict[str, Any]:
    """The runs of a layer in figures: quartiles, and medians of the parts of the wall time."""
    base = statistics.median(r["trials"] for r in layer["runs"][BASELINE])
    cases = {}
    for case, runs in layer["runs"].items():
        tried = sum(r["trials"] for r in runs)
        median = statistics.median(r["trials"] for r in runs)
        cases[case] = {
            "trials": quartiles([r["trials"] for r in runs]),
            "of_baseline": round(median / base, 4),
            "not_reached": sum(not r["reached"] for r in runs),
            "invalid": quartiles([r["invalid"] for r in runs]),
            "valid_yield": round(1 - sum(r["invalid"] for r in runs) / tried, 4),
            "compile_calls": quartiles([r["compile_calls"] for r in runs]),
            **{
                part: round(statistics.median(r[part] for r in runs), 4)
                for part in ("tuner_s", "compile_s", "simulate_s")
            },
            "wall_s": quartiles([r["tuner_s"] + r["compile_s"] + r["simulate_s"] for r in runs]),
        }
    return {**{key: value for key, value in layer.items() if key != "runs"}, "cases": cases}


def overall(layers: list[dict[str, Any]], cases: tuple[str, ...]) -> dict[str, Any]:
    """Means over layers; the share of the baseline is that of medians."""
    found = {}
    for case in cases:
        rows = [layer["cases"][case] for layer in layers]
        shares = [row["of_baseline"] for row in rows]
        found[case] = {
            "what": CASES[case].what,
            "of_baseline_mean": round(statistics.mean(shares), 4),
            "of_baseline_geometric": round(statistics.geometric_mean(shares), 4),
            "of_baseline_worst": max(shares),
            "valid_yield_mean": round(statistics.mean(row["valid_yield"] for row in rows), 4),
            "invalid_median_sum": sum(row["invalid"][1] for row in rows),
            "trials_median_sum": sum(row["trials"][1] for row in rows),
            "compile_calls_median_mean": round(statistics.mean(row["compile_calls"][1] for row in rows), 1),
            "wall_s_median_sum": round(sum(row["wall_s"][1] for row in rows), 3),
            "not_reached": sum(row["not_reached"] for row in rows),
        }
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, help="runs per case and layer  [20; 3 with --quick]")
    options.add_argument("--machine", default="vta-pynq")
    options.add_argument("--layers", nargs="+", help="such as resnet18.c2")
    options.add_argument(
        "--cases", nargs="+", choices=list(CASES), help="of the tuners; the baseline always runs"
    )
    options.add_argument("--budget", type=int, default=1500, help="trials at most")
    options.add_argument("--quick", action="store_true", help="two layers, three seeds, the main cases")
    options.add_argument("--jobs", type=int, default=2, help="layers at once")
    options.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep finished runs here, and do not repeat those that are there",
    )
    options.add_argument("--plots", type=Path, metavar="DIR", help="write figures as PNG")
    given = options.parse_args()
    seeds = given.seeds or (3 if given.quick else 20)
    layers = tuple(given.layers or (QUICK_LAYERS if given.quick else LAYERS))
    main_cases = ("random", BASELINE, "initialised", "learned", "compiler", BEST)
    cases = tuple(dict.fromkeys([BASELINE, *(given.cases or (main_cases if given.quick else CASES))]))
    try:
        import xgboost  # noqa: F401
    except ImportError:
        cases = tuple(case for case in cases if case != "annealing, xgboost")
    assert set(CASES[case].tuner for case in cases) <= {*TUNERS, "annealing-xgboost"}
    before = conditions()
    start = time.perf_counter()
    jobs = [(layer, given.machine, given.seed, seeds, given.budget, cases, given.keep) for layer in layers]
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(min(given.jobs, len(jobs))) as pool:
        done = pool.map(one_layer, jobs, chunksize=1)
    results = [summary(layer) for layer in done]
    document = {
        "benchmark": "vta_validity",
        "conditions": before,
        "machine": given.machine,
        "seed": given.seed,
        "seeds": seeds,
        "budget": given.budget,
        "goal": f"{BEST}: less than 0.10 of the baseline's trials, no invalid trial",
        "overall": overall(results, cases),
        "layers": results,
        "elapsed_s": round(time.perf_counter() - start, 1),
    }
    if given.plots:
        from vta_figures import validity_figures

        document["figures"] = [str(path) for path in validity_figures(done, cases, given.plots)]
    emit(document, given.output)


if __name__ == "__main__":
    main()
