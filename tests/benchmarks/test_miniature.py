"""The pages of the paper in miniature: each is its experiment's own table, with the command and the figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from minddiffuser.training.experiments.claims import claim_text

Load = Callable[[str], ModuleType]
TABLE = """# Semantic loss

The paper's Table 8. What does it do?

Subjects: fmri-1, fmri-2.

## Semantic loss

| a | b |
| --- | --- |
| 1 | 2 |
"""


def write_experiment(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "table.md").write_text(TABLE)
    (folder / "figure.png").write_bytes(b"a picture")
    rows = [{"key": "0"}, {"key": "0.5", "agreement": "disagrees"}]
    numbers = {
        "subjects": [{"label": "fmri-1"}, {"label": "fmri-2"}],
        "settings": {"seeds": [42], "n_trials": 32, "full": False, "models": "tiny", "clip": None},
        "tables": [{"columns": [{"name": "pixcorr"}], "rows": rows}],
        "claims": [{"agreement": "agrees"}, {"agreement": None}, {"agreement": "agrees"}],
    }
    (folder / "table.json").write_text(json.dumps(numbers))
    return folder


def test_pages_hold_the_table_the_command_and_the_figure(load: Load, tmp_path: Path) -> None:
    write_experiment(tmp_path / "made" / "semantic")
    found = load("miniature").write_pages(tmp_path / "made", tmp_path / "docs")
    assert found == {"semantic": Counter(agrees=2, disagrees=1)}
    page = (tmp_path / "docs" / "miniature" / "semantic.md").read_text()
    assert page.startswith("# Semantic loss\n\nThe paper's Table 8.")
    assert "md-train experiment semantic --data fmri-1 fmri-2 --out semantic --cache shared" in page
    assert page.index("```sh") < page.index("(../images/miniature/semantic.png)") < page.index("## Semantic loss")
    assert page.endswith("| 1 | 2 |\n")
    assert (tmp_path / "docs" / "images" / "miniature" / "semantic.png").read_bytes() == b"a picture"
    numbers = (tmp_path / "docs" / "measured" / "miniature" / "semantic.json").read_text()
    assert numbers == (tmp_path / "made" / "semantic" / "table.json").read_text()


def test_settings_of_its_own_and_missing_files_are_refused(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature, folder = load("miniature"), write_experiment(tmp_path / "made" / "semantic")
    monkeypatch.setattr("sys.argv", ["miniature.py", str(tmp_path / "made"), "--docs", str(tmp_path / "docs")])
    numbers = json.loads((folder / "table.json").read_text())
    numbers["settings"]["n_trials"] = 8
    (folder / "table.json").write_text(json.dumps(numbers))
    assert miniature.main() == 2
    assert "other settings than the command's own: n_trials" in capsys.readouterr().err
    numbers["settings"]["n_trials"] = 32
    (folder / "table.json").write_text(json.dumps(numbers))
    (folder / "figure.png").unlink()
    assert miniature.main() == 2
    assert "figure.png" in capsys.readouterr().err


def test_a_folder_without_experiments_is_refused(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = load("miniature")
    monkeypatch.setattr("sys.argv", ["miniature.py", str(tmp_path)])
    assert miniature.main() == 2
    assert "holds no experiment" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["rois", "features", "retention", "fitting", "semantic", "iterations", "modality", "interpretation"]
)
def test_the_pages_in_the_repository_are_of_the_numbers_beside_them(load: Load, name: str) -> None:
    """Every sentence's word and difference, and every mean of a table that the page shows."""
    miniature, docs = load("miniature"), Path(__file__).parents[2] / "docs"
    assert name in miniature.NAMES
    page = (docs / miniature.PARTS["docs"].format(name)).read_text(encoding="utf-8")
    numbers = json.loads((docs / miniature.PARTS["numbers"].format(name)).read_text())
    assert numbers["experiment"] == name
    for claim in numbers["claims"]:
        row = f"| {claim['text']} | {claim['source']} | {claim_text(claim)} | {claim['agreement'] or ''} |"
        assert row in page.splitlines()
    shown = [table for table in numbers["tables"] if f"## {table['title']}" in page]
    assert shown
    means = [value["mean"] for table in shown for row in table["rows"] for value in row["values"].values()]
    there = sum(any(f"{abs(mean):{form}}" in page for form in (".3f", ".1f", ".0f")) for mean in means)
    assert there == len(means) > 5
