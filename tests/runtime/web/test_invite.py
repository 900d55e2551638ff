"""A browser where it is seen, else the line for a tunnel."""

import pytest

from minddiffuser.runtime.web.invite import has_screen, invite, tunnel

ADDRESS = "http://127.0.0.1:8123/enter?token=abc"


@pytest.mark.parametrize(
    ("environment", "platform", "seen"),
    [
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1 2 3 4"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", False),
        ({}, "win32", True),
    ],
)
def test_a_screen_is_where_somebody_sits(environment: dict[str, str], platform: str, seen: bool) -> None:
    assert has_screen(environment, platform) is seen


def test_with_a_screen_the_page_opens() -> None:
    opened: list[str] = []
    lines = invite(
        "dashboard", ADDRESS, 8123, {"DISPLAY": ":0"}, lambda page: bool(opened.append(page)) or True, "linux"
    )
    assert opened == [ADDRESS]
    assert len(lines) == 1
    assert ADDRESS in lines[0]


@pytest.mark.parametrize("environment", [{}, {"DISPLAY": ":0"}])
def test_without_one_or_without_a_browser_the_tunnel_is_printed(environment: dict[str, str]) -> None:
    text = "\n".join(invite("dashboard", ADDRESS, 8123, environment, lambda _: False, "linux"))
    assert ADDRESS in text
    assert "ssh -N -L 8123:127.0.0.1:8123 " in text


def test_a_user_without_a_name_gets_a_tunnel_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container that runs under a number."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert tunnel(8123, host="lab-3").endswith(" USER@lab-3")


def test_the_tunnel_keeps_the_port() -> None:
    assert tunnel(8123, "ada", "lab-3") == "ssh -N -L 8123:127.0.0.1:8123 ada@lab-3"
