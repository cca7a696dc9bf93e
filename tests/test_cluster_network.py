# SPDX-License-Identifier: Apache-2.0
"""Wires that are really cut, and clocks that jump."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster_helpers import Cluster, Run, hasty, naps
from execution_helpers import wait_for
from process_helpers import environment

#: Shifts the time of day of the processes that preload it by the size of a file, less a middle.
SHIM = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static time_t shift(void) {
    struct stat found;
    const char *path = getenv("CLOCK_SHIFT");
    return path && stat(path, &found) == 0 ? (time_t)found.st_size - 1000000 : 0;
}
int clock_gettime(clockid_t clock, struct timespec *t) {
    long result = syscall(SYS_clock_gettime, clock, t);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return (int)result;
}
int gettimeofday(struct timeval *t, void *zone) {
    long result = syscall(SYS_gettimeofday, t, zone);
    if (result == 0) t->tv_sec += shift();
    return (int)result;
}
time_t time(time_t *result) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (result) *result = t.tv_sec;
    return t.tv_sec;
}
"""

DRIVER = """
import sys, time, simtune
from simtune.execution.dispatch import Policy
from simtune.testing.jobs import FakeJob
with simtune.DaskExecutor(sys.argv[1], policy=Policy(chunk_s=0.3)) as executor:
    print("ready", flush=True)
    futures = [executor.submit(FakeJob(n, seconds=0.05)) for n in range(80)]
    for number, future in enumerate(futures):
        assert future.result().status == "ok" and future.result().number == number
        print(time.time(), flush=True)
    view = executor.view()
    print(view.done, view.lost, view.retried, flush=True)
"""


def test_clocks_that_jump(tmp_path: Path) -> None:
    source, shim, shift = tmp_path / "shim.c", tmp_path / "shim.so", tmp_path / "shift"
    source.write_text(SHIM)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, source], check=True)
    shift.touch()
    os.truncate(shift, 1_000_000)
    shifted = {"LD_PRELOAD": str(shim), "CLOCK_SHIFT": str(shift)}
    cluster = Cluster(tmp_path / "cluster", workers=0)
    try:
        for _ in range(2):
            cluster.add(**shifted)
        cluster.ready()
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster.address],
            env=environment(**shifted),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ready\n"
        times = []
        for number in range(80):
            times.append(float(driver.stdout.readline()))
            if number in (15, 30, 45):  # an hour ahead, an hour back, and right again
                os.truncate(shift, {15: 1_003_600, 30: 996_400, 45: 1_000_000}[number])
        # communicate() would not see what readline() has taken into its buffer.
        assert driver.stdout.readline().split() == ["80", "0", "0"]
        assert driver.wait(30) == 0
        assert max(times) - min(times) > 7000, "the clock never jumped"
        assert [worker.joined() for worker in cluster.workers] == [1, 1]
    finally:
        cluster.close()


@contextmanager
def namespace(name: str, here: str, there: str) -> Iterator[list[str]]:
    """A network of its own on a wire; gives the command that runs something inside."""
    wire = f"{name}-w"

    def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)

    try:
        made = ip("netns", "add", name)
    except FileNotFoundError:
        pytest.skip("the command ip is not installed")
    if made.returncode != 0:
        pytest.skip(f"network namespaces are not permitted: {made.stderr.strip()}")
    try:
        done = ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", name)
        if done.returncode != 0:
            pytest.skip(f"no pair of network devices can be made: {done.stderr.strip()}")
        ip("addr", "add", f"{here}/30", "dev", wire)
        ip("link", "set", wire, "up")
        for command in (("addr", "add", f"{there}/30", "dev", "eth0"), ("link", "set", "eth0", "up")):
            ip("-n", name, *command)
        yield [wire, "ip", "netns", "exec", name]
    finally:
        ip("link", "del", wire)
        ip("netns", "del", name)


def test_a_wire_that_is_cut_and_mended(tmp_path: Path) -> None:
    """Nobody says good-bye: packets just do not arrive any more."""
    here, there = "10.251.17.1", "10.251.17.2"
    with namespace(f"st{os.getpid() % 100000}", here, there) as (wire, *inside):
        cluster = Cluster(tmp_path / "cluster", workers=0, host=here)
        try:
            cluster.add()
            far = cluster.add(prefix=inside)
            cluster.ready()
            with hasty(cluster.address) as executor:
                assert wait_for(lambda: executor.capacity() == 2, 10)
                run = Run(executor, naps(80))
                run.until(20)
                subprocess.run(["ip", "link", "set", wire, "down"], check=True)
                run.check(tmp_path)  # what hangs beyond the cut is run again on this side
                subprocess.run(["ip", "link", "set", wire, "up"], check=True)
                # It may have been thought to be gone, and has to start again then.
                assert wait_for(lambda: executor.capacity() == 2, 40), far.log()
                before = {state.name: state.done for state in executor.view().workers}
                run = Run(executor, naps(60))
                run.check(tmp_path)
                assert all(w.done > before.get(w.name, 0) for w in executor.view().workers)
        finally:
            cluster.close()
