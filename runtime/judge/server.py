"""The page's server: the standard library's, with a bounded number of threads, for one judge."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..closing import Closing
from ..errors import FileError
from ..progress import unheard
from ..web.door import ENTERED, ENTRANCE, HOST, Door, token_of
from ..web.headers import security_headers
from ..web.listen import listening
from ..web.static import static_files
from .session import Session

PROGRAM = "md-reconstruct judge"
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is read for another
_LARGEST_BODY, _LARGEST_REFUSED = 2048, 65_536
_MOST_THREADS = 32
_PATIENCE_S = 10.0
_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"


def short_token() -> str:
    """A secret that can be typed on a phone: 59 bits, good once."""
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))
    return "-".join(groups)


class JudgeServer(Closing):
    """Serves the page of one session until it is closed.

    Parameters
    ----------
    session
        Of the judge.
    port
        0: a free one.
    host
        The address to listen on: this machine alone, or one of it in a network.
    said
        Takes lines for the terminal: a new address where somebody came with a used one, an answer that could not be
        written.
    patience
        Seconds after which a browser that does not go on is hung up on.

    Raises
    ------
    InputError
        The port is taken, or the address is not of this machine.
    """

    def __init__(
        self,
        session: Session,
        *,
        port: int = 0,
        host: str = HOST,
        said: Callable[[str], None] = unheard,
        patience: float = _PATIENCE_S,
    ) -> None:
        server_socket = listening(port, "the page", host)
        self.port: int = server_socket.getsockname()[1]
        door = Door(self.port, host=host, program=PROGRAM, token_text=None if host == HOST else short_token)
        self.door = door
        self.finished = threading.Event()
        if session.finished:
            self.finished.set()
        handler = type("Handler", (_Handler,), {"timeout": patience})
        self._server = _Server(server_socket, handler, _Site(session, door, said, self.finished))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="judge", daemon=True)
        self._thread.start()

    def address(self) -> str:
        """A new address of the page, which lets one browser in, once."""
        return self.door.address()

    def close(self) -> None:
        """End the server; an answer that is being written is written."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Site:
    """What the page's paths lead to."""

    def __init__(self, session: Session, door: Door, said: Callable[[str], None], finished: threading.Event) -> None:
        self.session, self.door, self.said, self.finished = session, door, said, finished
        self.files = static_files(__package__)
        self.headers = security_headers()


class _Server(ThreadingHTTPServer):
    """One thread for each request, and so many at most: what comes beyond that is hung up on."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: Any, site: _Site) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.site = site
        self._room = threading.BoundedSemaphore(_MOST_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes or is too slow is no error of ours; anything else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request. Nothing is answered before the door was asked."""

    server: _Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        site = self.server.site
        if self._refused(entrance=path == ENTRANCE):
            return
        if path == ENTRANCE:
            self._enter(token_of(query))
        elif path == "/state":
            self._json(200, site.session.state())
        elif path.startswith("/picture/"):
            self._picture(path.removeprefix("/picture/"))
        else:
            name = {"/": "index.html", "/favicon.ico": "icon.svg"}.get(path, path.removeprefix("/static/"))
            content, kind = site.files.get(name, (b"There is no such file.\n", ""))
            self._send(200 if kind else 404, content, kind or _TEXT)

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if self._refused(entrance=False):
            pass
        elif self.path != "/answer":
            self._say(404, "There is nothing to send there.")
        elif not self.headers.get_all("origin"):
            self._say(403, "An answer needs the Origin of this page.")  # browsers always send it
        elif self.headers.get("content-type") != _JSON:
            self._say(415, "An answer is JSON.")
        elif not (length.isascii() and length.isdecimal() and int(length[:9]) <= _LARGEST_BODY):
            self._say(413, "An answer is shorter, and says how long it is.")
        else:
            self._answer(self.rfile.read(int(length)))
            return
        self._hear_out()

    def _hear_out(self) -> None:
        """Read what was sent and not wanted, up to a limit: closing before that would take the refusal back."""
        self.connection.shutdown(socket.SHUT_WR)
        heard = 0
        while heard < _LARGEST_REFUSED and (more := self.rfile.read1(_LARGEST_REFUSED)):
            heard += len(more)

    def _answer(self, body: bytes) -> None:
        site = self.server.site
        try:
            given = json.loads(body)
        except (ValueError, RecursionError):
            given = None
        try:
            status, state = site.session.answer(given)
        except FileError as error:
            site.said(f"an answer was not kept: {error}")
            self._json(507, {"error": "The answer could not be saved. Tell the person who runs the study."})
            return
        try:
            self._json(status, state)
        finally:
            if state["finished"]:  # after the page has heard of it
                site.finished.set()

    def _picture(self, name: str) -> None:
        site = self.server.site
        try:
            data = site.session.picture(name)
        except FileError as error:
            site.said(f"a picture cannot be shown: {error}")
            data = None
        if data is None:
            self._say(404, "There is no such picture now.")
        else:
            self._send(200, data, "image/png")

    def _enter(self, token: str) -> None:
        door = self.server.site.door
        cookie = door.enter(token)
        if cookie is not None:
            self._send(200, ENTERED.encode(), "text/html; charset=utf-8", {"set-cookie": cookie})
        elif door.stranger(self.headers.get_all("cookie", [])) is None:
            self._send(200, ENTERED.encode(), "text/html; charset=utf-8")
        else:
            if door.was_used(token):
                self.server.site.said(f"the address was opened a second time; a new one: {door.address()}")
            self._say(403, door.not_let_in().rstrip())

    def _refused(self, *, entrance: bool) -> bool:
        door = self.server.site.door
        refusal = door.foreign(self.headers.get_all("host", []), self.headers.get_all("origin", []))
        if refusal is None and not entrance:
            refusal = door.stranger(self.headers.get_all("cookie", []))
        if refusal is not None:
            self._say(*refusal)
        return refusal is not None

    def _json(self, status: int, content: object) -> None:
        self._send(status, json.dumps(content).encode(), _JSON)

    def _say(self, status: int, text: str) -> None:
        self._send(status, f"{text}\n".encode(), _TEXT)

    def _send(self, status: int, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        lengths = {"content-type": kind, "content-length": str(len(content)), "connection": "close"}
        for name, value in {**lengths, **self.server.site.headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library refuses by itself, such as an unknown method; nothing that was sent comes back."""
        self.close_connection = True
        self._say(405 if code == 501 else code, "This is no request for this page.")

    def log_message(self, format: str, *args: Any) -> None:
        """The terminal is for the person who runs the study."""
