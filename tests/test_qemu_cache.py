# SPDX-License-Identifier: Apache-2.0
"""The plugin's cache model against a slow plain reference, alone and inside QEMU."""

from __future__ import annotations

import ctypes
import random
import subprocess
from pathlib import Path

import pytest
from cache_reference import ReferenceCache
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qemu_helpers import assemble, counters, machine, program, simulate

from simtune import native

LEVEL_COUNTERS = ("read_hits", "read_misses", "write_hits", "write_misses", "writebacks")


class CacheStruct(ctypes.Structure):
    """`struct cache` of cache.h."""


CacheStruct._fields_ = [
    ("tags", ctypes.c_void_p),
    ("set_mask", ctypes.c_uint64),
    ("sets", ctypes.c_uint),
    ("ways", ctypes.c_uint),
    ("line_bits", ctypes.c_uint),
    ("vector", ctypes.c_uint8),
    ("enabled", ctypes.c_bool),
    ("next", ctypes.POINTER(CacheStruct)),
    ("asleep", ctypes.c_void_p),
    ("changes", ctypes.c_uint64),
    ("reads", ctypes.c_uint64),
    ("writes", ctypes.c_uint64),
    ("read_misses", ctypes.c_uint64),
    ("write_misses", ctypes.c_uint64),
    ("writebacks", ctypes.c_uint64),
    ("fetched", ctypes.c_uint64),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    product = tmp_path_factory.mktemp("cache") / "cache.so"
    source = native.sources() / "qemu" / "cache.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", product, source], check=True, timeout=60)
    loaded = ctypes.CDLL(str(product))
    loaded.cache_init.restype = ctypes.c_bool
    loaded.cache_init.argtypes = [ctypes.POINTER(CacheStruct), *[ctypes.c_uint] * 3, ctypes.c_void_p]
    loaded.cache_enable.argtypes = [ctypes.POINTER(CacheStruct), ctypes.c_bool]
    loaded.cache_range.argtypes = [
        ctypes.POINTER(CacheStruct), ctypes.c_uint64, ctypes.c_uint64, ctypes.c_bool,
    ]  # fmt: skip
    return loaded


geometries = st.tuples(
    st.sampled_from([1, 2, 3, 4, 6, 8]),
    st.sampled_from([1, 2, 3, 4, 8, 12, 16, 24]),
    st.sampled_from([32, 64]),
)
traces = st.lists(
    st.tuples(st.integers(0, 4096), st.sampled_from([1, 4, 8, 32, 64, 100]), st.booleans()), max_size=400
)


@settings(max_examples=150, deadline=None)
@example(  # one way, and sets that are no power of two
    first=(3, 1, 32),
    second=(1, 1, 32),
    trace=[(3389, 100, False), (3488, 1, True), (0, 1, False)],
    cut=0,
    vector=0,
)
@given(
    first=geometries,
    second=geometries,
    trace=traces,
    cut=st.integers(0, 400),
    vector=st.sampled_from([0, 4, 8]),
)
def test_two_levels_agree_with_the_reference(
    library: ctypes.CDLL,
    first: tuple[int, int, int],
    second: tuple[int, int, int],
    trace: list[tuple[int, int, bool]],
    cut: int,
    vector: int,
) -> None:
    sets, ways, line = second
    line = max(line, first[2])
    l2, l1 = CacheStruct(), CacheStruct()
    assert library.cache_init(ctypes.byref(l2), sets, ways, line, None)
    assert library.cache_init(ctypes.byref(l1), *first, ctypes.addressof(l2))
    for level in (l1, l2):  # what older processors do
        level.vector = min(level.vector, vector)
    library.cache_enable(ctypes.byref(l2), True)
    reference2 = ReferenceCache(sets, ways, line)
    reference1 = ReferenceCache(*first, reference2)
    library.cache_enable(ctypes.byref(l1), True)
    lines = {False: 0, True: 0}
    for number, (address, size, store) in enumerate(trace):
        if number == cut:  # asleep, then awake with the same contents
            library.cache_enable(ctypes.byref(l1), False)
            library.cache_range(ctypes.byref(l1), 12345, 64, True)
            library.cache_enable(ctypes.byref(l1), True)
        lines[store] += library.cache_range(ctypes.byref(l1), address, size, store)
        reference1.access(address, size, store)
    l1.reads, l1.writes = lines[False], lines[True]
    for level, reference in ((l1, reference1), (l2, reference2)):
        found = {
            "read_hits": level.reads - level.read_misses,
            "read_misses": level.read_misses,
            "write_hits": level.writes - level.write_misses,
            "write_misses": level.write_misses,
            "writebacks": level.writebacks,
        }
        assert found == {name: reference.counts[name] for name in LEVEL_COUNTERS}


# ---- straight-line programs, whose accesses the plugin merges ----

