# SPDX-License-Identifier: Apache-2.0
"""Exports: a TVM database that TVM loads, CSV and Parquet."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import records_helpers as helpers

from simtune.counters import SCHEMA
from simtune.errors import RecordError, ToolMissingError
from simtune.jobs import Status
from simtune.records import RecordStore, Trial, Workload
from simtune.records.export import COLUMNS, export_csv, export_parquet
from simtune.records.tvm_format import RECORD_FILE, WORKLOAD_FILE, export_tvm

TARGET = {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}


@pytest.fixture
def store():
    with RecordStore(":memory:") as opened:
        yield opened


# TVM ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampled() -> tuple[Any, Any, list[Any]]:
    """MetaSchedule, a module, and real candidates of it."""
    for part in ("cuda", "rocm", "metal", "hexagon"):  # their import takes 15 s
        name = f"tvm.s_tir.tensor_intrin.{part}"
        sys.modules.setdefault(name, types.ModuleType(name))
    import tvm
    from tvm import te, topi
    from tvm.s_tir import meta_schedule as ms

    a, b = (te.placeholder((16, 16), name=name) for name in "AB")
    function = te.create_prim_func([a, b, topi.nn.matmul(a, b)])
    if function.attrs and "layout_free_buffers" in function.attrs:
        function = function.without_attr("layout_free_buffers")
    module = tvm.IRModule({"main": function})
    target = tvm.target.Target(TARGET)
    with target:
        context = ms.TuneContext(
            mod=module,
            target=target,
            space_generator="post-order-apply",
            search_strategy="replay-trace",
            task_name="matmul",
            rand_state=7,
            num_threads=1,
        )
        context.pre_tuning(
            max_trials=6,
            num_trials_per_iter=6,
            design_spaces=context.generate_design_space(),
            database=ms.database.MemoryDatabase(),
            cost_model=ms.cost_model.RandomModel(),
        )
        candidates = context.generate_measure_candidates()
    return ms, module, list(candidates)


VALUES = [5e-3, 3e-3, None, 1e-3, 4e-3, 2e-3]


def store_candidates(store: RecordStore, sampled: tuple[Any, Any, list[Any]], name: str = "matmul") -> str:
    """Puts the candidates in as the tuner does; number 2 failed, number 1 measured best."""
    import tvm

    ms, module, candidates = sampled
    target = tvm.target.Target(TARGET)
    tvm_workload = ms.database.Workload(module)
    workload = Workload(
        name,
        [argument.as_json() for argument in candidates[0].args_info],
        json.dumps(tvm_workload.as_json()),
    )
    run = store.start_run(store.put_workload(workload), "host", "d", target=json.dumps(TARGET))
    for index, (candidate, value) in enumerate(zip(candidates, VALUES, strict=True)):
        trace, arguments = candidate.sch.trace, candidate.args_info
        record = ms.database.TuningRecord(trace, tvm_workload, [1.0], target, arguments)
        store.put_trial(
            Trial(
                run.id,
                index,
                f"c{index}",
                Status.CRASHED if value is None else Status.OK,
                trace_json=json.dumps(record.as_json()[0]),
                value=value,
                predicted_s=value,
                measured_s=7e-4 if index == 1 else 8e-4 if index == 3 else None,
            )
        )
    return run.id


def load(sampled: tuple[Any, Any, list[Any]], folder: Path) -> Any:
    return sampled[0].database.JSONDatabase(work_dir=str(folder))


def test_tvm_loads_the_export_and_finds_the_best(
    store: RecordStore, sampled: tuple[Any, Any, list[Any]], tmp_path: Path
) -> None:
    import tvm

    store_candidates(store, sampled)
    written = export_tvm(store, tmp_path / "work")
    assert (written.workloads, written.records, written.skipped) == (1, 5, {"it failed": 1})
    database = load(sampled, tmp_path / "work")
    records = database.get_all_tuning_records()
    assert sorted(float(record.run_secs[0]) for record in records) == [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]
    target = tvm.target.Target(TARGET)
    _, module, candidates = sampled
    schedule = database.query_schedule(module, target, "main")
    assert schedule.mod.script() == candidates[3].sch.mod.script()
    assert [list(argument.shape) for argument in records[0].args_info] == [[16, 16]] * 3
    assert str(records[0].target) == str(target)


def test_tvm_measured_times_are_not_mixed_with_predicted_ones(
    store: RecordStore, sampled: tuple[Any, Any, list[Any]], tmp_path: Path
) -> None:
    import tvm

    store_candidates(store, sampled)
    written = export_tvm(store, tmp_path, times="measured")
    assert written.skipped == {"it failed": 1, "it has no measured time": 3}
    database = load(sampled, tmp_path)
    schedule = database.query_schedule(sampled[1], tvm.target.Target(TARGET), "main")
    assert schedule.mod.script() == sampled[2][1].sch.mod.script()


def test_tvm_failures_on_request(
    store: RecordStore, sampled: tuple[Any, Any, list[Any]], tmp_path: Path
) -> None:
    store_candidates(store, sampled)
    export_tvm(store, tmp_path, failures=True)
    times = [float(record.run_secs[0]) for record in load(sampled, tmp_path).get_all_tuning_records()]
    assert len(times) == 6
    assert max(times) == 1e10


def test_tvm_one_line_per_module(
    store: RecordStore, sampled: tuple[Any, Any, list[Any]], tmp_path: Path
) -> None:
    """The same module under two names is one workload to TVM."""
    first = store_candidates(store, sampled)
    store_candidates(store, sampled, "another name")
    assert export_tvm(store, tmp_path / "all").workloads == 1
    assert len((tmp_path / "all" / WORKLOAD_FILE).read_text().splitlines()) == 1
    assert len((tmp_path / "all" / RECORD_FILE).read_text().splitlines()) == 10
    assert len(load(sampled, tmp_path / "all").get_all_tuning_records()) == 10
    assert export_tvm(store, tmp_path / "one", [store.run(first)]).records == 5


def test_tvm_export_leaves_out_what_did_not_come_from_tvm(store: RecordStore, tmp_path: Path) -> None:
    run = store.start_run(store.put_workload(Workload("w", [])), "m", "d")
    store.put_trial(Trial(run.id, 0, "c", Status.OK, value=1.0))
    store.put_trial(Trial(run.id, 1, "c", Status.OK, value=1.0, trace_json="[[],[]]"))
    store.put_trial(Trial(run.id, 2, "c", Status.OK, value=float("nan"), trace_json="[[],[]]"))
    written = export_tvm(store, tmp_path)
    assert written.records == 0
    assert sorted(written.skipped) == [
        "it has no trace",
        "its value time is not a time",
        "its workload is not from TVM",
    ]
    assert (tmp_path / RECORD_FILE).read_bytes() == b""


def test_tvm_export_of_text_over_several_lines(store: RecordStore, tmp_path: Path) -> None:
    workload = Workload("w", [helpers.TENSOR], json.dumps(["1", "AA"], indent=2))
    run = store.start_run(store.put_workload(workload), "m", "d", target=json.dumps(TARGET, indent=2))
    trace = json.dumps([["a", "b"], []], indent=2)
    store.put_trial(Trial(run.id, 0, "c", Status.OK, value=0.1, trace_json=trace))
    export_tvm(store, tmp_path)
    [line] = (tmp_path / RECORD_FILE).read_text().splitlines()
    assert json.loads(line) == [0, [[["a", "b"], []], [0.1], TARGET, [helpers.TENSOR]]]
    assert (tmp_path / WORKLOAD_FILE).read_text().count("\n") == 1


# Tables -------------------------------------------------------------------------------------------


def test_csv(store: RecordStore, tmp_path: Path) -> None:
    helpers.fill(store)
    other = helpers.fill(store, 3)
    path = tmp_path / "trials.csv"
    assert export_csv(store, path) == 23
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert rows[3]["insn.vec_fp_fma"] == str(helpers.COUNTERS["insn.vec_fp_fma"])
    assert rows[3]["value"] == repr(store.trial(rows[3]["run"], 3).value)  # type: ignore[union-attr]
    assert rows[4]["status"] == "crashed"
    assert rows[4]["instructions"] == ""
    assert (rows[4]["error"], rows[4]["stage"]) == ("SIGSEGV", "simulate")
    assert export_csv(store, path, [other]) == 3


def test_csv_of_text_with_every_trap(store: RecordStore, tmp_path: Path) -> None:
    error = 'a,"b"\r\nc\n;é\t=1'
    run = store.start_run(store.put_workload(Workload('w,"x"', [])), "m", "d")
    store.put_trial(Trial(run.id, 0, "c", Status.BUILD_FAILED, stage="build", error=error))
    export_csv(store, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert (row["workload_name"], row["error"], row["stage"]) == ('w,"x"', error, "build")


def test_export_into_a_missing_folder(store: RecordStore, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot write"):
        export_csv(store, tmp_path / "no" / "t.csv")


@pytest.mark.skipif(not importlib.util.find_spec("pyarrow"), reason="needs the parquet extra")
def test_parquet(store: RecordStore, tmp_path: Path) -> None:
    parquet = importlib.import_module("pyarrow.parquet")
    helpers.fill(store)
    assert export_parquet(store, tmp_path / "t.parquet") == 20
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.column_names == list(COLUMNS)
    assert table["instructions"].null_count == 4
    assert table["l1d.read_misses"].to_pylist()[0] == helpers.COUNTERS["l1d.read_misses"]
    assert table["is_reference"].to_pylist()[:2] == [True, False]
    assert set(SCHEMA) < set(table.column_names)


def test_parquet_without_pyarrow(store: RecordStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ToolMissingError) as caught:
        export_parquet(store, tmp_path / "t.parquet")
    assert caught.value.hint == "pip install 'simtune[parquet]'"
    assert list(tmp_path.iterdir()) == []
