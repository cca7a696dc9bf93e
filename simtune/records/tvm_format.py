# SPDX-License-Identifier: Apache-2.0
"""Trials as a JSON database of TVM's MetaSchedule, written without importing TVM.

``ms.database.JSONDatabase(work_dir=folder)`` loads the two files, and its ``query_schedule`` then
finds the best schedule. Each line is one JSON document:

- ``database_workload.json``: ``[structural hash, base64 of the module]``, which is
  `Workload.tvm_json` as it is;
- ``database_tuning_record.json``: ``[workload line, [trace, [seconds], target, arguments]]``, from
  `Trial.trace_json`, a time of the trial, `Run.target` and `Workload.arguments`.

A record names its workload by line number, so always read and copy the two files together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from simtune.errors import RecordError
from simtune.records.files import whole_file
from simtune.records.model import Run, Trial
from simtune.records.store import RecordStore

Times = Literal["value", "predicted", "measured"]

#: The time TVM itself stores for a candidate that failed.
FAILED_SECONDS = 1e10

WORKLOAD_FILE = "database_workload.json"
RECORD_FILE = "database_tuning_record.json"


@dataclass
class TvmExport:
    """What was written: workloads, records, and trials left out by reason."""

    workloads: int = 0
    records: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


def export_tvm(
    store: RecordStore,
    folder: Path,
    runs: Iterable[Run] | None = None,
    *,
    times: Times = "value",
    failures: bool = False,
) -> TvmExport:
    """Writes the trials of `runs` (all by default) as a TVM database into `folder`.

    Args:
        times: which number TVM sees as the run time: the objective that the tuner ranked by, the
            predicted time, or the measured one. Kinds are not mixed, since a prediction cannot be
            ranked against a measurement; trials without the kind asked for are left out.
        failures: also write failed trials, with 1e10 s as TVM's own tuner does. They teach a cost
            model, but look like very slow results to anything else, so they are left out by default.
    """
    report = TvmExport()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot make {folder}: {error.strerror}", "choose another place with -o") from None
    lines: dict[str, int] = {}
    with whole_file(folder / WORKLOAD_FILE) as workloads, whole_file(folder / RECORD_FILE) as records:
        for run in store.runs() if runs is None else runs:
            workload = store.workload(run.workload)
            arguments = json.dumps(workload.arguments)
            for trial, seconds in _exportable(store, run, times, failures, report):
                if not workload.tvm_json:
                    _skip(report, "its workload is not from TVM")
                    continue
                # The same module may be there under several names: TVM knows it by its hash.
                line = lines.get(workload.structural_hash)
                if line is None:
                    line = lines[workload.structural_hash] = len(lines)
                    workloads.write(_one_line(workload.tvm_json).encode() + b"\n")
                trace = _one_line(trial.trace_json)
                record = f"[{line},[{trace},[{seconds!r}],{_one_line(run.target)},{arguments}]]\n"
                records.write(record.encode())
                report.records += 1
    report.workloads = len(lines)
    return report


def _exportable(
    store: RecordStore, run: Run, times: Times, failures: bool, report: TvmExport
) -> Iterator[tuple[Trial, float]]:
    for trial in store.trials(run.id):
        value = {"value": trial.value, "predicted": trial.predicted_s, "measured": trial.measured_s}[times]
        if not trial.trace_json:
            _skip(report, "it has no trace")
        elif trial.ok and value is not None and 0 <= value < FAILED_SECONDS:
            yield trial, value
        elif trial.ok:
            _skip(report, f"it has no {times} time" if value is None else f"its {times} time is not a time")
        elif failures:
            yield trial, FAILED_SECONDS
        else:
            _skip(report, "it failed")


def _skip(report: TvmExport, reason: str) -> None:
    report.skipped[reason] = report.skipped.get(reason, 0) + 1


def _one_line(text: str) -> str:
    """JSON text on one line; TVM reads the files line by line."""
    return text if "\n" not in text and "\r" not in text else json.dumps(json.loads(text))
