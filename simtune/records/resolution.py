# SPDX-License-Identifier: Apache-2.0
"""Which of two rows with the same key stays, and whether they contradict each other.

`decide` is a total order over the versions of a row, by their content alone: not by the store they
come from, nor by who was first. The version that stays is the largest, and a maximum is associative,
commutative and idempotent, hence so is merging. The criteria, the first that decides:

- simulation: the outcome that says more (a definite one over a timeout, a timeout under more
  instructions over one under fewer, anything over an infrastructure failure: the rule of
  `RecordStore.put_simulation`); ok over a failure; the one stored first, which others have built on.
- trial: a result over an infrastructure failure; ok over a failure; one with a measured time; one
  with a value; the one stored first.
- run: the state that is further (finished, interrupted, failed, running); the later end.
- all: their content, byte by byte, which means nothing but decides the same way everywhere.

Most differences are no contradiction. One simulation on two machines differs in `wall_s`, `cpu_s`,
`peak_rss`, `created`, paths in its command; a trial is measured later, an infrastructure failure
repeated elsewhere, a run goes on. `contradictions` names what must not differ: of a simulation what a
deterministic simulator gives again (status, counters, output, hot blocks), of a trial its candidate
and its numbers, of a run everything but how far it got. A simulator that is not deterministic will
be reported here, and should.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from simtune.jobs import Status
from simtune.records.model import RunState, canonical_json
from simtune.records.rows import unpack
from simtune.records.tables import Row, Table

Fields = Mapping[str, Any]
Criterion = tuple[str, Callable[[Fields], Any]]

#: What the harness prints of the machine it ran on, such as ``seconds.0``.
_OF_THE_HOST = frozenset({"seconds", "cpu_seconds", "core"})

_STATES = (RunState.RUNNING, RunState.FAILED, RunState.INTERRUPTED, RunState.FINISHED)


def _moment(value: Any) -> float:
    """Seconds since the epoch; what is not known counts as never."""
    return -math.inf if value is None or math.isnan(float(value)) else float(value)


def _earlier(fields: Fields) -> float:
    moment = _moment(fields["created"])
    return -moment if math.isfinite(moment) else -math.inf


def _says_more(fields: Fields) -> int | float:
    """The rank of a simulation's outcome, as in `simtune.records.store`."""
    match fields["status"]:
        case Status.INFRASTRUCTURE:
            return -1
        case Status.TIMEOUT if fields["instruction_limit"] is not None:
            return int(fields["instruction_limit"])
        case Status.TIMEOUT:
            return 1 << 62
    return math.inf


def _ok(fields: Fields) -> bool:
    return bool(fields["status"] == Status.OK)


_CRITERIA: Mapping[str, tuple[Criterion, ...]] = {
    "simulation": (
        ("it says more about the candidate", _says_more),
        ("it is ok", _ok),
        ("it was stored first", _earlier),
    ),
    "trial": (
        ("the other is an infrastructure failure", lambda f: f["status"] != Status.INFRASTRUCTURE),
        ("it is ok", _ok),
        ("it has a measured time", lambda f: f["measured_s"] is not None),
        ("it has a value", lambda f: f["value"] is not None),
        ("it was stored first", _earlier),
    ),
    "run": (
        ("it got further", lambda f: _STATES.index(f["state"]) if f["state"] in _STATES else -1),
        ("it ended later", lambda f: _moment(f["finished"])),
    ),
}

_BY_CONTENT = "its content is the larger one, byte by byte"

_PACKED = frozenset({"tvm_json", "json", "blocks"})
_RESULT = ("status", "stage", "counters_simulator", "replacement", "counters_version")
_MUST_AGREE: Mapping[str, tuple[str, ...]] = {
    "workload": ("name", "arguments"),
    "run": ("workload", "machine", "machine_digest", "target", "config", "versions", "started"),
    "trace": ("json",),
    "trial": ("candidate", "is_reference", "trace"),
    "measurement": ("seconds", "median", "spread", "conditions"),
}
#: Of a trial with a result: these may be filled in later, but not change.
_NUMBERS = ("simulation", "value", "predicted_s", "measured_s")


def decide(table: Table, one: Row, other: Row) -> tuple[bool, str]:
    """Whether `one` stays rather than `other`, and why the one that stays does; False for equal content."""
    mine, theirs = _fields(table, one), _fields(table, other)
    for text, criterion in _CRITERIA.get(table.name, ()):
        left, right = criterion(mine), criterion(theirs)
        if left != right:
            return left > right, text
    contents = (table.content([fields[column] for column in table.columns]) for fields in (mine, theirs))
    return next(contents) > next(contents), _BY_CONTENT


def contradictions(table: Table, kept: Row, lost: Row) -> dict[str, tuple[Any, Any]]:
    """What must not differ and does: name to the values in the two rows; counters one by one."""
    one, other = _fields(table, kept), _fields(table, lost)
    if table.name == "simulation":
        # Outcomes that say more or less about a candidate do not contradict each other.
        return _of_results(one, other) if _says_more(one) == _says_more(other) else {}
    found = _differing(one, other, _MUST_AGREE[table.name])
    if table.name == "trial" and Status.INFRASTRUCTURE not in (one["status"], other["status"]):
        found |= _differing(one, other, ("status",))
        filled = [name for name in _NUMBERS if None not in (one[name], other[name])]
        found |= _differing(one, other, filled)
    return found


def _of_results(one: Fields, other: Fields) -> dict[str, tuple[Any, Any]]:
    found = _differing(one, other, _RESULT)
    for prefix, column in (("counters.", "counters"), ("output.", "output")):
        if one[column] == other[column]:
            continue
        mine, theirs = (json.loads(fields[column] or "{}") for fields in (one, other))
        names = [name for name in sorted({*mine, *theirs}) if name.partition(".")[0] not in _OF_THE_HOST]
        for name in names:
            pair = mine.get(name), theirs.get(name)
            if _number(pair[0]) != _number(pair[1]):
                found[f"{prefix}{name}"] = pair
    if one["blocks"] != other["blocks"]:
        found["blocks"] = ("…", "…")
    return found


def _number(value: Any) -> str:
    """Text that is equal for equal numbers: 100 and 100.0 are, and NaN is itself."""
    return canonical_json(float(value) if isinstance(value, int) else value)


def _differing(one: Fields, other: Fields, names: tuple[str, ...] | list[str]) -> dict[str, tuple[Any, Any]]:
    return {name: (one[name], other[name]) for name in names if one[name] != other[name]}


def _fields(table: Table, row: Row) -> dict[str, Any]:
    """Columns by name, packed ones as text: the same text may have been packed in several ways."""
    fields = dict(zip(table.columns, row, strict=False))
    for column in _PACKED & fields.keys():
        if fields[column] is not None:
            try:
                fields[column] = unpack(fields[column])
            except (zlib.error, UnicodeDecodeError, TypeError):
                continue
    return fields
