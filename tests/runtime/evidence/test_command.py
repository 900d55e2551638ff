"""``md-reconstruct card``: groups, intervals over seeds, and every file that it writes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime import cli
from minddiffuser.runtime.evidence.one_run import write_evidence

N = 9
SPLIT = {"kind": "clusters", "n_clusters": 20, "held_out": [3, 7], "share": 0.25, "seed": 0, "pictures": N}


def write_run(folder: Path, *, seed: int, order: int = 1, **about: Any) -> Path:
    """A run of nine pictures, in one order or in the other."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    levels = {"stage2_floor": 0.1, "generator": 0.2, "stage1": 0.4, "stage2": 0.6, "oracle": 0.9}
    easy = 0.05 * np.arange(N)[::order]  # by picture, the same in every run
    values = {kind: {"pixcorr": v + easy + 0.02 * rng.standard_normal(N)} for kind, v in levels.items()}
    ids = [f"picture {number}" for number in range(N)][::order]
    known = {"subject": "S1", "stage": 2, "trials": "single", "split": None, **about}
    write_evidence(folder, values, ids, seed=0, about=known, missing={})
    return folder


def card_of(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    assert cli.main(["card", *arguments, "--out", str(tmp_path / "card")]) == 0
    return json.loads((tmp_path / "card" / "card.json").read_text())


def test_single_and_averaged_are_recognised_and_seeds_put_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    singles = [str(write_run(tmp_path / f"s{seed}", seed=seed, order=1 - 2 * (seed % 2))) for seed in range(3)]
    averaged = str(write_run(tmp_path / "a", seed=9, trials="averaged"))
    held = str(write_run(tmp_path / "h", seed=5, split=SPLIT))
    card = card_of(tmp_path, *singles, averaged, held)
    assert capsys.readouterr().out.strip() == str(tmp_path / "card" / "card.html")
    groups = {group["label"]: group for group in card["groups"]}
    assert list(groups) == ["single trials", "averaged trials", "single trials, held-out clusters"]
    single, alone = groups["single trials"], groups["averaged trials"]
    assert [run["run"] for run in single["runs"]] == singles
    line = single["metrics"]["pixcorr"]
    contents = [json.loads((Path(folder) / "evidence.json").read_text()) for folder in singles]
    means = [content["metrics"]["pixcorr"]["rungs"]["stage2"]["mean"] for content in contents]
    assert line["rungs"]["stage2"]["mean"] == pytest.approx(np.mean(means))
    assert line["of_each_run"]["stage2"] == pytest.approx(means)
    assert any("3 are few" in note and "the same pictures" in note for note in single["notes"])
    # Pictures that are easy in one run are easy in all: in one order or another, the interval is that of one run.
    width = np.ptp(line["rungs"]["stage2"]["ci95"])
    assert width == pytest.approx(np.ptp(contents[0]["metrics"]["pixcorr"]["rungs"]["stage2"]["ci95"]), rel=0.15)
    assert line["rungs"]["stage2"]["ci95_seeds"] is not None
    assert "ci95_seeds" not in alone["metrics"]["pixcorr"]["rungs"]["stage2"]
    assert any("one run" in note for note in alone["notes"])
    page = (tmp_path / "card" / "card.html").read_text()
    assert page.count("<svg") == 3
    assert "held-out clusters of similar pictures (2 of 20)" in page
    assert "--controls nearest" in page
    markdown = (tmp_path / "card" / "card.md").read_text()
    assert "missing: the run was not asked for it: give --controls nearest" in markdown
    rows = list(csv.DictReader((tmp_path / "card" / "card.csv").open()))
    assert len(rows) == 3 * 7
    row = next(r for r in rows if r["group"] == "single trials" and r["rung"] == "stage1")
    assert float(row["result_minus_rung"]) == pytest.approx(line["differences"]["stage1"]["difference"])
    assert next(r for r in rows if r["rung"] == "nearest")["mean"] == ""
    before = (tmp_path / "card" / "card.json").read_bytes()
    card_of(tmp_path, *singles, averaged, held)  # into the same folder again
    assert (tmp_path / "card" / "card.json").read_bytes() == before


def test_labels_make_the_groups(tmp_path: Path) -> None:
    one, two = (str(write_run(tmp_path / name, seed=n, trials=None)) for n, name in enumerate("ab"))
    card = card_of(tmp_path, "--label", f"<b>|mine={one}", "--label", f"other={two}")
    assert [group["label"] for group in card["groups"]] == ["<b>|mine", "other"]
    assert "<b>|mine" not in (tmp_path / "card" / "card.html").read_text()


def test_pictures_that_no_two_runs_have_are_said_to_be_drawn_by_run(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, seed=n) for n, name in enumerate("ab")]
    content = json.loads((runs[1] / "evidence.json").read_text())
    content["pictures"] = [f"other {n}" for n in range(N)]
    (runs[1] / "evidence.json").write_text(json.dumps(content))
    (group,) = card_of(tmp_path, *map(str, runs))["groups"]
    assert any("no two of them have a picture in common" in note for note in group["notes"])


def test_runs_that_differ_in_more_than_their_seeds_are_called_so(tmp_path: Path) -> None:
    steps = [write_run(tmp_path / str(n), seed=n, settings={"refine": {"steps": n, "refiner": "adam"}}) for n in (5, 9)]
    (group,) = card_of(tmp_path, *map(str, steps))["groups"]
    assert any("These runs differ in settings.refine.steps: is it one group?" in note for note in group["notes"])


def test_a_copy_is_no_other_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (write_run(tmp_path / name, seed=4, checkpoint="c") for name in "ab")
    assert cli.main(["card", str(one), str(two), "--out", str(tmp_path / "card")]) == 2
    assert f"{two} holds what {one} holds" in capsys.readouterr().err
    assert cli.main(["card", "--label", f"x={one}", "--label", f"y={two}", "--out", str(tmp_path / "card")]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run was given"),
        (["nowhere"], "does not exist"),
        (["a", "a"], "given twice"),
        (["a", "--label", "x=./a"], "given twice"),
        (["--label", "a"], "no labelled run"),
        (["empty"], "has no evidence.json"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", seed=0)
    (tmp_path / "empty").mkdir()
    assert cli.main(["card", *arguments, "--out", "card"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "card").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a", seed=0)
    assert cli.main(["card", str(run), "--out", str(run)]) == 2
    assert "is not a folder of a card" in capsys.readouterr().err
