"""What is found is what the judges did; nobody sees it early without its being known."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from judge_runs import let_judge, planned, write_run

from minddiffuser.runtime.judge.analysis import analyse, write_analysis
from minddiffuser.runtime.judge.judges import Judged, read_judges
from minddiffuser.runtime.judge.study import Study
from minddiffuser.runtime.judge.text import markdown, plan_lines

stats = pytest.importorskip("scipy.stats")


def now() -> str:
    return "2026-01-01T00:00:00+00:00"


def prefers(share: float, seed: int = 0, *, careful: bool = True) -> Callable[[Judged], bool]:
    """Takes the second picture of a pair with this probability; `careful`: and finds the stimulus itself."""
    rng = np.random.default_rng(seed)

    def left(judged: Judged) -> bool:
        if judged.showing["role"] == "catch":
            return (judged.chosen == "stimulus") == careful
        return bool((judged.chosen == "second") == (rng.random() < share))

    return left


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    return write_run(tmp_path / "wide", n=24)


def test_one_judge_is_counted_by_hand(wide: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", wide, n_repeats=6)
    let_judge(study, "anna", prefers(0.8))
    found = analyse(study, now=now)
    plan, order = study.plan, study.order("anna")
    lines = [json.loads(line) for line in study.answers("anna").read_text().splitlines()]
    seconds = lefts = 0
    for line, showing in zip(lines, order.showings, strict=True):
        if showing["role"] == "choice":
            lefts += line["choice"] == "left"
            seconds += (line["choice"] == "left") == (showing["left"] == "second")
    (row,) = found["contrasts"]
    assert (row["first"], row["second"]) == ("stage1", "stage2")
    expected = stats.binomtest(seconds, 24)
    assert (row["choices"]["n"], row["choices"]["second"]) == (24, seconds)
    assert row["choices"]["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.proportion_ci(method="exact")
    assert row["choices"]["ci95"] == pytest.approx([interval.low, interval.high], abs=1e-9)
    # One choice for each stimulus: the primary test is the binomial one.
    assert row["stimuli"]["p"] == row["p_holm"] == row["choices"]["p"]
    assert row["stimuli"]["n"] == 24
    assert row["stimuli"]["share"] == pytest.approx(row["choices"]["share"])
    assert row["stimuli"]["ci95"][0] < row["stimuli"]["share"] < row["stimuli"]["ci95"][1]
    (judge,) = found["judges"]
    assert judge["left"] == {"n": 24, "left": lefts, "p": pytest.approx(stats.binomtest(lefts, 24).pvalue)}
    assert judge["median_response_ms"] == 900.0
    assert (judge["catch_trials"], judge["catch_failures"], judge["excluded"]) == (len(plan["catches"]), 0, False)
    assert judge["repeats"] == 6
    assert judge["inputs"] == {"keyboard": len(lines)}
    assert found["complete"]


def test_always_the_same_side_is_no_preference(wide: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", wide, n_catch=0, n_repeats=12)
    let_judge(study, "anna", lambda _: True)
    found = analyse(study, now=now)
    assert found["contrasts"][0]["choices"]["share"] == 0.5
    assert found["contrasts"][0]["choices"]["p"] == 1.0
    assert found["judges"][0]["left"]["left"] == 24
    assert found["judges"][0]["left"]["p"] == pytest.approx(2.0**-23)
    assert (found["judges"][0]["repeats"], found["judges"][0]["repeats_consistent"]) == (12, 0)
    assert not found["judges"][0]["excluded"]


def test_judges_who_agree_on_few_stimuli_prove_less(tmp_path: Path) -> None:
    """Their choices are many, the stimuli are six: p over stimuli cannot be below 1 / 32."""
    study = planned(tmp_path / "study", write_run(tmp_path / "r", n=6), n_judges=5)
    for name in "abcde":
        let_judge(study, name, prefers(1.0))
    row = analyse(study, now=now)["contrasts"][0]
    assert row["choices"]["p"] == pytest.approx(2.0**-29)
    assert row["stimuli"]["p"] == row["stimuli"]["smallest_p"] == 2.0**-5
    assert row["over_judges"]["p"] == row["over_judges"]["smallest_p"] == 2.0**-4
    assert set(row["judges"]) == set("abcde")
    assert all(one["second"] == 6 for one in row["judges"].values())


def test_who_misses_catch_trials_is_excluded_and_replaced(wide: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", wide)
    let_judge(study, "guesser", prefers(0.0, careful=False))
    found = analyse(study, now=now)
    assert found["judges"][0]["excluded"]
    assert not found["complete"]
    assert "contrasts" not in found
    let_judge(study, "anna", prefers(1.0))
    found = analyse(study, now=now)
    assert found["complete"]
    assert found["used_judges"] == ["anna"]
    assert found["contrasts"][0]["choices"]["second"] == 24
    assert "| guesser | 29 of 29 | 5 of 5 |" in markdown(found)
    assert "excluded" in markdown(found)


def test_before_the_end_there_is_no_result(wide: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", wide, n_judges=2)
    let_judge(study, "anna", prefers(1.0))
    let_judge(study, "ben", prefers(1.0), most=10)
    found = analyse(study, now=now)
    text = markdown(found)
    assert not {"contrasts", "used_judges"} & set(found)
    assert "Interim" in text
    assert "p = " not in text.split("## Judges")[0]
    assert "stage2" not in text
    assert found["interim_looks"] == 0
    assert not (study.folder / "looks.jsonl").exists()


def test_an_early_look_is_labelled_and_remembered(wide: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", wide)
    let_judge(study, "anna", prefers(1.0), most=10)
    found = analyse(study, interim=True, now=now)
    assert found["contrasts"][0]["choices"]["n"] > 5
    assert found["interim_looks"] == 1
    assert "An early look" in markdown(found) or "an early look" in markdown(found)
    analyse(study, interim=True, now=now)
    let_judge(study, "anna", prefers(1.0))
    found = analyse(study, interim=True, now=now)
    assert found["complete"]
    assert found["interim_looks"] == 2, "at the end it is no early look any more"
    assert "There were 2 looks at the results before" in markdown(found)


def test_several_comparisons_are_tested_each_and_corrected(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", n=10, kinds=("stage1", "stage2", "shuffled"))
    study = planned(tmp_path / "study", run, compare=("stage1:stage2", "shuffled:stage2"))
    items = study.plan["items"]

    def left(judged: Judged) -> bool:
        if judged.showing["role"] == "catch":
            return judged.chosen == "stimulus"
        if items[judged.showing["number"]]["contrast"] == 1:
            return judged.chosen == "second"
        return True

    let_judge(study, "anna", left)
    one, two = analyse(study, now=now)["contrasts"]
    assert one["choices"]["second"] == 5
    assert two["choices"]["second"] == 10
    assert two["stimuli"]["p"] == pytest.approx(2.0**-9)
    assert two["p_holm"] == pytest.approx(2.0**-8)
    assert "shuffled against stage2" in markdown(analyse(study, now=now))


def test_leaks_and_simulation_are_carried_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    (run / "summary.json").write_text(json.dumps({"simulated": True, "leaks": ["repetitions"]}))
    study = planned(tmp_path / "study", run)
    text = markdown(analyse(study, now=now))
    assert "fitted with the leak repetitions on purpose" in text
    assert "simulated" in text


def test_it_is_written_as_it_is_said(study_done: Study) -> None:
    content = analyse(study_done, now=now)
    json_path, text_path = write_analysis(study_done, content)
    assert json.loads(json_path.read_text()) == content
    assert text_path.read_text() == markdown(content)


@pytest.fixture
def study_done(wide: Path, tmp_path: Path) -> Study:
    study = planned(tmp_path / "study", wide)
    let_judge(study, "anna", prefers(0.9))
    return study


def test_the_plan_says_what_it_can_find(wide: Path, tmp_path: Path) -> None:
    lines = "\n".join(plan_lines(planned(tmp_path / "study", wide).plan))
    rejected = [k for k in range(25) if stats.binomtest(k, 24).pvalue <= 0.05]
    share = next(p for p in np.arange(0.5, 1, 0.0001) if stats.binom.pmf(rejected, 24, p).sum() >= 0.8)
    assert f"{100 * share:.1f} %" in lines
    few = "\n".join(plan_lines(planned(tmp_path / "few", wide, n_choices=3).plan))
    assert "can show nothing" in few


def test_time_away_from_the_page_is_no_response_time(wide: Path, tmp_path: Path) -> None:
    study = planned(tmp_path / "study", wide)
    let_judge(study, "anna", prefers(0.5))
    path = study.answers("anna")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:20]:
        line.update(away=True, response_ms=1e6)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (judge,) = read_judges(study)
    assert judge.describe()["median_response_ms"] == 900.0
    assert judge.describe()["away"] == 20
