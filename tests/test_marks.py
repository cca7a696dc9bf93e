# SPDX-License-Identifier: Apache-2.0
"""Marks of the region of interest: found in code, and replaced in a copy."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtune.errors import InputFileError, ToolMissingError
from simtune.simulators import marks
from simtune.testing.programs import Programs


@cache
def program(isa: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Programs(isa, Path(folder)).loop().read_bytes()
        except ToolMissingError as error:
            pytest.skip(error.what)


@pytest.mark.parametrize("isa", list(marks.MARKS))
def test_only_the_marks_change(isa: str) -> None:
    data, length = program(isa), len(marks.MARKS[isa][0])
    begins, ends = marks.find(data)
    assert len(begins) == len(ends) == 1
    assert data[begins[0] : begins[0] + length] == marks.MARKS[isa][0]
    assert marks.isa_of(data) == isa
    for begin, end in (
        (b"\xaa" * length, None),
        (None, b"\xbb" * length),
        (b"\xaa" * length, b"\xbb" * length),
    ):
        changed = marks.replace(data, begin, end)
        places = {*(begins if begin else ()), *(ends if end else ())}
        differ = {at for at in range(len(data)) if changed[at] != data[at]}
        assert differ <= {at + k for at in places for k in range(length)}
        assert len(changed) == len(data)
        assert (begin is None) == (marks.find(changed)[0] == begins)
    with pytest.raises(ValueError, match="cannot take the place"):
        marks.replace(data, b"x", None)


def test_a_mark_among_data_is_none() -> None:
    """The same bytes in a segment that is not executed, or across two instructions, are left alone."""
    data = bytearray(program("riscv64"))
    odd = marks.find(bytes(data))[0][0] + 1
    data[odd : odd + 4] = marks.MARKS["riscv64"][0]
    assert odd not in marks.find(bytes(data))[0]


@given(st.sampled_from(list(marks.MARKS)), st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_are_refused_or_copied(isa: str, data: st.DataObject) -> None:
    damaged = bytearray(program(isa))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, 200))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    length = len(marks.MARKS[isa][0])
    with contextlib.suppress(InputFileError, ValueError):
        assert len(marks.replace(cut, bytes(length), None)) == len(cut)
