# SPDX-License-Identifier: Apache-2.0
"""`simtune compare`, the explanations behind it, and training sets of one replacement policy."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learning_helpers import U74, add_run, planted_counters

from simtune.counters import Counters
from simtune.dataset import load_dataset
from simtune.errors import ConfigurationError
from simtune.machines.load import load_machine
from simtune.records.store import RecordStore
from simtune.simulators.explain import change, explain
from simtune.simulators.qemu_system import QemuSystemSimulator
from simtune.simulators.valgrind import CachegrindSimulator, parse_events
from simtune.testing.programs import Programs

X86 = load_machine("x86-64-v3")


def simtune(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simtune.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_counters_side_by_side(qemu: Any, tmp_path: Path) -> None:
    if reason := QemuSystemSimulator().probe(U74).reason:
        pytest.skip(reason)
    program, _ = Programs("riscv64", tmp_path).kernel()
    arguments = ("compare", str(program), "-m", "sifive-u74", "-s", "qemu,qemu-system")
    plain = simtune(*arguments)
    assert plain.returncode == 0, plain.stderr
    assert "qemu-system" in plain.stdout
    assert "instructions" in plain.stdout
    done = json.loads(simtune(*arguments, "--json").stdout)
    one, two = (done["simulators"][name]["counters"] for name in ("qemu", "qemu-system"))
    assert one["instructions"] == two["instructions"]
    assert done["simulators"]["qemu"]["replacement"] == "lru"


@pytest.mark.parametrize(
    ("simulators", "text"),
    [
        ("qmeu", "no simulator is called 'qmeu'"),
        (",", "no simulator to run"),
        ("qemu,callgrind", "valgrind runs x86-64"),
    ],
)
def test_simulators_that_do_not_serve(simulators: str, text: str, qemu: Any, tmp_path: Path) -> None:
    program = Programs("riscv64", tmp_path).loop()
    done = simtune("compare", str(program), "-m", "sifive-u74", "-s", simulators)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


BASE = {
    "instructions": 1000.0,
    "l1d.read_misses": 100.0,
    "l3.read_misses": 50.0,
    "loads": 300.0,
    "branches": 90.0,
}


def reasons(name: str, machine: Any = U74, policy: str = "lru", **changed: float) -> dict[str, str]:
    other = {counter: changed.get(counter.replace(".", "_"), value) for counter, value in BASE.items()}
    counted = {"qemu": Counters(BASE, "qemu 7"), name: Counters(other, name, policy)}
    return explain(counted, machine)[name]


def test_differences_are_explained() -> None:
    assert reasons("spike") == {}
    assert "replacement" in reasons("spike", policy="pseudo-random", l1d_read_misses=80)["l1d"]
    assert "start-up" in reasons("gem5", l1d_read_misses=103)["l1d"]
    assert "edge" in reasons("gem5", instructions=1015)["instructions"]
    assert "no L2" in reasons("callgrind", X86, l3_read_misses=90)["l3"]
    assert "no cause is known" in reasons("gem5", branches=20)["branches"]
    other_code = reasons("gem5", instructions=2000, loads=500)
    assert list(other_code) == ["instructions"]
    assert "same code" in other_code["instructions"]
    assert explain({"qemu": Counters(BASE)}, U74) == {}
    # What misses by a few lines says so, in bytes as well, and before its hits.
    few = {"qemu": Counters({"l1d.read_hits": 900, "l1d.read_misses": 9, "dram_read_bytes": 6400})}
    few["callgrind"] = Counters({"l1d.read_hits": 950, "l1d.read_misses": 8, "dram_read_bytes": 6272})
    assert all("start-up" in text for text in explain(few, X86)["callgrind"].values())


def test_changes_are_told_in_percent_or_as_a_factor() -> None:
    found = [change(value, 100.0) for value in (101.25, 99.96, 113, 229, 1, 12500)]
    assert found == ["+1.2 %", "-0.04 %", "+13 %", "+129 %", "-99 %", "x 125"]


def test_replacement_policies_do_not_mix_in_a_training_set() -> None:
    rows = planted_counters(6, 1)
    random = [replace(row, replacement="pseudo-random") for row in planted_counters(8, 2)]
    with RecordStore(":memory:") as store:
        add_run(store, 1, rows)
        assert len(load_dataset(store, [U74])) == 6
        add_run(store, 2, random)
        with pytest.raises(ConfigurationError, match="several replacement policies"):
            load_dataset(store, [U74])
        lru = load_dataset(store, [U74], replacement="lru")
        assert len(lru) == 6
        assert lru.skipped["candidate counted under another replacement policy"] == 8
        assert len(load_dataset(store, [U74], replacement="pseudo-random")) == 8
        assert len(load_dataset(store, [U74], replacement="any")) == 14


# valgrind -------------------------------------------------------------------------------------


def test_valgrind_refuses_what_it_cannot_model() -> None:
    cachegrind = CachegrindSimulator()
    if reason := cachegrind.probe().reason:
        pytest.skip(reason)
    l3 = X86.caches["l3"]
    odd = replace(X86, caches={**X86.caches, "l3": replace(l3, size=l3.size * 3)})
    assert "power of two" in cachegrind.probe(odd).reason
    without = {level: cache for level, cache in X86.caches.items() if level in ("l1i", "l1d")}
    assert "last level" in cachegrind.probe(replace(X86, caches=without)).reason
    assert CachegrindSimulator(Path("/bin/true")).probe().available is False


def test_valgrind_events() -> None:
    names = "Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw Bc Bcm Bi Bim"
    whole = f"desc: x\nevents: {names}\nfn=main\n1 2 3\nsummary: 9 8 7 1 1 1\n"
    assert parse_events(whole.encode())["Ir"] == 9
    assert parse_events(whole.encode())["Bc"] == 0
    for damaged in ("", "events: Ir\nsummary: 5\n", f"events: {names}\n", f"events: {names}\nsummary: x\n"):
        assert parse_events(damaged.encode()) == {}
