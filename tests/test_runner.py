# SPDX-License-Identifier: Apache-2.0
"""The drop-in runner in TVM's own entry points: tune_tir, tune_tasks, Relax; answers; objectives."""

from __future__ import annotations

import logging
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simtune
from simtune.build.network import compile_network
from simtune.errors import ConfigurationError, InputFileError
from simtune.machines.load import load_machine
from simtune.tuning.workloads import parse
from simtune.tvm_setup import load, prepare

ms = load()
from tvm.target import Target  # noqa: E402

SMALL = "matmul:m=24,n=32,k=16"


def forget_handlers() -> None:
    """TVM 0.27 cannot set up its loggers while a handler without a name is there, such as pytest's."""
    logging.getLogger("tvm.s_tir.meta_schedule").handlers.clear()


def tune_small(
    machine: str, work_dir: Path, builder: Any, trials: int = 6, **options: Any
) -> tuple[Any, Any]:
    module = parse(SMALL).module()
    target = Target(dict(load_machine(machine).target))
    work_dir.mkdir(exist_ok=True)
    options.setdefault("records", work_dir / "records.db")
    runner = simtune.SimulatorRunner(machine, **options)
    forget_handlers()
    try:
        with target:  # TVM registers RVV intrinsics for the target in scope
            database = ms.tune_tir(
                module,
                target,
                work_dir=str(work_dir),
                max_trials_global=trials,
                num_trials_per_iter=trials,
                builder=builder,
                runner=runner,
                cost_model="random",
                seed=1,
                num_tuning_cores=1,  # with more, TVM's threads race for random numbers
                strategy=ms.search_strategy.ReplayTrace(),
            )
    finally:
        runner.close()
        if hasattr(builder, "close"):
            builder.close()
    return database, module


def seconds(database: Any) -> list[float]:
    return [float(record.run_secs[0]) for record in database.get_all_tuning_records()]


def test_drop_in_with_tvms_local_builder(tmp_path: Path) -> None:
    # Its fresh processes would parse TVM's GPU intrinsics first, for 20 s each.
    local = ms.builder.LocalBuilder(max_workers=2, timeout_sec=250, initializer=prepare)
    database, module = tune_small("sifive-u74", tmp_path, local, trials=4)
    times = seconds(database)
    assert len(times) == 4
    assert all(1e-7 < t < 1 for t in times)
    target = Target(dict(load_machine("sifive-u74").target))
    assert database.query_schedule(module, target, "main") is not None


@pytest.mark.parametrize("machine", ["spacemit-x60", "cortex-a72", "x86-64-v3"])
def test_fast_builder_on_every_isa_with_checked_answers(machine: str, tmp_path: Path) -> None:
    database, _module = tune_small(machine, tmp_path, simtune.Builder(), workloads=[parse(SMALL).module()])
    times = seconds(database)
    assert len(times) == 6
    assert all(1e-7 < t < 1 for t in times)


def test_tune_tasks_takes_the_same_two_arguments(tmp_path: Path) -> None:
    target = Target(dict(load_machine("sifive-u74").target))
    modules = {"matmul": parse(SMALL).module(), "softmax": parse("softmax:m=8,n=32").module()}
    tasks = [
        ms.TuneContext(
            mod=module,
            target=target,
            space_generator="post-order-apply",
            search_strategy="replay-trace",
            task_name=name,
            rand_state=1,
            num_threads=1,
        )
        for name, module in modules.items()
    ]
    runner = simtune.SimulatorRunner("sifive-u74", records=":memory:", workloads=tasks)
    builder = simtune.Builder()
    try:
        database = ms.tune.tune_tasks(
            tasks=tasks,
            task_weights=[1.0, 1.0],
            work_dir=str(tmp_path),
            max_trials_global=8,
            num_trials_per_iter=4,
            builder=builder,
            runner=runner,
            database=ms.database.MemoryDatabase(),
            cost_model="random",
        )
    finally:
        builder.close()
        runner.close()
    assert len(seconds(database)) >= 8
    assert all(t < 1 for t in seconds(database))
    assert all(database.query_schedule(m, target, n) is not None for n, m in modules.items())


def test_a_timeout_holds_under_the_same_bounds_only(tmp_path: Path) -> None:
    """One overloaded moment, or a mistyped limit, must not mark a candidate for ever."""
    statuses = []
    for wall in (0.001, 0.001, 60.0):
        seen: list[Any] = []
        tune_small(
            "sifive-u74",
            tmp_path / f"{len(statuses)}",
            simtune.Builder(),
            trials=1,
            records=tmp_path / "records.db",
            limits=simtune.Limits(wall_s=wall),
            listener=lambda _path, evaluation, seen=seen: seen.append(
                (str(evaluation.status), evaluation.cached)
            ),
        )
        statuses += seen
    assert statuses == [("timeout", False), ("timeout", True), ("ok", False)]


