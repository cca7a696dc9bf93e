# SPDX-License-Identifier: Apache-2.0
"""Values to sealed rows of the tables, and back."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from simtune.counters import Counters
from simtune.jobs import HotBlock, Outcome, Status
from simtune.records.model import (
    Conditions,
    Measurement,
    Run,
    RunState,
    Simulation,
    Trial,
    Workload,
    canonical_json,
    content_hash,
    plain,
)
from simtune.records.tables import MEASUREMENT, RUN, SIMULATION, TRACE, TRIAL, WORKLOAD, Row

#: A tail longer than this is cut on the left: the end of an error message is what tells.
ERROR_BYTES = 16 << 10


def _real(value: float) -> float | str:
    """SQLite would store NaN as NULL and forget the sign of zero."""
    return "nan" if math.isnan(value) else float(value) + 0.0


def _real_or_none(value: float | None) -> float | str | None:
    return None if value is None else _real(value)


def _to_float(value: Any) -> float:
    return float(value)


def _to_float_or_none(value: Any) -> float | None:
    return None if value is None else float(value)


def _text(value: str) -> str:
    """UTF-8 cannot hold the lone surrogates that undecodable output leaves; spell them out."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _tail(value: str) -> str:
    text = _text(value)
    data = text.encode()
    return text if len(data) <= ERROR_BYTES else "…" + data[-ERROR_BYTES:].decode("utf-8", "ignore")


def pack(text: str) -> bytes:
    """Compressed text. Level 1: traces shrink nearly as well, at a fraction of the time.

    So does a window of 8 KiB with small tables; zlib's usual 256 KiB take longer to come by than a
    trace to compress.
    """
    compressor = zlib.compressobj(1, zlib.DEFLATED, 13, 6)
    return compressor.compress(text.encode("utf-8", "backslashreplace")) + compressor.flush()


def unpack(data: Any) -> str:
    return zlib.decompress(data).decode()


#: Made once: `json.dumps` makes an encoder of its own for every call.
_json = json.JSONEncoder(separators=(",", ":"), default=plain).encode


@lru_cache(maxsize=1024)
def _json_of_texts(texts: tuple[str, ...]) -> str:
    """The harness's arguments and the models counted are the same for thousands of simulations."""
    return _json(texts)


def workload_row(workload: Workload) -> Row:
    return WORKLOAD.seal(
        (workload.id, _text(workload.name), canonical_json(workload.arguments), pack(workload.tvm_json))
    )


def workload_from(row: Sequence[Any]) -> Workload:
    return Workload(row[1], json.loads(row[2]), unpack(row[3]))


def run_row(run: Run) -> Row:
    return RUN.seal(
        (
            run.id,
            run.workload,
            _text(run.machine),
            run.machine_digest,
            _text(run.target),
            canonical_json(run.config),
            run.config_digest,
            canonical_json(run.versions),
            _real(run.started),
            _real_or_none(run.finished),
            str(run.state),
        )
    )


def run_from(row: Sequence[Any]) -> Run:
    return Run(
        id=row[0],
        workload=row[1],
        machine=row[2],
        machine_digest=row[3],
        target=row[4],
        config=json.loads(row[5]),
        versions=json.loads(row[7]),
        started=_to_float(row[8]),
        finished=_to_float_or_none(row[9]),
        state=RunState(row[10]),
    )


def simulation_row(simulation: Simulation) -> Row:
    conditions, outcome, counters = simulation.conditions, simulation.outcome, simulation.outcome.counters
    blocks = [(b.address, b.executions, b.instructions, b.code.hex()) for b in outcome.blocks]
    return SIMULATION.seal(
        (
            conditions.key,
            conditions.object_sha256,
            conditions.simulator,
            conditions.simulator_version,
            conditions.machine_digest,
            _json_of_texts(tuple(conditions.arguments)),
            conditions.seed,
            _json_of_texts(tuple(conditions.count)),
            conditions.schema_version,
            str(outcome.status),
            outcome.stage,
            simulation.instruction_limit,
            _real(outcome.wall_s),
            _real(outcome.cpu_s),
            int(outcome.peak_rss),
            _real(simulation.created),
            None if counters is None else _json(dict(counters.counts)),
            "" if counters is None else _text(counters.simulator),
            "" if counters is None else _text(counters.replacement),
            0 if counters is None else counters.schema_version,
            _json(dict(outcome.output)),
            _tail(outcome.error),
            _text(outcome.command),
            pack(_json(blocks)) if blocks else None,
        )
    )


