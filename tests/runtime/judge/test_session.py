"""One judge's answers: each once, kept before it is acknowledged, and nothing told that is not to be known."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from judge_runs import Clock, answer_of, planned, write_run

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.judge.answers import AnswerFile, read_answers
from minddiffuser.runtime.judge.judges import admit
from minddiffuser.runtime.judge.session import Session
from minddiffuser.runtime.judge.study import Order, Study, check_judge


@pytest.fixture
def study(run: Path, tmp_path: Path) -> Study:
    return planned(tmp_path / "study", run, n_catch=2, minimum_ms=300)


@pytest.fixture
def order(study: Study) -> Order:
    return admit(study, "anna")


def test_a_whole_session(study: Study, order: Order) -> None:
    clock = Clock()
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = Session(study, order, answers, clock, lambda: "now")
        assert session.n_all == 14
        for number in range(14):
            state = session.state()
            assert (state["done"], state["total"], state["finished"]) == (number, 14, False)
            clock.now += 1.25
            status, after = session.answer(answer_of(session, "left"))
            assert status == 200
        assert after == {"done": 14, "total": 14, "finished": True}
        assert session.answer(answer_of_finished())[0] == 409
    lines = [json.loads(line) for line in study.answers("anna").read_text().splitlines()]
    assert [line["showing"] for line in lines] == list(range(14))
    assert {line["server_ms"] for line in lines} == {1250.0}
    words = set(" ".join(map(str, (value for line in lines for value in line.values()))).split())
    assert words.isdisjoint({"first", "second", "stage1", "stage2", "stimulus", "foil", "choice"}), "the file is blind"


def answer_of_finished() -> dict[str, Any]:
    return {"ticket": "x", "choice": "left", "response_ms": 1, "input": "mouse", "view": [1, 1, 1], "away": False}


def opened(study: Study, order: Order, answers: AnswerFile, clock: Clock) -> Session:
    session = Session(study, order, answers, clock, lambda: "now")
    clock.now += 1.0
    return session


def test_the_pictures_are_those_of_the_order(study: Study, order: Order) -> None:
    clock = Clock()
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = opened(study, order, answers, clock)
        for showing in order.showings:
            row = study.plan["catches" if showing["role"] == "catch" else "items"][showing["number"]]
            right = {"first": "second", "second": "first", "stimulus": "foil", "foil": "stimulus"}[showing["left"]]
            expected = {"stimulus": row["stimulus"], "left": row[showing["left"]], "right": row[right]}
            for place, name in session.state()["pictures"].items():
                assert session.picture(name) == study.read_picture(expected[place])
            clock.now += 1.0
            session.answer(answer_of(session, "right"))


def test_nothing_that_the_page_is_told_says_what_a_picture_is(study: Study, order: Order) -> None:
    """Names are random, new at each showing, and of pictures to come soon only."""
    clock, seen = Clock(), list[str]()
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = opened(study, order, answers, clock)
        while not session.finished:
            state = session.state()
            assert set(state) == {"done", "total", "finished", "minimum_ms", "ticket", "pictures", "next"}
            assert len(state["next"]) == 3 * min(2, state["total"] - state["done"] - 1)
            seen += state["pictures"].values()
            given = [state["ticket"], *state["pictures"].values(), *state["next"]]
            text = json.dumps(state)
            for name in given:
                text = text.replace(name, "")
            assert not any(digest in text for digest in study.plan["pictures"])
            assert all(word not in text for word in ("stage", "catch", "repeat", "first", "second", "foil", "trial"))
            clock.now += 1.0
            session.answer(answer_of(session, "left"))
        assert len(set(seen)) == len(seen) == 3 * 14
        assert all(session.picture(name) is None for name in seen)


def test_an_answer_counts_once(study: Study, order: Order) -> None:
    clock = Clock()
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = opened(study, order, answers, clock)
        given = answer_of(session, "left")
        assert session.answer(dict(given))[0] == 200
        clock.now += 1.0
        assert session.answer(dict(given)) == (200, session.state()), "a reply that was lost: asked again"
        assert session.answer({**given, "choice": "right"})[0] == 409, "no second thoughts"
        assert session.answer({**given, "ticket": "another"})[0] == 409
        assert session.n_done == 1


def test_before_the_pictures_were_seen_nothing_counts(study: Study, order: Order) -> None:
    clock = Clock()
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = Session(study, order, answers, clock, lambda: "now")
        clock.now = 0.299
        assert session.answer(answer_of(session, "left"))[0] == 409
        clock.now = 0.301
        assert session.answer(answer_of(session, "left"))[0] == 200


ODD: list[Any] = [
    {"choice": "up"},
    {"choice": ["left"]},
    {"ticket": 3},
    {"response_ms": -1},
    {"response_ms": float("nan")},
    {"response_ms": float("inf")},
    {"response_ms": True},
    {"response_ms": "900"},
    {"input": "mind"},
    {"view": [1, 2]},
    {"view": [1, 2, "3"]},
    {"view": {}},
    {"away": 1},
    {"more": 1},
]


def test_what_is_no_answer_is_not_kept(study: Study, order: Order) -> None:
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = opened(study, order, answers, Clock())
        for changed in ODD:
            assert session.answer({**answer_of(session, "left"), **changed})[0] == 400, changed
        for whole in (None, [], "left", 3, {}):
            assert session.answer(whole)[0] == 400
        assert session.n_done == 0
    assert study.answers("anna").read_bytes() == b""


def test_a_judge_goes_on_where_they_stopped(study: Study, order: Order) -> None:
    clock = Clock()
    for start in range(3):
        with AnswerFile(study.answers("anna"), order.hash) as answers:
            session = opened(study, admit(study, "anna"), answers, clock)
            assert session.n_done == start
            session.answer(answer_of(session, "left"))


def test_a_line_that_a_kill_cut_off_is_asked_again(study: Study, order: Order) -> None:
    path, clock = study.answers("anna"), Clock()
    with AnswerFile(path, order.hash) as answers:
        session = opened(study, order, answers, clock)
        session.answer(answer_of(session, "left"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(read_answers(path, order.hash)) == 1
    with AnswerFile(path, order.hash) as answers:
        assert answers.n == 1
    assert path.read_bytes() == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from minddiffuser.runtime.judge.answers import AnswerFile
with AnswerFile(Path(sys.argv[1]), "order") as answers:
    for n in range(5):
        answers.append({"choice": "left"})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_a_killed_server_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    assert len(read_answers(path, "order")) == 5


def test_an_answer_is_on_the_disk_before_it_is_acknowledged(
    study: Study, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), real(file))[1])
    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = opened(study, order, answers, Clock())
        session.answer(answer_of(session, "left"))
    assert synced[-1] == study.answers("anna").stat().st_size > 0


def test_a_full_disk_keeps_the_showing(study: Study, order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    with AnswerFile(study.answers("anna"), order.hash) as answers:
        session = opened(study, order, answers, Clock())
        ticket = session.state()["ticket"]
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            with pytest.raises(FileError, match="the disk is full"):
                session.answer(answer_of(session, "left"))
        assert study.answers("anna").read_bytes() == b""
        assert session.state()["ticket"] == ticket
        assert session.answer(answer_of(session, "left"))[0] == 200


DAMAGED = [
    (b"nonsense\n", "line 1 .* damaged"),
    (b"[" * 100_000 + b"\n", "line 1 .* damaged"),
    (b"[]\n", "another order"),
    (b'{"order": "%s", "showing": 1, "choice": "left"}\n', "not answer 1"),
    (b'{"order": "%s", "showing": true, "choice": "left"}\n', "not answer 1"),
    (b'{"order": "%s", "showing": 0, "choice": "up"}\n', "not answer 1"),
    (b'{"order": "another", "showing": 0, "choice": "left"}\n', "another order"),
]


@pytest.mark.parametrize(("content", "said"), DAMAGED)
def test_answers_that_are_damaged_are_said(study: Study, order: Order, content: bytes, said: str) -> None:
    study.answers("anna").write_bytes(content.replace(b"%s", order.hash.encode()))
    with pytest.raises(FileError, match=said):
        AnswerFile(study.answers("anna"), order.hash)


def test_more_judges_than_planned_do_not_begin(study: Study, order: Order) -> None:
    assert admit(study, "anna") == order
    with pytest.raises(InputError, match="planned for 1 judge, and anna has begun"):
        admit(study, "ben")


def test_names_that_a_file_cannot_have(tmp_path: Path) -> None:
    for name in ("", "../x", "a b", "a/b", "ä", ".", "-x", "x" * 41):
        with pytest.raises(InputError, match="cannot be a file's"):
            check_judge(name)
    study = planned(tmp_path / "study", write_run(tmp_path / "r"), n_judges=2)
    admit(study, "Anna")
    with pytest.raises(InputError, match="in capitals alone"):
        admit(study, "anna")
