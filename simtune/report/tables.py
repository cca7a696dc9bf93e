# SPDX-License-Identifier: Apache-2.0
"""The tables of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from simtune.counters import SCHEMA, spec_of
from simtune.jobs import Status
from simtune.records.model import canonical_json
from simtune.report.data import Report, value_of
from simtune.report.text import duration, escape, moment, percent, quantity, ratio

#: What each status means to someone who reads it for the first time.
MEANINGS = {
    Status.OK: "simulated, output right",
    Status.BUILD_FAILED: "TVM could not compile the schedule",
    Status.TIMEOUT: "cut off by the clock or by the instruction limit",
    Status.CRASHED: "ended by a signal or an error",
    Status.OUT_OF_MEMORY: "needed more memory than it may",
    Status.WRONG_OUTPUT: "output differs from the reference",
    Status.INVALID: "cannot run on this machine, or not linked",
    Status.INFRASTRUCTURE: "the simulator failed, not the candidate",
}

_ERROR_LINES = 12


def words(name: object) -> str:
    return str(name).replace("_", " ")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], css: str = "") -> str:
    """A table of cells that are HTML already; heads with a star are those of numbers."""
    numbers = [head.endswith("*") for head in heads]
    classes = [' class="number"' if number else "" for number in numbers]
    top = "".join(f"<th{c}>{escape(h.rstrip('*'))}</th>" for h, c in zip(heads, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True)) + "</tr>\n"
        for row in rows
    )
    name = f' class="{css}"' if css else ""
    content = f"<thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="scroll"><table{name}>{content}</table></div>\n'


def status_table(report: Report) -> str:
    """Every status with its number, zeros included: what did not happen is news as well."""
    rows = []
    for status, number in report.statuses.items():
        if report.is_template and not number:
            continue  # most of them cannot happen there
        css = "zero" if not number else "best" if status is Status.OK else "failed"
        share = percent(number, len(report.trials)) if number else ""
        cells = (words(status), str(number), share, MEANINGS[status])
        rows.append([f'<span class="{css}">{escape(cell)}</span>' for cell in cells[:3]] + [escape(cells[3])])
    return table(["status", "candidates*", "share*", "meaning"], rows)


def reason_table(report: Report) -> str:
    """Failures of a template space by code, with the message of the first."""
    stages = {trial.index: (trial.stage, trial.error) for trial in report.trials}
    rows = []
    for code, indices in report.reasons.items():
        stage, error = stages[indices[0]]
        message = error.partition(": ")[2] or error
        cells = (code, stage, str(len(indices)), message.splitlines()[0] if message else "")
        rows.append([escape(cell) for cell in cells])
    return table(["reason", "stage", "candidates*", "meaning"], rows)


def knobs(config: Mapping[str, int] | None) -> str:
    """A configuration in one line."""
    return ", ".join(f"{name} {value}" for name, value in (config or {}).items())


def failure_list(report: Report) -> str:
    """The first failures with the end of their messages and how to repeat them."""
    parts = []
    for failure in report.failures:
        name = "TVM’s default schedule" if failure.is_reference else f"Trial {failure.index}"
        if failure.index in report.jobs:
            name += f", {report.jobs[failure.index]}"
        where = f" in stage {failure.stage}" if failure.stage else ""
        lines = failure.error.splitlines()
        # The last line of a traceback or of a linker's complaint is the one that says it.
        last = lines[-1].strip() if lines else "no message"
        last = last if len(last) <= 160 else last[:159] + "…"
        shown = "\n".join(lines[-_ERROR_LINES:])
        if len(lines) > _ERROR_LINES:
            shown = f"… {len(lines) - _ERROR_LINES} lines before\n{shown}"
        body = f"<pre>{escape(shown)}</pre>" if shown else ""
        if failure.command:
            body += f'<p class="muted">Repeat it with</p><pre>{escape(failure.command)}</pre>'
        else:
            body += '<p class="muted">No command to repeat it was stored.</p>'
        summary = (
            f'<span class="failed">{escape(name)}: {escape(words(failure.status))}{escape(where)}</span> '
            f"– {escape(last)}"
        )
        parts.append(f"<details><summary>{summary}</summary>{body}</details>\n")
    return "".join(parts)


def top_table(report: Report) -> str:
    """The best trials, and TVM's default for comparison."""
    default = report.default_value
    heads = ["", "trial*", f"{report.value_name}*"]
    if default is not None:
        heads.append("gain*")
    if not report.is_latency:
        heads.append("predicted time*")
    measured = bool(report.measured)
    heads += ["measured*"] * measured
    heads += ["configuration"] if report.is_template else ["instructions*", "L1D misses*", "DRAM*"]
    heads.append("simulated in*")
    rows = []
    entries = [(str(rank), trial) for rank, trial in enumerate(report.top, 1)]
    if report.reference is not None and default is not None:
        entries.append(("default", report.reference))
    for rank, trial in entries:
        counted = report.counters_of(trial)
        value = value_of(trial)
        cells = [rank, str(trial.index), quantity(value, report.unit, 4)]
        if default is not None:
            cells.append(ratio(default / value) if value > 0 and default > 0 else "–")
        if not report.is_latency:
            cells.append(quantity(trial.predicted_s, "s", 4))
        if measured:
            cells.append(quantity(report.measured.get(trial.index), "s", 4))
        instructions = misses = dram = None
        if counted is not None:
            instructions, misses = counted.get("instructions"), counted.misses("l1d")
            if "dram_read_bytes" in counted:
                dram = counted["dram_read_bytes"] + counted.get("dram_write_bytes", 0)
        if report.is_template:
            cells.append(knobs(report.configs.get(trial.index)))
        else:
            cells += [quantity(instructions), quantity(misses), quantity(dram, "bytes")]
        cells.append(quantity(trial.simulate_s, "s") if trial.simulate_s > 0 else "stored")
        css = {"1": "best", "default": "default"}.get(rank)
        cells = [escape(cell) for cell in cells]
        rows.append([f'<span class="{css}">{cell}</span>' for cell in cells] if css else cells)
    return table(heads, rows)


