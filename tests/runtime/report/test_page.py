import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.images import read_image, write_png
from minddiffuser.runtime.report.page import write_report


class Page(HTMLParser):
    """Elements and text of a page, in order; content of style and script kept apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.raw: dict[str, str] = {}
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside[-1]] = self.raw.get(self._inside[-1], "") + data
        else:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run: Path) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_each_trial_has_its_pictures_in_order(full_run: Path) -> None:
    page = page_of(full_run)
    assert [card["data-trial"] for card in page.all("article")] == ["0", "3", "12"]
    alts = [str(image["alt"]) for image in page.all("img")]
    assert alts == [
        text.format(trial)
        for trial in (0, 3, 12)
        for text in (
            "The picture that was seen in trial {}",
            "Stage 1 reconstruction of trial {}",
            "Stage 2 reconstruction of trial {}",
            "Trial {} refined toward the true features of the seen picture",
        )
    ]
    sources = [str(image["src"]) for image in page.all("img")]
    embedded = Image.open(io.BytesIO(base64.b64decode(sources[6].removeprefix("data:image/png;base64,"))))
    assert (np.asarray(embedded) == read_image(full_run / "images/stage2/000003.png")).all()


def test_sort_keys_carry_the_gains(full_run: Path) -> None:
    page = page_of(full_run)
    options = [option["value"] for option in page.all("option")]
    assert options[:3] == ["trial", "gain-pixcorr", "gain-ssim"]
    assert options[-1] == "loss-fall"
    cards = page.all("article")
    assert [float(card["data-gain-pixcorr"] or "nan") for card in cards] == pytest.approx([0.1, -0.2, 0.3])
    assert [float(card["data-loss-fall"] or "nan") for card in cards] == pytest.approx([0.5, 0.1, 0.75])


def test_the_table_says_what_the_summary_says(full_run: Path) -> None:
    words = " ".join(" ".join(page_of(full_run).text).split())
    assert "PixCorr rises in stage 2" in words
    assert "SSIM falls in stage 2" in words
    assert "0.200 0.300 +0.100 +0.050 to +0.150 +0.010 −0.040 to +0.060 +0.410 +0.360 to +0.460" in words
    assert "0.400 0.300 −0.100 −0.150 to −0.050 – –" in words
    assert "Trial 5: NaN" in words


def test_a_change_within_its_interval_is_not_called_a_rise(full_run: Path) -> None:
    summary = (full_run / "summary.json").read_text().replace('"ci95": [0.04', '"ci95": [-0.04', 1)
    (full_run / "summary.json").write_text(summary)
    assert "PixCorr shows no clear change in stage 2" in " ".join(page_of(full_run).text)


def test_without_an_interval_there_is_no_verdict(full_run: Path) -> None:
    summary = json.loads((full_run / "summary.json").read_text())
    for table in (summary["metrics"], *summary["controls"].values()):
        for row in table.values():
            row["ci95"] = None
    (full_run / "summary.json").write_text(json.dumps(summary))
    words = " ".join(page_of(full_run).text)
    assert not re.search(r"PixCorr (rises|falls|shows)", words)
    assert "too few trials for intervals" in words
    assert "+0.100" in words  # the difference itself is still told


def test_a_broken_refinement_is_marked_and_a_missing_metric_explained(full_run: Path) -> None:
    page = page_of(full_run)
    assert [text for text in page.text if "broke off" in text] == ["loss −10 % · refinement broke off"]
    assert "concept_top1 was left out: no captions." in page.text


def test_hostile_strings_stay_text(full_run: Path) -> None:
    page = page_of(full_run)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    assert sum("onerror=alert(1)" in text for text in page.text) >= 4  # note, subject, setting, metric, reason: as text


def test_nothing_is_loaded_and_the_policy_knows_the_very_script(full_run: Path) -> None:
    page = page_of(full_run)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in page.elements)  # the policy would refuse it
    text = (full_run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)


def test_pictures_alone_make_a_page(bare_run: Path) -> None:
    page = page_of(bare_run)
    assert len(page.all("article")) == 3
    assert page.all("table") == []
    assert [option["value"] for option in page.all("option")] == ["trial"]


def test_large_pictures_are_embedded_smaller(bare_run: Path) -> None:
    write_png(bare_run / "images/stage1/000000.png", np.zeros((600, 600, 3), np.uint8))
    source = str(page_of(bare_run).all("img")[0]["src"]).removeprefix("data:image/png;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (256, 256)


def test_the_page_is_the_same_twice(full_run: Path) -> None:
    assert write_report(full_run).read_bytes() == write_report(full_run).read_bytes()


@pytest.mark.parametrize("name", ["summary.json", "trials.json", "settings.json", "curves/000003.json"])
@pytest.mark.parametrize("content", ["{", '[{"trial": "x"}]', '"text"'])
def test_a_damaged_file_is_one_sentence(full_run: Path, name: str, content: str) -> None:
    (full_run / name).write_text(content)
    with pytest.raises(FileError, match=Path(name).stem):
        write_report(full_run)


@pytest.mark.parametrize("name", ["summary.json", "trials.json", "settings.json", "curves/000003.json"])
def test_unexpected_values_leave_gaps_not_tracebacks(full_run: Path, name: str) -> None:
    content = {"metrics": {"pixcorr": [1]}, "controls": 3, "seconds": [], "settings": 1, "loss": ["x"], "notes": 4}
    text = "[]" if name == "trials.json" else str(content).replace("'", '"')
    (full_run / name).write_text(text)
    assert len(page_of(full_run).all("article")) == 3


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        write_report(tmp_path / "absent")
    with pytest.raises(FileError, match="no picture"):
        write_report(tmp_path)
