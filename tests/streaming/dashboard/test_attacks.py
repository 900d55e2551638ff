"""What other pages, programs and machines may try against the page: none of it gets in, none of it harms."""

import base64
import json
import os
import socket
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from dashboard_served import PATIENCE_S, WAIT_S, Served, until

from minddiffuser.runtime.web.door import Door
from minddiffuser.streaming.dashboard.messages import Marker, Notice, Picture, Stream

client = pytest.importorskip("websockets.sync.client")
exceptions = pytest.importorskip("websockets.exceptions")


def listen(served: Served, cookie: str | None = None, origin: str | None = "own", **headers: str) -> Any:
    """A WebSocket as a browser opens it."""
    extra = {**headers, **({} if cookie is None else {"Cookie": cookie})}
    return client.connect(
        f"ws://127.0.0.1:{served.server.port}/live",
        origin=served.origin if origin == "own" else origin,  # type: ignore[arg-type]
        additional_headers=extra,
        open_timeout=WAIT_S,
        max_size=None,
    )


def raw_upgrade(served: Served, cookie: str, *lines: str) -> socket.socket:
    """An upgrade written by hand, without reading the answer."""
    line = socket.create_connection(("127.0.0.1", served.server.port), timeout=WAIT_S)
    key = base64.b64encode(os.urandom(16)).decode()
    host = f"127.0.0.1:{served.server.port}"
    given = lines or (f"Host: {host}", f"Origin: http://{host}")
    head = ["GET /live HTTP/1.1", *given, f"Cookie: {cookie}", "Upgrade: websocket", "Connection: Upgrade"]
    head += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
    line.sendall("\r\n".join(head).encode())
    return line


def test_the_browser_of_the_terminal_gets_in(served: Served) -> None:
    cookie = served.enter()
    status, headers, body = served.ask("/", Cookie=cookie)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"MindDiffuser" in body
    with listen(served, cookie) as page:
        served.hub.publish(Notice(at=0.0, level="note", text="hello"))
        assert json.loads(page.recv(WAIT_S))["text"] == "hello"


@pytest.mark.parametrize("odd", ['theme={"dark":1}', "x[1]=2", 'open="quote', "f(o)=1", "=", "nothing", "ü=ö", "a b=c"])
def test_odd_cookies_of_other_programs_on_this_machine_lock_nobody_out(odd: str) -> None:
    """Cookies know no ports: the browser sends them all."""
    door = Door(8123)
    own = (door.enter(door.address().partition("=")[2]) or "").partition(";")[0]
    assert door.knows(f"{odd}; {own}")
    assert door.knows(f"{own}; {odd}")
    assert not door.knows(f"{odd}; {own}x")
    assert not door.knows(f"{odd}; {own[1:]}")


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    assert served.server._socket.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError, match=r"refused|unreachable|not available|assign"):
        socket.create_connection(("127.0.0.2", served.server.port), timeout=WAIT_S)


HOSTS = (
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.evil.example:{port}",
    "127.0.0.1:{port}.evil.example",
    "localhost.evil.example:{port}",
    "127.0.0.1",
    "127.0.0.1:1",
    "0.0.0.0:{port}",
    "[::1]:{port}",
    "2130706433:{port}",
    "127.1:{port}",
    "user@127.0.0.1:{port}",
    "127.0.0.1:{port}, evil.example",
    "",
)


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_was_made_to_resolve_here_is_refused(served: Served, host: str) -> None:
    """DNS rebinding: the page of evil.example asks its own name, which by now is 127.0.0.1."""
    cookie, host = served.enter(), host.format(port=served.server.port)
    for path in ("/", "/static/app.js", served.entrance()):
        status, headers, body = served.ask(path, host=host, Cookie=cookie)
        assert status in (400, 421)
        assert "set-cookie" not in headers
        assert b"<" not in body
    with raw_upgrade(served, cookie, f"Host: {host}", f"Origin: http://{host}") as line:
        assert line.recv(100).split()[1] in (b"400", b"403")
    assert served.hub.n_clients == 0


def test_two_hosts_are_none(served: Served) -> None:
    cookie, own = served.enter(), f"127.0.0.1:{served.server.port}"
    with raw_upgrade(served, cookie, f"Host: {own}", "Host: evil.example", f"Origin: http://{own}") as line:
        assert line.recv(100).split()[1] in (b"400", b"403")
    assert served.hub.n_clients == 0


