# SPDX-License-Identifier: Apache-2.0
"""Shipped machine files, and what is said about wrong ones."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines_helpers import DELETE, build, changed, content

from simtune.counters import INSTRUCTION_CLASSES
from simtune.errors import MachineFileError
from simtune.machines.load import BUILT_IN, list_machines, load_machine
from simtune.machines.target import TARGET_KEYS

SHIPPED = sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def test_the_promised_machines_are_there() -> None:
    promised = {"sifive-u74", "sifive-x280", "spacemit-x60", "cortex-a53", "cortex-a72", "x86-64-v3"}
    assert promised <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_file(name: str) -> None:
    machine = load_machine(name)
    assert machine.name == name
    assert machine.description
    assert tuple(machine.pipeline.classes) == INSTRUCTION_CLASSES
    assert machine.target["num-cores"] == 1
    assert {"l1i", "l1d", "l2"} <= set(machine.caches)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_has_a_source(name: str) -> None:
    for line in (BUILT_IN / f"{name}.toml").read_text().splitlines():
        if re.match(r'[\w".-]+ = (\d|\{|"\d+[KMG]")', line):
            assert re.search(r"# \S", line), line


def test_units_of_the_u74() -> None:
    machine = load_machine("sifive-u74")
    assert machine.clock_hz == 1.2e9
    sizes = {level: (cache.size, cache.ways, cache.sets) for level, cache in machine.caches.items()}
    assert sizes == {"l1i": (32768, 4, 128), "l1d": (32768, 8, 64), "l2": (2 << 20, 16, 2048)}
    assert 160 <= machine.memory.latency_ns <= 174


@pytest.mark.parametrize("name", SHIPPED)
def test_tvm_accepts_the_target(name: str) -> None:
    target = pytest.importorskip("tvm.target").Target(dict(load_machine(name).target))
    assert target.kind.name == "llvm"


def test_target_keys_are_those_of_tvm() -> None:
    tvm = pytest.importorskip("tvm")
    options = set(tvm.get_global_func("target.ListTargetKindOptionsFromName")("llvm"))
    assert set(TARGET_KEYS) <= options


A72_MISTAKES: list[tuple[str, Any, str]] = [
    # key, value, what the message must say besides the key
    ("clock_hz", 1.5, "1e+06 to 1e+10"),
    ("clock_hz", 1500, "1e+06 to 1e+10"),
    ("clock_hz", "1.5 GHz", "a number"),
    ("clock_hz", float("nan"), "a number"),
    ("clock_hz", DELETE, "missing"),
    ("name", "a b", "letters"),
    ("isa.name", "arm", '"riscv64" or "aarch64" or "x86_64"'),
    ("isa.vlen", 256, "riscv64"),
    ("isa.extensions", "neon", "a list"),
    ("pipeline", [], "a table"),
    ("pipeline.kind", "superscalar", '"in-order" or "out-of-order"'),
    ("pipeline.issue_width", 0, "1 to 32"),
    ("pipeline.issue_width", True, "1 to 32"),
    ("pipeline.rob", DELETE, "1 to 4096"),
    ("pipeline.ports", [], "1 to 24"),
    ("pipeline.ports", ["A", "A"], "distinct"),
    ("pipeline.classes.fp_fma", DELETE, "missing"),
    ("pipeline.classes.fp_fma.busy", 0, "1 to 255"),
    ("pipeline.classes.fp_fma.busy", 256, "1 to 255"),
    ("pipeline.classes.fp_fma.busy", 1.5, "an integer"),
    ("pipeline.classes.fp_fma.ports", ["F2"], "F0, F1"),
    ("pipeline.classes.fp_fma.ports", [], "F0, F1"),
    ("caches.l1d", DELETE, "missing"),
    ("caches.l1d.ways", 0, "1 to 128"),
    ("caches.l1d.ways", "2", "an integer"),
    ("caches.l1d.size", "48K", "power of two of sets"),
    ("caches.l1d.size", "32 kilo", '"32K"'),
    ("caches.l1d.size", 32000, "power of two of sets"),
    ("caches.l1d.line", 48, "power of two"),
    ("caches.l2.line", 128, "64, as in caches.l1i"),
    ("caches.l2.latency", 2, "at least 4"),
    ("caches.l2", DELETE, None),  # allowed: a core with L1 only
    ("memory.latency_ns", 5, "at least 13.3"),
    ("memory.line_interval_ns", -1, "a number"),
    ("branch_predictor.kind", "tage", '"none" or "gshare"'),
    ("branch_predictor.history_bits", 15, "not larger than table_bits"),
    ("prefetcher.degree", 0, "1 to 64"),
    ("energy_pj.loads", -1, "0 to 1e+09"),
    ("qemu_cpu", 72, "text"),
    ("target", "llvm -mcpu=cortex-a72", "a table"),
    ("target.kind", "cuda", '"llvm"'),
    ("target.mtriple", "x86_64-linux-gnu", 'begins with "aarch64-"'),
    ("target.mattr", "+neon", "a list"),
    ("target.mattr", ["neon"], '"+m"'),
    ("target.num-cores", 4, "one core"),
    ("target.opt-level", "3", "an integer"),
    ("target.fast-math", 1, "true or false"),
]


@pytest.mark.parametrize(("key", "value", "says"), A72_MISTAKES)
def test_a_mistake_names_the_key_and_what_is_allowed(key: str, value: Any, says: str | None) -> None:
    data = changed(content(), key, value)
    if says is None:
        assert build(data)
        return
    with pytest.raises(MachineFileError) as caught:
        build(data)
    message = str(caught.value)
    assert "board.toml" in message
    assert key in message
    assert says in message
    if value is not DELETE and value == value:
        assert repr(value) in message


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("clock", "clock_hz"),
        ("caches.l1d.way", "caches.l1d.ways"),
        ("caches.l4", "caches.l"),
        ("pipeline.isue_width", "pipeline.issue_width"),
        ("pipeline.classes.fp_fmaa", "pipeline.classes.fp_fma"),
        ("pipeline.classes.load.latencies", "pipeline.classes.load.latency"),
        ("target.num_cores", "target.num-cores"),
        ("energy_pj.dram_read_byte", "energy_pj.dram_read_bytes"),
        ("memory.latency", "memory.latency_ns"),
        ("isa.vector_length", None),
        ("energy_pj.joules", None),
    ],
)
def test_unknown_key(key: str, close: str | None) -> None:
    with pytest.raises(MachineFileError, match=re.escape(f"{key} is not a known key")) as caught:
        build(changed(content(), key, 1))
    assert "allowed: " in caught.value.what
    if close:
        assert f"did you mean '{close}" in caught.value.hint


@pytest.mark.parametrize("cpu", ["skylake-avx512", "znver4", "x86-64-v4", "icelake-server", "sapphirerapids"])
def test_avx512_is_refused_with_the_reason(cpu: str) -> None:
    with pytest.raises(MachineFileError, match=r"target\.mcpu.*QEMU emulates x86 up to AVX2"):
        build(changed(content("x86-64-v3"), "target.mcpu", cpu))


def test_avx512_attribute_is_refused() -> None:
    with pytest.raises(MachineFileError, match=r"target\.mattr.*QEMU emulates x86 up to AVX2"):
        build(changed(content("x86-64-v3"), "target.mattr", ["+avx2", "+avx512f"]))


@pytest.mark.parametrize("vlen", [64, 384, 1 << 17, -1])
def test_vlen_is_a_power_of_two(vlen: int) -> None:
    with pytest.raises(MachineFileError, match=r"isa\.vlen"):
        build(changed(content("sifive-x280"), "isa.vlen", vlen))


def test_vector_code_needs_registers_that_are_long_enough() -> None:
    with pytest.raises(MachineFileError, match=r"target\.mattr.*zvl256b"):
        build(changed(content("sifive-x280"), "isa.vlen", 256))
    with pytest.raises(MachineFileError, match=r"isa\.vlen is 0"):
        build(changed(content("sifive-x280"), "isa.vlen", 0))


def test_sizes_as_text_and_as_numbers_are_the_same() -> None:
    same = [build(changed(content(), "caches.l1d.size", size)) for size in (32768, "32768", "32K", "32KiB")]
    assert len({machine.digest() for machine in same}) == 1


def test_energy_keys_may_be_written_without_quotes() -> None:
    quoted = build({**content(), "energy_pj": {"l2.read_misses": 1, "loads": 2}})
    nested = build({**content(), "energy_pj": {"l2": {"read_misses": 1}, "loads": 2}})
    assert quoted.energy_pj == nested.energy_pj == {"loads": 2, "l2.read_misses": 1}


def test_digest_is_stable() -> None:
    machine = build(content("sifive-u74"))
    again = build(dict(reversed(content("sifive-u74").items())))
    assert machine.digest() == again.digest()
    assert replace(machine, description="other").digest() == machine.digest()
    assert build(changed(content("sifive-u74"), "clock_hz", 1_200_000_000)).digest() == machine.digest()
    assert build(changed(content("sifive-u74"), "caches.l2.latency", 21)).digest() != machine.digest()


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.just(DELETE),
    st.lists(st.one_of(st.integers(), st.text(max_size=4)), max_size=3),
    st.dictionaries(st.text(max_size=6), st.integers(), max_size=2),
    st.sampled_from(["l1d", "riscv64", "32K", "A", 64, 0.5, 1 << 20, ["+v"], ["+zvl512b"]]),
)


def _keys(data: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in data.items():
        if "." not in key:
            found.append(path + key)
            found += _keys(value, f"{path}{key}.") if isinstance(value, dict) else []
    return found


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(SHIPPED), st.booleans())
def test_no_mutation_gives_anything_but_our_error(data: st.DataObject, name: str, new_key: bool) -> None:
    machine_file = content(name)
    key = data.draw(st.sampled_from(_keys(machine_file)))
    value = data.draw(_VALUES)
    if new_key and value is not DELETE:
        key = (
            key.rpartition(".")[0]
            + "."
            + data.draw(st.text(min_size=1, max_size=8).filter(lambda t: "." not in t))
        )
        key = key.removeprefix(".")
    try:
        machine = build(changed(machine_file, key, value))
    except MachineFileError as error:
        message = str(error)
    else:
        message = f"board.toml is valid: {machine.digest()}"
    assert "board.toml" in message


def test_list_machines_knows_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIMTUNE_MACHINES", raising=False)
    assert list(list_machines()) == SHIPPED
