# SPDX-License-Identifier: Apache-2.0
"""The plugin against an independent count: valgrind's callgrind on an SSE kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from qemu_helpers import BEGIN, END, counters, machine, require, simulate

SOURCE = """
static float a[128][128], b[128][128], c[128][128];
__attribute__((noinline, used)) void kernel(void)
{
    for (int i = 0; i < 128; i++)
        for (int k = 0; k < 128; k++)
            for (int j = 0; j < 128; j++)
                c[i][j] += a[i][k] * b[k][j];
}
int main(void)
{
    for (int i = 0; i < 128; i++)
        for (int j = 0; j < 128; j++)
            a[i][j] = (i % 7) * 0.1f, b[i][j] = (j % 5) * 0.3f;
    __asm__ volatile("BEGIN\\n call kernel\\n END" ::: "memory", "cc", "rax", "rcx", "rdx", "rsi", "rdi",
                     "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6");
    return c[3][4] < 0;
}
"""


@pytest.mark.parametrize("flags", [("-O2",), ("-O3", "-funroll-loops"), ("-O1",)])
def test_counts_agree_with_callgrind(flags: tuple[str, ...], tmp_path: Path) -> None:
    require("x86_64")
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    text = SOURCE.replace("BEGIN", BEGIN["x86_64"].replace("\n", "\\n"))
    (tmp_path / "k.c").write_text(text.replace("END", END["x86_64"].replace("\n", "\\n")))
    executable = tmp_path / "k.elf"
    subprocess.run(
        ["x86_64-linux-gnu-gcc", *flags, "-mno-red-zone", "-static", "-o", executable, tmp_path / "k.c"],
        check=True,
        timeout=60,
    )
    log = tmp_path / "callgrind.out"
    caches = ["--I1=32768,8,64", "--D1=8192,4,64", "--LL=65536,8,64"]
    command = ["valgrind", "--tool=callgrind", "--cache-sim=yes", "--branch-sim=yes", *caches]
    command += ["--toggle-collect=kernel", f"--callgrind-out-file={log}", executable]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    events = re.search(r"^events: (.*)$", log.read_text(), re.MULTILINE)
    totals = re.search(r"^(?:totals|summary): (.*)$", log.read_text(), re.MULTILINE)
    assert events is not None
    assert totals is not None
    truth = dict(zip(events[1].split(), map(int, totals[1].split()), strict=False))
    target = machine("x86_64", l1i=(64, 8, 64), l1d=(32, 4, 64), l2=(128, 8, 64))
    found = counters(simulate(executable, target))
    # the call lies inside our region, outside of callgrind's
    assert found["instructions"] == truth["Ir"] + 1
    assert found["loads"] == truth["Dr"]
    assert found["stores"] == truth["Dw"] + 1
    assert found["branches"] == truth["Bc"]
    misses = found["l1d.read_misses"] + found["l1d.write_misses"]
    assert misses == pytest.approx(truth["D1mr"] + truth["D1mw"], rel=0.005)
    assert misses > 50_000
