"""A run's evidence.json: its numbers by formula, what is missing and why, and files that are damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.evidence.lines import line_of
from minddiffuser.runtime.evidence.one_run import about_trials, read_evidence, write_evidence
from minddiffuser.runtime.report.evidence import evidence_section
from minddiffuser.runtime.report.evidence_words import position_words

N = 12
IDS = [f"picture {trial // 2}" for trial in range(N)]  # each shown twice
LEVELS = {"stage2_floor": 0.1, "generator": 0.15, "nearest": 0.3, "stage1": 0.4, "stage2": 0.6, "oracle": 0.9}


def values_of(levels: dict[str, float] = LEVELS) -> dict[str, dict[str, np.ndarray]]:
    noise = np.random.default_rng(0).standard_normal((len(levels), N))
    found = {}
    for (kind, level), row in zip(levels.items(), noise, strict=True):
        found[kind] = {"pixcorr": level + 0.02 * row, "place_error": 1 - level + 0.02 * row}
    return found


def write(run: Path, values: dict[str, Any], **more: Any) -> dict[str, Any]:
    run.mkdir(exist_ok=True)
    return write_evidence(run, values, IDS, seed=0, about={"subject": "S1"}, missing={}, **more)


def known_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric of which less is better, whatever it is called today."""
    from minddiffuser.runtime.evidence import one_run

    lower = next(metric for metric in one_run.METRICS.values() if metric.better == "lower")
    monkeypatch.setitem(one_run.METRICS, "place_error", lower)


def test_means_positions_and_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known_metrics(monkeypatch)
    values = values_of()
    content = write(tmp_path / "run", values)
    assert read_evidence(tmp_path / "run") == json.loads(json.dumps(content))
    assert content["about"] == {"subject": "S1", "n_trials": N, "n_pictures": 6, "bootstrap_seed": 0}
    for metric, line in content["metrics"].items():
        mean = {kind: those[metric].mean() for kind, those in values.items()}  # as many trials of each picture
        floor, ceiling = mean["stage2_floor"], mean["oracle"]
        assert line["rungs"]["floor"]["mean"] == pytest.approx(floor)
        assert line["scale"]["clear"]
        place = line["rungs"]["stage2"]["position"]
        assert place["value"] == pytest.approx((mean["stage2"] - floor) / (ceiling - floor))
        assert place["ci95"][0] < place["value"] < place["ci95"][1]
        assert line["rungs"]["floor"]["position"]["value"] == 0
        assert line["rungs"]["oracle"]["position"]["value"] == 1
        assert line["differences"]["nearest"]["difference"] == pytest.approx(mean["stage2"] - mean["nearest"])
        assert set(line["differences"]) == {"floor", "generator", "nearest", "stage1", "oracle"}
    by_picture = np.array(content["values"]["pixcorr"]["stage1"])
    np.testing.assert_allclose(by_picture, values["stage1"]["pixcorr"].reshape(6, 2).mean(axis=1))
    section = evidence_section(content)
    assert "Shuffled targets" in section
    assert "--controls shuffled" in section
    assert section.count("<svg") == 2


def test_no_position_where_floor_and_ceiling_are_not_apart(tmp_path: Path) -> None:
    values = {kind: {"pixcorr": those["pixcorr"]} for kind, those in values_of({**LEVELS, "oracle": 0.1}).items()}
    line = write(tmp_path / "run", values)["metrics"]["pixcorr"]
    assert not line["scale"]["clear"]
    assert all("position" not in rung for rung in line["rungs"].values())
    assert "not clearly better" in position_words(line)
    inverted = {kind: {"pixcorr": those["pixcorr"]} for kind, those in values_of({**LEVELS, "oracle": 0.0}).items()}
    assert not write(tmp_path / "run", inverted)["metrics"]["pixcorr"]["scale"]["clear"], "a ceiling below the floor"


