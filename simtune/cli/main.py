# SPDX-License-Identifier: Apache-2.0
"""The `simtune` command: a lazy group, so that `--help` never imports TVM."""

from __future__ import annotations

import difflib
import importlib
import sys

import click

from simtune.cli.output import fail
from simtune.errors import SimtuneError

#: verb -> one-line help; each verb is `simtune.cli.<verb>:command`.
VERBS = {
    "batch": "Simulate many files, here or on a cluster.",
    "breakeven": "How many simulators at once do the work of one board.",
    "calibrate": "Fit a machine file to native measurements.",
    "collect": "Collect candidates with counters and native times, to train predictors.",
    "compare": "One file in several simulators: counters side by side, differences explained.",
    "doctor": "What is installed, what works, and how to mend the rest.",
    "evaluate": "Judge predictors on workloads they were not trained on.",
    "explain": "Why a candidate is predicted slow or fast.",
    "machines": "List and show the machines that can be predicted.",
    "records": "List, show, check, merge and export stored results.",
    "report": "Write the report of a tuning run.",
    "resimulate": "Simulate stored candidates again, for another machine file.",
    "simulate": "Run one object, TVM tar or executable and print its counters.",
    "train": "Learn a predictor from native times.",
    "tune": "Tune a workload for a machine, in simulation.",
    "vta": "The Versatile Tensor Accelerator: layers, spaces, programs.",
    "worker": "Run jobs for drivers elsewhere, through a Dask scheduler.",
    "workloads": "List the named and parametric workloads.",
}

_OS_HINT = "mend the path, its permissions or the space on its disk, or choose another one"


class LazyGroup(click.Group):
    """Imports a verb's module only when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        close = difflib.get_close_matches(args[0], VERBS, n=1)
        if args[0] not in VERBS and not args[0].startswith("-") and close:
            ctx.fail(f"'{args[0]}' is no command; did you mean '{close[0]}'?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"simtune.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(VERBS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="simtune")
def cli() -> None:
    """Tune kernels for hardware you do not have, in instruction-accurate simulators.

    \b
    Start with:
      simtune doctor
      simtune tune resnet18.conv2_x --machine sifive-u74 --trials 64

    Shell completion: eval "$(_SIMTUNE_COMPLETE=bash_source simtune)"
    """


def main() -> None:
    """Entry point: turns errors into a message and exit status 2, and Ctrl-C into 130."""
    try:
        cli.main(prog_name="simtune", standalone_mode=False)
    except SimtuneError as error:
        fail(type(error).__name__, error)
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # of click 8.2
            error.show()
            sys.exit(error.exit_code)
        path = error.ctx.command_path if error.ctx else "simtune"
        fail("UsageError", SimtuneError(error.format_message().rstrip("."), f"{path} --help"))
    except click.ClickException as error:
        fail("UsageError", SimtuneError(error.format_message()))
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; finished jobs are stored, run the same command to go on", err=True)
        sys.exit(130)
    except OSError as error:
        # A full disk, a folder without permission, a file that is a folder: the user's to mend.
        place = f"{error.filename}: " if error.filename is not None else ""
        fail(type(error).__name__, SimtuneError(f"{place}{error.strerror or error}", _OS_HINT))


if __name__ == "__main__":
    main()
