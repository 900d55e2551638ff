"""Who may see the page: this machine's own browser, let in once by an address that only the terminal has shown.

Other pages in the same browser, other users of the machine and names that suddenly resolve to 127.0.0.1 are kept out.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOST = "127.0.0.1"
ENTRANCE = "/enter"
_MOST_KEYS = 64
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class Door:
    """Addresses that open the page once, and the cookies of the browsers that came in.

    Parameters
    ----------
    port
        Of the server.
    random_text
        Gives a new secret of 256 bits.
    """

    def __init__(self, port: int, random_text: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> None:
        self.port = port
        self.hosts = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
        self.origins = frozenset(f"http://{host}" for host in self.hosts)
        # Cookies know no ports: the name keeps two sessions on one machine apart.
        self.cookie = f"minddiffuser-{port}"
        self._random_text = random_text
        # Digests alone: a secret is compared in constant time and stands nowhere in memory for long.
        self._unused: list[bytes] = []
        self._used: list[bytes] = []
        self._inside: list[bytes] = []

    def address(self) -> str:
        """A new address, which lets one browser in, once."""
        token = self._random_text()
        self._unused = [*self._unused[-_MOST_KEYS:], _digest(token)]
        return f"http://{HOST}:{self.port}{ENTRANCE}?token={token}"

    def enter(self, token: str) -> str | None:
        """The cookie for a browser that came with an unused token; None for any other."""
        digest = _digest(token)
        if not _among(digest, self._unused):
            return None
        self._unused = [kept for kept in self._unused if kept != digest]
        self._used = [*self._used[-_MOST_KEYS:], digest]
        secret = self._random_text()
        self._inside = [*self._inside[-_MOST_KEYS:], _digest(secret)]
        return f"{self.cookie}={secret}; HttpOnly; SameSite=Strict; Path=/"

    def was_used(self, token: str) -> bool:
        """Whether a token is one of ours that opened the page before."""
        return _among(_digest(token), self._used)

    def knows(self, cookies: str) -> bool:
        """Whether a Cookie header is of a browser that came in."""
        # By hand: http.cookies drops all of them where one is odd, and other programs on this machine set odd ones.
        pairs = (pair.partition("=") for pair in cookies.split(";"))
        given = [value.strip() for name, _, value in pairs if name.strip() == self.cookie]
        return any([_among(_digest(value), self._inside) for value in given])


class Guard:
    """Every request and every upgrade to a WebSocket passes here, before any route: an ASGI application around another.

    Middleware for HTTP alone would leave the WebSocket open.
    """

    def __init__(self, app: App, door: Door) -> None:
        self._app, self._door = app, door
        connect = " ".join(["'self'", *sorted(f"ws://{host}" for host in door.hosts)])
        self._headers = tuple(
            (name.encode(), value.encode())
            for name, value in {
                "content-security-policy": _POLICY.format(connect=connect),
                "x-content-type-options": "nosniff",
                "x-frame-options": "DENY",
                "referrer-policy": "no-referrer",
                "cross-origin-opener-policy": "same-origin",
                "cross-origin-resource-policy": "same-origin",
                "cache-control": "no-store",
                "permissions-policy": "camera=(), microphone=(), geolocation=()",
            }.items()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            return
        refused = self.refusal(scope)
        if scope["type"] == "websocket":
            await (self._app(scope, receive, send) if refused is None else send({"type": "websocket.close"}))
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        if refused is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, reason = refused
        start = {"type": "http.response.start", "status": status}
        await send_with_headers({**start, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
        await send({"type": "http.response.body", "body": f"{reason}\n".encode()})

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The HTTP status and the reason, or None for what may pass.

        A WebSocket is refused with status 403 whatever the reason.
        """
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._door.hosts:
            # A foreign name that was made to resolve to this machine comes with that name here.
            return 421, f"This page is at {HOST}:{self._door.port} and answers to no other name."
        if len(origins) > 1 or any(origin not in self._door.origins for origin in origins):
            return 403, "Another page asked for this one: only this page may."
        if scope["type"] == "websocket" and not origins:
            # Browsers always send it; what does not is no browser of ours.
            return 403, "A WebSocket needs the Origin of this page."
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            return 405, "There is nothing to change here: only GET is answered."
        if scope["type"] == "http" and scope["path"] == ENTRANCE:
            return None
        if not any(map(self._door.knows, _values(scope, b"cookie"))):
            return 403, "Open the address that md-stream printed: it lets this browser in."
        return None


def token_of(scope: Scope) -> str:
    """The token in the query of a request, or ""."""
    query: str = scope["query_string"].decode("latin-1")
    return parse_qs(query).get("token", [""])[0]


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for header, value in scope["headers"] if header == name]


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "replace")).digest()


def _among(digest: bytes, known: Iterable[bytes]) -> bool:
    return any([hmac.compare_digest(digest, other) for other in known])
