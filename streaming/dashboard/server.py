"""The page's server: a thread of its own with a loop of its own, on 127.0.0.1 alone."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from ...runtime.closing import Closing
from ...runtime.progress import unheard
from ...runtime.web.door import ENTERED, Door, token_of
from ...runtime.web.listen import MOST_CONNECTIONS, listening
from ...runtime.web.static import static_files
from .hub import Client, Hub
from .security import Guard

_LARGEST_FRAME = 1024
_PAUSE_S = 1 / 30
_STOP_S = 10.0


class DashboardServer(Closing):
    """Serves the page of a hub until it is closed.

    Parameters
    ----------
    hub
        What the pages show.
    port
        0: a free one.
    said
        Takes lines for the terminal: a new address, where somebody came with a used one.
    patience
        Seconds after which a page that does not read is dropped.

    Raises
    ------
    InputError
        The port is taken.
    ModuleNotFoundError
        The extra `stream` is not installed.
    """

    def __init__(
        self, hub: Hub, *, port: int = 0, said: Callable[[str], None] = unheard, patience: float = 10.0
    ) -> None:
        import uvicorn
        from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

        class Ending(WebSocketsSansIOProtocol):
            """A socket that is done is gone: what a page does not read is not kept for it."""

            async def run_asgi(self) -> None:
                await super().run_asgi()
                self.loop.call_later(1.0, self.transport.abort)

        self._socket = listening(port, "the dashboard")
        self.port: int = self._socket.getsockname()[1]
        self.door = Door(self.port)
        app = Guard(_application(hub, self.door, said, patience), self.door)
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws=Ending,
            ws_max_size=_LARGEST_FRAME,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="dashboard", daemon=True)
        self._thread.start()

    def address(self) -> str:
        """A new address of the page, which lets one browser in, once."""
        return self.door.address()

    def close(self) -> None:
        """End the pages and the thread."""
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])


def _application(hub: Hub, door: Door, said: Callable[[str], None], patience: float) -> Any:
    """The routes behind the guard."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    files = static_files(__package__)

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            return PlainTextResponse("There is no such file.\n", 404)
        content, kind = files[name]
        return Response(content, media_type=kind)

    async def icon(_request: Request) -> Response:
        """What a browser asks for by itself, before it has read a page that names another."""
        content, kind = files["icon.svg"]
        return Response(content, media_type=kind)

    async def enter(request: Request) -> Response:
        token = token_of(request.scope["query_string"].decode("latin-1"))
        cookie = door.enter(token)
        if cookie is not None:
            return HTMLResponse(ENTERED, headers={"set-cookie": cookie})
        if door.knows(request.headers.get("cookie", "")):
            return HTMLResponse(ENTERED)
        if door.was_used(token):
            said(f"an address of the dashboard was opened a second time; a new one: {door.address()}")
        return PlainTextResponse(door.not_let_in(), 403)

    async def live(page: WebSocket) -> None:
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is over, and the page with it
                loop.call_soon_threadsafe(news.set)

        client = hub.join(wake)
        if client is None:
            await page.close(1013)
            return
        try:
            await page.accept()
            if not await _serve(page, client, news, patience):
                said(f"a page of the dashboard has not read for {patience:g} s and is dropped: reload it to see more")
        finally:
            client.leave()

    return Starlette(
        routes=[
            Route("/", file),
            Route("/enter", enter),
            Route("/favicon.ico", icon),
            Route("/static/{name}", file),
            WebSocketRoute("/live", live),
        ]
    )


async def _serve(page: Any, client: Client, news: asyncio.Event, patience: float) -> bool:
    """Send what there is until the page goes or speaks, which it never does; False: it did not read for so long."""
    from starlette.websockets import WebSocketDisconnect

    news.set()
    spoken = asyncio.ensure_future(page.receive())
    heard = asyncio.ensure_future(news.wait())
    try:
        while True:
            await asyncio.wait({spoken, heard}, return_when=asyncio.FIRST_COMPLETED)
            if spoken.done():
                break
            news.clear()
            heard = asyncio.ensure_future(news.wait())
            for text in client.take():
                await asyncio.wait_for(page.send_text(text), patience)
            await asyncio.sleep(_PAUSE_S)  # what comes in a burst goes out as one
    except TimeoutError:
        return False
    except WebSocketDisconnect:  # gone in the middle of a message
        pass
    finally:
        spoken.cancel()
        heard.cancel()
    return True
