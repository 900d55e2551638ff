"""A local page's server as a test asks it, and as a browser that came in does."""

import http.client
from typing import Any
from urllib.parse import urlsplit

WAIT_S = 120.0  # for what must happen: on a busy machine late, but surely


class LocalPage:
    """A server under test, which has `port` and `address`."""

    server: Any

    @property
    def own(self) -> str:
        """The Host that it answers to."""
        return f"127.0.0.1:{self.server.port}"

    @property
    def origin(self) -> str:
        return f"http://{self.own}"

    def ask(
        self, path: str, method: str = "GET", host: str | None = None, body: bytes = b"", **headers: str
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of one request; words of header names are joined by "_"."""
        line = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=WAIT_S)
        try:
            line.putrequest(method, path, skip_host=True)
            line.putheader("Host", self.own if host is None else host)
            if body and "Content_Length" not in headers:
                line.putheader("Content-Length", str(len(body)))
            for name, value in headers.items():
                line.putheader(name.replace("_", "-"), value)
            line.endheaders(body or None)
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
