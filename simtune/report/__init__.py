# SPDX-License-Identifier: Apache-2.0
"""The report of a tuning run: one HTML page, and its figures as PNG files.

Example:
    >>> from simtune.records import open_existing                          # doctest: +SKIP
    >>> with open_existing("simtune-records.db") as store:                 # doctest: +SKIP
    ...     write_report(store, store.runs()[-1].id, Path("report.html"))
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simtune.errors import ConfigurationError
from simtune.machines.model import Machine
from simtune.records.files import whole_file
from simtune.records.store import RecordStore
from simtune.report.data import Report as Report
from simtune.report.data import collect as collect
from simtune.report.data import find_timings as find_timings
from simtune.report.data import work_folders as work_folders

__all__ = ["Report", "collect", "find_timings", "save", "work_folders", "write_report"]


def write_report(
    store: RecordStore,
    run_id: str,
    out: str | os.PathLike[str],
    timings: Mapping[str, float] | None = None,
    *,
    png: str | os.PathLike[str] | None = None,
    machine: Machine | None = None,
    codes: Sequence[str] | None = None,
) -> Path:
    """Writes the report of a run and returns its path.

    Args:
        run_id: the run's id, or its beginning.
        out: the HTML file; it needs no other file and no network.
        timings: wall seconds by stage ("build", "run", "search", "total"). By default they are
            looked for where tuning leaves them: in the run's work folder, and beside `out`.
        png: folder for the figures as PNG files, made if it is missing.
        machine: of the run, if it is not found by its name.
        codes: of every point of a template space, see `collect`.

    Raises:
        RecordError: there is no such run, the store is damaged, or a file cannot be written.
        ConfigurationError: a folder is in the way of a file, or the reverse.
    """
    if timings is None:
        run = store.run(run_id)
        timings = find_timings(*work_folders(store.path, run.id, Path(out)))
    return save(collect(store, run_id, timings, machine, codes), out, png)[0]


def save(
    report: Report, out: str | os.PathLike[str], png: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Writes collected contents and returns the files, the page first; see `write_report`."""
    # matplotlib takes a while to import; those who only collect do not wait for it.
    from simtune.report.figures import draw
    from simtune.report.page import page
    from simtune.report.style import to_png

    figures = draw(report)
    written = [_write(Path(out), page(report, figures).encode())]
    if png is not None:
        written += [_write(Path(png) / f"{name}.png", to_png(figure)) for name, figure in figures.items()]
    return written


def _write(path: Path, content: bytes) -> Path:
    """Whole or not at all: a browser may have the old page open."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder", "give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot make the folder {path.parent}: {reason}") from None
    with whole_file(path) as file:
        file.write(content)
    return path
