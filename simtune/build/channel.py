# SPDX-License-Identifier: Apache-2.0
"""Length-prefixed messages over a socket: a small JSON header and a text body."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_PREFIX = struct.Struct("<II")


def send(sock: socket.socket, header: dict[str, Any], body: str = "") -> None:
    """Sends one message; raises OSError when the other side is gone."""
    head, payload = json.dumps(header).encode(), body.encode()
    sock.sendall(_PREFIX.pack(len(head), len(payload)) + head + payload)


def receive(sock: socket.socket) -> tuple[dict[str, Any], str] | None:
    """The next message, or None when the other side closed or died."""
    prefix = _exactly(sock, _PREFIX.size)
    if prefix is None:
        return None
    head_size, body_size = _PREFIX.unpack(prefix)
    head, body = _exactly(sock, head_size), _exactly(sock, body_size)
    if head is None or body is None:
        return None
    return json.loads(head), body.decode()


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            part = sock.recv(size - len(data))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)
