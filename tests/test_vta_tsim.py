# SPDX-License-Identifier: Apache-2.0
"""The timing simulator: a timeline checked by hand, orders that must hold, ends that must come."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vta_helpers import assembled, conv, run_tsim, valid_configs, with_timing

from simtune.vta import Backend, load_layer, load_machine

SIM = load_machine("vta-sim")

TINY = [
    "load.uop y=1 x=1 stride=1",
    "load.inp push:l2g y=2 x=3 stride=8 pad_left=1",
    "gemm pop:l2g push:g2s uop_bgn=0 uop_end=1 out=5 in=2",
    "store.out pop:g2s push:s2g y=1 x=2 stride=2",
    "load.uop pop:s2g",
    "finish",
]


def test_timeline_of_a_tiny_program_by_hand() -> None:
    """Older Chisel core, 8 bytes per beat, bursts of 16 beats, 5 cycles around a read, 6 around a write.

    cycle 0: the fetch unit asks for 6 x 16 bytes = 12 beats and has the bus until 5 + 12 = 17; then it
    hands on one instruction per cycle: 18, 19, 20, 21, 22, 23.
    18: load.uop asks for the bus: 4 bytes = 1 beat, until 24.
    19: load.inp asks for the bus, which is free at 24. Row 1 is 3 x 16 bytes = 6 beats, until 24 + 11 = 35;
    row 2 until 46; two padded elements take 2 cycles each, so it ends at 50 and sends l2g.
    24 + 2: compute takes the GEMM and waits until 50; 8 + 10 micro-ops, until 68; sends g2s.
    21: store takes its instruction and waits until 68: 2 x 16 bytes = 4 beats, 6 around them, 2 elements
    read, until 80; sends s2g.
    68 + 2: compute takes the load without elements and waits until 80; one cycle, until 81; no gap after it.
    81: finish takes a cycle, until 82.
    """
    code, message, cycles, spans = run_tsim(assembled(TINY), SIM)
    assert (code, message, cycles) == ("", "", 82)
    issue_start_end = [tuple(row[:3]) for row in spans.tolist()]
    assert issue_start_end == [
        (18, 18, 24),
        (19, 19, 50),
        (26, 50, 68),
        (21, 68, 80),
        (70, 80, 81),
        (81, 81, 82),
    ]
    assert spans[1, 3] == 5  # load.inp waited for the bus from 19 to 24


@pytest.mark.parametrize(
    ("changes", "cycles"),
    [
        ({"bus_bytes": 16}, 82 - 6 - 6 - 2),  # fetch 6 beats less, inputs 3 + 3, outputs 2 ... see below
        ({"gemm_ii": 4}, 82 + 30),
        ({"gemm_ov": 0}, 82 - 8),
        ({"pad_cycles": 5}, 82 + 6),
        ({"wr_ov": 10}, 82 + 4),
        ({"out_read": 0}, 82 - 2),
    ],
)
def test_each_parameter_moves_the_timeline_by_hand(changes: dict[str, int], cycles: int) -> None:
    """With 16 bytes per beat: fetch until 11, micro-op 12 to 18, inputs 18 to 26 to 34, padding to 38;
    GEMM to 56, store 6 + 2 + 2 to 66, then 67 and 68."""
    assert run_tsim(assembled(TINY), with_timing(SIM, **changes))[2] == cycles


def test_reads_under_way_hide_the_latency() -> None:
    """Newest core: 16 cycles until the first data, then bursts follow one another."""
    machine = load_machine("vta-chisel-head")
    lines = ["load.inp y=1 x=64 stride=64", "finish"]
    # Fetch: 16 + 4 beats, first instruction at 21; 8 bursts of 16 beats behind one latency.
    _, _, _, spans = run_tsim(assembled(lines), machine)
    assert spans[0].tolist()[:3] == [21, 21, 21 + 16 + 128]
    # One at a time, each burst pays.
    _, _, _, spans = run_tsim(assembled(lines), with_timing(machine, outstanding=1))
    assert spans[0].tolist()[:3] == [21, 21, 21 + 8 * (16 + 16)]


def test_rows_never_share_a_burst_and_bursts_are_aligned() -> None:
    lines = ["load.inp dram={} y={} x={} stride=8", "finish"]
    durations = {}
    for dram, y, x in ((0, 1, 8), (4, 1, 8), (0, 8, 1)):
        program = assembled([lines[0].format(dram, y, x), lines[1]])
        span = run_tsim(program, SIM)[3][0]
        durations[dram, y, x] = int(span[2] - span[1])
    # 8 elements are 16 beats: one aligned burst, two when it starts in the middle, eight rows of two beats.
    assert durations == {(0, 1, 8): 21, (4, 1, 8): 26, (0, 8, 1): 8 * 7}


def test_the_reader_has_the_bus_first() -> None:
    """19 more instructions make three bursts of the fetch unit, which go before the input's."""
    lines = ["load.inp y=4 x=8 stride=8", *["load.uop"] * 21, "finish"]
    code, _, _, spans = run_tsim(assembled(lines), SIM)
    assert code == ""
    # First instruction at 22; drained until 29, then the second fetch burst takes its turn.
    assert spans[0, 1] == 22
    assert spans[0, 3] > 0


