# SPDX-License-Identifier: Apache-2.0
"""The exceptions of simtune: one root, one class per kind of cause.

Exceptions are for configuration and programming errors. A candidate that fails
is data (see `simtune.jobs.Status`), never an exception.
"""

from __future__ import annotations


class SimtuneError(Exception):
    """Root of all errors that simtune raises on purpose.

    Args:
        what: what happened and where, in one sentence.
        hint: what the user can do next; shown on a line of its own.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  next: {self.hint}" if self.hint else self.what


class ConfigurationError(SimtuneError, ValueError):
    """A file, option or argument holds something that is not allowed."""


class MachineFileError(ConfigurationError):
    """A machine description is missing, malformed or inconsistent."""


class InputFileError(ConfigurationError):
    """A candidate file (object, tar, executable) cannot be used."""


class ToolMissingError(SimtuneError):
    """A simulator, compiler or linker that the request needs is not here."""


class RecordError(SimtuneError):
    """The record store is damaged, foreign, or from a newer simtune."""


class ExecutorError(SimtuneError):
    """Jobs could not be run: what runs them cannot be reached, or a job raised, which none should."""
