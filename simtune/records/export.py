# SPDX-License-Identifier: Apache-2.0
"""Trials as a table, one row per trial with its counters as columns: CSV and Parquet."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from simtune.counters import SCHEMA
from simtune.errors import ToolMissingError
from simtune.records.files import whole_file
from simtune.records.model import Run, canonical_json
from simtune.records.points import config_of
from simtune.records.store import RecordStore

#: Column name to kind, in the order of the table; the counters follow.
COLUMNS: dict[str, str] = {
    "run": "text",
    "index": "int",
    "workload": "text",
    "workload_name": "text",
    "machine": "text",
    "machine_digest": "text",
    "candidate": "text",
    "simulation": "text",
    "is_reference": "bool",
    "status": "text",
    "stage": "text",
    "value": "float",
    "predicted_s": "float",
    "measured_s": "float",
    "build_s": "float",
    "link_s": "float",
    "simulate_s": "float",
    "created": "float",
    "error": "text",
    "simulator": "text",
    "replacement": "text",
    "counter_schema": "int",
    "configuration": "text",
    "accelerator_counters": "text",
    **dict.fromkeys(SCHEMA, "float"),
}

_CHUNK = 5000


def trial_table(store: RecordStore, runs: Iterable[Run] | None = None) -> Iterator[dict[str, Any]]:
    """One dictionary per trial, keys as in `COLUMNS`; what a trial does not have is None.

    A counter that its simulator could not give is None as well, never zero. What only an accelerator
    counts, and the knobs of a template's trial, are JSON objects in one column each.
    """
    for run in store.runs() if runs is None else runs:
        name = store.workload(run.workload).name
        for trial in store.trials(run.id):
            simulation = store.simulation(trial.simulation) if trial.simulation else None
            outcome = simulation.outcome if simulation else None
            counters = outcome.counters if outcome else None
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            row.update(
                run=run.id,
                index=trial.index,
                workload=run.workload,
                workload_name=name,
                machine=run.machine,
                machine_digest=run.machine_digest,
                candidate=trial.candidate,
                simulation=trial.simulation,
                is_reference=trial.is_reference,
                status=str(trial.status),
                stage=trial.stage or (outcome.stage if outcome and not trial.ok else ""),
                value=trial.value,
                predicted_s=trial.predicted_s,
                measured_s=trial.measured_s,
                build_s=trial.build_s,
                link_s=trial.link_s,
                simulate_s=trial.simulate_s,
                created=trial.created,
                error=trial.error or (outcome.error if outcome else ""),
            )
            if (knobs := config_of(trial)) is not None:
                row["configuration"] = canonical_json(knobs)
            if counters is not None:
                row.update({name: value for name, value in counters.items() if name in SCHEMA})
                others = {name: value for name, value in counters.items() if name not in SCHEMA}
                row.update(
                    accelerator_counters=canonical_json(others) if others else None,
                    simulator=counters.simulator,
                    replacement=counters.replacement,
                    counter_schema=counters.schema_version,
                )
            yield row


def export_csv(store: RecordStore, path: Path, runs: Iterable[Run] | None = None) -> int:
    """Writes the trials as CSV (UTF-8, with a header; absent values are empty). Returns their number."""
    number = 0
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="")
        writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        for row in trial_table(store, runs):
            writer.writerow(row)
            number += 1
        text.detach()  # flushes, and leaves the file open for its fsync
    return number


def export_parquet(store: RecordStore, path: Path, runs: Iterable[Run] | None = None) -> int:
    """Writes the trials as Parquet, compressed. Returns their number.

    Raises:
        ToolMissingError: pyarrow is not installed.
    """
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ToolMissingError(
            "Parquet export needs pyarrow, which is not installed", "pip install 'simtune[parquet]'"
        ) from None
    types = {"text": arrow.string(), "int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_()}
    schema = arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    number = 0
    table = trial_table(store, runs)
    with whole_file(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := list(islice(table, _CHUNK)):
            writer.write_table(arrow.Table.from_pylist(chunk, schema))
            number += len(chunk)
    return number
