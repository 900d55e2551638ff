"""The guard in front of the dashboard: what a door refuses is refused for HTTP and for the WebSocket alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ...runtime.web.door import ENTRANCE, Door
from ...runtime.web.headers import security_headers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Every request and every upgrade to a WebSocket passes here, before any route: an ASGI application around another.

    Middleware for HTTP alone would leave the WebSocket open.
    """

    def __init__(self, app: App, door: Door) -> None:
        self._app, self._door = app, door
        sockets = sorted(f"ws://{host}" for host in door.hosts)
        self._headers = tuple((name.encode(), value.encode()) for name, value in security_headers(sockets).items())

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
        origins = _values(scope, b"origin")
        foreign = self._door.foreign(_values(scope, b"host"), origins)
        if foreign is not None:
            return foreign
        if scope["type"] == "websocket" and not origins:
            # Browsers always send it; what does not is no browser of ours.
            return 403, "A WebSocket needs the Origin of this page."
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            return 405, "There is nothing to change here: only GET is answered."
        if scope["type"] == "http" and scope["path"] == ENTRANCE:
            return None
        return self._door.stranger(_values(scope, b"cookie"))


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for header, value in scope["headers"] if header == name]
