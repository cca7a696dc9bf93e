# SPDX-License-Identifier: Apache-2.0
"""Objectives: names, energy, expressions, functions, and what the evaluator refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.counters import Counters
from simtune.errors import ConfigurationError
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import Objective, resolve_objective

U74 = load_machine("sifive-u74")
COUNTERS = Counters(
    {
        "instructions": 1000.0,
        "issue_cycles": 1200.0,
        "loads": 100.0,
        "code_bytes": 256.0,
        "l2.read_misses": 10.0,
        "l2.write_misses": 0.0,
        "dram_read_bytes": 640.0,
        "dram_write_bytes": 64.0,
    },
    simulator="qemu 7.2",
)


def value(spec: object, machine: Machine = U74) -> float:
    return resolve_objective(spec).function(COUNTERS, machine)  # type: ignore[arg-type]


def test_latency_is_the_default() -> None:
    objective = resolve_objective()
    assert (objective.name, objective.unit) == ("latency", "s")
    assert objective.function(COUNTERS, U74) == AnalyticalPredictor().predict(COUNTERS, U74)


def test_latency_of_another_predictor() -> None:
    class Constant:
        name = "constant"

        def predict(self, counters: Counters, machine: Machine) -> float:
            return 2.0

        def explain(self, counters: Counters, machine: Machine) -> dict[str, float]:
            return {}

    assert resolve_objective("latency", Constant()).function(COUNTERS, U74) == 2.0
    assert resolve_objective("3 * latency", Constant()).function(COUNTERS, U74) == 6.0


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("instructions", "instructions", 1000),
        ("code_bytes", "bytes", 256),
        ("l2.read_misses", "lines", 10),
        ("dram_bytes", "bytes", 704),
    ],
)
def test_counters(name: str, unit: str, expected: float) -> None:
    objective = resolve_objective(name)
    assert (objective.name, objective.unit, objective.function(COUNTERS, U74)) == (name, unit, expected)


def test_energy_in_joules() -> None:
    machine = replace(U74, energy_pj={"instructions": 30.0, "dram_read_bytes": 100.0})
    assert resolve_objective("energy").unit == "J"
    assert value("energy", machine) == pytest.approx((1000 * 30 + 640 * 100) * 1e-12)


def test_energy_needs_a_table_and_every_counter_of_it() -> None:
    with pytest.raises(ConfigurationError, match="energy_pj"):
        value("energy", load_machine("cortex-a53"))
    with pytest.raises(ConfigurationError, match="'stores', which was not counted by qemu 7.2"):
        value("energy", replace(U74, energy_pj={"stores": 1.0}))


@pytest.mark.parametrize("name", ["sifive-u74", "cortex-a72"])
def test_shipped_energy_tables(name: str) -> None:
    machine = load_machine(name)
    counters = Counters(dict.fromkeys(machine.energy_pj, 1e6))
    joules = resolve_objective("energy").function(counters, machine)
    assert 1e-5 < joules < 1e-1


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("l2.read_misses + 4*dram_read_bytes/64", 50),
        ("2", 2),
        ("-(instructions - 1e3)", 0),
        ("+loads / -4", -25),
        ("max(instructions, 2 * issue_cycles, 7)", 2400),
        ("min(loads, l2.read_misses) + 1", 11),
        ("dram_bytes", 704),
        (" instructions ", 1000),
        ("1 + 2 * 3", 7),
    ],
)
def test_expressions(expression: str, expected: float) -> None:
    assert value(expression) == expected
    assert resolve_objective(expression).name == expression.strip()


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "instructions.__class__",
        "l2.read_misses.real",
        "open('/etc/passwd')",
        "eval('1')",
        "(lambda: 1)()",
        "[x for x in (1, 2)]",
        "instructions if loads else 1",
        "instructions and loads",
        "loads ** 99999999",
        "1 << 99999999",
        "loads == 1",
        "instructions := 3",
        "max(*[1, 2])",
        "max(1)",
        "max(1, 2, key=abs)",
        "max",
        "'text'",
        "True",
        "1j",
        "f'{loads}'",
        "l2['read_misses']",
        "not loads",
        "~loads",
        "",
        "1 +",
        "import os",
        "a\0b",
        "(" * 400 + "1" + ")" * 400,
        "-" * 900 + "1",
        "9" * 990,
        "1+" * 5000 + "1",
    ],
)
def test_refused_expressions(expression: str) -> None:
    try:
        objective = resolve_objective(expression)
        result = objective.function(COUNTERS, U74)
    except ConfigurationError:
        return
    assert expression.strip("-") == "1", f"{expression} gave {result}"  # deep, yet harmless


def test_unknown_names_suggest_the_closest() -> None:
    with pytest.raises(ConfigurationError, match="no counter 'l2.read_mises'") as caught:
        resolve_objective("l2.read_mises * 2")
    assert caught.value.hint == "did you mean 'l2.read_misses'?"


def test_division_by_zero_is_our_error() -> None:
    with pytest.raises(ConfigurationError, match="division"):
        value("instructions / l2.write_misses")


def test_a_counter_that_was_not_counted() -> None:
    with pytest.raises(ConfigurationError, match="'branch_mispredicts', which was not counted"):
        value("1 + branch_mispredicts")


def test_functions_and_objectives() -> None:
    def stalls(counters: Counters, machine: Machine) -> float:
        return counters["issue_cycles"] - counters["instructions"] / machine.pipeline.issue_width

    objective = resolve_objective(stalls)
    assert objective.name == "stalls"
    assert objective.function(COUNTERS, U74) == 700
    assert resolve_objective(objective) is objective
    assert isinstance(objective, Objective)
    with pytest.raises(ConfigurationError, match="allowed: text or a function"):
        resolve_objective(3)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_no_text_gives_anything_but_our_error(text: str) -> None:
    try:
        result = resolve_objective(text).function(COUNTERS, U74)
    except ConfigurationError:
        return
    assert isinstance(result, float)
