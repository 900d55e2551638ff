"""Who may see a page: a browser that was let in once, by an address that only the terminal has shown.

Other pages in the same browser, other users of the machine and names that suddenly resolve to it are kept out.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from urllib.parse import parse_qs

HOST = "127.0.0.1"
ENTRANCE = "/enter"
Refusal = tuple[int, str]  # an HTTP status and the reason
_MOST_KEYS = 64
# A page that leads on, where a redirect would not do: a browser that was led here from another site would leave out the
# strict cookie on the way. It replaces the address with the token in the history.
ENTERED = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>MindDiffuser</title>'
    '<link rel="icon" href="/static/icon.svg"><meta http-equiv="refresh" content="0; url=/">'
)


def _secret() -> str:
    return secrets.token_urlsafe(32)


class Door:
    """Addresses that open the page once, and the cookies of the browsers that came in.

    Parameters
    ----------
    port
        Of the server.
    random_text
        Gives a new secret of 256 bits.
    host
        The address that the server listens on.
    program
        The command that prints addresses, for messages.
    token_text
        Gives the secret of a new address; None: as `random_text`.
    """

    def __init__(
        self,
        port: int,
        random_text: Callable[[], str] = _secret,
        *,
        host: str = HOST,
        program: str = "md-stream",
        token_text: Callable[[], str] | None = None,
    ) -> None:
        self.port, self.host, self.program = port, host, program
        names = (host, "localhost") if host == HOST else (host,)
        self.hosts = frozenset(f"{name}:{port}" for name in names)
        self.origins = frozenset(f"http://{name}" for name in self.hosts)
        # Cookies know no ports: the name keeps two servers on one machine apart.
        self.cookie = f"minddiffuser-{port}"
        self._random_text = random_text
        self._token_text = random_text if token_text is None else token_text
        # Digests alone: a secret is compared in constant time and stands nowhere in memory for long.
        self._unused: list[bytes] = []
        self._used: list[bytes] = []
        self._inside: list[bytes] = []

    def address(self) -> str:
        """A new address, which lets one browser in, once."""
        token = self._token_text()
        self._unused = [*self._unused[-_MOST_KEYS:], _digest(token)]
        return f"http://{self.host}:{self.port}{ENTRANCE}?token={token}"

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

    def foreign(self, hosts: Sequence[str], origins: Sequence[str]) -> Refusal | None:
        """Why a request with these Host and Origin headers is refused; None for what may pass."""
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            # A foreign name that was made to resolve to this machine comes with that name here.
            return 421, f"This page is at {self.host}:{self.port} and answers to no other name."
        if len(origins) > 1 or any(origin not in self.origins for origin in origins):
            return 403, "Another page asked for this one: only this page may."
        return None

    def stranger(self, cookies: Iterable[str]) -> Refusal | None:
        """Why a request with these Cookie headers is refused; None for a browser that came in."""
        if any(map(self.knows, cookies)):
            return None
        return 403, f"Open the address that {self.program} printed: it lets this browser in."

    def not_let_in(self) -> str:
        """What a browser reads that came with a token that opens nothing."""
        return (
            "This address lets no one in: each opens the page once. "
            f"A new one stands in the terminal of {self.program} if this one was used before.\n"
        )


def token_of(query: str) -> str:
    """The token in the query of a request, or ""."""
    return parse_qs(query).get("token", [""])[0]


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "replace")).digest()


def _among(digest: bytes, known: Iterable[bytes]) -> bool:
    return any([hmac.compare_digest(digest, other) for other in known])
