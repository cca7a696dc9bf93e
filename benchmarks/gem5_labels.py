# SPDX-License-Identifier: Apache-2.0
"""Predictors against gem5's cycles: two RISC-V cores, five workloads, 60 candidates each.

Rebuilds every candidate from its trace, simulates it in QEMU, and evaluates predictors on the labels:
untrained, trained with a workload left out, and trained on the one core to predict the other.

    python benchmarks/gem5_labels.py                      # everything, a few minutes on 2 idle cores
    python benchmarks/gem5_labels.py --records gem5.db    # keeps the simulations; none runs twice

The labels (`benchmarks/data/gem5`) are simulated times of gem5 24.0, not measurements of hardware.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import lzma
import sys
import time
from pathlib import Path
from typing import Any

import goals
import numpy as np

from simtune.crossvalidate import BASELINES, Evaluation, evaluate, out_of_fold
from simtune.dataset import Dataset, Fold, load_dataset
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.metrics import METRICS, summarise
from simtune.records.store import RecordStore
from simtune.tuning.imported import import_tvm

DATA = Path(__file__).parent / "data" / "gem5"
SETS = ("u74-like-minor", "boom-like-o3")
SHOWN = ("R_top1", "E_top1", "E_top1_resampled", "tau_b", "spearman", "pairwise")
TRAINED = "ensemble"
CROSS_MODELS = ("ridge-res", "extra-trees-res", "nnls", "ensemble")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=Path, help="record store to keep  [default: in memory]")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", action="append", default=[], help="of the evaluation  [default: all]")
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument(
        "--count", nargs="*", default=["branch", "pipeline"], help="simulator models to switch on"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    with RecordStore(options.records or ":memory:") as store:
        datasets = {}
        for name in SETS:
            machine = load_machine(options.data / f"{name}.toml")
            start = time.perf_counter()
            simulate(store, options.data / name, machine, tuple(options.count))
            print(f"{name}: simulated in {time.perf_counter() - start:.0f} s", file=sys.stderr)
            datasets[name] = load_dataset(store, [machine], f"gem5:{name}")
    for name, data in datasets.items():
        result = evaluate(data, options.model, resamples=options.resamples)
        report[name] = show(name, result) | {"absolute": absolute(data)}
        report[name]["goals"] = verdicts(name, result, report[name]["absolute"])
    report["across machines"] = across(datasets)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def simulate(store: RecordStore, folder: Path, machine: Machine, count: tuple[str, ...]) -> None:
    """Imports the label set; the names of the workloads are in its table."""
    table = lzma.decompress((folder / "results.csv.xz").read_bytes()).decode()
    names = dict(enumerate(dict.fromkeys(row["workload"] for row in csv.DictReader(io.StringIO(table)))))
    import_tvm(
        folder,
        machine,
        store,
        target=f"gem5:{folder.name}",
        names=names,
        count=count,
        warmup=1,  # as the labels: caches are warm
        progress=lambda name: print(f"{folder.name}: {name}", file=sys.stderr),
    )


def show(name: str, result: Evaluation) -> dict[str, Any]:
    """Prints mean [interval] / worst per model, and per workload for the best one."""
    print(f"\n{name}: leave one workload out; mean [95 % interval] / worst")
    print(f"{'model':17}" + "".join(f"{metric:>34}" for metric in SHOWN))
    for model, summary in result.summaries.items():
        cells = []
        for metric in SHOWN:
            figure = summary.mean[metric]
            cells.append(
                f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] / {summary.worst[metric]:.3f}"
            )
        print(f"{model:17}" + "".join(f"{cell:>34}" for cell in cells))
    for model in result.unavailable:
        print(f"{model} left out: {result.unavailable[model]}")
    return {
        model: {
            "mean": {metric: summary.mean[metric].value for metric in METRICS},
            "worst": dict(summary.worst),
            "workloads": {
                label: {metric: figure.value for metric, figure in figures.items()}
                for label, figures in summary.workloads.items()
            },
        }
        for model, summary in result.summaries.items()
    }


def absolute(data: Dataset) -> dict[str, dict[str, float]]:
    """Median relative error in % of untrained predictions, and the median ratio to the label."""
    figures = {}
    for name in ("analytical", "pipeline") if data.pipeline else ("analytical",):
        ratios = np.concatenate([BASELINES[name](group) / group.seconds for group in data.groups])
        figures[name] = {
            "median error %": float(100 * np.median(np.abs(ratios - 1))),
            "median ratio": float(np.median(ratios)),
        }
        print(f"{name}, absolute: {figures[name]}")
    return figures


def verdicts(name: str, result: Evaluation, errors: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Goal by goal; the trained model is the default of `simtune train`."""
    untrained = "pipeline" if "pipeline" in errors else "analytical"
    rows = goals.judge(goals.GEM5[name], result.summaries, TRAINED, untrained, result.ceiling)
    print(goals.text(rows))
    error = errors[untrained]["median error %"]
    ok = error <= goals.GEM5_CYCLES
    verdict = "reached" if ok else "missed "
    print(f"{verdict}  untrained, {untrained}: cycles within {goals.GEM5_CYCLES} % (median); is {error:.1f}")
    rows.append({"goal": f"cycles within {goals.GEM5_CYCLES} %", "reached": error, "ok": ok})
    if {TRAINED, untrained} <= set(result.summaries):
        worse = goals.better_everywhere(result.summaries[TRAINED], result.summaries[untrained])
        verdict = "missed " if worse else "reached"
        print(
            f"{verdict}  trained, {TRAINED}: no figure worse than untrained; worse: {', '.join(worse) or '-'}"
        )
        rows.append({"goal": "trained no worse than untrained", "reached": worse, "ok": not worse})
    return rows


def across(datasets: dict[str, Dataset]) -> dict[str, Any]:
    """Trains on all of one machine but the workload, tests that workload on the other machine."""
    figures: dict[str, Any] = {}
    for source, target in (SETS, SETS[::-1]):
        pooled = Dataset((*datasets[source].groups, *datasets[target].groups), "gem5", {})
        half = len(datasets[source].groups)
        folds = []
        for key in [group.key for group in datasets[target].groups]:
            rows = [np.arange(len(group)) for group in pooled.groups]
            none = np.arange(0)
            folds.append(
                Fold(
                    tuple(
                        rows[i] if i < half and g.key != key else none for i, g in enumerate(pooled.groups)
                    ),
                    tuple(
                        rows[i] if i >= half and g.key == key else none for i, g in enumerate(pooled.groups)
                    ),
                )
            )
        for model in CROSS_MODELS:
            scores = out_of_fold(pooled, folds, model)[half:]
            summary = summarise(
                {g.name: (g.seconds, s) for g, s in zip(datasets[target].groups, scores, strict=True)}, 0
            )
            text = ", ".join(
                f"{metric} {summary.mean[metric].value:.3f}/{summary.worst[metric]:.3f}" for metric in SHOWN
            )
            print(f"trained on {source}, tested on {target}, {model}: {text}")
            figures[f"{source} -> {target}, {model}"] = {m: summary.mean[m].value for m in METRICS}
    return figures


if __name__ == "__main__":
    main()
