"""One judge at work: what is shown now, what comes next, and the answers; without a server, a clock given."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from .answers import SIDES, AnswerFile, is_answer, is_number
from .plan import CATCH, other
from .study import Order, Study

_AHEAD = 2  # showings whose pictures the page may load before their turn
_MOST_PX = 100_000
State = dict[str, Any]
Clock = Callable[[], float]


class Session:
    """What the page of one judge asks for and sends. Nothing that it receives says which picture is which.

    Every showing has a ticket of its own, and every picture a new random name each time that it is shown: an answer to
    a showing that was answered before, from a double click or a second window, changes nothing.

    Parameters
    ----------
    study, order
        What is shown.
    answers
        Open for more.
    clock
        Monotonic seconds.
    now
        The time of day as text, for the answers.
    """

    def __init__(self, study: Study, order: Order, answers: AnswerFile, clock: Clock, now: Callable[[], str]) -> None:
        self._study, self._order, self._answers = study, order, answers
        self._clock, self._now = clock, now
        self._minimum_ms: int = study.plan["settings"]["minimum_ms"]
        self._lock = threading.Lock()
        self._names: dict[int, dict[str, str]] = {}  # showing -> place on the page -> name
        self._pictures: dict[str, str] = {}  # name -> hash
        self._last: tuple[str, str] | None = None  # ticket and choice
        self._next()

    @property
    def n_done(self) -> int:
        """How many answers are kept."""
        return self._answers.n

    @property
    def n_all(self) -> int:
        """How many showings there are."""
        return len(self._order.showings)

    @property
    def finished(self) -> bool:
        """Whether everything is answered."""
        return self.n_done == self.n_all

    def state(self) -> State:
        """What the page shows now: progress, the ticket, and the names of the pictures."""
        with self._lock:
            return self._state()

    def picture(self, name: str) -> bytes | None:
        """The PNG of a name that was given out for this showing or the next ones; None for any other.

        Raises
        ------
        FileError
            The study's picture cannot be read.
        """
        with self._lock:
            digest = self._pictures.get(name)
        return None if digest is None else self._study.read_picture(digest)

    def answer(self, given: object) -> tuple[int, State]:
        """Keep an answer: an HTTP status, and what the page shows then.

        200: kept, or it had been (a page asks again where a reply was lost); 400: not an answer; 409: to something else
        than what is shown, or too early.

        Raises
        ------
        FileError
            The disk does not take it; the same showing may be answered again.
        """
        fields = _checked(given)
        with self._lock:
            if fields is None:
                return 400, self._state()
            ticket, choice = fields.pop("ticket"), fields["choice"]
            if self._last == (ticket, choice):
                return 200, self._state()
            shown_ms = 1000 * (self._clock() - self._since)
            if self.finished or ticket != self._ticket or shown_ms < self._minimum_ms:
                return 409, self._state()
            self._answers.append({**fields, "server_ms": round(shown_ms, 1), "at": self._now()})
            self._last = (ticket, choice)
            self._next()
            return 200, self._state()

    def _next(self) -> None:
        self._ticket, self._since = secrets.token_urlsafe(16), self._clock()
        ahead = range(self.n_done, min(self.n_done + 1 + _AHEAD, self.n_all))
        self._names = {showing: self._names.get(showing) or self._named() for showing in ahead}
        self._pictures = {
            name: self._hashes(showing)[place]
            for showing, names in self._names.items()
            for place, name in names.items()
        }

    @staticmethod
    def _named() -> dict[str, str]:
        return {place: secrets.token_urlsafe(16) for place in ("stimulus", *SIDES)}

    def _hashes(self, number: int) -> dict[str, str]:
        showing, plan = self._order.showings[number], self._study.plan
        row = plan["catches" if showing["role"] == CATCH else "items"][showing["number"]]
        left = showing["left"]
        return {"stimulus": row["stimulus"], "left": row[left], "right": row[other(left)]}

    def _state(self) -> State:
        progress: State = {"done": self.n_done, "total": self.n_all, "finished": self.finished}
        if self.finished:
            return progress
        now, *ahead = self._names.values()
        later = [name for names in ahead for name in names.values()]
        return {**progress, "minimum_ms": self._minimum_ms, "ticket": self._ticket, "pictures": now, "next": later}


def _checked(given: object) -> dict[str, Any] | None:
    """An answer of the page with exactly the fields that it should have; None for anything else."""
    if not isinstance(given, Mapping) or set(given) != {"ticket", "choice", "response_ms", "input", "view", "away"}:
        return None
    view = given["view"]
    good = (
        isinstance(given["ticket"], str)
        and is_answer(given)
        and isinstance(view, list)
        and len(view) == 3
        and all(is_number(value, _MOST_PX) for value in view)
    )
    return dict(given) if good else None
