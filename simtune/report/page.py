# SPDX-License-Identifier: Apache-2.0
"""The HTML page: one file, nothing loaded from anywhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from simtune.jobs import Status
from simtune.records.model import RunState
from simtune.report import batch, tables
from simtune.report.css import style_sheet
from simtune.report.data import SAMPLE, Report, value_of
from simtune.report.style import to_svg
from simtune.report.text import duration, escape, moment, quantity, ratio
from simtune.report.trace import trace_lines

# The page needs nothing but itself, and whatever a record holds, it gets nothing else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(report: Report, figures: Mapping[str, Any]) -> str:
    """The whole page as text."""
    title = f"{report.workload.name} on {report.run.machine}"
    sections = (
        _of_batch(report, figures)
        if report.is_batch
        else [
            _head(report),
            _progress(report, figures),
            _map(report, figures),
            _schedules(report, figures),
            _counters(report, figures),
            _failures(report),
            _time(report, figures),
            _top(report),
            _trace(report),
            _conditions(report),
        ]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)} – simtune</title>
<style>
{style_sheet()}</style>
</head>
<body>
<main>
{"".join(section for section in sections if section)}
<footer>Written by simtune on {escape(moment(time.time()))}. {_origin(report)}</footer>
</main>
</body>
</html>
"""


def _of_batch(report: Report, figures: Mapping[str, Any]) -> list[str]:
    return [
        _head(report),
        batch.times(figures),
        _failures(report),
        _counters(report, figures),
        _time(report, figures),
        batch.fastest(report),
        _conditions(report),
    ]


def _origin(report: Report) -> str:
    if report.is_template:
        return (
            "Times are cycles of the timing simulator at the machine’s clock unless they are called measured."
        )
    return "Times are predicted from simulated counters unless they are called measured."


def _figure(figures: Mapping[str, Any], name: str, description: str) -> str:
    if name not in figures:
        return ""
    return f"<figure>{to_svg(figures[name], name, description)}</figure>\n"


def _head(report: Report) -> str:
    run = report.run
    number = len(report.trials)
    failed = number - report.statuses[Status.OK]
    # A run that was killed stays "running" in the store.
    states = {RunState.FINISHED: "", RunState.RUNNING: ", not finished"}
    state = states.get(run.state, f", run {run.state}")
    name = "job" if report.is_batch else "trial"
    lead = f"on {run.machine}, {number} {name if number == 1 else name + 's'}, {failed} failed{state}"
    result = batch.head(report) if report.is_batch else _results(report)
    return f"""<header>
<h1>{escape(report.workload.name)}</h1>
<p class="lead">{escape(lead)} · {escape(moment(run.started))} · run {escape(run.id)}</p>
<div class="result">
{result}</div>
</header>
"""


def _results(report: Report) -> str:
    return f"{_gain(report)}{_result(report, 'best', report.best)}{_default(report)}"


def _gain(report: Report) -> str:
    gain = report.gain
    if gain is None:
        return ""
    if report.is_latency:
        word = "faster than" if gain >= 1 else "slower than"
    else:
        word = f"less {report.objective} than" if gain >= 1 else f"more {report.objective} than"
    shown = ratio(max(gain, 1 / gain))
    return f'<div class="gain"><strong>{shown}</strong><span>{escape(word)} TVM’s default</span></div>\n'


def _default(report: Report) -> str:
    """A template has no default schedule; its best configuration is told instead."""
    if not report.is_template:
        return _result(report, "default", report.reference)
    config = report.configs.get(report.best.index) if report.best is not None else None
    return f"<div><span>{escape(tables.knobs(config))}</span></div>\n" if config else ""


def _result(report: Report, kind: str, trial: Any) -> str:
    best = "configuration" if report.is_template else "schedule"
    name = f"{report.value_name} of the best {best}" if kind == "best" else "TVM’s default schedule"
    if trial is not None and trial.ok and trial.value is not None:
        value = quantity(trial.value, report.unit)
        if report.unit not in ("", "s", "J", "bytes") and report.unit != report.objective:
            value += f" {report.unit}"
        if not report.is_latency and trial.predicted_s is not None:
            name += f", predicted time {quantity(trial.predicted_s, 's')}"
    elif trial is not None:
        value = f"failed: {tables.words(trial.status)}"
    else:
        value = "none: no candidate succeeded" if kind == "best" else "not simulated"
    return f'<div><strong class="{kind}">{escape(value)}</strong><span>{escape(name)}</span></div>\n'


def _progress(report: Report, figures: Mapping[str, Any]) -> str:
    if not report.trials:
        return "<h2>Search</h2>\n<p>This run has no trials yet.</p>\n"
    text = "Each point is a candidate; blue ones were better than all before."
    if len(report.valid) < len(report.trials):
        text += " Failures are marked below, at the trial where they happened."
    if not report.valid:
        text = "No candidate gave a result; the failures are marked at the trial where they happened."
    alt = f"{report.value_name} by trial, with the best so far and failures by reason"
    return f"<h2>Search</h2>\n<p>{text}</p>\n{_figure(figures, 'progress', alt)}"


