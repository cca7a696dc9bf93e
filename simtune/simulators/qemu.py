# SPDX-License-Identifier: Apache-2.0
"""Runs executables in QEMU's user mode, with simtune's plugin counting."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from simtune import native
from simtune.counters import DERIVED, SCHEMA, Counters
from simtune.errors import ConfigurationError, SimtuneError
from simtune.execution.supervise import Command, Completed, Ending, run
from simtune.jobs import Outcome, SimJob, Status
from simtune.machines.model import ISAS, Machine
from simtune.simulators.base import Capability
from simtune.simulators.locate import find_program
from simtune.simulators.outcomes import classify, error_text, harness_output
from simtune.simulators.qemu_report import Report, configuration, parse_report

_EXIT_LIMIT = 99
_EXIT_NEEDS_L1I = 98
_INSTALL = (
    "sudo apt-get install qemu-user (Debian 12; newer Debian packages have no plugin support: there,"
    " --simulator qemu-system may do)"
)

_COUNTERS = frozenset(SCHEMA) - DERIVED - {"cycles"}  # that is for detailed timing models

_CFLAGS = (
    *("-std=gnu11", "-O3", "-flto=auto", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-plt"),
    *("-Wall", "-Wextra"),
)


@functools.cache  # every job asks for it; the sources do not change under a process
def build_plugin(api: int, out: Path | None = None) -> Path:
    """The compiled plugin for one version of QEMU's plugin interface, built at first use.

    Args:
        api: 1 for QEMU 7 and 8, 4 for QEMU 9.2 and later.
        out: folder for the product; by default `simtune.native.build` decides.

    Raises:
        ToolMissingError: there is neither a built plugin nor a C compiler.
    """
    folder = native.sources() / "qemu"
    sources = sorted(folder.glob("*.c"))
    command = ["cc", *_CFLAGS, f"-DQEMU_PLUGIN_API={api}", "-o", "{out}", *map(str, sources), "-lpthread"]
    return native.build(f"qemu-plugin-v{api}.so", command, [*sources, *folder.glob("*.h")], out)


@functools.cache
def _program_facts(program: str, mtime_ns: int) -> tuple[str, bool]:
    """Version, and whether the program takes plugins; ("", False) when it does not run."""
    del mtime_ns  # part of the cache key only
    try:
        about, usage = (
            subprocess.run([program, option], capture_output=True, text=True, timeout=30, errors="replace")
            for option in ("--version", "-h")
        )
    except (OSError, subprocess.SubprocessError):
        return "", False
    version = re.search(r"version (\d+(?:\.\d+)+)", about.stdout)
    return version[1] if version else "", bool(re.search(r"^-plugin\b", usage.stdout, re.MULTILINE))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _api_of(version: str) -> int:
    return 4 if _numbers(version) >= (9, 2) else 1


class QemuSimulator:
    """QEMU user mode with simtune's plugin.

    Args:
        path: folder of the `qemu-<isa>` programs; by default `SIMTUNE_QEMU_<ISA>`, the
            configuration, then PATH.
        plugin: a compiled plugin; by default it is built for the QEMU that is found.
    """

    name = "qemu"
    default_models = ("branch", "pipeline")

    def __init__(self, path: Path | None = None, plugin: Path | None = None) -> None:
        self._path = path
        self._plugin = plugin

    def probe(self, machine: Machine | None = None) -> Capability:
        """Says which instruction sets work, or whether one machine does, and why not."""
        wanted = (machine.isa.name,) if machine else ISAS
        states = {isa: self._state(isa) for isa in wanted}
        works = [isa for isa, (_, _, reason) in states.items() if not reason]
        program, version, reason = states[works[0] if works else wanted[0]]
        fix = _INSTALL if reason else ""
        if works and not reason:
            try:
                # The plugin is part of what a result depends on, hence of the version.
                version += f"+{self.plugin_for(version).stem.rpartition('-')[2]}"
                if machine:
                    configuration(machine)
            except SimtuneError as error:
                works, reason, fix = [], error.what, error.hint
        return Capability(
            available=bool(works),
            version=version,
            path=program,
            isas=tuple(works),
            counters=_COUNTERS if works else frozenset(),
            reason=reason,
            fix=fix,
        )

    def run(self, job: SimJob, cancel: threading.Event | None = None) -> Outcome:
        """Runs one job; see `Simulator.run`."""
        try:
            program, version, reason = self._state(job.machine.isa.name)
            if reason:
                return Outcome(Status.INFRASTRUCTURE, error=reason)
            plugin = self.plugin_for(version)
            config = functools.partial(
                configuration, job.machine, job.count, job.limits.instructions, roi=job.region
            )
            if job.scratch is not None:
                job.scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="qemu-", dir=job.scratch) as folder:
                scratch = Path(folder)
                outcome, again = self._once(job, program, version, plugin, config(), scratch, cancel)
                if again:
                    # The code does not fit into L1I, which the plugin finds out early.
                    text = config(l1i_callback=True)
                    second, _ = self._once(job, program, version, plugin, text, scratch, cancel)
                    outcome = replace(
                        second, wall_s=second.wall_s + outcome.wall_s, cpu_s=second.cpu_s + outcome.cpu_s
                    )
                return outcome
        except ConfigurationError as error:
            return Outcome(Status.INVALID, error=str(error))
        except (SimtuneError, OSError) as error:
            return Outcome(Status.INFRASTRUCTURE, error=str(error))

    def _once(
        self,
        job: SimJob,
        program: str,
        version: str,
        plugin: Path,
        config: str,
        scratch: Path,
        cancel: threading.Event | None,
    ) -> tuple[Outcome, bool]:
        """One run; the second value asks for another one, with L1I modelled by callbacks."""
        (scratch / "config").write_text(config)
        (scratch / "report").unlink(missing_ok=True)
        # QEMU splits plugin arguments at commas and has no way to quote one: name the files
        # relative to the working folder.
        option = ("-plugin", f"{_comma_free(plugin, scratch)},config=config,out=report")
        argv = self._command(job, program, option, scratch)
        done = run(Command(argv, env={}, cwd=scratch, limits=job.limits), cancel)
        report = _read_report(scratch / "report")
        again = done.exit_code == _EXIT_NEEDS_L1I or report.status == "needs_l1i"
        again_by = self._reproducer(job, argv, config)
        return _outcome(job, done, report, f"{self.name} {version}", again_by), again

    def _command(self, job: SimJob, program: str, plugin: tuple[str, ...], scratch: Path) -> tuple[str, ...]:
        """What to run in the scratch folder; `plugin` is QEMU's option."""
        del scratch
        cpu = cpu_option(job.machine)
        return (program, *cpu, *plugin, str(job.executable.absolute()), *job.arguments)

    def _reproducer(self, job: SimJob, argv: Sequence[str], config: str) -> str:
        """A shell command that repeats the run, with the configuration inside."""
        del job
        return (
            f'cd "$(mktemp -d)" && printf %s {shlex.quote(config)} > config && '
            f"env -i setarch -R {shlex.join(argv)}; cat report"
        )

    def _state(self, isa: str) -> tuple[str, str, str]:
        """Program, version, and the reason why it cannot be used (empty if it can)."""
        program = self._find(isa)
        if not program:
            return "", "", f"qemu-{isa} is not installed"
        try:
            version, plugins = _program_facts(program, os.stat(program).st_mtime_ns)
        except OSError as error:
            return program, "", f"{program} cannot be used: {error.strerror}"
        if not version:
            return program, "", f"{program} does not run, or is not QEMU"
        if (9, 0) <= _numbers(version) < (9, 2):
            # They took away the first interface, and the one of 9.2 is not there yet.
            return (
                program,
                version,
                f"{program} (version {version}) has a plugin interface between two others",
            )
        if not plugins:
            return program, version, f"{program} (version {version}) was built without plugin support"
        return program, version, ""

    def _find(self, isa: str) -> str:
        if self._path is not None:
            candidate = self._path / f"qemu-{isa}"
            return str(candidate) if os.access(candidate, os.X_OK) else ""
        return find_program(f"qemu-{isa}", (f"qemu-{isa}",), _INSTALL).path

    def plugin_for(self, version: str) -> Path:
        """The compiled plugin that goes with a version of QEMU."""
        return self._plugin or build_plugin(_api_of(version))