ORIGINS = (
    "http://evil.example",
    "https://127.0.0.1:{port}",
    "http://127.0.0.1:1",
    "http://127.0.0.1",
    "http://127.0.0.1:{port}.evil.example",
    "http://evil.example:{port}",
    "http://127.0.0.1:{port}/",
    "null",
    "file://",
    "",
)


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_page_in_the_same_browser_is_refused(served: Served, origin: str) -> None:
    """It brings the cookie: other ports of this machine are the same site to a browser."""
    cookie, origin = served.enter(), origin.format(port=served.server.port)
    own = f"127.0.0.1:{served.server.port}"
    with raw_upgrade(served, cookie, f"Host: {own}", f"Origin: {origin}") as line:
        assert line.recv(100).split()[1] == b"403"
    assert served.hub.n_clients == 0
    status, headers, _ = served.ask("/", Cookie=cookie, Origin=origin)
    assert status == 403
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_a_web_socket_without_origin_is_refused(served: Served) -> None:
    with pytest.raises(exceptions.InvalidStatus) as refused:
        listen(served, served.enter(), origin=None).__enter__()
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_both_names_of_this_machine_are_its_own(served: Served, name: str) -> None:
    cookie, own = served.enter(), f"{name}:{served.server.port}"
    assert served.ask("/", host=own, Cookie=cookie, Origin=f"http://{own}")[0] == 200
    with raw_upgrade(served, cookie, f"Host: {own}", f"Origin: http://{own}") as line:
        assert line.recv(100).split()[1] == b"101"


PATHS = ("/", "/static/app.js", "/favicon.ico", "/static/none", "/none", "/enter/", "//enter", "/ENTER")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_cookie_there_is_nothing(served: Served, path: str) -> None:
    served.enter()
    port = served.server.port
    for cookie in (
        None,
        "",
        f"minddiffuser-{port}=",
        f"minddiffuser-{port}=guess",
        f"minddiffuser-{port + 1}=guess",
        ";;=;",
    ):
        status, _, body = served.ask(path, **({} if cookie is None else {"Cookie": cookie}))
        assert status == 403
        assert b"md-stream printed" in body


@pytest.mark.parametrize("cookie", [None, "minddiffuser=x", "\x80\xff"])
def test_a_web_socket_without_the_cookie_is_refused(served: Served, cookie: str | None) -> None:
    with pytest.raises(exceptions.InvalidStatus) as refused:
        listen(served, cookie).__enter__()
    assert refused.value.response.status_code == 403
    assert served.hub.n_clients == 0


def test_an_address_opens_the_page_once(served: Served) -> None:
    path = served.entrance()
    status, headers, _ = served.ask(path)
    assert status == 200
    parts = [part.strip() for part in headers["set-cookie"].split(";")]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(parts[1:])
    again, headers, body = served.ask(path)
    assert again == 403
    assert "set-cookie" not in headers
    assert b"no one" in body
    new = served.said[0].split()[-1]
    assert len(served.said) == 1
    assert served.ask(urlsplit(new).path + "?" + urlsplit(new).query)[0] == 200, "the terminal has a new one"


def test_who_is_in_may_open_the_old_address_again(served: Served) -> None:
    """Whoever goes back in the history, or opens the terminal's line a second time."""
    path = served.entrance()
    cookie = served.ask(path)[1]["set-cookie"].split(";")[0]
    status, headers, _ = served.ask(path, Cookie=cookie)
    assert status == 200
    assert "set-cookie" not in headers
    assert served.said == []


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=guess", "?token=a&token=b", "?token=%00", "?%ff%fe", "?token=" + "a" * 5000]
)
def test_a_guess_is_refused_and_leaves_no_trace_on_the_terminal(served: Served, query: str) -> None:
    served.server.address()
    status, headers, body = served.ask(f"/enter{query}")
    assert status == 403
    assert "set-cookie" not in headers
    assert b"guess" not in body, "nothing that was sent comes back"
    assert served.said == []


def test_secrets_have_256_bits_and_are_kept_as_digests() -> None:
    door = Door(8123)
    token = door.address().split("token=")[1]
    cookie = door.enter(token)
    assert cookie is not None
    secret = cookie.split(";")[0].split("=")[1]
    for text in (token, secret):
        assert len(base64.urlsafe_b64decode(text + "=")) == 32
        assert text not in repr(vars(door))
    assert door.knows(f"a=b; {door.cookie}={secret}")
    assert not door.knows(f"{door.cookie}={secret[:-1]}")
    assert door.address() != door.address()


