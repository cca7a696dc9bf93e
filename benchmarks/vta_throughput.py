# SPDX-License-Identifier: Apache-2.0
"""How many VTA configurations one core gets through: compile, run, check, time.

Every valid and every invalid point of ResNet-18's C2, and the functional simulator alone. Rates are
given per second of CPU time, since other work on the machine would spoil wall time, and per second
of wall time. Prints one JSON document. Example:
  python benchmarks/vta_throughput.py --rounds 3
"""

from __future__ import annotations

import time
from typing import Any

import conditions

from simtune.vta import Backend, load_layer, load_machine, validity
from simtune.vta.core import core, natives
from simtune.vta.reference import data

GOALS = {"valid_per_s": 250, "invalid_per_s": 20_000, "fsim_ns_per_uop": 4.0}


def rate(backend: Backend, configs: list[dict[str, int]], rounds: int) -> dict[str, float]:
    """The best of some rounds, in configurations per second."""
    wall, cpu = [], []
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        backend.evaluate(configs)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return {"per_cpu_s": len(configs) / min(cpu), "per_wall_s": len(configs) / min(wall)}


def functional(backend: Backend, config: dict[str, int]) -> dict[str, float]:
    """Nanoseconds per GEMM micro-op of the functional simulator, epilogue and transfers included."""
    layer, machine = backend.layer, backend.machine
    native, known = natives(layer, machine), data(layer, machine, 0)
    program = backend.program(config)
    out = ~known.expected
    verdict, _, best = core().run_fsim(
        native.hardware, *program.arrays, known.inp, known.wgt, known.bias, out, 0, -1, 50
    )
    assert not verdict[1]
    result = Backend(layer, machine, check="never").evaluate([config])[0]
    return {"ms": best * 1e3, "ns_per_uop": best * 1e9 / result.counters["gemm.uops"]}


def main() -> None:
    parser = conditions.parser(__doc__)
    parser.add_argument("--layer", default="resnet18.c2")
    parser.add_argument("--machine", default="vta-sim")
    parser.add_argument("--rounds", type=int, default=3, help="the best one counts")
    options = parser.parse_args()
    layer, machine = load_layer(options.layer), load_machine(options.machine)
    backend = Backend(layer, machine, check="always", seed=options.seed)
    points = [backend.space.config(index) for index in range(backend.space.size)]
    codes = validity.check_all(layer, machine)
    valid = [point for point, code in zip(points, codes, strict=True) if not code]
    invalid = [point for point, code in zip(points, codes, strict=True) if code]
    results = backend.evaluate(valid)
    assert all(result.ok for result in results)
    unchecked = Backend(layer, machine, check="never", seed=options.seed)
    best = min(zip(results, valid, strict=True), key=lambda pair: pair[0].cycles or 0)[1]
    walls = sorted(result.wall_s for result in results)
    measured: dict[str, Any] = {
        "valid": rate(backend, valid, options.rounds),
        "valid_without_check": rate(unchecked, valid, options.rounds),
        "invalid": rate(backend, invalid, options.rounds),
        "median_ms_per_valid": walls[len(walls) // 2] * 1e3,
        "slowest_ms": walls[-1] * 1e3,
        "fsim_best_configuration": functional(backend, best),
        "gemm": core().gemm_kind(),
    }
    conditions.emit(
        {
            "benchmark": "vta_throughput",
            "conditions": conditions.conditions(),
            "layer": layer.name,
            "machine": machine.name,
            "seed": options.seed,
            "points": {"valid": len(valid), "invalid": len(invalid)},
            "goals": GOALS,
            "results": measured,
        },
        options.output,
    )


if __name__ == "__main__":
    main()
