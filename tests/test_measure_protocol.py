# SPDX-License-Identifier: Apache-2.0
"""The parts of measuring that need no hardware: calibration, agreement, notes, targets, counts, K."""

from __future__ import annotations

import pytest

from simtune.errors import ConfigurationError
from simtune.jobs import Status
from simtune.measure import sampling
from simtune.measure.base import Settings
from simtune.measure.conditions import State, compare, default_core, look
from simtune.measure.cost import break_even, native_seconds
from simtune.measure.parse import parse_target
from simtune.measure.sampling import Draw, Sample, agree
from simtune.measure.top import top_count
from simtune.tuning.groups import expand, networks


class Fake:
    """A place where the n-th process takes `times[n]` per call; the first one calibrates."""

    def __init__(self, *times: float) -> None:
        self.times, self.draws = list(times), []

    def __call__(self, draw: Draw) -> Sample:
        seconds = self.times[min(len(self.draws), len(self.times) - 1)]
        self.draws.append(draw)
        return Sample(Status.OK, tuple(seconds * (1 + 0.1 * i) for i in range(draw.repeat)))


def test_calls_follow_from_the_duration() -> None:
    place = Fake(1e-3)
    timing = sampling.measure(place, Settings(min_repeat_s=0.02, warmup_s=0.005, repeat=5))
    assert timing.seconds == (1e-3,) * 3
    calibration, *processes = place.draws
    assert (calibration.number, calibration.warmup) == (1, 1)
    assert {(d.number, d.repeat, d.warmup) for d in processes} == {(20, 5, 5)}
    assert len({d.layout for d in processes}) == 3


def test_slow_candidates_get_fewer_repeats_but_never_one() -> None:
    for call, repeat in ((0.3, 3), (5.0, 2)):
        place = Fake(call)
        sampling.measure(place, Settings(process_s=1.0))
        assert {(d.number, d.repeat) for d in place.draws[1:]} == {(1, repeat)}


