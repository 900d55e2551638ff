"""The two commands as a person types them."""

import json
import threading
from pathlib import Path

import pytest
from judge_runs import let_judge, planned, write_run

from minddiffuser.runtime.cli import main, parser
from minddiffuser.runtime.judge import server as served


def test_a_study_from_the_first_line_to_the_last(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)

    class Quick(served.JudgeServer):
        """In place of a person: everything is answered as soon as the page is there."""

        def __init__(self, session, **given) -> None:  # type: ignore[no-untyped-def]
            super().__init__(session, **given)
            threading.Thread(target=self._answer, args=(session,)).start()

        def _answer(self, session) -> None:  # type: ignore[no-untyped-def]
            try:
                while not session.finished:
                    session._since -= 1.0
                    given = {"response_ms": 700, "input": "touch", "view": [1, 1, 1], "away": False}
                    assert session.answer({**given, "ticket": session.state()["ticket"], "choice": "left"})[0] == 200
            finally:
                self.finished.set()

    monkeypatch.setattr(served, "JudgeServer", Quick)
    assert main(["judge", str(run), "--out", str(study), "--judge", "anna", "--catch", "0", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(study / "answers" / "anna.jsonl")
    assert "stage1 against stage2: 12 choices by 1 judge, of 12 pairs" in err
    assert "detect a preference of" in err
    assert "http://127.0.0.1:" in err
    assert main(["judge", "--out", str(study), "--judge", "anna"]) == 0
    assert "anna has answered everything: 12 of 12" in capsys.readouterr().err
    assert main(["judged", str(study)]) == 0
    out, err = capsys.readouterr()
    assert out == (study / "analysis.md").read_text()
    assert "stage2 was chosen in 6 of 12 choices" in out
    assert json.loads((study / "analysis.json").read_text())["complete"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["judge", "{run}", "--out", "{study}", "--judge", "a b"], "cannot be a file's"),
        (["judge", "{run}", "--out", "{study}", "--compare", "stage9:stage1"], "no pictures of the kind 'stage9'"),
        (["judge", "--out", "{study}", "--lan", "{run}"], "is no address such as 192.168.1.7"),
        (["judge", "{run}", "--out", "{run}"], "run"),
        (["judge", "{run}"], "--out"),
        (["judge", "{run}", "--out", "{study}", "--n-choices", "0"], "n-choices"),
        (["judged", "{run}"], "is no study"),
    ],
)
def test_mistakes_are_one_line(
    run: Path, tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(run=run, study=tmp_path / "study") for argument in arguments]
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_in_the_network_it_listens_on_the_address_that_leads_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from minddiffuser.runtime.errors import InputError
    from minddiffuser.runtime.judge.command import _lan_host

    given = [parser().parse_args(["judge", "run", "--out", "study", *lan]).lan for lan in ([], ["--lan"])]
    assert given == [None, True]
    assert parser().parse_args(["judge", "run", "--out", "study", "--lan", "10.0.0.7"]).lan == "10.0.0.7"
    monkeypatch.setattr("minddiffuser.runtime.web.listen.network_address", lambda: "10.0.0.5")
    assert (_lan_host(True), _lan_host("10.0.0.7")) == ("10.0.0.5", "10.0.0.7")
    monkeypatch.setattr("minddiffuser.runtime.web.listen.network_address", lambda: None)
    with pytest.raises(InputError, match="in no network"):
        _lan_host(True)


def test_one_judge_is_at_one_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = planned(tmp_path / "study", run)
    with study.lock_judge("anna"):
        assert main(["judge", "--out", str(study.folder), "--judge", "anna"]) == 2
    assert "another process is working in" in capsys.readouterr().err


def test_no_more_judges_than_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = planned(tmp_path / "study", write_run(tmp_path / "run"))
    let_judge(study, "anna", lambda judged: judged.chosen != "foil", most=3)
    assert main(["judge", "--out", str(study.folder), "--judge", "ben"]) == 2
    assert "planned for 1 judge, and anna has begun" in capsys.readouterr().err