def test_long_programs_wait_for_room_in_the_queues() -> None:
    lines = ["load.inp y=1 x=8 stride=8"] * 40 + ["finish"]
    quick = run_tsim(assembled(lines), SIM)[2]
    code, _, slow, spans = run_tsim(assembled(lines), with_timing(SIM, queue_depth=1))
    assert (code, slow >= quick) == ("", True)
    assert np.all(np.diff(spans[:40, 1]) > 0)


def test_a_token_beyond_the_semaphore_is_lost() -> None:
    """Eight bits count to 255: the 256th token disappears, and its taker waits for ever."""
    lines = ["load.inp push:l2g"] * 256 + ["load.acc y=1 x=64 stride=64"] * 40 + ["load.uop pop:l2g"] * 256
    code, message, _, _ = run_tsim(assembled([*lines, "finish"]), SIM)
    assert code == "DEADLOCK"
    assert "waits for l2g" in message
    waiting = with_timing(SIM, token_lost=False)  # HLS: the sender waits instead
    assert run_tsim(assembled([*lines, "finish"]), waiting)[0] == ""


def test_a_deadlock_is_reported_at_once() -> None:
    code, message, _, _ = run_tsim(assembled(["gemm pop:l2g uop_end=1 out=1 in=1", "finish"]), SIM)
    assert code == "DEADLOCK"
    assert message.startswith(
        "no module can go on; load at 0 of 0; compute at 0 of 2 (instruction 0: gemm waits"
    )


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_wider_bus_is_never_slower(data: st.DataObject) -> None:
    layer = conv(
        data.draw(st.integers(4, 12)),
        ci=32,
        co=32,
        k=data.draw(st.sampled_from((1, 3))),
        stride=data.draw(st.integers(1, 2)),
    )
    name = data.draw(st.sampled_from(("vta-sim", "vta-pynq", "vta-chisel-head")))
    config = data.draw(st.sampled_from(valid_configs(layer, load_machine(name))))
    cycles = [
        Backend(layer, with_timing(load_machine(name), bus_bytes=width), check="never")
        .evaluate([config])[0]
        .cycles
        for width in (8, 16, 32, 64)
    ]
    assert cycles == sorted(cycles, reverse=True)


@pytest.mark.parametrize("layer", ["resnet18.c10", "deepbench.face5"])
@pytest.mark.parametrize(("name", "longest"), [("vta-sim", 64), ("vta-pynq", 256)])
def test_wider_buses_and_longer_bursts_are_never_slower(layer: str, name: str, longest: int) -> None:
    """Over all valid points. Where reads and writes share a port, a store's burst of 256 beats can hold
    up a load for longer than it saves, so there the longest burst is 64 beats."""
    machine, loaded = load_machine(name), load_layer(layer)
    configs = valid_configs(loaded, machine)

    def cycles(**changes: int) -> np.ndarray:
        results = Backend(loaded, with_timing(machine, **changes), check="never").evaluate(configs)
        return np.array([result.cycles for result in results])

    for key, values in (("bus_bytes", (8, 16, 32)), ("max_beats", (16, 32, 64, longest))):
        previous = cycles(**{key: values[0]})
        for value in values[1:]:
            now = cycles(**{key: value})
            assert np.all(now <= previous), f"{key}={value}"
            previous = now


def test_longer_bursts_on_a_shared_port_cost_half_a_percent_at_most() -> None:
    """What the test above leaves out, held to what was measured."""
    layer = load_layer("resnet18.c10")
    configs = valid_configs(layer, SIM)
    short, long = (
        np.array(
            [r.cycles for r in Backend(layer, with_timing(SIM, max_beats=b), check="never").evaluate(configs)]
        )
        for b in (64, 256)
    )
    assert np.all(long <= short * 1.006)


def test_cycles_lie_between_the_bounds() -> None:
    layer = load_layer("resnet18.c7")
    for result in Backend(layer, SIM, check="never").evaluate(valid_configs(layer, SIM)):
        assert result.cycles is not None
        assert result.counters["bound.max"] <= result.cycles
        assert result.cycles >= result.counters["gemm.uops"]


def test_same_program_same_cycles() -> None:
    layer = load_layer("resnet18.c10")
    configs = valid_configs(layer, SIM)
    runs = [Backend(layer, SIM, seed=seed).evaluate(configs, jobs) for seed, jobs in ((0, 1), (0, 2), (1, 1))]
    assert [[dataclasses.replace(r, wall_s=0) for r in run] for run in runs[1:]] == [
        [dataclasses.replace(r, wall_s=0) for r in runs[0]]
    ] * 2
