"""``md-train experiment`` as a person types it, on a world with random weights: nothing replaced."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from minddiffuser.training import cli as train
from minddiffuser.training.experiments import EXPERIMENTS


@pytest.fixture(scope="module")
def data(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects") / "subject"
    size = ["--n-train", "15", "--n-test", "6"]
    where = ["--out", str(folder), "--models", str(small_world), "--device", "cpu"]
    assert train.main(["simulate", "fmri", "--brain", "clip", *size, *where]) == 0
    return folder


def experiment(name: str, data: Path, out: Path, world: Path, *more: str) -> int:
    common = ["--models", str(world), "--device", "cpu", "--threads", "1", "--n-trials", "5"]
    return train.main(["experiment", name, "--data", str(data), "--out", str(out), *common, *more])


@pytest.mark.slow
def test_from_a_subject_to_the_page(
    data: Path, small_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert experiment("features", data, out, small_world) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(out / "report.html")]
    assert "experiment features: 9/9 steps" in printed.err
    table = json.loads((out / "table.json").read_text())
    rows = {row["key"]: row["values"] for row in table["tables"][0]["rows"]}
    assert list(rows) == ["without-context", "without-latent", "without-structure", "full"]
    assert {"pixcorr", "ssim"} <= rows["full"].keys()
    assert rows["full"]["pixcorr"]["n_pictures"] == 5
    assert rows["full"]["pixcorr"]["paper"] == 0.256
    # Without the structure there is stage 1, which is the full model's too.
    stage1 = json.loads((out / "subject" / "runs" / "full-42" / "summary.json").read_text())["metrics"]["pixcorr"]
    assert rows["without-structure"]["pixcorr"]["mean"] == pytest.approx(stage1["stage1"])
    record = json.loads((out / "subject" / "runs" / "without-latent-42" / "settings.json").read_text())
    assert record["settings"]["without"] == ["latent"]
    assert (out / "report.html").read_text().count("data:image/png") == 5 * 5

    before = (out / "table.csv").read_bytes()
    assert experiment("features", data, out, small_world, "--table-only") == 0
    assert (out / "table.csv").read_bytes() == before
    capsys.readouterr()
    assert experiment("features", data, out, small_world, "--seed", "1", "2") == 2
    assert re.search(r"seeds: \[42\] there, \[1, 2\] now", capsys.readouterr().err)


def test_without_matplotlib_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert experiment("features", tmp_path / "data", tmp_path / "out", tmp_path / "world") == 2
    assert "pip install 'minddiffuser[figures]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment(name: str, data: Path, small_world: Path, tmp_path: Path) -> None:
    assert experiment(name, data, tmp_path / "out", small_world) == 0
    assert json.loads((tmp_path / "out" / "table.json").read_text())["missing"] == []


@pytest.mark.slow
def test_full_has_both_controls(data: Path, small_world: Path, tmp_path: Path) -> None:
    assert experiment("modality", data, tmp_path / "out", small_world, "--full") == 0
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    pictures, decoded = table["tables"]
    assert [row["key"] for row in pictures["rows"]] == [
        *("fmri.stage1", "fmri.stage2"),
        *("fmri.stage2.shuffled", "fmri.stage2.oracle"),
    ]
    assert all("pixcorr" in row["values"] for row in pictures["rows"])
    assert len(decoded["rows"]) == 1
    assert {column["name"] for column in decoded["columns"]} >= {"decoded.context", "decoded.structure"}
    assert all(column["chance"] is not None for column in decoded["columns"])
    assert len(json.loads((tmp_path / "out" / "experiment.json").read_text())["models_hash"]) == 64