def test_missing_rungs_have_reasons_and_no_numbers(tmp_path: Path) -> None:
    values = {kind: {"pixcorr": np.linspace(0, level, N)} for kind, level in (("stage1", 1.0), ("stage1_floor", 0.5))}
    run = tmp_path / "run"
    run.mkdir()
    content = write_evidence(run, values, IDS, seed=0, about={}, missing={"nearest": "it was made long ago"})
    reasons = {rung["name"]: rung["missing"] for rung in content["rungs"]}
    assert reasons["floor"] is reasons["stage1"] is None
    assert reasons["nearest"] == "it was made long ago"
    assert reasons["stage2"] == "the run stopped after stage 1"
    assert "--controls generator" in reasons["generator"]
    line = content["metrics"]["pixcorr"]
    assert line["result"] == "stage1"
    assert set(line["rungs"]) == {"floor", "stage1"}
    assert line["scale"] is None


def test_few_pictures_have_no_interval(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    values = {kind: {"pixcorr": those["pixcorr"][:4]} for kind, those in values_of().items()}
    content = write_evidence(run, values, ["a", "b", "c", "d"], seed=0, about={}, missing={})
    line = content["metrics"]["pixcorr"]
    assert line["rungs"]["stage2"] == {"mean": pytest.approx(values["stage2"]["pixcorr"].mean()), "ci95": None}
    assert not line["scale"]["clear"]
    assert "too few pictures" in position_words(line)


def test_a_position_has_those_intervals_alone_by_which_the_ceiling_is_better() -> None:
    """Over seeds ceiling minus floor may be 0: a quotient by it has no interval that means anything."""
    means = np.array([0.0, 0.5, 1.0])
    noise = np.random.default_rng(0).standard_normal((3, 400))
    draws = {"": means[:, None] + 0.1 * noise, "_seeds": means[:, None] + noise}
    line = line_of(["floor", "stage1", "oracle"], means, draws, label="", better="higher", meaning="")
    assert set(line["rungs"]["stage1"]["position"]) == {"value", "ci95"}
    assert line["rungs"]["stage1"]["ci95_seeds"] is not None
    draws["_seeds"] = draws[""] * 1.5
    line = line_of(["floor", "stage1", "oracle"], means, draws, label="", better="higher", meaning="")
    assert line["rungs"]["stage1"]["position"]["ci95_seeds"] is not None


def test_nothing_measured_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path / "run", {"stage1": {"pixcorr": np.zeros(N)}})
    assert write(tmp_path / "run", {}) == {}
    with pytest.raises(FileError, match=r"has no evidence\.json"):
        read_evidence(tmp_path / "run")
    assert evidence_section({}) == ""


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["test/0/mean", "test/12/mean-1"], "averaged"),
        (["test/0/0", "test/12/3"], "single"),
        (["test/0/mean", "test/0/1"], None),
        (["0", "1"], None),
        ([], None),
    ],
)
def test_trials_are_known_by_their_ids(ids: list[str], kind: str | None) -> None:
    assert about_trials(ids) == kind


@pytest.mark.parametrize(
    "edit",
    [
        {"pictures": None},
        {"pictures": ["one"]},
        {"values": {"pixcorr": {"stage2": [1.0] * 6}}},
        {"values": {"pixcorr": {"stage1": ["x"] * 6}}},
        {"rungs": 7},
        {"about": []},
        {"about": {"n_trials": "many"}},
        {"about": {"n_trials": N, "leaks": [1]}},
        {"pictures": ["one"] * 6},
        {"pictures": [[]] * 6},
        {"pictures": [], "values": {"pixcorr": {"stage1": []}}},
        {"values": {"pixcorr": {"stage1": [[1.0]] * 6}}},
        {"version": 99},
    ],
)
def test_damaged_evidence_is_one_sentence(tmp_path: Path, edit: dict[str, Any]) -> None:
    run = tmp_path / "run"
    values = {kind: {"pixcorr": those["pixcorr"]} for kind, those in values_of().items()}
    content = write(run, values) | edit
    (run / "evidence.json").write_text(json.dumps(content))
    with pytest.raises(FileError):
        read_evidence(run)


@pytest.mark.parametrize("edit", [{"rungs": 7}, {"metrics": {"pixcorr": {}}}, {"about": None}])
def test_a_damaged_section_is_one_sentence(tmp_path: Path, edit: dict[str, Any]) -> None:
    content = write(tmp_path / "run", {kind: {"pixcorr": v["pixcorr"]} for kind, v in values_of().items()})
    with pytest.raises(FileError, match="damaged"):
        evidence_section(content | edit)