def _map(report: Report, figures: Mapping[str, Any]) -> str:
    if "map" not in figures:
        return ""
    text = "Every cell is a point of the space; both axes count through several knobs."
    text += " Dots are trials, dark ones fast." if report.valid else ""
    if not report.codes:
        text += " Which other points are valid is not known here."
    alt = "Map of the template space with valid points, reasons of invalid ones, and trials"
    return f"<h2>The space</h2>\n<p>{text}</p>\n{_figure(figures, 'map', alt)}"


def _schedules(report: Report, figures: Mapping[str, Any]) -> str:
    if not report.counters_of(report.best) and not report.counters_of(report.reference):
        return ""
    drawn = ""
    if "cycles" in figures:
        drawn += (
            "<h3>Where the cycles go</h3>\n<p>Cycles of the analytical model: issue with every access "
            f"hitting L1, and what misses and mispredictions add.{_other_predictor(report)}</p>\n"
            + _figure(figures, "cycles", "Predicted cycles by part, best against default")
        )
    elif report.machine_note:
        drawn += f'<p class="muted">No breakdown of cycles: {escape(report.machine_note)}</p>\n'
    if "mix" in figures:
        drawn += "<h3>Instruction mix</h3>\n"
        drawn += _figure(figures, "mix", "Instructions by class, best against default")
    if "cache" in figures:
        drawn += (
            "<h3>Caches</h3>\n<p>Misses and traffic on logarithmic axes; traffic counts lines filled and "
            "written back.</p>\n"
        )
        drawn += _figure(figures, "cache", "Misses, hit rates and traffic by level, best against default")
    alone = "The best configuration" if report.is_template else "The best schedule"
    heading = "Best against TVM’s default" if report.counters_of(report.reference) else alone
    return f"<h2>{heading}</h2>\n{drawn}{tables.counter_table(report)}"


def _other_predictor(report: Report) -> str:
    """A warning where the parts do not add up to what the search has ranked by."""
    best, parts = report.best, report.cycles.get("best")
    if best is None or not best.predicted_s or not parts or report.machine is None:
        return ""
    seconds = sum(parts.values()) / report.machine.clock_hz
    if abs(seconds / best.predicted_s - 1) < 0.01:
        return ""
    return (
        f" They add up to {quantity(seconds, 's')} for the best schedule, not to the "
        f"{quantity(best.predicted_s, 's')} that the run predicted in its own way."
    )


def _counters(report: Report, figures: Mapping[str, Any]) -> str:
    if "counters" not in figures:
        return ""
    name = report.value_name
    text = f"What the {name} follows, on logarithmic axes."
    if len(report.valid) >= 8:
        text += " The rank correlation is 1 where the counter alone gives the order of the candidates."
    if len(report.valid) > SAMPLE:
        text += f" Drawn are {len(report.counters):,} of {len(report.valid):,} candidates."
    alt = f"{name} against counters, one point per candidate"
    return (
        f"<h2>{escape(name.capitalize() if report.is_latency else name)} against counters</h2>\n"
        f"<p>{escape(text)}</p>\n{_figure(figures, 'counters', alt)}"
    )


def _failures(report: Report) -> str:
    text = "<h2>Outcomes</h2>\n" + tables.status_table(report)
    if report.is_template and report.reasons:
        text += tables.reason_table(report)
    if report.failures:
        total = sum(not trial.ok for trial in report.trials)
        text += f"<h3>{'The failures' if total <= len(report.failures) else 'Some of the failures'}</h3>\n"
        text += tables.failure_list(report)
    return text


def _time(report: Report, figures: Mapping[str, Any]) -> str:
    if "time" not in figures:
        return ""
    text = ""
    total = report.timings.get("total")
    if total and report.trials:
        number = len(report.trials)
        text = f"{duration(total)} for {number} trials, {quantity(total / number, 's')} each."
    if not report.timings:
        text = "The wall-clock time of the stages was not recorded with this run."
    if report.trials and not report.total("simulate"):
        text += " Every simulation came from the record store."
    alt = "Seconds by stage"
    return f"<h2>Where the time went</h2>\n<p>{text.strip()}</p>\n{_figure(figures, 'time', alt)}"


def _top(report: Report) -> str:
    if not report.valid:
        return ""
    return f"<h2>Best trials</h2>\n{tables.top_table(report)}"


def _trace(report: Report) -> str:
    if report.best is None or report.is_template:
        return ""
    lines = trace_lines(report.best.trace_json)
    if not lines:
        return ""
    what = f"Trace of trial {report.best.index}, {quantity(value_of(report.best), report.unit)}"
    steps = f"{len(lines)} {'instruction' if len(lines) == 1 else 'instructions'}"
    return (
        "<h2>The best schedule</h2>\n<p>Applied to the unscheduled module, this gives the best schedule; "
        "decisions of the search follow an arrow.</p>\n"
        f"<details><summary>{escape(what)}: {steps}</summary>\n"
        f"<pre>{escape(chr(10).join(lines))}</pre></details>\n"
    )


def _conditions(report: Report) -> str:
    note = f'<p class="muted">{escape(report.machine_note)}</p>\n' if report.machine_note else ""
    return f"<h2>Conditions</h2>\n{note}{tables.facts_table(report)}"