def test_nothing_that_is_stored_runs_again(tmp_path: Path) -> None:
    store = tmp_path / "records.db"
    first, _ = tune_small("sifive-u74", tmp_path / "first", simtune.Builder(), records=store)
    seen = []
    again, _ = tune_small(
        "sifive-u74",
        tmp_path / "again",
        simtune.Builder(),
        records=store,
        listener=lambda _path, evaluation: seen.append(evaluation.cached),
    )
    assert seen == [True] * 6
    assert sorted(seconds(first)) == sorted(seconds(again))


def test_objectives_replace_the_time(tmp_path: Path) -> None:
    database, _ = tune_small("sifive-u74", tmp_path, simtune.Builder(), objective="instructions")
    assert all(value == int(value) > 1000 for value in seconds(database))
    twice, _ = tune_small(
        "sifive-u74",
        tmp_path / "twice",
        simtune.Builder(),
        objective=lambda counters, machine: 2 * counters["instructions"],
    )
    assert sorted(seconds(twice)) == [2 * value for value in sorted(seconds(database))]


def test_a_wrong_answer_is_never_a_time(tmp_path: Path) -> None:
    """The reference is falsified in one element."""
    module = parse("softmax:m=24,n=32").module()
    runner = simtune.SimulatorRunner(
        "sifive-u74", records=":memory:", workloads=[parse("max_pool:c=1,h=8").module()]
    )
    try:
        reference = runner.expect(module)
        expectation = reference.expectation()
        data = np.frombuffer(expectation.path.read_bytes(), np.float32).copy()
        data[5] += 1.0
        expectation.path.write_bytes(data.tobytes())
        target = Target(dict(load_machine("sifive-u74").target))
        builder = simtune.Builder(1)
        built = builder.build([ms.builder.BuilderInput(module, target)])[0]
        infos = ms.arg_info.ArgInfo.from_entry_func(module)
        result = runner.run([ms.runner.RunnerInput(built.artifact_path, "llvm", infos)])[0].result()
        builder.close()
    finally:
        runner.close()
    assert result.run_secs is None
    assert "wrong_output" in str(result.error_msg)


def test_without_references_a_batch_outvotes_a_wrong_candidate(tmp_path: Path) -> None:
    target = Target(dict(load_machine("sifive-u74").target))
    right, wrong = parse("matmul:m=16,n=16,k=16").module(), _matmul_off_by_one()
    runner = simtune.SimulatorRunner("sifive-u74", records=":memory:")
    builder = simtune.Builder(2)
    try:
        built = builder.build([ms.builder.BuilderInput(m, target) for m in (right, right, right, wrong)])
        infos = ms.arg_info.ArgInfo.from_entry_func(right)
        futures = runner.run([ms.runner.RunnerInput(b.artifact_path, "llvm", infos) for b in built])
        results = [future.result() for future in futures]
    finally:
        builder.close()
        runner.close()
    assert [result.run_secs is None for result in results] == [False, False, False, True]
    assert "wrong_output" in str(results[3].error_msg)


def _matmul_off_by_one() -> Any:
    """A matmul that forgets the last product, as a bad schedule might."""
    import tvm
    from tvm import te

    a, b = te.placeholder((16, 16), name="a"), te.placeholder((16, 16), name="b")
    k = te.reduce_axis((0, 15), "k")
    c = te.compute((16, 16), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k))
    return tvm.IRModule({"main": te.create_prim_func([a, b, c]).with_attr("global_symbol", "main")})


def test_repacked_operands_are_not_wrong(tmp_path: Path) -> None:
    """TVM marks the weight of a matmul as free in its layout: candidates may expect it re-packed."""
    import tvm
    from tvm import te, topi

    a, b = te.placeholder((32, 32), name="a"), te.placeholder((32, 32), name="b")
    function = te.create_prim_func([a, b, topi.nn.matmul(a, b)]).with_attr("global_symbol", "main")
    assert "layout_free_buffers" in function.attrs
    module = tvm.IRModule({"main": function})
    target = Target(dict(load_machine("x86-64-v3").target))
    for references in ([], [module]):
        runner = simtune.SimulatorRunner("x86-64-v3", records=":memory:", workloads=references)
        builder = simtune.Builder()
        forget_handlers()
        try:
            database = ms.tune_tir(
                module,
                target,
                work_dir=str(tmp_path / str(len(references))),
                max_trials_global=8,
                num_trials_per_iter=8,
                builder=builder,
                runner=runner,
                cost_model="random",
                seed=3,
                strategy=ms.search_strategy.ReplayTrace(),
            )
        finally:
            builder.close()
            runner.close()
        assert len(database.get_all_tuning_records()) == 8
        assert all(t < 1 for t in seconds(database))


