# SPDX-License-Identifier: Apache-2.0
"""What a tuner minimises: predicted time, a counter, energy, an expression or a function."""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from simtune.counters import SCHEMA, Counters
from simtune.errors import ConfigurationError
from simtune.machines.model import Machine
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.base import Predictor

Function = Callable[[Counters, Machine], float]

_MAX_EXPRESSION = 1000  # characters; keeps the recursion below Python's limit


@dataclass(frozen=True)
class Objective:
    """Something to minimise.

    Attributes:
        name: for records and reports.
        unit: of the value; empty when unknown.
        function: from counters and machine to the value, lower is better. Raises
            ConfigurationError when a counter that it needs was not counted.
    """

    name: str
    unit: str
    function: Function


def resolve_objective(
    spec: str | Function | Objective = "latency", predictor: Predictor | None = None
) -> Objective:
    """Makes an objective from what a user writes.

    Args:
        spec: ``"latency"``, ``"energy"``, ``"dram_bytes"``, a counter name such as
            ``"instructions"``, an expression over all of these such as
            ``"latency * energy"`` or ``"l2.read_misses + 4*dram_read_bytes/64"``, or a
            function ``f(counters, machine) -> float``.
        predictor: what "latency" means; the analytical one by default.

    Raises:
        ConfigurationError: the name or expression is not allowed.
    """
    if isinstance(spec, Objective):
        return spec
    if callable(spec):
        return Objective(getattr(spec, "__name__", type(spec).__name__), "", spec)
    if not isinstance(spec, str):
        raise ConfigurationError(
            f"objective is {spec!r}; allowed: text or a function of counters and machine"
        )
    text = spec.strip()
    names = _names(predictor or AnalyticalPredictor())
    if text in names:
        return names[text]
    return Objective(text, "", _compile(text, names))


def _names(predictor: Predictor) -> Mapping[str, Objective]:
    named = {name: Objective(name, spec.unit, _counter(name)) for name, spec in SCHEMA.items()}
    named["latency"] = Objective("latency", "s", predictor.predict)
    named["energy"] = Objective("energy", "J", _energy)
    named["dram_bytes"] = Objective("dram_bytes", "bytes", _dram_bytes)
    return named


def _counter(name: str) -> Function:
    return lambda counters, _machine: _count(counters, name)


def _count(counters: Counters, name: str) -> float:
    try:
        return counters[name]
    except KeyError:
        raise ConfigurationError(
            f"the objective needs '{name}', which was not counted by {counters.simulator or 'the simulator'}",
            "choose a simulator or option that counts it (see `simtune doctor`), or another objective",
        ) from None


def _dram_bytes(counters: Counters, _machine: Machine) -> float:
    return _count(counters, "dram_read_bytes") + _count(counters, "dram_write_bytes")


def _energy(counters: Counters, machine: Machine) -> float:
    """Joules: dynamic energy only, what does not depend on events is left out."""
    if not machine.energy_pj:
        raise ConfigurationError(
            f"machine '{machine.name}' has no energy_pj table, so energy cannot be estimated",
            "add [energy_pj] to its file (docs/machines.md), or use a machine that has one",
        )
    return 1e-12 * sum(cost * _count(counters, name) for name, cost in machine.energy_pj.items())


_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_CALLS: dict[str, Callable[..., float]] = {"min": min, "max": max}


def _compile(text: str, names: Mapping[str, Objective]) -> Function:
    """Parses an expression into closures; nothing of it is ever run by Python's `eval`."""
    if len(text) > _MAX_EXPRESSION:
        raise ConfigurationError(f"the objective has {len(text)} characters; allowed: {_MAX_EXPRESSION}")
    try:
        tree = ast.parse(text, mode="eval").body
        function = _node(tree, text, names)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"objective '{text}' is not an expression: {error}", _HINT) from None

    def value(counters: Counters, machine: Machine) -> float:
        try:
            result = float(function(counters, machine))
        except (ZeroDivisionError, OverflowError) as error:
            raise ConfigurationError(f"objective '{text}': {error}", "keep divisors away from zero") from None
        if math.isnan(result):
            raise ConfigurationError(f"objective '{text}' is not a number for these counters")
        return result

    return value


_HINT = "use counter names, numbers, + - * /, brackets, min and max"


def _node(node: ast.expr, text: str, names: Mapping[str, Objective]) -> Function:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number = float(node.value)  # type: ignore[arg-type]  # the line above says so
        return lambda _counters, _machine: number
    if isinstance(node, ast.Name | ast.Attribute):
        return _name(ast.unparse(node), text, names)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _node(node.operand, text, names)
        sign = -1 if isinstance(node.op, ast.USub) else 1
        return lambda counters, machine: sign * inner(counters, machine)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        apply = _BINARY[type(node.op)]
        left, right = _node(node.left, text, names), _node(node.right, text, names)
        return lambda counters, machine: apply(left(counters, machine), right(counters, machine))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        choose = _CALLS[node.func.id]
        if len(node.args) > 1 and not node.keywords:
            arguments = [_node(argument, text, names) for argument in node.args]
            return lambda counters, machine: choose(f(counters, machine) for f in arguments)
    shown = ast.unparse(node)
    raise ConfigurationError(f"objective '{text}': '{shown}' is not allowed", _HINT)


def _name(name: str, text: str, names: Mapping[str, Objective]) -> Function:
    if name in names:
        return names[name].function
    close = difflib.get_close_matches(name, names, n=1)
    raise ConfigurationError(
        f"objective '{text}': there is no counter '{name}'",
        f"did you mean '{close[0]}'?" if close else "see docs/machines.md for the counter names",
    )
