# SPDX-License-Identifier: Apache-2.0
"""The timing simulator against published figures of VTA, with published tuned configurations.

Chisel preset: cycles summed over the convolutions of ResNet-18 that run on the accelerator. Pynq
preset: the latency of each layer that has a published one. One number of the Pynq preset, the
effective cost of DRAM per beat, was fitted on these latencies; `fit` shows the error it leaves beside
neighbouring values, and `unfitted` what one cycle per beat gives. Prints one JSON document. Example:
  python benchmarks/vta_timing.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import conditions

from simtune.vta import Backend, VtaMachine, load_layer, load_machine

CONFIGS = Path(__file__).parent / "data" / "vta" / "published_configs.json"
PUBLISHED_CYCLES = 7_729_601
GOALS = {"total_error": 0.05, "layer_error": 0.10}
FITS = (1.0, 2.0, 2.5, 2.75, 3.0, 3.5)


def cycles_of(rows: list[dict[str, Any]], machine: VtaMachine, seed: int) -> dict[str, int]:
    """Cycles by layer; the outputs are checked on the way."""
    found = {}
    for row in rows:
        layer = load_layer(f"resnet18.{row['layer'].lower()}")
        result = Backend(layer, machine, seed=seed).evaluate([row["inner_tiles"]])[0]
        assert result.cycles is not None, result.message
        found[row["layer"]] = result.cycles
    return found


def network(rows: list[dict[str, Any]], machine: VtaMachine, seed: int) -> dict[str, Any]:
    by_layer = cycles_of(rows, machine, seed)
    total = sum(by_layer[row["layer"]] * row["count_in_resnet18"] for row in rows)
    return {"by_layer": by_layer, "total": total, "error": total / PUBLISHED_CYCLES - 1}


def latencies(rows: list[dict[str, Any]], machine: VtaMachine, seed: int) -> dict[str, dict[str, float]]:
    known = [row for row in rows if "pynq_latency_s" in row]
    found = cycles_of(known, machine, seed)
    return {
        row["layer"]: {
            "published_ms": row["pynq_latency_s"] * 1e3,
            "simulated_ms": machine.seconds(found[row["layer"]]) * 1e3,
            "error": machine.seconds(found[row["layer"]]) / row["pynq_latency_s"] - 1,
        }
        for row in known
    }


def with_beat(machine: VtaMachine, beat_cycles: float) -> VtaMachine:
    return dataclasses.replace(machine, timing=dataclasses.replace(machine.timing, beat_cycles=beat_cycles))


def main() -> None:
    options = conditions.parser(__doc__).parse_args()
    published = json.loads(CONFIGS.read_text())
    rows, pynq = published["layers"], load_machine("vta-pynq")
    chisel = {
        name: network(rows, load_machine(name), options.seed) for name in ("vta-sim", "vta-chisel-head")
    }
    fit = {
        str(beat): {
            layer: round(row["error"], 4)
            for layer, row in latencies(rows, with_beat(pynq, beat), options.seed).items()
        }
        for beat in FITS
    }
    conditions.emit(
        {
            "benchmark": "vta_timing",
            "conditions": conditions.conditions(),
            "source": published["source"],
            "seed": options.seed,
            "goals": GOALS,
            "published_cycles": PUBLISHED_CYCLES,
            "chisel": chisel,
            "pynq": latencies(rows, pynq, options.seed),
            "fitted": {"beat_cycles": pynq.timing.beat_cycles},
            "unfitted": fit["1.0"],
            "fit": fit,
        },
        options.output,
    )


if __name__ == "__main__":
    main()