ACCESSES = {
    "riscv64": {
        (8, False): "ld a7, {offset}(t{base})",
        (4, False): "flw fa0, {offset}(t{base})",
        (8, True): "sd a7, {offset}(t{base})",
        (4, True): "sw a7, {offset}(t{base})",
        (1, True): "sb a7, {offset}(t{base})",
    },
    "aarch64": {
        (8, False): "ldur x9, [x{base}, #{offset}]",
        (16, False): "ldur q0, [x{base}, #{offset}]",
        (4, True): "stur s0, [x{base}, #{offset}]",
        (16, True): "stur q0, [x{base}, #{offset}]",
        (1, False): "ldurb w9, [x{base}, #{offset}]",
    },
    "x86_64": {
        (8, False): "mov {offset}(%r{base}), %rax",
        (32, False): "vaddps {offset}(%r{base}), %ymm0, %ymm1",
        (4, False): "vfmadd231ss {offset}(%r{base}), %xmm0, %xmm1",
        (4, True): "vmovss %xmm0, {offset}(%r{base})",
        (32, True): "vmovups %ymm0, {offset}(%r{base})",
    },
}
SET_BASE = {
    "riscv64": (
        "lla t{base}, buffer\n li a6, {at}\n add t{base}, t{base}, a6",
        "addi t{base}, t{base}, {step}",
    ),
    "aarch64": (
        "adrp x{base}, buffer\n mov x9, #{at}\n add x{base}, x{base}, x9",
        "add x{base}, x{base}, #{step}",
    ),
    "x86_64": ("lea buffer+{at}(%rip), %r{base}", "add ${step}, %r{base}"),
}
BASES = {"riscv64": (0, 1, 2, 3), "aarch64": (1, 2, 3, 4), "x86_64": (8, 9, 10, 11)}
LOOP = {
    "riscv64": ("li s1, {n}\n1:", "addi s1, s1, -1\n bnez s1, 1b"),
    "aarch64": ("mov x20, #{n}\n1:", "subs x20, x20, #1\n b.ne 1b"),
    "x86_64": ("mov ${n}, %ebx\n1:", "dec %ebx\n jnz 1b"),
}


@pytest.mark.parametrize("isa", ACCESSES)
@pytest.mark.parametrize("seed", range(12))
def test_merged_accesses_count_like_single_ones(isa: str, seed: int, tmp_path: Path) -> None:
    """Random accesses around a few moving bases, in tiny caches where order matters."""
    choose = random.Random(seed)
    geometry = choose.choice([(2, 2, 64), (4, 4, 64), (64, 2, 64), (8, 1, 64), (3, 2, 32), (4, 8, 64)])
    second = (8, 4, 64)
    set_base, step_base = SET_BASE[isa]
    bases = {base: choose.randrange(1024, 32768) for base in BASES[isa]}
    before = "\n".join(set_base.format(base=base, at=at) for base, at in bases.items())
    rounds, lines, trace = 60, [], []
    plan: list[tuple[str, int, int, int, bool]] = []
    for _ in range(choose.randrange(3, 60)):
        base = choose.choice(BASES[isa])
        if choose.random() < 0.15:
            step = choose.choice([4, 8, 20, 64, 132])
            lines.append(step_base.format(base=base, step=step))
            plan.append(("step", base, step, 0, False))
        else:
            size, store = choose.choice(list(ACCESSES[isa]))
            offset = choose.choice([0, 4, 8, 16, 60, 64, 100, 128, -8, -60, choose.randrange(-200, 200)])
            lines.append(ACCESSES[isa][size, store].format(base=base, offset=offset))
            plan.append(("access", base, offset, size, store))
    for base in BASES[isa]:  # walk, within the buffer, or stay
        step = choose.choice([0, 1, 4])
        lines.append(step_base.format(base=base, step=step))
        plan.append(("step", base, step, 0, False))
    head, tail = LOOP[isa]
    body = "\n".join([head.format(n=rounds), *lines, tail])
    for _ in range(rounds):
        for what, base, value, size, store in plan:
            if what == "step":
                bases[base] += value
            else:
                trace.append((bases[base] + value, size, store))
    assert min(a for a, _, _ in trace) > 0
    l2 = ReferenceCache(*second)
    l1 = ReferenceCache(*geometry, l2)
    for access in trace:
        l1.access(*access)
    target = machine(isa, l1d=geometry, l2=second, l1i=(64, 8, 64))
    executable = assemble(tmp_path, isa, program(isa, body, before=before))
    found = counters(simulate(executable, target))
    code = found["l1i.read_misses"]  # instruction lines pass through the second level too
    for name in LEVEL_COUNTERS:
        assert found[f"l1d.{name}"] == l1.counts[name], name
        assert found[f"l2.{name}"] == l2.counts[name] + (code if name == "read_misses" else 0), name
    assert found["dram_read_bytes"] == 64 * found["l2.read_misses"]
    assert found["dram_write_bytes"] == 64 * found["l2.writebacks"]
