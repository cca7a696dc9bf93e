# SPDX-License-Identifier: Apache-2.0
"""Targets as users write them: ``host``, ``ssh:HOST``, ``rpc:HOST:PORT/KEY``, ``sim:SIMULATOR/MACHINE``."""

from __future__ import annotations

import difflib
import re

from simtune.errors import ConfigurationError
from simtune.measure.base import Target

FORMS = "host, ssh:[USER@]HOST[:PORT][/FOLDER], rpc:HOST:PORT, rpc:HOST:PORT/KEY, sim:SIMULATOR/MACHINE"

# A name, an IPv4 address, or an IPv6 address in brackets.
_HOST = r"(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[A-Za-z0-9][A-Za-z0-9._-]*)"
_SSH = re.compile(
    rf"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?{_HOST}(?::(?P<port>\d+))?(?P<folder>/[\w./-]*)?"
)
_RPC = re.compile(rf"{_HOST}:(?P<port>\d+)(?:/(?P<key>[\w.-]+))?")


def parse_target(text: str) -> Target:
    """Makes the target of that name. Nothing is contacted yet.

    Args:
        text: ``host``; ``ssh:board``, ``ssh:root@10.0.0.7:2222``, ``ssh:board/mnt/ram`` (a folder of
            the board that executables may be put into); ``rpc:10.0.0.7:9090`` for TVM's RPC server,
            ``rpc:10.0.0.1:9190/pi4`` for the boards that a TVM tracker knows under a key;
            ``sim:gem5-o3/sifive-u74`` for the cycles of a detailed simulator, when there is no board.

    Raises:
        ConfigurationError: it is none of these.
    """
    kind, colon, rest = text.partition(":")
    match (kind, colon):
        case ("host", ""):
            from simtune.measure.host import HostTarget

            return HostTarget()
        case ("ssh", ":"):
            from simtune.measure.ssh import SshTarget

            found = _match(_SSH, text, rest, "ssh:root@10.0.0.7:22")
            port = _port(found["port"], text) if found["port"] else None
            host = found["host"].strip("[]")
            address = f"{found['user']}@{host}" if found["user"] else host
            return SshTarget(address, port, (found["folder"] or "/tmp").rstrip("/") or "/", name=text)
        case ("sim", ":"):
            from simtune.measure.simulated import SimulatedTarget

            simulator, slash, machine = rest.partition("/")
            if not (simulator and slash and machine):
                raise ConfigurationError(f"'{text}' is no target", "write it like sim:gem5-o3/sifive-u74")
            return SimulatedTarget(simulator, machine, name=text)
        case ("rpc", ":"):
            from simtune.measure.rpc import RpcTarget

            found = _match(_RPC, text, rest, "rpc:10.0.0.7:9090, or rpc:TRACKER:9190/KEY")
            return RpcTarget(
                found["host"].strip("[]"), _port(found["port"], text), found["key"] or "", name=text
            )
    close = difflib.get_close_matches(kind, ("host", "ssh", "rpc", "sim"), n=1)
    hint = f"did you mean '{close[0]}'?" if close and close[0] != kind else f"write one of {FORMS}"
    raise ConfigurationError(f"'{text}' is no target", hint)


def _match(form: re.Pattern[str], text: str, rest: str, example: str) -> re.Match[str]:
    found = form.fullmatch(rest)
    if found is None:
        raise ConfigurationError(f"'{text}' is no target", f"write it like {example}")
    return found


def _port(digits: str, text: str) -> int:
    if not 0 < int(digits) < 65536:
        raise ConfigurationError(f"'{text}': {digits} is no port", "ports are from 1 to 65535")
    return int(digits)
