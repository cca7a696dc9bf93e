# SPDX-License-Identifier: Apache-2.0
"""The report parser takes anything, and accepts only whole reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtune.errors import ConfigurationError
from simtune.machines.load import load_machine
from simtune.simulators.outcomes import harness_output
from simtune.simulators.qemu_report import Report, configuration, parse_report

WHOLE = (
    b"instructions 1234\nissue_cycles 700.250\ninsn.load 17\nverify.static_bytes 4\n"
    b"block 0x10078 12 3 0102aaff\nstatus complete\nend 6\n"
)


def test_whole_report() -> None:
    report = parse_report(WHOLE)
    assert report.status == "complete"
    assert report.counters == {"instructions": 1234, "issue_cycles": 700.25, "insn.load": 17}
    assert report.extra == {"verify.static_bytes": 4}
    (block,) = report.blocks
    assert (block.address, block.executions, block.instructions) == (0x10078, 12, 3)
    assert block.code == bytes([1, 2, 0xAA, 0xFF])


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_truncated_reports_are_recognised(length: int) -> None:
    assert parse_report(WHOLE[:length]) == Report()


@given(st.binary(max_size=400))
def test_parser_never_raises_on_bytes(data: bytes) -> None:
    parse_report(data)
    parse_report(data + b"\nend 1\n")
    harness_output(data)


@given(st.lists(st.sampled_from(WHOLE.split(b"\n") + [b"loads nan", b"loads -1", b"block", b"loads 1e999"])))
def test_parser_never_raises_on_mangled_reports(lines: list[bytes]) -> None:
    body = b"".join(line + b"\n" for line in lines)
    report = parse_report(body + b"end %d\n" % body.count(b"\n"))
    assert all(value >= 0 for value in report.counters.values())


def test_configuration_refuses_lines_that_shrink_outwards() -> None:
    from dataclasses import replace

    machine = load_machine("sifive-u74")
    caches = dict(machine.caches)
    caches["l1d"] = replace(caches["l1d"], line=128)
    with pytest.raises(ConfigurationError, match="l2 is shorter"):
        configuration(replace(machine, caches=caches))


def test_configuration_stays_within_what_the_plugin_has_room_for() -> None:
    from dataclasses import replace

    machine = load_machine("cortex-a53")
    far = replace(machine.prefetcher, kind="stride", streams=1024, distance=64)
    assert "fetch_ahead 64 63" in configuration(replace(machine, prefetcher=far), ("pipeline",)).splitlines()
    long = {name: replace(cache, line=512) for name, cache in machine.caches.items()}
    with pytest.raises(ConfigurationError, match="lines of 512 bytes"):
        configuration(replace(machine, caches=long))


@pytest.mark.parametrize("item", ["branch:0.5", "blocks:8", "pipeline:0", "pipeline:1.5", "pipeline:x"])
def test_configuration_refuses_shares_that_mean_nothing(item: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot count {item}"):
        configuration(load_machine("cortex-a53"), (item,))


def test_configuration_mentions_only_what_is_asked_for() -> None:
    machine = load_machine("cortex-a53")
    plain = configuration(machine)
    assert "branch " not in plain.replace("class branch", "")
    assert "prefetch" not in plain
    full = configuration(machine, ("branch", "prefetch", "blocks"), 1000)
    assert {"limit 1000", "blocks 64", "branch 11 8 0", "prefetch 4 1 3"} <= set(full.splitlines())
