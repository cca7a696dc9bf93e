# SPDX-License-Identifier: Apache-2.0
"""llvm-mca's estimate of hot blocks: real LLVM, hand-made blocks, real candidates."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from learning_helpers import U74, planted_groups, planted_seconds

from simtune.candidates import Candidate
from simtune.cli.main import cli
from simtune.counters import Counters
from simtune.crossvalidate import default_models, evaluate
from simtune.dataset import Dataset, Group
from simtune.errors import ConfigurationError, ToolMissingError
from simtune.evaluate import Evaluator
from simtune.features import FEATURES
from simtune.jobs import HotBlock, Outcome, Status
from simtune.machines.load import load_machine
from simtune.machines.model import Machine
from simtune.mca import Mca
from simtune.predictors.analytical import AnalyticalPredictor
from simtune.predictors.objective import resolve_objective
from simtune.predictors.storage import load_predictor, save_predictor
from simtune.predictors.trained import train
from simtune.records.store import RecordStore

needs_llvm = pytest.mark.skipif(
    not (shutil.which("llvm-mca") or shutil.which("llvm-mca-14")), reason="LLVM's tools are not installed"
)

#: Four dependent FMAs and a branch back: bound by latency; four independent ones: by throughput.
DEPENDENT = bytes.fromhex("c4e275b8c2" * 4 + "75ea")
INDEPENDENT = bytes.fromhex("c4e275b8c2" + "c4e275b8da" + "c4e275b8e2" + "c4e275b8ea" + "75ea")


def assembled(text: str, machine: Machine) -> bytes:
    """Code bytes by LLVM's assembler."""
    triple = f"{machine.isa.name}-linux-gnu"
    command = ["llvm-mc", "-show-encoding", f"-triple={triple}", f"-mcpu={machine.target['mcpu']}"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    encodings = [
        line.split("encoding: [")[1].split("]")[0] for line in done.stdout.splitlines() if "encoding:" in line
    ]
    return bytes(int(byte, 16) for line in encodings for byte in line.split(","))


@pytest.fixture
def host(tmp_path: Path) -> Mca:
    return Mca(load_machine("x86-64-v3"), tmp_path / "mca.db")


@needs_llvm
def test_latency_and_throughput_are_told_apart(host: Mca) -> None:
    dependent, independent = host.blocks([DEPENDENT, INDEPENDENT])
    assert dependent == pytest.approx(16, abs=0.5)  # four FMAs of four cycles in a chain
    assert independent == pytest.approx(4, abs=0.5)  # each waits for its own one of the round before
    assert host.name.startswith("mca:")
    assert host.cpu.startswith("znver")


@needs_llvm
@pytest.mark.parametrize(
    ("name", "text", "cycles"),
    [
        ("sifive-u74", "fmadd.s fa0, fa1, fa2, fa0\nfmadd.s fa0, fa1, fa2, fa0\nbnez a0, -8\n", (8, 16)),
        ("cortex-a72", "fmla v0.4s, v1.4s, v2.4s\nfmla v0.4s, v1.4s, v2.4s\nb.ne #-8\n", (5, 16)),
        ("cortex-a53", "fmadd s0, s1, s2, s0\nfmadd s0, s1, s2, s0\ncbnz x0, #-8\n", (8, 24)),
    ],
)
def test_other_instruction_sets(name: str, text: str, cycles: tuple[float, float], tmp_path: Path) -> None:
    machine = load_machine(name)
    (found,) = Mca(machine, tmp_path / "mca.db").blocks([assembled(text, machine)])
    assert cycles[0] <= found <= cycles[1]


@needs_llvm
def test_executions_add_up_and_the_rest_counts_alike(host: Mca) -> None:
    blocks = [HotBlock(0, 100, 5, DEPENDENT), HotBlock(64, 10, 5, INDEPENDENT)]
    one, other = host.blocks([DEPENDENT, INDEPENDENT])
    assert host.cycles(blocks, 550) == pytest.approx(100 * one + 10 * other)
    assert host.cycles(blocks, 1100) == pytest.approx(2 * (100 * one + 10 * other))
    assert host.cycles(blocks, 1101) is None  # most is unknown
    assert host.cycles([], 100) is None
    outcome = Outcome(Status.OK, counters=Counters({"instructions": 550.0}), blocks=tuple(blocks))
    assert host.add(outcome).counters["mca_cycles"] == pytest.approx(100 * one + 10 * other)  # type: ignore[index]
    assert host.add(outcome).blocks == ()
    assert host.add(outcome, keep_blocks=True).blocks == tuple(blocks)
    failed = Outcome(Status.CRASHED)
    assert host.add(failed) is failed


@needs_llvm
def test_a_block_that_llvm_cannot_read_spoils_no_other(host: Mca) -> None:
    garbage, truncated = bytes.fromhex("0f0b"), DEPENDENT[:7]
    cycles = host.blocks([garbage, DEPENDENT, truncated])
    assert math.isnan(cycles[0])
    assert cycles[1] == pytest.approx(16, abs=0.5)


@needs_llvm
def test_estimates_are_kept_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mca.db"
    machine = load_machine("x86-64-v3")
    first = Mca(machine, path).blocks([DEPENDENT])
    second = Mca(machine, path)
    monkeypatch.setattr(second, "_run", lambda *_: pytest.fail("it must not run again"))
    assert second.blocks([DEPENDENT, DEPENDENT]) == [first[0], first[0]]
    path.write_bytes(b"no database")
    third = Mca(machine, path)
    assert third.blocks([DEPENDENT]) == first  # a damaged cache costs time only
    path.unlink()
    assert Mca(machine, path).blocks([DEPENDENT]) == first
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM block").fetchone() == (1,)


@needs_llvm
def test_an_unknown_cpu_is_named() -> None:
    machine = load_machine("x86-64-v3")
    with pytest.raises(ConfigurationError, match="no pipeline model for mycpu") as caught:
        Mca(replace(machine, target={**machine.target, "mcpu": "mycpu"}))
    assert "newer LLVM" in caught.value.hint


def test_without_llvm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissingError, match="llvm-mca, which is not installed") as caught:
        Mca(load_machine("x86-64-v3"))
    assert "apt-get install" in caught.value.hint


