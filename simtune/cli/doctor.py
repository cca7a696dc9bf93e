# SPDX-License-Identifier: Apache-2.0
"""`simtune doctor`: what is here, what works, and the command that mends the rest."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import click
from rich.console import Console
from rich.markup import escape

from simtune.cli.output import emit_json, json_option
from simtune.errors import SimtuneError
from simtune.machines.model import ISAS


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        needed: without it simtune cannot do its main job.
        details: what it can do, such as the counters of a simulator.
    """

    what: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True
    details: list[str] = field(default_factory=list)


@click.command()
@click.option("--deep", is_flag=True, help="Also load TVM and build a candidate, in a process of its own.")
@json_option
def command(deep: bool, as_json: bool) -> None:
    """Show what is installed, what works, and the exact command that fixes the rest.

    Exits with 0 when kernels can be tuned here, with 1 otherwise.

    \b
    Example:
      simtune doctor
      simtune doctor --deep --json
    """
    findings = [*_python(), *_native(), *_toolchains(), *_simulators(), *_extras()]
    if deep:
        findings.append(_deep())
    works = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        emit_json({"ok": works, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
        click.echo("simtune can tune here" if works else "simtune cannot tune here yet, see the fixes above")
    sys.exit(0 if works else 1)


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    for finding in findings:
        mark = (
            "[green]ok     [/]"
            if finding.ok
            else "[red]missing[/]"
            if finding.needed
            else "[yellow]absent [/]"
        )
        console.print(f"{mark} {escape(finding.what)}: {escape(finding.found)}", soft_wrap=True)
        for detail in finding.details:
            console.print(f"          [dim]{escape(detail)}[/]", soft_wrap=True)
        if finding.fix and not finding.ok:
            console.print(f"          fix: {escape(finding.fix)}", soft_wrap=True)


def _python() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from simtune.tvm_setup import PINNED, check_pair

    yield Finding(
        "Python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer"
    )
    try:
        check_pair()
        yield Finding("TVM", True, ", ".join(f"{name} {pinned}" for name, pinned in PINNED.items()))
    except SimtuneError as error:
        yield Finding("TVM", False, error.what, error.hint)
    for package in ("numpy", "scikit-learn", "psutil", "matplotlib"):
        try:
            yield Finding(package, True, version(package))
        except PackageNotFoundError:
            yield Finding(package, False, "not installed", f"pip install {package}")


def _native() -> Iterator[Finding]:
    from simtune.execution.capacity import usable_cores, usable_memory
    from simtune.execution.supervise import launcher

    cores, memory = usable_cores(), usable_memory()
    yield Finding("capacity", True, f"{cores} cores, {memory / 2**30:.1f} GiB usable")
    try:
        yield Finding("process launcher", True, str(launcher()))
    except SimtuneError as error:
        yield Finding(
            "process launcher", False, error.what, "apt-get install --no-install-recommends gcc libc6-dev"
        )
    yield _vta()


def _vta() -> Finding:
    from simtune.vta.build import build_core

    try:
        return Finding("accelerator VTA", True, str(build_core()), needed=False)
    except SimtuneError as error:
        fix = error.hint if not error.hint.startswith("run 'simtune doctor'") else "apt-get install g++"
        return Finding("accelerator VTA", False, error.what, fix, needed=False)


def _toolchains() -> Iterator[Finding]:
    from simtune.build.toolchain import find, harness, install_command

    for isa in ISAS:
        try:
            tools = find(isa)
            harness(isa)
            yield Finding(f"linking for {isa}", True, f"{tools.cc}, {tools.ld}")
        except SimtuneError as error:
            yield Finding(f"linking for {isa}", False, error.what, install_command(isa))


def _simulators() -> Iterator[Finding]:
    from simtune.simulators.base import get_simulator, simulator_names

    for name in simulator_names():
        try:
            capability = get_simulator(name).probe()
        except SimtuneError as error:
            yield Finding(f"simulator {name}", False, error.what, error.hint, needed=name == "qemu")
            continue
        details = []
        if capability.isas:
            details.append(f"runs {', '.join(capability.isas)}")
        if capability.counters:
            details.append(f"counts {_summary(capability.counters)}")
        place = f" at {capability.path}" if capability.path else ""
        found = f"{capability.version}{place}" if capability.available else capability.reason
        yield Finding(
            f"simulator {name}",
            capability.available,
            found,
            capability.fix,
            needed=name == "qemu",
            details=details,
        )


def _summary(counters: Iterable[str]) -> str:
    """Counter names in short: those of one family together."""
    families: dict[str, list[str]] = {}
    for name in sorted(counters):
        family, dot, rest = name.partition(".")
        families.setdefault(family, []).append(rest if dot else "")
    return ", ".join(
        family
        if not members[0]
        else f"{family} ({len(members)} classes)"
        if family == "insn"
        else f"{family} ({', '.join(members)})"
        for family, members in families.items()
    )


def _extras() -> Iterator[Finding]:
    import importlib.util

    for module, what, extra in (
        ("pyarrow", "Parquet export", "parquet"),
        ("xgboost", "TVM's xgb cost model", "xgb"),
        ("distributed", "running jobs on a Dask cluster", "cluster"),
    ):
        present = importlib.util.find_spec(module) is not None
        yield Finding(
            what,
            present,
            module if present else f"{module} is not installed",
            f"pip install 'simtune[{extra}]'",
            False,
        )
    from simtune.execution.confine import bubblewrap

    try:
        yield Finding("sandbox for candidates", True, bubblewrap(), needed=False)
    except SimtuneError as error:
        yield Finding("sandbox for candidates", False, error.what, error.hint, needed=False)
    from simtune.mca import INSTALL, find

    try:
        yield Finding("llvm-mca, for --features mca", True, find("llvm-mca"), needed=False)
    except SimtuneError as error:
        yield Finding("llvm-mca, for --features mca", False, error.what, INSTALL, needed=False)


_DEEP = """
from simtune.tuning.workloads import parse
from simtune.build.builder import Builder, ms
from simtune.machines.load import load_machine
from tvm.target import Target
builder = Builder(1)
target = Target(dict(load_machine("sifive-u74").target))
module = parse("matmul:m=8,n=8,k=8").module()
context = ms.TuneContext(mod=module, target=target, space_generator="post-order-apply")
result = builder.build([ms.builder.BuilderInput(context.mod, target)])[0]
builder.close()
assert result.artifact_path, result.error_msg
"""


def _deep() -> Finding:
    """A broken TVM dies of a segmentation fault, so it is tried in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _DEEP], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        return Finding("building a candidate", True, "works")
    reason = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
    return Finding(
        "building a candidate", False, reason[0], "reinstall the pinned pair of TVM packages, see above"
    )