def _comma_free(plugin: Path, scratch: Path) -> str:
    """A name of the plugin without commas: its path, or that of a link in the working folder."""
    path = str(plugin.absolute())
    if "," not in path:
        return path
    link = scratch / "plugin.so"
    if not link.exists():
        link.symlink_to(path)
    return "./plugin.so"


def cpu_option(machine: Machine) -> tuple[str, ...]:
    """QEMU's `-cpu`: what the machine file says, else the most capable model QEMU has."""
    model = machine.qemu_cpu
    if not model and machine.isa.name == "riscv64":
        model = "rv64"
    if machine.isa.vlen and "vlen=" not in model:
        model += f",v=true,vext_spec=v1.0,vlen={machine.isa.vlen},elen=64"
    return ("-cpu", model) if model else ()


def _read_report(file: Path) -> Report:
    """What the plugin wrote; an empty report when it did not come that far."""
    try:
        return parse_report(file.read_bytes())
    except OSError:
        return Report()


def _outcome(job: SimJob, done: Completed, report: Report, simulator: str, command: str) -> Outcome:
    """The outcome of a run under the plugin, in user or system mode."""
    status, reason = classify(done, job.limits)
    if (
        report.status == "instruction_limit"
        and done.ending is Ending.EXITED
        and done.exit_code == _EXIT_LIMIT
    ):
        status, reason = Status.TIMEOUT, f"executed more than {job.limits.instructions} instructions"
    elif status is Status.OK and report.status != "complete":
        status, reason = _missing_report(report)
    complete = report.status == "complete" and status in (Status.OK, Status.WRONG_OUTPUT)
    return Outcome(
        status=status,
        stage="check" if status is Status.WRONG_OUTPUT else "simulate",
        counters=Counters(report.counters, simulator) if complete else None,
        output=harness_output(done.stdout),
        error="" if status is Status.OK else error_text(reason, done.stderr),
        command=command,
        wall_s=done.wall_s,
        cpu_s=done.cpu_s,
        peak_rss=done.peak_rss,
        blocks=report.blocks if complete else (),
    )


def _missing_report(report: Report) -> tuple[Status, str]:
    match report.status:
        case "no_region":
            return Status.INVALID, "the program never entered a region of interest"
        case "open_region":
            return Status.CRASHED, "the program ended inside its region of interest"
        case _:
            return Status.INFRASTRUCTURE, "the simulator wrote no whole report"