@needs_llvm
def test_real_candidates_get_the_counter_and_are_stored_with_it(
    build_default: Callable[[str, Machine], Path], qemu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMTUNE_CACHE", str(tmp_path / "cache"))
    path = build_default("matmul:m=16,n=16,k=16", U74)
    with RecordStore(":memory:") as store:
        found = []
        for count in ((), ("mca",), ("mca", "blocks"), ("mca",)):
            evaluator = Evaluator(
                U74, qemu, AnalyticalPredictor(), resolve_objective("latency"), store, jobs=1, count=count
            )
            try:
                found.append(evaluator.evaluate(Candidate(path)))
            finally:
                evaluator.close()
        assert len(list(store.simulations())) == 3
    plain, with_mca, with_blocks, again = (evaluation.outcome for evaluation in found)
    assert "mca_cycles" not in plain.counters  # type: ignore[union-attr, operator]
    cycles = with_mca.counters["mca_cycles"]  # type: ignore[union-attr, index]
    assert 0.3 < cycles / with_mca.counters["issue_cycles"] < 3  # type: ignore[union-attr, index]
    assert not with_mca.blocks  # type: ignore[union-attr]
    assert with_blocks.blocks  # type: ignore[union-attr]
    assert again.counters == with_mca.counters  # type: ignore[union-attr]
    assert found[3].cached
    arguments = ["simulate", str(path), "-m", "sifive-u74", "--count", "mca", "--json"]
    result = CliRunner().invoke(cli, arguments)
    assert json.loads(result.stdout)["counters"]["mca_cycles"] == pytest.approx(cycles)


# Features -------------------------------------------------------------------------------------


def with_estimates(groups: list[Group]) -> list[Group]:
    """Groups whose estimate knows the planted times."""
    return [
        replace(
            group,
            counters=tuple(
                replace(row, counts={**row.counts, "mca_cycles": planted_seconds(row) * 1e9})
                for row in group.counters
            ),
        )
        for group in groups
    ]


def test_features_are_used_when_asked_for_and_only_then(tmp_path: Path) -> None:
    groups = with_estimates(planted_groups(3))
    column = FEATURES.index("mca_cycles")
    plain, asked = train(groups, "extra-trees"), train(groups, "extra-trees", optional=("mca",))
    assert np.isnan(plain.features(groups[0].counters, U74).values[:, column]).all()
    assert np.isfinite(asked.features(groups[0].counters, U74).values[:, column]).all()
    assert (plain.needs, asked.needs) == ((), ("mca",))
    save_predictor(asked, tmp_path / "x.predictor")
    assert load_predictor(tmp_path / "x.predictor", U74).needs == ("mca",)
    data = Dataset(tuple(groups), "host", {})
    assert "mca" in default_models(data)
    tau = {
        optional: evaluate(data, ["extra-trees"], resamples=0, optional=optional)
        .summaries["extra-trees"]
        .mean["tau_b"]
        .value
        for optional in ((), ("mca",))
    }
    assert tau["mca",] > tau[()]


def test_candidates_without_the_counter_are_refused() -> None:
    groups = planted_groups(3)
    assert "mca" not in default_models(Dataset(tuple(groups), "host", {}))
    with pytest.raises(ConfigurationError, match="60 of 60 candidates lack mca_cycles") as caught:
        train(groups, "ridge", optional=("mca",))
    assert "--features mca" in caught.value.hint
    asked = train(with_estimates(groups), "ridge", optional=("mca",))
    with pytest.raises(ConfigurationError, match="lack mca_cycles"):
        asked.seconds(groups[0].counters, U74)
    with pytest.raises(ConfigurationError, match="features 'oracle' are unknown"):
        train(groups, "ridge", optional=("oracle",))