def counter_table(report: Report) -> str:
    """All counters of best and default; folded, since it is long."""
    best, default = report.counters_of(report.best), report.counters_of(report.reference)
    rows = []
    counted = {**SCHEMA, **dict.fromkeys(best or ()), **dict.fromkeys(default or ())}
    for name in counted:
        spec = spec_of(name)
        assert spec is not None  # of the schema, or of counters that were let in
        a = best.get(name) if best is not None else None
        b = default.get(name) if default is not None else None
        if a or b:
            change = ratio(a / b) if a is not None and b else "–"
            against = () if report.is_template else (_exact(b), change)  # it has no default to compare with
            rows.append([escape(x) for x in (name, _exact(a), *against, spec.unit, spec.meaning)])
    if not rows:
        return ""
    against = () if report.is_template else ("default*", "best / default*")
    heads = ["counter", "best*", *against, "unit", "meaning"]
    summary = f"All counters that are not zero ({len(rows)})"
    return f"<details><summary>{summary}</summary>\n{table(heads, rows)}</details>\n"


def _exact(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def facts_table(report: Report) -> str:
    """Every condition that the numbers depend on."""
    run, machine = report.run, report.machine
    facts: list[tuple[str, str]] = [("workload", f"{report.workload.name} ({report.workload.id})")]
    facts += [("parameter", " ".join(map(str, argument[1:]))) for argument in report.workload.arguments]
    if report.is_template:
        facts += [(f"knob {name}", ", ".join(map(str, values))) for name, values in report.knobs]
    facts.append(("machine", f"{run.machine}{f': {machine.description}' if machine else ''}"))
    facts.append(("machine digest", run.machine_digest))
    if json.loads(run.target):  # a batch has none
        facts.append(("target", run.target))
    facts.append(("objective", report.objective + (f" ({report.unit})" if report.unit else "")))
    facts += [("simulator", name) for name in report.simulators]
    facts.append(("run", f"{run.id}, {run.state}"))
    facts.append(("started", moment(run.started)))
    if run.finished is not None:
        facts.append(
            ("finished", f"{moment(run.finished)}, {duration(max(0.0, run.finished - run.started))} later")
        )
    for name, value in run.config.items():
        shown_above = name == "simulator" and report.simulators
        if name not in ("objective", "space") and not shown_above:
            facts.append((words(name), value if isinstance(value, str) else canonical_json(value)))
    facts += [(f"version of {name}", text) for name, text in run.versions.items()]
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>\n" for k, v in facts)
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>\n'
