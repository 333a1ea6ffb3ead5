"""TCP ports of this machine: which are free, who has those that are not, and which the platform chooses."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import fields

import psutil

from branchline.domain.errors import PlatformBroke
from branchline.layout import Ports
from branchline.stack.ledger import Ledger
from branchline.stack.part import Part
from branchline.stack.process import Process

PREFERRED_PORTS = Ports(
    server=8700,
    proxy=8080,
    registry=5080,
    openbao=8710,
    openbao_cluster=8711,
    postgres_platform=5440,
    postgres_nonprod=5441,
    postgres_production=5442,
)
HIGHEST_PORT = 32767
"""Above it Linux takes ports for outgoing connections."""


def choose_ports(preferred: Ports) -> Ports:
    """The preferred ports, or for each that somebody listens on, the next free one."""
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        port: int = getattr(preferred, field.name)
        while port in chosen.values() or not is_free(port):
            port += 1
            if port > HIGHEST_PORT:
                raise PlatformBroke(
                    f"No port is free for {field.name}.", code="no_ports", hint=f"Free one below {HIGHEST_PORT + 1}."
                )
        chosen[field.name] = port
    return Ports(**chosen)


def is_free(port: int) -> bool:
    """Whether nobody listens on this port, on any address of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 nothing is served
        except OSError:
            return False
        return True


def taken(parts: Sequence[Part], ledger: Ledger) -> Iterator[tuple[Part, int, str]]:
    """Parts that do not run and whose port somebody else has, with that port and who it is."""
    for part in parts:
        found = re.search(r":(\d+)$", part.endpoint)
        if part.external or not part.has_process or found is None or is_free(int(found[1])):
            continue
        entry = ledger.read(part.name)
        command = part.command()
        if not (entry and entry.alive) and not (command and Process.find(command)):
            yield part, int(found[1]), listener(int(found[1]))


def listener(port: int) -> str:
    """Who listens on the port, as far as this user may know."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return "another program"
    for one in connections:
        if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN and one.pid:
            try:
                return f"{psutil.Process(one.pid).name()} (process {one.pid})"
            except psutil.Error:
                continue
    return "another program"