def test_what_is_kept_of_addresses_and_browsers_is_bounded() -> None:
    door = Door(8123)
    for _ in range(500):
        assert door.enter(door.address().split("token=")[1]) is not None
        door.address()
    assert max(map(len, (door._unused, door._used, door._inside))) < 100


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_there_is_nothing_to_change(served: Served, method: str) -> None:
    cookie = served.enter()
    for path in ("/", "/enter", "/static/app.js", "/live"):
        status, headers, _ = served.ask(path, method, Cookie=cookie, Content_Length="0")
        assert status == 405
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e%2fsecurity.py",
        "/static/..\\server.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/index.html%00.js",
        "/static/",
        "/static/app.py",
    ],
)
def test_no_path_leads_out_of_the_page(served: Served, path: str) -> None:
    status, _, body = served.ask(path, Cookie=served.enter())
    assert status == 404
    assert body == b"There is no such file.\n" or body == b"Not Found"


def test_every_answer_says_what_a_browser_may_do_with_it(served: Served) -> None:
    cookie = served.enter()
    entering = served.entrance()
    answers = [
        served.ask("/", Cookie=cookie), served.ask("/static/app.js", Cookie=cookie), served.ask("/none", Cookie=cookie),
        served.ask("/"), served.ask(entering), served.ask("/", host="evil.example"), served.ask("/", "POST"),
    ]  # fmt: skip
    assert {answer[0] for answer in answers} == {200, 403, 404, 405, 421}
    for _, headers, _ in answers:
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (
            policy["default-src"]
            == policy["base-uri"]
            == policy["form-action"]
            == policy["frame-ancestors"]
            == "'none'"
        )
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert set(policy["img-src"].split()) == {"'self'", "data:"}
        assert "unsafe" not in headers["content-security-policy"]
        assert "http:" not in headers["content-security-policy"], "nothing is loaded from elsewhere"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers


def test_a_browser_that_asks_for_an_icon_by_itself_gets_one(served: Served) -> None:
    status, headers, body = served.ask("/favicon.ico", Cookie=served.enter())
    assert (status, headers["content-type"]) == (200, "image/svg+xml")
    assert body == served.ask("/static/icon.svg", Cookie=served.enter())[2]


def test_the_page_names_nothing_outside_and_has_no_script_of_its_own(served: Served) -> None:
    cookie = served.enter()
    page = served.ask("/", Cookie=cookie)[2].decode()
    assert "://" not in page
    assert "<script>" not in page
    assert " on" not in "".join(part for part in page.split("<") if part.startswith("script"))
    for name in ("app.js", "style.css", "signal.js"):
        text = served.ask(f"/static/{name}", Cookie=cookie)[2].decode()
        assert "innerHTML" not in text
        assert "http" not in text


@pytest.mark.parametrize("frame", ["hello", b"\x00" * 100, "x" * 1000])
def test_a_page_that_speaks_is_hung_up_on(served: Served, frame: str | bytes) -> None:
    """The page only listens: nothing that it says has a meaning."""
    with listen(served, served.enter()) as page:
        page.send(frame)
        with pytest.raises(exceptions.ConnectionClosed):
            page.recv(WAIT_S)
    until(lambda: served.hub.n_clients == 0)


@pytest.mark.parametrize("size", [2_000, 5_000_000])
def test_huge_frames_are_refused_before_they_are_read(served: Served, size: int) -> None:
    cookie = served.enter()
    with listen(served, cookie) as page:
        try:
            page.send(b"x" * size)
            with pytest.raises(exceptions.ConnectionClosed) as closed:
                page.recv(WAIT_S)
            assert closed.value.rcvd is None or closed.value.rcvd.code == 1009  # too big
        except exceptions.ConnectionClosed:
            pass  # hung up while it was still sending
    with listen(served, cookie) as page:
        served.hub.publish(Notice(at=0.0, level="note", text="still here"))
        assert json.loads(page.recv(WAIT_S))["text"] == "still here"


def test_a_frame_that_never_ends_and_a_head_that_never_ends_hold_nobody_up(served: Served) -> None:
    cookie = served.enter()
    lines = [raw_upgrade(served, cookie)]
    lines[0].recv(1000)
    lines[0].sendall(b"\x01\x83")  # a fragment that announces more
    lines.append(socket.create_connection(("127.0.0.1", served.server.port)))
    lines[1].sendall(b"GET / HTTP/1.1\r\nHost: ")
    try:
        assert served.ask("/", Cookie=cookie)[0] == 200
    finally:
        for line in lines:
            line.close()


