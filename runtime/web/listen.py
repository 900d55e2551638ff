"""A socket that listens on one address of this machine."""

from __future__ import annotations

import os
import socket

from ..errors import InputError
from .door import HOST

MOST_CONNECTIONS = 64
_ELSEWHERE = ("192.0.2.1", 9)  # kept free for examples (RFC 5737)


def listening(port: int, what: str, host: str = HOST) -> socket.socket:
    """A socket that listens already, so that a browser may come before a server turns.

    Parameters
    ----------
    port
        0: a free one.
    what
        Listens, such as "the dashboard", for the error.
    host
        An IPv4 address of this machine.

    Raises
    ------
    InputError
        The port is taken, or the address is not of this machine.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let another program take the port over
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        server.close()
        where = f"port {port}" if host == HOST else f"port {port} of {host}"
        raise InputError(f"{what} cannot use {where}: {error}; give another, or 0 for a free one") from None
    return server


def network_address() -> str | None:
    """The address by which this machine leads to others; None where it is in no network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect(_ELSEWHERE)
            address: str = way.getsockname()[0]
        except OSError:
            return None
    return None if address.startswith("127.") or address == "0.0.0.0" else address