def simulation_from(row: Sequence[Any]) -> Simulation:
    counters = None if row[16] is None else Counters(json.loads(row[16]), row[17], row[18], row[19])
    blocks = json.loads(unpack(row[23])) if row[23] else []
    return Simulation(
        conditions=Conditions(
            object_sha256=row[1],
            simulator=row[2],
            simulator_version=row[3],
            machine_digest=row[4],
            arguments=tuple(json.loads(row[5])),
            seed=row[6],
            count=tuple(json.loads(row[7])),
            schema_version=row[8],
        ),
        outcome=Outcome(
            status=Status(row[9]),
            stage=row[10],
            counters=counters,
            output=json.loads(row[20]),
            error=row[21],
            command=row[22],
            wall_s=_to_float(row[12]),
            cpu_s=_to_float(row[13]),
            peak_rss=row[14],
            blocks=tuple(HotBlock(a, e, i, bytes.fromhex(code)) for a, e, i, code in blocks),
        ),
        instruction_limit=row[11],
        created=_to_float(row[15]),
    )


def trace_row(trace_json: str) -> Row:
    return TRACE.seal((content_hash("trace", trace_json), pack(trace_json)))


def trial_row(trial: Trial, trace: str | None) -> Row:
    """`trace` is the id of the trial's trace row."""
    return TRIAL.seal(
        (
            trial.run,
            trial.index,
            trial.candidate,
            str(trial.status),
            _real_or_none(trial.value),
            trial.simulation,
            int(trial.is_reference),
            trace,
            _real_or_none(trial.predicted_s),
            _real_or_none(trial.measured_s),
            _real(trial.build_s),
            _real(trial.link_s),
            _real(trial.simulate_s),
            _real(trial.created),
            trial.stage,
            _tail(trial.error),
            _text(trial.command),
        )
    )


def trial_from(row: Sequence[Any], trace: bytes | None) -> Trial:
    """`trace` is the packed text of the trial's trace row."""
    return Trial(
        run=row[0],
        index=row[1],
        candidate=row[2],
        status=Status(row[3]),
        trace_json="" if trace is None else unpack(trace),
        simulation=row[5],
        stage=row[14],
        error=row[15],
        command=row[16],
        value=_to_float_or_none(row[4]),
        predicted_s=_to_float_or_none(row[8]),
        measured_s=_to_float_or_none(row[9]),
        build_s=_to_float(row[10]),
        link_s=_to_float(row[11]),
        simulate_s=_to_float(row[12]),
        is_reference=bool(row[6]),
        created=_to_float(row[13]),
    )


def measurement_row(measurement: Measurement) -> Row:
    return MEASUREMENT.seal(
        (
            measurement.simulation,
            _text(measurement.target),
            _json(list(measurement.seconds)),
            _real(measurement.median),
            _real(measurement.spread),
            canonical_json(measurement.conditions),
            _real(measurement.created),
        )
    )


def measurement_from(row: Sequence[Any]) -> Measurement:
    return Measurement(
        simulation=row[0],
        target=row[1],
        seconds=json.loads(row[2]),
        median=_to_float(row[3]),
        spread=_to_float(row[4]),
        conditions=json.loads(row[5]),
        created=_to_float(row[6]),
    )


#: What a decoder raises on a value that was not written by us.
DECODE_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, zlib.error)

#: How a sealed row becomes a value, to see whether it can; a trial's trace is looked up elsewhere.
DECODERS: Mapping[str, Callable[[Sequence[Any]], object]] = {
    "workload": workload_from,
    "run": run_from,
    "simulation": simulation_from,
    "trace": lambda row: unpack(row[1]),
    "trial": lambda row: trial_from(row, None),
    "measurement": measurement_from,
}
