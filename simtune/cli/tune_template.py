# SPDX-License-Identifier: Apache-2.0
"""The part of `simtune tune` for workloads with a template space, such as ``vta:resnet18.c2``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from simtune.cli.output import emit_json, seconds
from simtune.errors import ConfigurationError, SimtuneError

#: Points per question to the tuner, where the command line does not say.
BATCH = 4

#: Options of `simtune tune` that mean nothing here.
_FOREIGN = (
    "simulator", "predictor", "objective", "search_threads", "straggler", "warmup", "models", "optional",
    "timeout", "measure_top", "target", "executor", "scheduler", "tls_ca_file", "tls_cert", "tls_key",
)  # fmt: skip


def refuse_foreign(context: click.Context, names: tuple[str, ...], what: str) -> None:
    """An option that would be ignored is a mistake.

    Raises:
        ConfigurationError: one of these options was given.
    """
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise ConfigurationError(f"{parameter.opts[0]} means nothing for {what}", "leave it out")


def run(context: click.Context, parameters: Mapping[str, Any]) -> None:
    """Tunes, writes the report and prints the result; exits as `simtune tune` does."""
    from simtune.cli.progress import make_observer
    from simtune.records.database import default_store_path
    from simtune.templates import TUNERS
    from simtune.tuning.targets import load_task

    workload = parameters["workload"]
    refuse_foreign(context, _FOREIGN, f"the template space of {workload}")
    tuner = parameters["tuner"] or "validity"
    options = parse_options(tuner, parameters["tuner_option"], TUNERS)
    # Cycles do not depend on operands: with the same ones, searches of all seeds share their simulations.
    task = load_task(workload, parameters["machine"])
    given = context.get_parameter_source("batch") is ParameterSource.COMMANDLINE
    store_path = parameters["records"] or default_store_path()
    store_path.parent.mkdir(parents=True, exist_ok=True)
    with make_observer(task.name, task.machine, quiet=parameters["as_json"]) as observer:
        from simtune.tuning.template import tune_template

        result = tune_template(
            task,
            parameters["trials"],
            tuner=tuner,
            options=options,
            judge=parameters["judge"],
            records=store_path,
            seed=parameters["seed"],
            batch=parameters["batch"] if given else BATCH,
            jobs=parameters["jobs"],
            work_dir=parameters["work_dir"],
            fresh=parameters["fresh"],
            observer=observer,
        )
    folder = parameters["work_dir"] or Path("simtune-runs") / result.run
    page = _report(store_path, result.run, folder, task) if parameters["report"] else None
    if parameters["as_json"]:
        emit_json(_document(task, tuner, result, store_path, page))
    else:
        _print(task, result, store_path, page)
    sys.exit(0 if result.best is not None else 1)


def parse_options(tuner: str, given: tuple[str, ...], tuners: Mapping[str, Any]) -> dict[str, Any]:
    """``name=value`` pairs as the types that the tuner's options have.

    Raises:
        ConfigurationError: no such option, or a value of another type.
    """
    defaults = vars(tuners[tuner].options_type()) if tuner in tuners else {}
    options: dict[str, Any] = {}
    for item in given:
        name, _, text = item.partition("=")
        if tuner in tuners and name not in defaults:
            known = f"it has {', '.join(sorted(defaults))}" if defaults else "it has none"
            raise ConfigurationError(f"the tuner '{tuner}' has no option '{name}'", known)
        kind = type(defaults.get(name, ""))
        try:
            options[name] = _value(kind, text)
        except (KeyError, ValueError):
            raise ConfigurationError(
                f"--tuner-option {item}: {name} takes {_KINDS.get(kind, 'text')}, not '{text}'",
                f"the default is {name}={_shown(defaults.get(name))}",
            ) from None
    return options


_KINDS = {bool: "yes or no", int: "a whole number", float: "a number"}


def _shown(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _value(kind: type, text: str) -> Any:
    if kind is bool:
        words = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False}
        return {**words, "off": False}[text.lower()]
    return kind(text)


def _document(task: Any, tuner: str, result: Any, store_path: Path, page: Path | None) -> dict[str, Any]:
    best = result.best
    return {
        "run": result.run,
        "workload": task.name,
        "machine": task.machine,
        "tuner": tuner,
        "space": task.space.size,
        "trials": result.trials,
        "failures": result.failures,
        "reasons": dict(result.reasons),
        "resumed": result.resumed,
        "compile_calls": result.compile_calls,
        "objective": "latency",
        "unit": "s",
        "best": None
        if best is None
        else {
            "index": best.index,
            "value": best.value,
            "simulation": best.simulation,
            "config": result.config,
        },
        "timings": dict(result.timings),
        "records": store_path,
        "report": page,
    }


def _print(task: Any, result: Any, store_path: Path, page: Path | None) -> None:
    if result.best is None:
        click.echo(f"no point succeeded; see 'simtune records show {result.run} --records {store_path}'")
    else:
        knobs = ", ".join(f"{name} {value}" for name, value in (result.config or {}).items())
        click.echo(f"best {seconds(result.best.value)} (trial {result.best.index}): {knobs}")
    resumed = f", {result.resumed} of them from before" if result.resumed else ""
    asked = f", {result.compile_calls} questions to the compiler" if result.compile_calls else ""
    click.echo(
        f"{result.trials} of {task.space.size:,} points tried{resumed}, {result.failures} failed{asked}; "
        f"run {result.run} in {store_path}"
    )
    if result.reasons:
        click.echo("failed: " + ", ".join(f"{number} {code}" for code, number in result.reasons.items()))
    if page is not None:
        click.echo(f"report: {page}")


def _report(store_path: Path, run: str, folder: Path, task: Any) -> Path | None:
    """The page and its figures beside it; a failure must not hide the result of the tuning."""
    from simtune.records.store import RecordStore
    from simtune.report import write_report

    try:
        with RecordStore(store_path) as store:
            codes = task.codes()
            return write_report(store, run, folder / "report.html", png=folder / "figures", codes=codes)
    except (SimtuneError, OSError) as error:
        click.echo(f"no report written: {error}", err=True)
        return None
