"""The page over HTTP: what it serves to the browser of the terminal, and what it refuses to everybody else."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from judge_runs import Clock, answer_of, planned
from local_page import WAIT_S, LocalPage

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.judge.answers import AnswerFile
from minddiffuser.runtime.judge.judges import admit
from minddiffuser.runtime.judge.server import JudgeServer, short_token
from minddiffuser.runtime.judge.session import Session


@dataclass
class Page(LocalPage):
    session: Session
    server: JudgeServer
    clock: Clock
    file: Path
    said: list[str] = field(default_factory=list)

    def post(self, content: object, **headers: str) -> tuple[int, Any]:
        given = {"Cookie": self.enter(), "Origin": f"http://{self.own}", "Content_Type": "application/json", **headers}
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        status, _, answer = self.ask("/answer", "POST", body=body, **{n: v for n, v in given.items() if v})
        return status, answer


@pytest.fixture
def page(run: Path, tmp_path: Path) -> Iterator[Page]:
    study, clock = planned(tmp_path / "study", run, n_catch=1), Clock()
    order = admit(study, "anna")
    with AnswerFile(study.answers("anna"), order) as answers:
        session = Session(study, order, answers, clock, lambda: "now")
        said: list[str] = []
        with JudgeServer(session, said=said.append, patience=0.3) as server:
            yield Page(session, server, clock, study.answers("anna"), said)


def test_the_browser_of_the_terminal_judges(page: Page) -> None:
    cookie = page.enter()
    status, headers, body = page.ask("/", Cookie=cookie)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"closer to the original" in body
    while not page.session.finished:
        state = json.loads(page.ask("/state", Cookie=cookie)[2])
        for name in (*state["pictures"].values(), *state["next"]):
            status, headers, body = page.ask(f"/picture/{name}", Cookie=cookie)
            assert (status, headers["content-type"]) == (200, "image/png")
            assert body.startswith(b"\x89PNG")
        page.clock.now += 1
        assert not page.server.finished.is_set()
        status, answer = page.post(answer_of(page.session, "left"))
        assert (status, json.loads(answer)["done"]) == (200, state["done"] + 1)
    assert page.server.finished.wait(WAIT_S)
    assert len(page.file.read_text().splitlines()) == 13


def test_two_windows_and_double_clicks_make_one_answer(page: Page) -> None:
    """Many at once: one of them is kept."""
    page.clock.now += 1
    cookie, given = page.enter(), [answer_of(page.session, side) for side in ("left", "right")]
    headers = {"Cookie": cookie, "Origin": f"http://{page.own}", "Content_Type": "application/json"}
    statuses: list[int] = []

    def press(content: object) -> None:
        statuses.append(page.ask("/answer", "POST", body=json.dumps(content).encode(), **headers)[0])

    threads = [threading.Thread(target=press, args=(given[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert page.session.n_done == 1
    assert len(page.file.read_text().splitlines()) == 1
    assert sorted(statuses) == [200] * 4 + [409] * 4


def test_without_the_cookie_there_is_nothing(page: Page) -> None:
    page.enter()
    for path in ("/", "/state", "/static/judge.js", "/favicon.ico", "/picture/x", "/none", "/enter/"):
        for cookie in (None, "", "minddiffuser-1=guess", "\xff"):
            status, _, body = page.ask(path, **({} if cookie is None else {"Cookie": cookie}))
            assert status == 403
            assert b"md-reconstruct judge printed" in body


def test_a_name_that_was_made_to_resolve_here_is_refused(page: Page) -> None:
    for host in ("evil.example", "evil.example:{port}", "127.0.0.1", "0.0.0.0:{port}", "[::1]:{port}", ""):
        cookie = page.enter()
        for path in ("/", "/state", page.entrance()):
            status, headers, _ = page.ask(path, host=host.format(port=page.server.port), Cookie=cookie)
            assert status == 421
            assert "set-cookie" not in headers


def test_another_page_in_the_same_browser_cannot_answer(page: Page) -> None:
    for origin in ("http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", ""):
        page.clock.now += 1
        status, _ = page.post(answer_of(page.session, "left"), Origin=origin.format(port=page.server.port))
        assert status == 403
        assert page.ask("/state", Cookie=page.enter(), Origin="http://evil.example")[0] == 403
        assert page.session.n_done == 0


def test_what_is_no_answer(page: Page) -> None:
    page.clock.now += 1
    good = answer_of(page.session, "left")
    assert page.post(good, Content_Type="text/plain")[0] == 415
    assert page.post(b" " * 3000)[0] == 413
    assert page.post(b"x", Content_Length="-1")[0] == 413
    assert page.post(b"x", Content_Length="9" * 50)[0] == 413
    assert page.post(b"x", Content_Length="0" * 9 + "9" * 20)[0] == 413
    for body in (b"{", b"\xff\xfe", b"[" * 2000, b"NaN", b"null", b'{"ticket": 1}'):
        assert page.post(body)[0] == 400
    assert page.ask("/state", "POST", Cookie=page.enter(), Origin=f"http://{page.own}", Content_Length="0")[0] == 404
    assert page.session.n_done == 0
    assert page.post(good)[0] == 200


def test_other_methods_do_nothing(page: Page) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "HEAD"):
        status, headers, _ = page.ask("/answer", method, Cookie=page.enter())
        assert status == 405
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_no_path_leads_out_of_the_page(page: Page) -> None:
    for path in (
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/",
        "/judge.py",
        "/picture/../state",
    ):
        assert page.ask(path, Cookie=page.enter())[0] == 404


def test_every_answer_says_what_a_browser_may_do_with_it(page: Page) -> None:
    cookie = page.enter()
    name = page.session.state()["pictures"]["left"]
    answers = [
        page.ask("/", Cookie=cookie), page.ask(f"/picture/{name}", Cookie=cookie), page.ask("/state", Cookie=cookie),
        page.ask("/"), page.ask(page.entrance()), page.ask("/", host="evil"), page.ask("/", "PUT"),
    ]  # fmt: skip
    for _, headers, _ in answers:
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self';" in policy
        assert "unsafe" not in policy
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert "server" not in headers
        assert "date" not in headers
        assert "etag" not in headers


def test_an_address_opens_the_page_once(page: Page) -> None:
    path = page.entrance()
    status, headers, _ = page.ask(path)
    assert status == 200
    assert {part.strip() for part in headers["set-cookie"].split(";")[1:]} == {"HttpOnly", "SameSite=Strict", "Path=/"}
    assert page.ask(path)[0] == 403
    assert "here is a new one: http://127.0.0.1:" in page.said[0]
    assert page.ask(path, Cookie=headers["set-cookie"].split(";")[0])[0] == 200, "who is in may come again"
    for guess in ("/enter", "/enter?token=", "/enter?token=guess", "/enter?%ff"):
        assert page.ask(guess)[0] == 403
    assert len(page.said) == 1


def test_what_is_no_http_is_hung_up_on(page: Page, capfd: pytest.CaptureFixture[str]) -> None:
    for bytes_ in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G" * 70_000,
        b"GET /\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", page.server.port), timeout=WAIT_S) as line:
            try:
                line.sendall(bytes_)
                line.shutdown(socket.SHUT_WR)
                while line.recv(65536):
                    pass
            except ConnectionError:
                pass
        assert page.ask("/", Cookie=page.enter())[0] == 200
        assert capfd.readouterr() == ("", "")


def test_many_that_say_nothing_hold_nobody_up_for_long(page: Page) -> None:
    """Threads are bounded, and who is silent is hung up on."""
    before = threading.active_count()
    lines = [socket.create_connection(("127.0.0.1", page.server.port), timeout=WAIT_S) for _ in range(60)]
    try:
        for line in lines:
            assert line.recv(1) == b""
        assert threading.active_count() <= before + 32
    finally:
        for line in lines:
            line.close()
    assert page.ask("/", Cookie=page.enter())[0] == 200


def test_what_the_disk_does_not_take_is_said(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    page.clock.now += 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        status, answer = page.post(answer_of(page.session, "left"))
    assert status == 507
    assert "could not be saved" in json.loads(answer)["error"]
    assert "the disk is full" in page.said[0]
    assert page.post(answer_of(page.session, "left"))[0] == 200


def test_in_the_network_it_answers_to_its_address_alone(run: Path, tmp_path: Path) -> None:
    """127.0.0.2 stands for an address in a network."""
    study = planned(tmp_path / "study", run)
    order = admit(study, "anna")
    with AnswerFile(study.answers("anna"), order) as answers:
        session = Session(study, order, answers, Clock(), lambda: "now")
        try:
            server = JudgeServer(session, host="127.0.0.2")
        except InputError:
            pytest.skip("this system has no second local address")
        with server:
            address = urlsplit(server.address())
            assert address.hostname == "127.0.0.2"
            assert len(address.query) == len("token=xxxx-xxxx-xxxx")
            for host, status in ((f"127.0.0.2:{server.port}", 200), (f"localhost:{server.port}", 421)):
                line = http.client.HTTPConnection("127.0.0.2", server.port, timeout=WAIT_S)
                line.request("GET", f"{address.path}?{address.query}", headers={"Host": host})
                assert line.getresponse().status == status
                line.close()


def test_tokens_for_the_phone_can_be_typed() -> None:
    tokens = {short_token() for _ in range(200)}
    assert len(tokens) == 200
    assert not set("".join(tokens)) & set("il1o0")


def test_ports_that_cannot_be_used_are_said(page: Page) -> None:
    with pytest.raises(InputError, match=f"port {page.server.port}: .*give another, or 0"):
        JudgeServer(page.session, port=page.server.port)
    with pytest.raises(InputError, match=r"port 0 of 192\.0\.2\.1"):
        JudgeServer(page.session, host="192.0.2.1")


def test_the_page_loads_nothing_from_elsewhere(page: Page) -> None:
    cookie = page.enter()
    for name in ("/", "/static/judge.js", "/static/judge.css"):
        text = page.ask(name, Cookie=cookie)[2].decode()
        assert "://" not in text
        assert "innerHTML" not in text
        assert "<style" not in text


def test_its_files_are_packaged() -> None:
    import fnmatch
    import tomllib

    import minddiffuser.runtime.judge as package

    root = Path(package.__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in (root / "runtime" / "judge" / "static").iterdir():
        assert any(fnmatch.fnmatch(f"static/{path.name}", p) for p in patterns["minddiffuser.runtime.judge"]), path
