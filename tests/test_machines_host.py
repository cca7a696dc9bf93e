# SPDX-License-Identifier: Apache-2.0
"""Host detection against made-up sysfs trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from simtune.errors import MachineFileError
from simtune.machines import host
from simtune.machines.host import detect_host
from simtune.machines.load import load_machine
from simtune.machines.validate import power_of_two

ZEN = [
    ("Data", 1, "48K", 12),
    ("Instruction", 1, "32K", 8),
    ("Unified", 2, "1024K", 16),
    ("Unified", 3, "32M", 16),
]


def system(
    root: Path,
    caches: list[tuple[str, int, str, int]],
    cpuinfo: str = "",
    max_khz: str = "",
    line: int = 64,
) -> Path:
    cpu = root / "sys/devices/system/cpu/cpu0"
    for number, (kind, level, size, ways) in enumerate(caches):
        folder = cpu / f"cache/index{number}"
        folder.mkdir(parents=True)
        facts = {"type": kind, "level": level, "size": size, "ways_of_associativity": ways}
        for name, value in {**facts, "coherency_line_size": line}.items():
            (folder / name).write_text(f"{value}\n")
    if max_khz:
        (cpu / "cpufreq").mkdir(parents=True)
        (cpu / "cpufreq/cpuinfo_max_freq").write_text(max_khz + "\n")
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    return root


X86_INFO = """\
processor\t: 0
model\t\t: 33
model name\t: Ryzen 9
cpu MHz\t\t: 2596.12
flags\t\t: sse2 avx avx2 fma
"""


def test_x86(tmp_path: Path) -> None:
    found = detect_host(system(tmp_path, ZEN, X86_INFO, max_khz="4900000"), "x86_64")
    machine, generic = found.machine, load_machine("x86-64-v3")
    assert machine.name == "host"
    assert "Ryzen 9" in machine.description
    assert machine.clock_hz == 4.9e9
    assert {level: (c.size, c.ways) for level, c in machine.caches.items()} == {
        "l1i": (32 << 10, 8),
        "l1d": (48 << 10, 12),
        "l2": (1 << 20, 16),
        "l3": (32 << 20, 16),
    }
    assert machine.caches["l3"].latency == generic.caches["l3"].latency
    assert machine.pipeline == generic.pipeline
    assert machine.target == generic.target
    assert not any("lacks" in note for note in found.notes)


def test_clock_from_cpuinfo_does_not_fluctuate(tmp_path: Path) -> None:
    first = detect_host(system(tmp_path / "a", ZEN, X86_INFO), "x86_64").machine
    other = X86_INFO.replace("2596.12", "2610.9")
    second = detect_host(system(tmp_path / "b", ZEN, other), "x86_64").machine
    assert first.clock_hz == 2.6e9
    assert first.digest() == second.digest()


def test_without_avx2_it_says_so(tmp_path: Path) -> None:
    found = detect_host(system(tmp_path, ZEN, X86_INFO.replace(" avx2 fma", "")), "x86_64")
    assert any("lacks avx2 and fma" in note for note in found.notes)


def test_arm_server_with_a_third_level(tmp_path: Path) -> None:
    machine = detect_host(system(tmp_path, ZEN, "Hardware : Graviton\n"), "aarch64").machine
    generic = load_machine("cortex-a72")
    assert machine.caches["l3"].latency > machine.caches["l2"].latency
    assert machine.clock_hz == generic.clock_hz
    assert "Graviton" in machine.description


@pytest.mark.parametrize(("size", "ways"), [("36M", 12), ("30M", 15), ("39424K", 11), ("1792K", 7)])
def test_odd_cache_sizes_keep_their_size(tmp_path: Path, size: str, ways: int) -> None:
    caches = [*ZEN[:3], ("Unified", 3, size, ways)]
    cache = detect_host(system(tmp_path, caches), "x86_64").machine.caches["l3"]
    true_size = int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
    assert power_of_two(cache.sets)
    assert 0.93 * true_size <= cache.size <= true_size


@pytest.mark.parametrize(
    "caches",
    [
        [],
        [("Data", 1, "0K", 0), ("Instruction", 1, "32K", 8)],
        [("Data", 1, "?", 8)],
        [("Data", 1, "32K", 8)],
        [("Unified", 3, "38.5M", 11)],
    ],
)
def test_falls_back_to_the_generic_file(tmp_path: Path, caches: list[tuple[str, int, str, int]]) -> None:
    found = detect_host(system(tmp_path, caches), "x86_64")
    assert found.machine.caches == load_machine("x86-64-v3").caches
    assert any("does not tell" in note for note in found.notes)


def test_getconf_with_gaps() -> None:
    text = (
        "LEVEL1_ICACHE_SIZE 32768\nLEVEL1_ICACHE_ASSOC \nLEVEL1_ICACHE_LINESIZE 64\n"
        "LEVEL1_DCACHE_SIZE 49152\nLEVEL1_DCACHE_ASSOC 12\nLEVEL1_DCACHE_LINESIZE 64\n"
        "LEVEL2_CACHE_SIZE 0\nLEVEL2_CACHE_ASSOC 0\n"
    )
    found = host._from_getconf(text)
    assert set(found) == {"l1i", "l1d"}
    assert (found["l1d"].size, found["l1d"].ways) == (49152, 12)
    assert host._from_getconf("") == {}


def test_unknown_isa(tmp_path: Path) -> None:
    with pytest.raises(MachineFileError, match="s390x; allowed: x86_64"):
        detect_host(tmp_path, "s390x")


def test_this_computer() -> None:
    machine = load_machine("host")
    assert machine.clock_hz >= 1e8
    assert machine.digest() == load_machine("host").digest()


def test_measured_clock_is_plausible() -> None:
    isa = load_machine("host").isa.name
    hertz = host._measure_clock(isa)
    assert hertz == 0 or 1e8 <= hertz <= 1e10
