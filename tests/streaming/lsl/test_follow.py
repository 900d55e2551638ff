"""The search for a lost stream, among streams that are given: no network."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from minddiffuser.streaming.lsl import follow
from minddiffuser.streaming.lsl.follow import Search
from minddiffuser.streaming.lsl.found import Found
from minddiffuser.streaming.lsl.inlet import LostStream
from minddiffuser.streaming.records import SIGNAL

LOST = Found(
    name="Amp",
    type="EEG",
    n_channels=8,
    sfreq=250.0,
    format="float32",
    source_id="amp-1",
    uid="first",
    hostname="lab",
    session_id="default",
    created_at=1.0,
    handle=None,
)
NEXT = replace(LOST, uid="second")
TWIN = replace(LOST, uid="third")
STRANGER = replace(LOST, uid="fourth", source_id="amp-2")
PATIENCE = 30.0


class Network:
    """Answers with the lists that it was given, one for each question, and then the last one for ever."""

    def __init__(self, *answers: list[Found]) -> None:
        self._answers = list(answers)
        self.n_asked = 0
        self.asked_all = threading.Event()

    def __call__(self) -> Network:
        return self

    def streams(self) -> list[Found]:
        self.n_asked += 1
        if len(self._answers) > 1:
            return self._answers.pop(0)
        self.asked_all.set()
        return self._answers[0]


class Connected:
    def __init__(self, found: Found) -> None:
        self.found, self.closed = found, False

    def close(self) -> None:
        self.closed = True


class Connector:
    """Connects to everything but what does not answer."""

    def __init__(self, *dead: str) -> None:
        self.dead, self.made = list(dead), list[Connected]()

    def __call__(self, found: Found) -> Connected:
        if found.uid in self.dead:
            self.dead.remove(found.uid)
            raise LostStream("no answer")
        self.made.append(Connected(found))
        return self.made[-1]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_LOOK", 0.001)
    monkeypatch.setattr(follow, "_SETTLE", 0.001)


def search(monkeypatch: pytest.MonkeyPatch, network: Network, gone: bool, connector: Connector) -> Search:
    monkeypatch.setattr(follow, "Resolver", network)
    return Search(LOST, gone, connector)  # type: ignore[arg-type]


def result(one: Search, network: Network) -> tuple[str | None, list[str]]:
    """Who was connected, at the latest some questions after the last answer; and what was said."""
    assert network.asked_all.wait(PATIENCE)
    said: list[str] = []
    enough, end = network.n_asked + 20, time.monotonic() + PATIENCE
    while True:
        connection, words = one.take()
        said += words
        if connection is not None:
            return connection.found.uid, said  # type: ignore[attr-defined]
        if network.n_asked >= enough:
            one.stop(PATIENCE)
            return None, said
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("gone", "answers", "taken"),
    [
        (True, [[], [STRANGER], [STRANGER, NEXT]], "second"),
        (True, [[], [LOST]], "first"),  # the connection broke, and the stream is still there
        (True, [[LOST, NEXT]], "first"),
        (False, [[LOST], [LOST, NEXT]], None),  # silent, but there
        (False, [[LOST], [], [NEXT]], "second"),
        (True, [[STRANGER]], None),
    ],
)
def test_who_takes_the_place(
    monkeypatch: pytest.MonkeyPatch, gone: bool, answers: list[list[Found]], taken: str | None
) -> None:
    network, connector = Network(*answers), Connector()
    assert result(search(monkeypatch, network, gone, connector), network) == (taken, [])
    assert all(one.closed for one in connector.made if one.found.uid != taken)


def test_two_are_said_once_and_none_is_taken_until_one_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network([NEXT, TWIN], [NEXT, TWIN], [NEXT, TWIN], [TWIN])
    taken, said = result(search(monkeypatch, network, True, Connector()), network)
    assert taken == "third"
    assert len(said) == 1
    assert "2 streams could be it" in said[0]


def test_a_second_one_that_comes_while_the_first_is_opened_undoes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network, connector = Network([NEXT], [NEXT, TWIN]), Connector()
    taken, said = result(search(monkeypatch, network, True, connector), network)
    assert taken is None
    assert len(said) == 1
    assert [one.closed for one in connector.made] == [True]


def test_one_that_does_not_answer_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network, connector = Network([NEXT]), Connector("second", "second")
    assert result(search(monkeypatch, network, True, connector), network) == ("second", [])
    assert connector.dead == []


def test_what_was_found_and_not_taken_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    network, connector = Network([NEXT]), Connector()
    one = search(monkeypatch, network, True, connector)
    end = time.monotonic() + PATIENCE
    while one.take()[0] is None:
        assert time.monotonic() < end
    one.stop(PATIENCE)
    assert [made.closed for made in connector.made] == [True]


@pytest.mark.parametrize("gone", [True, False])
def test_a_stream_that_another_process_takes_over_was_lost_also_where_it_was_only_silent(
    monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """Its clock may be another one, and its samples begin anew: a notice that it is back says so after "lost"."""
    monkeypatch.setattr(follow, "Resolver", Network([NEXT]))
    old, new = Taken(LOST), Taken(NEXT)
    made = iter([old, new])
    monkeypatch.setattr(follow, "connect", lambda *_given, **_options: next(made))
    one = follow.Follower(SIGNAL, LOST, lambda: 5.0)
    if gone:
        old.inlet.gone = True
        block, notices = one.pull(0.0)
        assert block is None
    else:
        one.suspect()
        notices = []
    end = time.monotonic() + PATIENCE
    again = False
    while not again:
        assert time.monotonic() < end
        again, said = one.found_again()
        notices += said
    one.close()
    assert [notice.kind for notice in notices] == ["lost"]
    assert old.closed
    assert one.found is NEXT


class Taken:
    """A connection to a stream; what it gives is never asked for."""

    def __init__(self, found: Found) -> None:
        self.inlet, self.closed = Pulled(found), False

    def close(self) -> None:
        self.closed = True

    end = close


class Pulled:
    def __init__(self, found: Found) -> None:
        self.found, self.gone = found, False

    def pull(self, _timeout: float) -> tuple[list[float], list[float]]:
        if self.gone:
            raise LostStream("the stream 'Amp' is gone")
        return [], []
