"""A browser that opens the session's page, and never reads a byte of what it is sent."""

from __future__ import annotations

import base64
import http.client
import os
import socket
from urllib.parse import urlsplit

from ...runtime.closing import Closing
from ...runtime.errors import MindDiffuserError

_ANSWER_S = 30.0
# What its system keeps for it, as little as it may be.
_BUFFER = 4096


class SilentPage(Closing):
    """Comes in by a new address, as a browser does, asks for the live messages, and is silent.

    Parameters
    ----------
    address
        Of :meth:`~..dashboard.server.DashboardServer.address`.

    Raises
    ------
    MindDiffuserError
        It is not let in.
    OSError
        Nobody answers.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        host, port = str(parts.hostname), int(parts.port or 0)
        cookie = _cookie(host, port, f"{parts.path}?{parts.query}")
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.settimeout(_ANSWER_S)
        self._socket.connect((host, port))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            "GET /live HTTP/1.1", f"Host: {host}:{port}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", f"Origin: http://{host}:{port}",
            f"Cookie: {cookie}", "", "",
        )  # fmt: skip
        self._socket.sendall("\r\n".join(lines).encode())
        status = self._socket.recv(12)
        if not status.endswith(b" 101"):
            self.close()
            raise MindDiffuserError(f"the page was not opened ({status.decode('ascii', 'replace')})")

    def close(self) -> None:
        """Go away without a word."""
        self._socket.close()


def _cookie(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", path)
        return (connection.getresponse().getheader("set-cookie") or "").partition(";")[0]
    finally:
        connection.close()
