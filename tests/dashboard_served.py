"""The dashboard's server as a test asks it, and as a browser that came in does."""

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from minddiffuser.streaming.dashboard.hub import Hub

PATIENCE_S = 0.3
WAIT_S = 120.0  # for what must happen: on a busy machine late, but surely


def until(true: Callable[[], bool]) -> None:
    """Wait for what must happen."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@dataclass
class Served:
    """A server under test."""

    hub: Hub
    server: Any
    said: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def ask(
        self, path: str, method: str = "GET", host: str | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of one request; words of header names are joined by "_"."""
        line = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)
        try:
            line.putrequest(method, path, skip_host=True)
            line.putheader("Host", f"127.0.0.1:{self.server.port}" if host is None else host)
            for name, value in headers.items():
                line.putheader(name.replace("_", "-"), value)
            line.endheaders()
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            line.close()

    def entrance(self) -> str:
        """The path of a new address."""
        address = urlsplit(self.server.address())
        return f"{address.path}?{address.query}"

    def enter(self) -> str:
        """The cookie of a new browser, as it sends it."""
        return self.ask(self.entrance())[1]["set-cookie"].split(";")[0]