def test_disagreeing_processes_are_repeated_up_to_a_bound() -> None:
    steady = Fake(1.0, 1.00, 1.01, 1.02)
    assert len(sampling.measure(steady, Settings()).seconds) == 3
    one_off = Fake(1.0, 1.0, 1.5, 1.0, 1.0, 1.0)
    timing = sampling.measure(one_off, Settings())
    assert timing.seconds == (1.0, 1.5, 1.0, 1.0, 1.0)  # four of five agree
    assert (timing.median, timing.spread, timing.notes) == (1.0, 0.5, ())
    never = Fake(1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    timing = sampling.measure(never, Settings(max_processes=6))
    assert len(timing.seconds) == 6
    assert timing.notes[0].startswith("unsteady")


def test_a_failing_process_ends_it_without_times() -> None:
    for bad in (1, 2):

        def sample(draw: Draw, bad: int = bad, seen: list[Draw] = []) -> Sample:  # noqa: B006
            seen.append(draw)
            return Sample(Status.CRASHED, error="boom") if len(seen) % 3 == bad else Sample(Status.OK, (1.0,))

        timing = sampling.measure(sample, Settings())
        assert (timing.status, timing.error, timing.median) == (Status.CRASHED, "boom", None)
    stopped = sampling.measure(Fake(0.0), Settings())
    assert stopped.status is Status.INFRASTRUCTURE


def test_agreement_ignores_one_outlier_of_many() -> None:
    assert agree([1.0], 0.0)
    assert agree([1.0, 1.0, 1.0, 9.0], 0.0) is False
    assert agree([1.0, 1.0, 1.0, 1.0, 9.0], 0.0)


FILES = {
    "/proc/loadavg": "0.50 0.40 0.30 1/100 1234\n",
    "/proc/stat": "cpu  100 0 50 900 7 0 5 40 0 0\ncpu0 1 2 3\n",
    "/proc/self/status": "Name:\tcat\nCpus_allowed:\tff\nCpus_allowed_list:\t0-2,4-6\n",
    "/sys/devices/system/cpu/cpu6/cpufreq/scaling_cur_freq": "800000\n",
    "/sys/devices/system/cpu/cpu6/cpufreq/cpuinfo_max_freq": "1600000\n",
    "/sys/devices/system/cpu/cpu6/thermal_throttle/core_throttle_count": "3\n",
}


def test_the_state_of_a_computer_is_read() -> None:
    core = default_core(lambda paths: FILES)
    assert core == 6
    state = look(lambda paths: {path: FILES[path] for path in paths}, core)
    assert (state.load, state.busy_s, state.stolen_s) == (0.5, 1.55, 0.4)
    assert (state.frequency, state.throttled) == (0.5, 3)
    nothing = look(lambda paths: dict.fromkeys(paths, "garbage"), None)
    assert (nothing.load, nothing.busy_s, nothing.frequency, nothing.throttled) == (None, None, None, None)
    assert compare(nothing, nothing) == ({"load": None}, ())


def test_disturbances_become_notes() -> None:
    before = State(0.1, busy_s=10, stolen_s=1.0, frequency=1.0, throttled=3, at=100.0)
    quiet = State(0.1, busy_s=12, stolen_s=1.0, frequency=1.0, throttled=3, at=102.0)
    assert compare(before, quiet)[1] == ()
    noisy = State(3.0, busy_s=14, stolen_s=1.2, frequency=0.6, throttled=4, at=102.0)
    facts, notes = compare(before, noisy)
    assert [note.partition(":")[0] for note in notes] == ["busy", "busy", "slow", "throttled"]
    assert facts["others_cores"] == 1.0
    assert facts["stolen"] == 0.1


def test_targets_are_parsed() -> None:
    for text in (
        "host",
        "ssh:board",
        "ssh:root@10.0.0.7:2222",
        "ssh:user@board.local/mnt/ram",
        "ssh:[fe80::1%eth0]:22",
        "rpc:10.0.0.7:9090",
        "rpc:tracker:9190/pi4",
    ):
        with parse_target(text) as target:
            assert target.name == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one of host, ssh"),
        ("hots", "did you mean 'host'"),
        ("host:1", "one of host, ssh"),
        ("ssh", "one of host, ssh"),
        ("ssh:", "ssh:root@"),
        ("ssh:-oProxyCommand=x", "ssh:root@"),
        ("ssh:board:0", "0 is no port"),
        ("ssh:board;reboot", "ssh:root@"),
        ("rpc:board", "rpc:TRACKER"),
        ("rpc:board:99999", "99999 is no port"),
        ("rpc:board:9090/", "rpc:TRACKER"),
        ("usb:board", "one of host, ssh"),
    ],
)
def test_target_errors_say_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_target(text)
    assert message in str(caught.value)


def test_how_many_are_measured() -> None:
    assert [top_count("3%", n) for n in (1, 33, 34, 64, 100, 200)] == [1, 1, 2, 2, 3, 6]
    assert [top_count(top, 10) for top in (5, "5", "50", 0.25, "100%")] == [5, 5, 10, 3, 10]
    for wrong in (0, "0", "-1", "0%", "101%", "x", "", 1.5, "nan%"):
        with pytest.raises(ConfigurationError, match="how many to measure"):
            top_count(wrong, 10)


def test_break_even_by_hand() -> None:
    # 2 s of simulation against 5 repeats of 0.1 s with 0.1 s pauses: two simulators just keep up.
    assert native_seconds(0.1, 5, 0.1) == pytest.approx(1.0)
    assert break_even(2.0, 1.0) == 2
    assert break_even(2.1, 1.0) == 3
    assert break_even(0.1, 1.0) == 1
    assert break_even(2.0, 1.0, share=0.5) == 4
    assert break_even(2.0, 1.0, share=1.0) is None
    assert break_even(0.0, 0.0) is None


def test_lists_of_workloads() -> None:
    assert {"resnet18", "mobilenet", "bert"} <= set(networks())
    names = [w.name for w in expand("resnet18")]
    assert names[0] == "resnet18.conv1"
    assert len(names) > 10
    mixed = [w.name for w in expand("matmul:m=8,n=16,k=4, bert.softmax,bert,add_relu:m=4")]
    assert mixed == [
        "matmul:m=8,n=16,k=4",
        "bert.softmax",
        "bert.matmul",
        "bert.layer_norm",
        "add_relu:m=4,n=1024",
    ]
    for wrong in ("", ",", "resnet19", "m=4"):
        with pytest.raises(ConfigurationError):
            expand(wrong)
