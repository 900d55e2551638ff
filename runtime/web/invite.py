"""How a person gets to the page: a browser where there is a screen, else the line for a tunnel."""

from __future__ import annotations

import getpass
import socket
import sys
import webbrowser
from collections.abc import Callable, Mapping


def has_screen(environment: Mapping[str, str], platform: str = sys.platform) -> bool:
    """Whether a browser that is opened here is seen by the person at the terminal."""
    if "SSH_CONNECTION" in environment or "SSH_TTY" in environment:
        return False
    return platform != "linux" or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def tunnel(port: int, user: str | None = None, host: str | None = None) -> str:
    """The line to type on the machine with the screen. The port is the same there: the page answers to no other."""
    user, host = _user() if user is None else user, socket.gethostname() if host is None else host
    return f"ssh -N -L {port}:127.0.0.1:{port} {user}@{host}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container may run under a number without a name
        return "USER"


def invite(
    what: str,
    address: str,
    port: int,
    environment: Mapping[str, str],
    open_page: Callable[[str], bool] = webbrowser.open,
    platform: str = sys.platform,
) -> list[str]:
    """Open the page if that can be seen, and say in lines for the terminal where it is.

    Parameters
    ----------
    what
        The page's name in the lines, such as "dashboard".
    address
        Of :meth:`.door.Door.address`.
    port
        Of the server.
    environment
        `os.environ`.
    open_page
        Opens a browser; False where it cannot.
    """
    if has_screen(environment, platform) and open_page(address):
        return [f"{what}: opened in the browser; should it not appear: {address}"]
    return [
        f"{what}: {address}",
        "  (this opens one browser, once; from another machine, first run there:",
        f"   {tunnel(port)} )",
    ]
