# SPDX-License-Identifier: Apache-2.0
"""The process that build workers are forked from: it imports TVM once, for all of them.

Started by `simtune.build.pool` with one end of a socket pair. For every socket that arrives it
forks a worker that serves build requests on it. It ends when the pool's end is closed, however
that happened, and its workers die with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1

#: What every worker would import for its first candidate; here once for all.
_PRELOADED = (
    "tvm.runtime.executable",
    "tvm.s_tir",
    "tvm.s_tir.transform",
    "tvm.target",
    "tvm.tirx",
    "simtune.build.channel",
    "simtune.build.codegen",
)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _redirect(log: int) -> None:
    """LLVM and TVM print at will; `log` keeps what they say before they die."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for fd in (1, 2):
        os.dup2(log, fd)
    os.close(null)
    os.close(log)


def _die_with_parent(sign: int) -> None:
    """Asks the kernel to send `sign` when the thread that started us ends; 0 takes it back."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sign)


def _serve(sock: socket.socket) -> None:
    from tvm.target import Target

    from simtune.build import channel, codegen

    targets: dict[str, Any] = {}
    while (message := channel.receive(sock)) is not None:
        header, body = message
        start = time.perf_counter()
        reply: dict[str, Any] = {}
        try:
            target_json = header["target"]
            if target_json not in targets:
                targets[target_json] = Target(json.loads(target_json))
            target = targets[target_json]
            with target:
                reply = codegen.emit(body, target, header["path"])
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[-4000:]}
        reply["seconds"] = time.perf_counter() - start
        reply["rss"] = _resident_bytes()
        channel.send(sock, reply)


def main() -> None:
    """Serves fork requests on the socket whose descriptor is the first argument."""
    # While it imports, nobody looks at the socket. Afterwards the end of the socket is the better
    # sign: the pool may be used by several threads, and the one that started us may end.
    _die_with_parent(signal.SIGKILL)
    control = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(BlockingIOError):
        if not control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            return  # the pool was gone before we could ask
    from simtune import tvm_setup

    tvm_setup.prepare()
    for name in _PRELOADED:
        importlib.import_module(name)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    gc.freeze()  # keeps the forked pages shared
    _die_with_parent(0)
    try:
        control.sendall(b"ready")
    except OSError:
        return
    while True:
        data, fds, _flags, _address = socket.recv_fds(control, 1, 2)
        if not data:
            return
        pid = os.fork()
        if pid == 0:
            # Killed with the zygote, which ends with the pool: no worker is ever left compiling.
            _die_with_parent(signal.SIGKILL)
            control.close()
            _redirect(fds[1])
            try:
                _serve(socket.socket(fileno=fds[0]))
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)
        control.sendall(pid.to_bytes(4, "little"))


if __name__ == "__main__":
    main()
