# SPDX-License-Identifier: Apache-2.0
"""The record store: every finished job is here before its result is used.

One connection per store, guarded by a lock, serves all threads of a process; several processes
may open the same file. A method that writes returns after the data is on the disk, unless it is
inside `RecordStore.batch`. Stores belong on a local file system, since WAL does not work on NFS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simtune.errors import RecordError
from simtune.jobs import Outcome, Status
from simtune.records import rows, tables
from simtune.records.database import MEMORY
from simtune.records.database import default_store_path as default_store_path
from simtune.records.model import (
    Conditions,
    Measurement,
    Run,
    RunState,
    RunSummary,
    Simulation,
    Trial,
    TrialBrief,
    Workload,
)
from simtune.records.origins import Origin
from simtune.records.session import Session

_log = logging.getLogger(__name__)

# A definite outcome is never displaced by a lesser one: an infrastructure failure of another
# process must not hide a result, nor a timeout one that came later. Equals displace each other,
# which heals damage.
_RANK = """CASE {0}.status WHEN 'infrastructure' THEN -1
    WHEN 'timeout' THEN coalesce({0}.instruction_limit, 1 << 62) ELSE (1 << 62) + 1 END"""
_PUT_SIMULATION = (
    f"{tables.SIMULATION.replace} WHERE {_RANK.format('excluded')} >= {_RANK.format('simulation')}"
)
_PUT_TRACE = f"{tables.TRACE.insert} ON CONFLICT (id) DO NOTHING"


class RecordStore(Session):
    """An open record store.

    Args:
        path: the file, or ``":memory:"``.
        create: make the file when it is missing; read verbs pass False.
        readonly: do not write, not even a migration; works in a folder without write permission.
        timeout: seconds to wait for another process's transaction.

    Raises:
        RecordError: the file is missing, foreign, damaged, from a newer simtune, locked, or its
            folder is not writable.

    Example:
        >>> store = RecordStore(":memory:")
        >>> workload = store.put_workload(Workload("relu", [["TENSOR", "float32", [16]]]))
        >>> run = store.start_run(workload, "sifive-u74", "0f3a", config={"seed": 7})
        >>> store.put_trial(Trial(run.id, 0, "c0", Status.OK, value=1e-3))
        >>> store.best_trial(run=run.id).value
        0.001
        >>> store.close()
    """

    def _trial(self, row: Any) -> Trial:
        return self.decode(tables.TRIAL, lambda sealed: rows.trial_from(sealed, row[1]), row[2:])

    # Workloads and runs -----------------------------------------------------------------------

    def put_workload(self, workload: Workload) -> str:
        """Stores a workload and returns its id; the same content is stored once."""
        row = rows.workload_row(workload)
        with self.writing() as connection:
            connection.execute(f"{tables.WORKLOAD.insert} ON CONFLICT (id) DO NOTHING", row)
        return str(row[0])

    def workload(self, workload_id: str) -> Workload:
        """The workload with this id; RecordError when there is none."""
        found = self.query(f"SELECT {tables.WORKLOAD.select} FROM workload WHERE id = ?", (workload_id,))
        if not found:
            raise RecordError(f"{self.path} has no workload '{workload_id}'", "see: simtune records list")
        return self.decode(tables.WORKLOAD, rows.workload_from, found[0])

    def start_run(
        self,
        workload: str,
        machine: str,
        machine_digest: str,
        *,
        target: str = '""',
        config: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> Run:
        """Stores and returns a new run of a stored workload (its id); see `Run` for the arguments."""
        run = Run(
            secrets.token_hex(6), workload, machine, machine_digest, target, config or {}, versions or {}
        )
        self.put_run(run)
        return run

    def put_run(self, run: Run) -> None:
        """Stores a run as it is, in the place of one with the same id."""
        with self.writing() as connection:
            connection.execute(tables.RUN.replace, rows.run_row(run))

    def finish_run(self, run_id: str, state: RunState = RunState.FINISHED) -> Run:
        """Notes how a run ended, and when."""
        with self.batch():
            run = replace(self.run(run_id), state=state, finished=time.time())
            self.put_run(run)
        return run

    def reopen_run(self, run_id: str) -> Run:
        """Takes up a run again: it is running and has no end."""
        with self.batch():
            run = replace(self.run(run_id), state=RunState.RUNNING, finished=None)
            self.put_run(run)
        return run

    def find_run(self, workload: str, machine_digest: str, config_digest: str) -> Run | None:
        """The newest run of this workload id on this machine with this configuration, or None.

        See `simtune.records.config_digest`.
        """
        found = self.query(
            f"SELECT {tables.RUN.select} FROM run WHERE workload = ? AND machine_digest = ?"
            " AND config_digest = ? ORDER BY started DESC LIMIT 1",
            (workload, machine_digest, config_digest),
        )
        return self.decode(tables.RUN, rows.run_from, found[0]) if found else None

    def run(self, run_id: str) -> Run:
        """The run whose id starts so; RecordError when there is none, or more than one."""
        found = self.query(
            f"SELECT {tables.RUN.select} FROM run WHERE substr(id, 1, ?) = ? LIMIT 2", (len(run_id), run_id)
        )
        if len(found) != 1 or not run_id:
            problem = "more than one run" if found else "no run"
            raise RecordError(f"{self.path} has {problem} '{run_id}'", "see: simtune records list")
        return self.decode(tables.RUN, rows.run_from, found[0])

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        found = self.query(f"SELECT {tables.RUN.select} FROM run ORDER BY started, rowid")
        return [self.decode(tables.RUN, rows.run_from, row) for row in found]

    def summaries(self) -> list[RunSummary]:
        """All runs with their totals, oldest first; the reference is no trial of the search."""
        found = self.query(
            f"SELECT {tables.RUN.select}, coalesce(workload.name, run.workload),"
            " count(CASE WHEN NOT trial.is_reference THEN 1 END),"
            " count(CASE WHEN trial.status <> 'ok' AND NOT trial.is_reference THEN 1 END),"
            " min(CASE WHEN trial.status = 'ok' AND NOT trial.is_reference THEN trial.value END),"
            " min(CASE WHEN trial.status = 'ok' AND trial.is_reference THEN trial.value END)"
            " FROM run LEFT JOIN workload ON workload.id = run.workload"
            " LEFT JOIN trial ON trial.run = run.id"
            " GROUP BY run.rowid ORDER BY run.started, run.rowid"
        )
        return [
            RunSummary(
                self.decode(tables.RUN, rows.run_from, row[:-5]),
                workload=row[-5],
                trials=row[-4],
                failures=row[-3],
                best=_number(row[-2]),
                reference=_number(row[-1]),
            )
            for row in found
        ]

    # Simulations ------------------------------------------------------------------------------

    def get_simulation(self, key: str, instruction_limit: int | None = None) -> Simulation | None:
        """The stored simulation, if a job with this instruction limit can use its outcome.

        None for a key that is unknown, an outcome that is not `Simulation.reusable`, and a
        damaged row: the job then runs, and what it stores takes the damaged row's place.
        """
        simulation = self.simulation(key)
        return simulation if simulation and simulation.reusable(instruction_limit) else None

    def simulation(self, key: str) -> Simulation | None:
        """The stored simulation, reusable or not; None when unknown or damaged."""
        found = self.query(f"SELECT {tables.SIMULATION.select} FROM simulation WHERE key = ?", (key,))
        if not found:
            return None
        try:
            return self.decode(tables.SIMULATION, rows.simulation_from, found[0])
        except RecordError:
            _log.warning("%s: simulation %s is damaged and will run again", self.path, key)
            return None

    def put_simulation(
        self, conditions: Conditions, outcome: Outcome, instruction_limit: int | None = None
    ) -> str:
        """Commits one outcome and returns its key; see `Conditions` for what the key is made of."""
        simulation = Simulation(conditions, outcome, instruction_limit)
        self.put_simulations([simulation])
        return simulation.key

    def put_simulations(self, simulations: Iterable[Simulation]) -> None:
        """Commits many outcomes at once."""
        self.put_results(simulations, ())

    def simulations(
        self,
        *,
        status: Status | None = None,
        simulator: str | None = None,
        machine_digest: str | None = None,
    ) -> Iterator[Simulation]:
        """Stored simulations in the order of storing."""
        sql = f"SELECT simulation.rowid, {tables.SIMULATION.select} FROM simulation"
        filters = {"status": status, "simulator": simulator, "machine_digest": machine_digest}
        for row in self.scan(sql, "simulation.rowid", filters):
            yield self.decode(tables.SIMULATION, rows.simulation_from, row[1:])

    def recent_simulations(self, machine_digest: str, number: int = 2000) -> list[Simulation]:
        """Those of a machine among the newest `number`, the newest first; damaged ones are left out."""
        found = self.query(
            f"SELECT {tables.SIMULATION.select} FROM simulation ORDER BY rowid DESC LIMIT ?", (number,)
        )
        digest = tables.SIMULATION.columns.index("machine_digest")
        simulations = []
        for row in found:
            if row[digest] == machine_digest:
                with contextlib.suppress(RecordError):
                    simulations.append(self.decode(tables.SIMULATION, rows.simulation_from, row))
        return simulations

    # Trials -----------------------------------------------------------------------------------

    def put_trial(self, trial: Trial) -> None:
        """Commits one trial, in the place of one with the same run and index."""
        self.put_trials([trial])

    def put_trials(self, trials: Iterable[Trial]) -> None:
        """Commits many trials at once."""
        self.put_results((), trials)

    def put_results(self, simulations: Iterable[Simulation], trials: Iterable[Trial]) -> None:
        """Commits outcomes and the trials that refer to them at once: all of them or none.

        One wait for the disk for everything, so a driver with many results a second collects them
        and commits them in groups (`benchmarks/records.py` measures groups of 1,000).
        """
        outcomes = [rows.simulation_row(simulation) for simulation in simulations]
        traces, encoded = [], []
        for trial in trials:
            trace = rows.trace_row(trial.trace_json) if trial.trace_json else None
            if trace is not None:
                traces.append(trace)
            encoded.append(rows.trial_row(trial, None if trace is None else str(trace[0])))
        with self.writing() as connection:
            connection.executemany(_PUT_SIMULATION, outcomes)
            connection.executemany(_PUT_TRACE, traces)
            connection.executemany(tables.TRIAL.replace, encoded)

    def trials(self, run: str, *, status: Status | None = None) -> Iterator[Trial]:
        """The trials of a run by index, with their traces."""
        filters = {"trial.run": run, "trial.status": status}
        for row in self.scan(_SELECT_TRIAL, "trial.idx", filters):
            yield self._trial(row)

    def trial_briefs(self, run: str) -> Iterator[TrialBrief]:
        """The trials of a run by index, in brief: what resume has to read."""
        sql = "SELECT idx, candidate, status, value, simulation, is_reference FROM trial"
        for row in self.scan(sql, "idx", {"run": run}):
            yield self._brief(run, row)

    def trial_origins(self, run: str) -> Iterator[tuple[TrialBrief, Origin | None]]:
        """The trials of a batch by index, in brief, with where they come from if that is legible."""
        sql = (
            "SELECT idx, candidate, status, value, simulation, is_reference, json"
            " FROM trial LEFT JOIN trace ON trace.id = trial.trace"
        )
        for row in self.scan(sql, "idx", {"run": run}):
            try:
                origin = None if row[6] is None else Origin.from_json(rows.unpack(row[6]))
            except rows.DECODE_ERRORS:
                origin = None
            yield self._brief(run, row[:6]), origin

    def _brief(self, run: str, row: Sequence[Any]) -> TrialBrief:
        index, candidate, status, value, simulation, is_reference = row
        try:
            return TrialBrief(
                index, candidate, Status(status), _number(value), simulation, bool(is_reference)
            )
        except ValueError:
            raise self.damaged(f"trial {run}:{index}") from None

    def trial(self, run: str, index: int) -> Trial | None:
        """One trial, or None."""
        found = self.query(f"{_SELECT_TRIAL} WHERE trial.run = ? AND trial.idx = ?", (run, index))
        return self._trial(found[0]) if found else None

    def best_trial(
        self,
        run: str | None = None,
        *,
        workload: str | None = None,
        machine_digest: str | None = None,
        by: str = "value",
        reference: bool | None = False,
    ) -> Trial | None:
        """The successful trial with the smallest finite number, the earliest among equals.

        Args:
            run, workload, machine_digest: where to look; without any, everywhere.
            by: "value", "predicted_s" or "measured_s".
            reference: False leaves out TVM's default schedules, True takes only them.
        """
        if by not in ("value", "predicted_s", "measured_s"):
            raise ValueError(f"by='{by}': must be 'value', 'predicted_s' or 'measured_s'")
        filters = {
            "trial.run": run,
            "run.workload": workload,
            "run.machine_digest": machine_digest,
            "trial.is_reference": None if reference is None else int(reference),
        }
        used = {column: value for column, value in (filters or {}).items() if value is not None}
        where = "".join(f" AND {column} = ?" for column in used)
        found = self.query(
            f"{_SELECT_TRIAL} JOIN run ON run.id = trial.run WHERE trial.status = 'ok'"
            f" AND typeof(trial.{by}) = 'real' AND abs(trial.{by}) < 9e999{where}"
            f" ORDER BY trial.{by}, trial.rowid LIMIT 1",
            tuple(used.values()),
        )
        return self._trial(found[0]) if found else None

    def status_counts(self, run: str | None = None) -> dict[Status, int]:
        """How many trials ended how, in one run or in all."""
        where = "" if run is None else " WHERE run = ?"
        found = self.query(
            f"SELECT status, count(*) FROM trial{where} GROUP BY status", () if run is None else (run,)
        )
        known = frozenset(Status)
        if any(status not in known for status, _ in found):
            raise self.damaged("the status of a trial")
        return {Status(status): number for status, number in found}

    # Measurements -----------------------------------------------------------------------------

    def put_measurement(self, measurement: Measurement) -> None:
        """Commits the native times of a stored simulation."""
        with self.writing() as connection:
            connection.execute(tables.MEASUREMENT.replace, rows.measurement_row(measurement))

    def measurements(
        self, simulation: str | None = None, *, target: str | None = None
    ) -> Iterator[Measurement]:
        """Native times in the order of storing."""
        sql = f"SELECT measurement.rowid, {tables.MEASUREMENT.select} FROM measurement"
        for row in self.scan(sql, "measurement.rowid", {"simulation": simulation, "target": target}):
            yield self.decode(tables.MEASUREMENT, rows.measurement_from, row[1:])

    def size(self) -> int:
        """Bytes on the disk, the write-ahead log included."""
        if self.path == MEMORY:
            return 0
        files = (Path(self.path), Path(self.path + "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())


_SELECT_TRIAL = (
    f"SELECT trial.idx, trace.json, {tables.TRIAL.select}"
    " FROM trial LEFT JOIN trace ON trace.id = trial.trace"
)


def open_existing(path: str | os.PathLike[str]) -> RecordStore:
    """Opens a store to read it: never creates one, and brings an old one up to date if it may."""
    file = Path(path)
    writable = os.access(file, os.W_OK) and os.access(file.parent, os.W_OK | os.X_OK)
    return RecordStore(file, create=False, readonly=file.exists() and not writable)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