def test_unknown_machine_and_broken_simulator_are_clear() -> None:
    with pytest.raises(ConfigurationError, match="sifive-u75"):
        simtune.SimulatorRunner("sifive-u75", records=":memory:")
    with pytest.raises(ConfigurationError, match="nosuch"):
        simtune.SimulatorRunner("sifive-u74", simulator="nosuch", records=":memory:")


def _network() -> tuple[Any, dict[str, np.ndarray]]:
    from tvm import relax
    from tvm.relax.frontend import nn

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.c1 = nn.Conv2D(3, 8, 3, padding=1)
            self.c2 = nn.Conv2D(8, 16, 3, stride=2, padding=1)
            self.fc = nn.Linear(16 * 8 * 8, 10)

        def forward(self, x: Any) -> Any:
            x = nn.op.relu(self.c2(nn.op.relu(self.c1(x))))
            return nn.op.softmax(self.fc(nn.op.reshape(x, (1, 16 * 8 * 8))), axis=-1)

    module, parameters = Net().export_tvm({"forward": {"x": nn.spec.Tensor((1, 3, 16, 16), "float32")}})
    rng = np.random.default_rng(0)
    values = {"x": rng.normal(size=(1, 3, 16, 16)).astype(np.float32)}
    for name, parameter in parameters:
        values[name] = (rng.normal(size=[int(d) for d in parameter.shape]) * 0.2).astype(np.float32)
    return relax.get_pipeline("zero")(module), values


@pytest.fixture(scope="module")
def tuned_network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    module, values = _network()
    machine = load_machine("sifive-u74")
    target = Target(dict(machine.target))
    work = tmp_path_factory.mktemp("relax")
    tasks = ms.relax_integration.extract_tasks(module, target, params={})
    runner = simtune.SimulatorRunner(machine, records=work / "records.db", workloads=tasks)
    builder = simtune.Builder()
    forget_handlers()
    try:
        database = ms.relax_integration.tune_relax(
            module,
            {},
            target,
            str(work),
            max_trials_global=24,
            max_trials_per_task=3,
            num_trials_per_iter=3,
            builder=builder,
            runner=runner,
            cost_model="random",
            seed=0,
            strategy=ms.search_strategy.ReplayTrace(),
        )
    finally:
        builder.close()
        runner.close()
    return module, values, machine, database, work


def test_relax_network_tuned_and_run_in_the_simulator(tuned_network: Any) -> None:
    import tvm
    from tvm import relax

    module, values, machine, database, work = tuned_network
    assert all(t < 1 for t in seconds(database)), "every candidate of every task is right"
    network = compile_network(module, machine, work / "network.elf", database)
    (output,), outcome = network.run(values)
    # The reference runs in TVM's own virtual machine on this host.
    host = Target({"kind": "llvm", "mtriple": f"{platform.machine()}-linux-gnu", "num-cores": 1})
    vm = relax.VirtualMachine(tvm.compile(module, target=host), tvm.cpu())
    expected = vm["forward"](*[tvm.runtime.tensor(v) for v in values.values()]).numpy()
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-6)
    assert outcome.counters is not None
    assert outcome.counters["instructions"] > 10_000


def test_network_errors_are_clear(tuned_network: Any, tmp_path: Path) -> None:
    module, values, machine, _database, _work = tuned_network
    network = compile_network(module, machine, tmp_path / "n.elf")
    with pytest.raises(ConfigurationError, match="no value for 'fc.bias'"):
        network.run({k: v for k, v in values.items() if k != "fc.bias"})
    with pytest.raises(ConfigurationError, match="float64"):
        network.run(values | {"x": values["x"].astype(np.float64)})


def test_network_with_other_operations_is_refused(tmp_path: Path) -> None:
    from tvm.relax.frontend import nn

    class Net(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return nn.op.relu(x)

    module, _ = Net().export_tvm({"forward": {"x": nn.spec.Tensor((1, 4), "float32")}})
    with pytest.raises(InputFileError, match="legalise"):
        compile_network(module, load_machine("sifive-u74"), tmp_path / "n.elf")
