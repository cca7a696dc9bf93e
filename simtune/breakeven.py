# SPDX-License-Identifier: Apache-2.0
"""Break-even K from a record store: how many parallel simulators do the work of one native target.

Both sides come from measured wall times. For a board that nobody has measured on yet, its side is
computed from the kernels' run times and from how a candidate would be measured there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from simtune.errors import ConfigurationError
from simtune.machines.model import Machine
from simtune.measure.cost import break_even, native_seconds
from simtune.records.store import RecordStore


@dataclass(frozen=True)
class Board:
    """How a board would measure one candidate.

    Attributes:
        repeats: timings per candidate.
        cooldown_s: pause with each of them.
        min_repeat_s: a timing lasts at least so long, by calling a short kernel several times.
        setup_s: copying and starting, once per candidate.
        call_s: time of a call there; None takes that of each candidate from the records.
    """

    repeats: int = 15
    cooldown_s: float = 0.0
    min_repeat_s: float = 0.0
    setup_s: float = 0.0
    call_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("cooldown_s", "min_repeat_s", "setup_s", "call_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigurationError(f"{name} is {value}", "give seconds, at least 0")
        if self.repeats < 1:
            raise ConfigurationError(f"repeats is {self.repeats}", "give at least 1")

    def seconds(self, call_s: float) -> float:
        """Wall seconds for one candidate."""
        call_s = call_s if self.call_s is None else self.call_s
        return self.setup_s + native_seconds(max(call_s, self.min_repeat_s), self.repeats, self.cooldown_s)


@dataclass(frozen=True)
class Side:
    """Mean wall seconds per candidate of one workload.

    Attributes:
        simulate_s: in the simulator.
        measure_s: on the target of the records, as it was measured; None without measurements.
        board_s: on the described board; None when none was described.
        call_s: of one call: measured where it was, else predicted.
    """

    workload: str
    candidates: int
    simulate_s: float
    measure_s: float | None
    board_s: float | None
    call_s: float

    def k(self, share: float = 0.0) -> int | None:
        """Against the target of the records."""
        return None if self.measure_s is None else break_even(self.simulate_s, self.measure_s, share)

    def board_k(self, share: float = 0.0) -> int | None:
        """Against the described board."""
        return None if self.board_s is None else break_even(self.simulate_s, self.board_s, share)


def sides(
    store: RecordStore, machine: Machine, target: str | None = None, board: Board | None = None
) -> list[Side]:
    """Both sides per workload, over all runs for a machine of this name.

    Args:
        target: whose measurements count; all by default.

    Raises:
        ConfigurationError: nothing was simulated for the machine.
    """
    walls: dict[str, list[float]] = {}
    for measurement in store.measurements(target=target):
        if wall := float(measurement.conditions.get("wall_s", 0.0)):
            walls.setdefault(measurement.simulation, []).append(wall)
    found: dict[str, dict[str, tuple[float, float | None, float]]] = {}  # workload -> simulation -> seconds
    for run in store.runs():
        if run.machine != machine.name:
            continue
        rows = found.setdefault(store.workload(run.workload).name, {})
        for trial in store.trials(run.id):
            simulation = store.simulation(trial.simulation) if trial.ok and trial.simulation else None
            call = trial.measured_s or trial.predicted_s
            if simulation is None or not call or not simulation.outcome.wall_s:
                continue
            measured = walls.get(simulation.key)
            rows[simulation.key] = (simulation.outcome.wall_s, mean(measured) if measured else None, call)
    result = [_side(name, list(rows.values()), board) for name, rows in found.items() if rows]
    if not result:
        raise ConfigurationError(
            f"{store.path} has no simulations for {machine.name}", "make some: simtune collect --no-measure"
        )
    return result


def _side(name: str, rows: Sequence[tuple[float, float | None, float]], board: Board | None) -> Side:
    measured = [wall for _, wall, _ in rows if wall is not None]
    return Side(
        name,
        len(rows),
        mean(simulated for simulated, _, _ in rows),
        mean(measured) if measured else None,
        mean(board.seconds(call) for _, _, call in rows) if board else None,
        mean(call for _, _, call in rows),
    )


def overall(parts: Iterable[Side], name: str = "all") -> Side:
    """All workloads together, each candidate counting the same."""
    parts = list(parts)
    number = sum(part.candidates for part in parts)

    def weighted(values: Sequence[float | None]) -> float | None:
        if any(value is None for value in values):
            return None
        pairs = zip(values, parts, strict=True)
        return sum((value or 0.0) * part.candidates for value, part in pairs) / number

    return Side(
        name,
        number,
        weighted([part.simulate_s for part in parts]) or 0.0,
        weighted([part.measure_s for part in parts]),
        weighted([part.board_s for part in parts]),
        weighted([part.call_s for part in parts]) or 0.0,
    )
