# SPDX-License-Identifier: Apache-2.0
"""`simtune report`: the page for ordinary and for odd runs, its safety, and the command."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from click.testing import CliRunner, Result

from simtune.cli.report import command
from simtune.counters import INSTRUCTION_CLASSES, Counters
from simtune.errors import ConfigurationError, RecordError
from simtune.jobs import Outcome, Status
from simtune.machines.load import load_machine
from simtune.records import Conditions, Measurement, RecordStore, Run, Trial, Workload
from simtune.report import collect, save, write_report
from simtune.report.figures import draw, rank_correlation
from simtune.report.style import styled, to_png
from simtune.report.text import clean, duration, moment, percent, quantity, ratio
from simtune.report.trace import trace_lines

MACHINE = load_machine("sifive-u74")
FAILURES = [status for status in Status if status is not Status.OK]
TRACE = json.dumps(
    [
        [
            ["GetSBlock", [], ["matmul", "main"], ["b0"]],
            ["GetLoops", ["b0"], [], ["l1", "l2"]],
            ["SamplePerfectTile", ["l1"], [2, 64], ["v3", "v4"]],
            ["Split", ["l1", "v3", "v4"], [True, False], ["l5", "l6"]],
            ["Annotate", ["b0", '"SSR"'], ["meta_schedule.tiling"], []],
            ["Invented", ["b0", ["l1", "l2"]], [7, None], []],
        ],
        [[2, [8, 8]]],
    ]
)
#: Elements without end tag, in HTML and as they come up here.
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that elements are balanced, and collects what a browser would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()
        self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert value is not None, (tag, name)
            self.attributes.append((name, value))
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value)
            self.links += re.findall(r"url\(([^)]*)\)", value)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def counters(scale: float = 1.0, **changes: float) -> Counters:
    values = {f"insn.{name}": 1000.0 * (i % 7) * scale for i, name in enumerate(INSTRUCTION_CLASSES)}
    values |= {"instructions": sum(values.values()), "issue_cycles": 6e4 * scale}
    values |= {"load_bytes": 4e5 * scale, "store_bytes": 1e5 * scale, "branch_mispredicts": 0.0}
    for level, accesses in (("l1i", 7e4), ("l1d", 4e4), ("l2", 900.0)):
        values |= {f"{level}.read_hits": accesses * scale, f"{level}.read_misses": accesses / 50}
    values |= {"l1d.writebacks": 90.0, "dram_read_bytes": 64e3, "dram_write_bytes": 8e3 * scale}
    return Counters(values | changes, "qemu 7.2.22")


class Builder:
    """Makes runs in a store of its own."""

    def __init__(self, path: Path) -> None:
        self.store = RecordStore(path)
        self.number = 0

    def run(self, name: str = "conv2d", **options: Any) -> Run:
        workload = self.store.put_workload(Workload(name, [["TENSOR", "float32", [16, 16]]]))
        defaults = {"config": {"seed": 7, "objective": "latency"}, "versions": {"simtune": "0.1.0"}}
        return self.store.start_run(workload, "sifive-u74", MACHINE.digest(), **(defaults | options))

    def trial(self, run: Run, index: int, value: float | None, **changes: Any) -> Trial:
        """A candidate; with a value it is ok and has counters that grow with it."""
        counted = changes.pop("counters", counters(1 + (value or 0) * 100))
        status = changes.pop("status", Status.OK if value is not None else Status.CRASHED)
        outcome = changes.pop("outcome", None) or Outcome(
            status, counters=counted if status is Status.OK else None, error="SIGSEGV", command="qemu x"
        )
        self.number += 1
        conditions = Conditions(f"{self.number:064x}", "qemu", "7.2.22", run.machine_digest)
        trial = Trial(
            run.id, index, f"c{index}", status, TRACE,
            self.store.put_simulation(conditions, outcome), value=value, predicted_s=value,
            build_s=0.2, link_s=0.01, simulate_s=0.3, is_reference=index == 0,
        )  # fmt: skip
        trial = replace(trial, **changes)
        self.store.put_trial(trial)
        return trial

    def ordinary(self) -> Run:
        """A default schedule, ups and downs, and one failure of each kind."""
        run = self.run()
        with self.store.batch():
            self.trial(run, 0, 8e-3)
            for index in range(1, 41):
                kind, rest = divmod(index, 5)
                status = FAILURES[kind - 1] if rest == 0 and kind <= len(FAILURES) else Status.OK
                value = 1e-3 * (2 + 6 * abs(math.sin(index)) * math.exp(-index / 30))
                self.trial(run, index, value if status is Status.OK else None, status=status)
        return run

    def plain(self) -> Run:
        """A run that is quick to draw."""
        run = self.run()
        for index, value in enumerate((8e-3, 4e-3, None)):
            self.trial(run, index, value, simulation=None)
        return run


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    builder = Builder(tmp_path / "r.db")
    yield builder
    builder.store.close()


Written = Callable[..., tuple[Page, str]]


@pytest.fixture
def written(builder: Builder, tmp_path: Path) -> Written:
    """Writes a report and returns it parsed and as text, after the checks that all pages pass."""

    def write(run: Run, timings: dict[str, float] | None = None, **options: Any) -> tuple[Page, str]:
        path = write_report(builder.store, run.id, tmp_path / "out" / "report.html", timings, **options)
        text = path.read_text("utf-8")
        page = Page(text)
        assert "script" not in page.tags
        assert "img" not in page.tags
        assert all(link.startswith("#") and link[1:] in page.ids for link in page.links), page.links
        assert len(page.ids) == len(set(page.ids))
        for name, value in page.attributes:
            assert name.startswith("xmlns") or name == "aria-label" or "://" not in value, (name, value)
            assert not name.startswith("on")
        assert "url(http" not in text
        assert "@import" not in text
        return page, text

    return write


def test_ordinary_run(builder: Builder, written: Written) -> None:
    run = builder.ordinary()
    page, _ = written(run, {"build": 3.0, "run": 2.0, "search": 1.0, "total": 6.0}, machine=MACHINE)
    assert page.tags.count("svg") == 6
    for part in (
        "conv2d on sifive-u74, 40 trials, 7 failed, not finished", "faster than TVM’s default",
        "8 ms", run.id, MACHINE.digest(), "simtune", "0.1.0", "seed 7", "qemu 7.2.22",
        "6 s for 40 trials, 150 ms each", "get_loops(block=b0)", "qemu x", "float32 [16, 16]",
    ):  # fmt: skip
        assert part in page.text, part
    for status in Status:
        assert str(status).replace("_", " ") in page.text
    assert "nan" not in page.text


def test_page_is_the_same_apart_from_its_date(builder: Builder, written: Written) -> None:
    run = builder.ordinary()
    first, second = (re.sub(r"Written by.*", "", written(run)[1]) for _ in range(2))
    assert first == second


def test_run_by_the_beginning_of_its_id(builder: Builder, tmp_path: Path) -> None:
    run = builder.plain()
    assert write_report(builder.store, run.id[:6], tmp_path / "r.html").exists()
    with pytest.raises(RecordError, match="no run 'zz'"):
        write_report(builder.store, "zz", tmp_path / "r.html")


def test_every_figure_as_png(builder: Builder, written: Written, tmp_path: Path) -> None:
    written(builder.ordinary(), {"build": 1.0}, png=tmp_path / "png")
    names = {file.stem for file in (tmp_path / "png").iterdir()}
    assert names == {"progress", "counters", "mix", "cache", "cycles", "failures", "time"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in (tmp_path / "png").iterdir())


def test_style_does_not_leak(builder: Builder, written: Written) -> None:
    before = dict(matplotlib.rcParams)
    written(builder.ordinary())
    assert dict(matplotlib.rcParams) == before


# Odd runs ---------------------------------------------------------------------------------------


def test_no_trials(builder: Builder, written: Written) -> None:
    page, _ = written(builder.run())
    assert "no trials yet" in page.text
    assert page.tags.count("svg") == 0


def test_only_the_reference(builder: Builder, written: Written) -> None:
    run = builder.run()
    builder.trial(run, 0, 1e-3)
    page, _ = written(run)
    assert "none: no candidate succeeded" in page.text
    assert "TVM’s default schedule" in page.text


def test_no_candidate_succeeded(builder: Builder, written: Written) -> None:
    run = builder.run()
    builder.trial(run, 0, 1e-3)
    for index in range(1, 9):
        builder.trial(run, index, None, status=FAILURES[index % len(FAILURES)])
    page, _ = written(run)
    assert "No candidate gave a result" in page.text
    assert "Best trials" not in page.text


@pytest.mark.parametrize("reference", [True, False])
def test_everything_failed(builder: Builder, written: Written, reference: bool) -> None:
    run = builder.run()
    for index in range(0 if reference else 1, 4):
        builder.trial(run, index, None, status=Status.BUILD_FAILED, simulation=None, error="no such rule")
    page, _ = written(run)
    assert ("failed: build failed" if reference else "not simulated") in page.text
    assert "no such rule" in page.text


def test_no_reference(builder: Builder, written: Written) -> None:
    run = builder.run()
    for index in range(1, 4):
        builder.trial(run, index, 1e-3 * index)
    page, _ = written(run)
    assert "not simulated" in page.text
    assert "The best schedule" in page.text
    assert "faster" not in page.text


@pytest.mark.parametrize("value", [1e-3, 0.0, 1e-9])
def test_one_trial(builder: Builder, written: Written, value: float) -> None:
    run = builder.run()
    builder.trial(run, 1, value)
    page, _ = written(run)
    assert "1 trial, 0 failed" in page.text


def test_best_is_slower_than_default(builder: Builder, written: Written) -> None:
    run = builder.run()
    builder.trial(run, 0, 1e-3)
    builder.trial(run, 1, 2e-3)
    assert "2× slower than TVM’s default" in written(run)[0].text


def test_equal_values(builder: Builder, written: Written) -> None:
    run = builder.run()
    for index in range(12):
        builder.trial(run, index, 1e-3)
    written(run)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -1.0, 0.0])
def test_strange_values(builder: Builder, written: Written, value: float) -> None:
    run = builder.run(config={"objective": "l2.read_misses - loads"})
    for index in range(6):
        builder.trial(run, index, value if index in (0, 3) else 1.0 * index, predicted_s=1e-3)
    page, _ = written(run)
    assert "inf" not in page.text.replace("infrastructure", "")


@pytest.mark.parametrize(
    "counted",
    [
        Counters({}),
        Counters({"instructions": 1e6}),
        Counters({"instructions": 0.0, "l1d.read_misses": 0.0, "l1d.read_hits": 0.0}),
        Counters({"insn.load": 1.0}),
        Counters({"l2.read_misses": 10.0, "l2.read_hits": 0.0, "dram_read_bytes": 0.0}),
    ],
)
def test_missing_counters(builder: Builder, written: Written, counted: Counters) -> None:
    run = builder.run()
    for index in range(4):
        builder.trial(run, index, 1e-3 * (5 - index), counters=counted)
    written(run)


def test_counters_that_only_some_trials_have(builder: Builder, written: Written) -> None:
    run = builder.run()
    for index in range(12):
        changes = {"counters": Counters({"instructions": 100.0 * index})} if index % 2 else {}
        builder.trial(run, index, 1e-3 * (20 - index), **changes)
    written(run)


def test_trials_without_simulations(builder: Builder, written: Written) -> None:
    run = builder.run()
    for index in range(4):
        builder.trial(run, index, 1e-3 * (5 - index), simulation=None)
    page, _ = written(run)
    assert page.tags.count("svg") == 2


@pytest.mark.parametrize(
    ("objective", "shown"),
    [
        ("instructions", "less instructions than"),
        ("dram_bytes", "1 MB"),
        ("energy", "less energy than"),
        ("l2.read_misses + 4*loads", "less l2.read_misses + 4*loads than"),
        ("my_function", "less my_function than"),
        ("$x^$ <b>", "less $x^$ <b> than"),
    ],
)
def test_other_objectives(builder: Builder, written: Written, objective: str, shown: str) -> None:
    run = builder.run(config={"objective": objective})
    for index in range(5):
        builder.trial(run, index, 1e6 * (5 - index), predicted_s=1e-3)
    page, _ = written(run)
    assert shown in page.text
    assert "predicted time 1 ms" in page.text


def test_machine_that_is_gone_or_changed(builder: Builder, written: Written) -> None:
    gone = builder.ordinary()
    builder.store.put_run(replace(gone, machine="my-board"))
    assert "machine my-board was not found" in written(gone)[0].text
    builder.store.put_run(replace(gone, machine_digest="0f3a"))
    page, _ = written(gone)
    assert "has changed since this run" in page.text
    assert "Where the cycles go" not in page.text


def test_another_predictor(builder: Builder, written: Written) -> None:
    run = builder.run()
    trial = builder.trial(run, 1, 1.0, predicted_s=1.0)
    parts = collect(builder.store, run.id).cycles["best"]
    seconds = sum(parts.values()) / MACHINE.clock_hz
    assert f"add up to {quantity(seconds, 's')}" in written(run)[0].text
    builder.store.put_trial(replace(trial, predicted_s=seconds))
    assert "add up to" not in written(run)[0].text


def test_measured_times(builder: Builder, written: Written) -> None:
    run = builder.run()
    trials = [builder.trial(run, index, 1e-3 * (5 - index)) for index in range(4)]
    builder.store.put_measurement(Measurement(str(trials[2].simulation), "board", [1e-3], 4.321e-3, 0.0))
    builder.store.put_trial(replace(trials[3], measured_s=7.654e-3))
    page, _ = written(run)
    assert "4.321 ms" in page.text
    assert "7.654 ms" in page.text


def test_many_trials_are_sampled_and_rasterized(builder: Builder, written: Written) -> None:
    run = builder.run()
    trial = builder.trial(run, 0, 1e-3)
    builder.store.put_trials(
        replace(trial, index=i, value=1e-3 + 1e-6 * (i % 97), is_reference=False) for i in range(1, 3501)
    )
    path = builder.store
    assert len(collect(path, run.id).counters) < 2100
    text = write_report(path, run.id, Path(builder.store.path).with_name("r.html")).read_text()
    assert "data:image/png;base64," in text
    assert len(text) < 2_000_000


def test_failures_of_each_kind_come_first(builder: Builder) -> None:
    run = builder.run()
    for index in range(1, 60):
        builder.trial(run, index, None, status=Status.TIMEOUT if index < 59 else Status.WRONG_OUTPUT)
    report = collect(builder.store, run.id)
    assert [failure.index for failure in report.failures] == [1, 2, 3, 4, 5, 6, 7, 59]
    assert report.statuses[Status.TIMEOUT] == 58


# Safety -----------------------------------------------------------------------------------------

HOSTILE = '</pre></style><script>alert("1")</script>&amp;\x00\x1b[31m $\\frac{$ http://x.y/z'


def test_hostile_texts(builder: Builder, written: Written) -> None:
    run = builder.run(
        HOSTILE, target=HOSTILE, config={"objective": HOSTILE, HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE}
    )
    builder.store.put_run(replace(run, machine=HOSTILE))
    builder.trial(run, 0, 1.0, trace_json=HOSTILE)
    builder.trial(run, 1, 0.5, trace_json=json.dumps([[[HOSTILE, [HOSTILE], [HOSTILE], [HOSTILE]]], []]))
    builder.trial(run, 2, None, stage=HOSTILE, error=HOSTILE, command=HOSTILE)
    page, text = written(run)
    assert "<script" not in text
    assert '</pre></style><script>alert("1")</script>&amp;' in page.text


def test_nothing_may_be_loaded(builder: Builder, written: Written) -> None:
    policy = [value for name, value in written(builder.plain())[0].attributes if "default-src" in value]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_places_that_cannot_be_written(builder: Builder, tmp_path: Path) -> None:
    run = builder.plain()
    with pytest.raises(ConfigurationError, match="is a folder"):
        write_report(builder.store, run.id, tmp_path)
    with pytest.raises(ConfigurationError, match="cannot make the folder"):
        write_report(builder.store, run.id, tmp_path / "r.db" / "report.html")


# Parts ------------------------------------------------------------------------------------------


def test_timings_are_found_beside_the_page(
    builder: Builder, written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = builder.plain()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "timings.json").write_text('{"search": 77.0, "total": 77.0}')
    assert "1 min 17 s for 2 trials" in written(run)[0].text
    (tmp_path / "out" / "timings.json").write_text("{")
    assert "was not recorded" in written(run)[0].text
    folder = tmp_path / "simtune-runs" / run.id
    folder.mkdir(parents=True)
    (folder / "timings.json").write_text('{"search": 40.0, "total": 40.0}')
    assert "40 s for 2 trials" in written(run)[0].text


def test_trace_lines() -> None:
    assert trace_lines(TRACE) == [
        'b0 = get_sblock(name="matmul", func_name="main")',
        "l1, l2 = get_loops(block=b0)",
        "v3, v4 = sample_perfect_tile(loop=l1, n=2, max_innermost_factor=64)  -> [8, 8]",
        "l5, l6 = split(loop=l1, factors=[v3, v4], preserve_unit_iters=true, disable_predication=false)",
        'annotate(block_or_loop=b0, ann_val="SSR", ann_key="meta_schedule.tiling")',
        "invented(b0, [l1, l2], 7, null)",
    ]


@pytest.mark.parametrize("text", ["{", "[]", "[[1],[]]", '[[["a"]],[]]', "[[], [1]]", "null", "7"])
def test_trace_that_is_none(text: str) -> None:
    assert trace_lines(text) == [text]


def test_trace_without_instructions() -> None:
    assert trace_lines("") == []
    assert trace_lines("[[], []]") == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234e-3, "s", "1.23 ms"), (999.9e-6, "s", "1 ms"), (2.5e-14, "s", "0.025 ps"), (0.0, "s", "0 s"),
        (-3e-3, "s", "-3 ms"), (1536.0, "bytes", "1.54 kB"), (0.5, "bytes", "0.5 B"), (45.6e6, "", "45.6 M"),
        (999_999.0, "", "1 M"), (12.0, "lines", "12"), (math.nan, "s", "–"), (None, "", "–"),
    ],
)  # fmt: skip
def test_quantity(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_other_numbers() -> None:
    assert [ratio(x) for x in (2.314, 123.4, None)] == ["2.31×", "123×", "–"]
    assert [percent(x, 200) for x in (0, 0.1, 50, 200)] == ["0 %", "<1 %", "25 %", "100 %"]
    assert percent(1, 0) == "–"
    assert [duration(x) for x in (0.02, 59, 200, 7500)] == ["20 ms", "59 s", "3 min 20 s", "2 h 5 min"]
    assert moment(math.inf) == moment(math.nan) == moment(1e300) == "unknown"
    assert clean("a\x00b\ud800\n") == "a\ufffdb\ufffd\n"


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3, 4], [10, 100, 101, 1e9]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [1, 2, 1, 2]) == pytest.approx(0)


def test_save_and_draw_take_collected_contents(builder: Builder, tmp_path: Path) -> None:
    report = collect(builder.store, builder.plain().id, {"build": 1.0})
    assert report.gain == pytest.approx(2)
    assert [trial.index for trial in report.top] == [1]
    with styled():
        assert to_png(draw(report)["progress"]).startswith(b"\x89PNG")
    assert save(report, tmp_path / "a.html") == [tmp_path / "a.html"]


# The command ------------------------------------------------------------------------------------


def call(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_command_takes_the_newest_run(builder: Builder, tmp_path: Path) -> None:
    builder.run("old")
    newest = builder.plain()
    out = tmp_path / "page.html"
    output = call("--records", builder.store.path, "-o", out).output
    assert newest.id in output
    assert str(out) in output
    assert "conv2d" in out.read_text()


def test_command_as_json(builder: Builder, tmp_path: Path) -> None:
    run = builder.plain()
    out, png = tmp_path / "page.html", tmp_path / "png"
    result = call(run.id[:8], "--records", builder.store.path, "-o", out, "--png", png, "--json")
    data = json.loads(result.output)
    assert data["report"] == str(out)
    assert sorted(data["png"]) == sorted(map(str, png.iterdir()))
    assert (data["run"], data["trials"], data["statuses"]["ok"]) == (run.id, 2, 1)
    assert data["gain"] == 2
    assert data["reference"]["value"] == 8e-3


def test_command_errors(builder: Builder, tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        result = call(*arguments, code=1)
        assert isinstance(result.exception, RecordError | ConfigurationError)
        return str(result.exception)

    store = builder.store.path
    assert "holds no runs yet" in error("--records", store, "-o", tmp_path / "r.html")
    builder.plain()
    assert "no run 'zz'" in error("zz", "--records", store, "-o", tmp_path / "r.html")
    assert "is a folder" in error("--records", store, "-o", tmp_path)
    assert "no machine 'nope'" in error("--records", store, "-o", tmp_path / "r.html", "-m", "nope")
    error("--records", tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()


def test_help_has_an_example() -> None:
    assert "simtune report 3f2a --records tuning.db" in call("--help").output