@pytest.mark.parametrize(
    "bytes_", [b"\x16\x03\x01\x02\x00", b"\x00" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"G" * 100_000, b"\r\n" * 10_000]
)
def test_what_is_no_http_is_hung_up_on(served: Served, bytes_: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=WAIT_S) as line:
        try:
            line.sendall(bytes_)
            line.shutdown(socket.SHUT_WR)
            while line.recv(65536):
                pass
        except ConnectionError:
            pass
    assert served.ask("/", Cookie=served.enter())[0] == 200
    assert capfd.readouterr().err == "", "strangers do not write on the terminal"


def test_one_page_too_many_is_refused_and_one_that_leaves_makes_room(served: Served) -> None:
    cookie = served.enter()
    with ExitStack() as others:
        with listen(served, cookie):
            for _ in range(served.hub.most_clients - 1):
                others.enter_context(listen(served, cookie))
            until(lambda: served.hub.n_clients == served.hub.most_clients)
            with pytest.raises(exceptions.InvalidStatus), listen(served, cookie):
                pass
        until(lambda: served.hub.n_clients == served.hub.most_clients - 1)
        others.enter_context(listen(served, cookie))
    until(lambda: served.hub.n_clients == 0)


def test_a_browser_that_never_reads_is_dropped_and_nobody_waits_for_it(served: Served) -> None:
    cookie = served.enter()
    with raw_upgrade(served, cookie) as deaf, listen(served, cookie) as page:
        assert deaf.recv(12).startswith(b"HTTP/1.1 101")
        until(lambda: served.hub.n_clients == 2)
        seen, ordinal = 0, 0
        while served.hub.n_clients == 2:
            served.hub.publish(Picture(ordinal=ordinal, text="", stage=1, frame=1, n_frames=1, png=os.urandom(300_000)))
            ordinal += 1
            seen += json.loads(page.recv(WAIT_S))["ordinal"] == ordinal - 1
            assert ordinal * 400_000 < 10e9, "it was never dropped"
        assert served.hub.n_clients == 1
        assert seen == ordinal, "the other page was given every picture"
        # Its socket is gone too, with what waited in it: it reads to the end of what the kernel held.
        deaf.settimeout(WAIT_S)
        held = 0
        try:
            while chunk := deaf.recv(1 << 20):
                held += len(chunk)
        except ConnectionError:
            pass
        assert held < ordinal * 400_000


def test_a_page_that_is_slow_is_given_the_newest(served: Served) -> None:
    """What came while it was busy is replaced, not queued."""
    cookie = served.enter()
    with listen(served, cookie) as page:
        until(lambda: served.hub.n_clients == 1)
        for n in range(20_000):
            served.hub.publish(Stream(state="running", name="s", nominal=1.0, n_samples=n))
        got = [json.loads(page.recv(WAIT_S))["n_samples"]]
        while got[-1] != 19_999:
            got.append(json.loads(page.recv(WAIT_S))["n_samples"])
    assert got == sorted(got)
    assert len(got) < 20_000


def test_a_marker_is_text_whatever_it_holds(served: Served) -> None:
    hostile = "</script><script>alert(1)</script>\u202e\x00\"'&"
    with listen(served, served.enter()) as page:
        served.hub.publish(Marker(at=0.0, ordinal=0, text=hostile))
        text = page.recv(WAIT_S)
    assert json.loads(text)["text"] == hostile.replace("\u202e", "\ufffd").replace("\x00", "\ufffd")


def test_closing_ends_pages_thread_and_port() -> None:
    import threading

    from minddiffuser.streaming.dashboard.hub import Hub
    from minddiffuser.streaming.dashboard.server import DashboardServer

    before = threading.active_count()
    hub = Hub()
    server = DashboardServer(hub, patience=PATIENCE_S)
    served = Served(hub, server)
    with listen(served, served.enter()) as page:
        until(lambda: hub.n_clients == 1)
        server.close()
        with pytest.raises(exceptions.ConnectionClosed):
            page.recv(WAIT_S)
    server.close()
    assert hub.n_clients == 0
    until(lambda: threading.active_count() == before)
    hub.publish(Notice(at=0.0, level="note", text="to nobody"))
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system likes
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
    with DashboardServer(hub, port=server.port) as again:
        assert again.port == server.port, "the port is free again"


def test_a_port_that_is_taken_is_said() -> None:
    from minddiffuser.runtime.errors import InputError
    from minddiffuser.streaming.dashboard.hub import Hub
    from minddiffuser.streaming.dashboard.server import DashboardServer

    with DashboardServer(Hub()) as first:
        with pytest.raises(InputError, match=f"port {first.port}: .*give another, or 0"):
            DashboardServer(Hub(), port=first.port)
    with pytest.raises(InputError, match="give another, or 0"):
        DashboardServer(Hub(), port=70_000)
