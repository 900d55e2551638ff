import base64
import contextlib
import copy
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.images import read_image, write_png
from minddiffuser.runtime.report import cards
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
            "The picture that was shown in trial {}",
            "Stage 1 reconstruction of trial {}",
            "Stage 2 reconstruction of trial {}",
            "Trial {} refined toward the true features of its stimulus",
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


def words_of(run: Path) -> str:
    return " ".join(" ".join(page_of(run).text).split())


def change_summary(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((run / "summary.json").read_text())
    change(content)
    (run / "summary.json").write_text(json.dumps(content))


def test_the_table_says_what_the_summary_says(full_run: Path) -> None:
    words = words_of(full_run)
    numbers = "0.200 0.012 0.300 +0.100 +0.050 to +0.150 +0.090 +0.040 to +0.140 +0.010 −0.040 to +0.060 +0.410"
    assert numbers in words
    assert "0.400 0.012 0.300 −0.100 −0.150 to −0.050 −0.050 −0.100 to 0.000 – –" in words.replace("−0.000", "0.000")
    assert "Metric Stage 1 Stage 1 floor Stage 2 Difference 95 % interval Decoded − shuffled" in words
    assert "Means over 3 pictures of 3 trials." in words
    assert "Trial 5: NaN" in words


def test_the_headline_is_decoded_minus_shuffled(full_run: Path) -> None:
    words = words_of(full_run)
    verdict = "PixCorr rises in stage 2, and ends above shuffled targets (better) +0.090 decoded minus shuffled, 95 % "
    assert f"{verdict}interval +0.040 to +0.140 stage 2 minus stage 1 +0.100, 95 % interval +0.050 to +0.150" in words


def test_metrics_of_which_lower_is_better_are_named_and_a_fall_is_a_success(full_run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for name, stage1 in (("place", 0.2), ("size", 0.3)):
            content["metrics"][name] = {
                **content["metrics"]["pixcorr"],
                "stage1": stage1,
                "difference": -0.1,
                "ci95": [-0.2, -0.05],
                "decoded_minus_shuffled": {"difference": -0.15, "ci95": [-0.2, -0.1]},
            }

    change_summary(full_run, change)
    words = words_of(full_run)
    assert "Higher is better, except for Place error and Size error, of which lower is better." in words
    assert "Place error falls in stage 2, and ends below shuffled targets (better) −0.150" in words
    assert "Size error falls in stage 2, and ends below shuffled targets (better) −0.150" in words


@pytest.mark.parametrize(
    ("worth", "said"),
    [
        ([-0.004, 0.006], "rises in stage 2, and is not clearly different from that with shuffled targets +0.001"),
        ([-0.2, -0.1], "rises in stage 2, and ends below shuffled targets (worse) −0.150"),
    ],
)
def test_a_rise_that_shuffled_targets_share_is_no_success(full_run: Path, worth: list[float], said: str) -> None:
    """Own data: decoded +0.109, shuffled +0.111, and the page said that PixCorr rises."""

    def change(content: dict[str, Any]) -> None:
        entry = content["metrics"]["pixcorr"]
        entry["decoded_minus_shuffled"] = {"difference": sum(worth) / 2, "ci95": worth}

    change_summary(full_run, change)
    assert f"PixCorr {said} decoded minus shuffled" in words_of(full_run)


def test_a_loss_that_is_smaller_than_with_shuffled_targets_is_no_success(full_run: Path) -> None:
    change_summary(full_run, lambda content: content["metrics"]["pixcorr"].update(difference=-0.1, ci95=[-0.2, -0.05]))
    assert "PixCorr falls in stage 2, and ends above shuffled targets (worse than stage 1) +0.090" in words_of(full_run)
    assert '<li class="better"><span class="what">PixCorr' not in (full_run / "report.html").read_text()


def test_a_change_within_its_interval_is_not_called_a_rise(full_run: Path) -> None:
    change_summary(full_run, lambda content: content["metrics"]["pixcorr"].update(ci95=[-0.04, 0.15]))
    assert "PixCorr shows no clear change in stage 2, and ends above shuffled targets" in words_of(full_run)


def test_without_shuffled_targets_nothing_is_claimed(full_run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["controls"] = {}
        for entry in content["metrics"].values():
            entry["decoded_minus_shuffled"] = None

    change_summary(full_run, change)
    words = words_of(full_run)
    assert not re.search(r"PixCorr (rises|falls|shows)", words)
    assert "No claim about stage 2 is made here: this run has no shuffled targets" in words
    assert "--controls shuffled" in words
    assert "+0.100 +0.050 to +0.150" in words  # the table still says the difference


def test_a_summary_of_an_earlier_release_claims_nothing(full_run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for entry in content["metrics"].values():
            for name in ("decoded_minus_shuffled", "stage1_floor"):
                del entry[name]
        del content["n_pictures"], content["n_measured"]

    change_summary(full_run, change)
    words = words_of(full_run)
    assert not re.search(r"PixCorr (rises|falls|shows)", words)
    assert "Metric Stage 1 Stage 2 Difference 95 % interval Shuffled targets" in words


def test_stage_1_alone_is_neither_claimed_nor_excused(full_run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["controls"] = {}
        for entry in content["metrics"].values():
            entry.update(dict.fromkeys(("stage2", "difference", "ci95", "decoded_minus_shuffled")))

    change_summary(full_run, change)
    words = words_of(full_run)
    assert "laim about stage 2" not in words
    assert "0.200 0.012 – – –" in words


def test_without_an_interval_there_is_no_verdict(full_run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for table in (content["metrics"], *content["controls"].values()):
            for entry in table.values():
                entry["ci95"] = None
        for entry in content["metrics"].values():
            entry["decoded_minus_shuffled"]["ci95"] = None

    change_summary(full_run, change)
    words = words_of(full_run)
    assert not re.search(r"PixCorr (rises|falls|shows)", words)
    assert "No claim about stage 2 is made here: there are too few pictures for intervals." in words
    assert words.count("too few pictures for intervals") == 1
    assert "+0.100" in words  # the difference itself is still message


def test_a_picture_shown_several_times_counts_once_and_the_page_says_so(full_run: Path) -> None:
    change_summary(full_run, lambda content: content.update(n_measured=36, n_pictures=12))
    words = words_of(full_run)
    assert "Means over 12 pictures of 36 trials: a picture counts once, with the mean of its trials." in words
    assert "With 12 pictures the intervals are wide" in words


def test_a_small_difference_keeps_its_sign(full_run: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["metrics"]["pixcorr"].update(difference=-0.0002, ci95=[-0.0004, -0.00003])
        content["metrics"]["ssim"].update(difference=0.0, ci95=[-1e-12, 0.1])

    change_summary(full_run, change)
    words = words_of(full_run)
    assert "−0.0002 −0.0004 to −0.00003" in words
    assert "0.300 0.000 0.000 to +0.100" in words


def test_a_simulated_subject_is_reported_beside_its_numbers(full_run: Path) -> None:
    said = "areas of this simulated subject are simulated from the same CLIP layers that stage 2 matches"
    assert words_of(full_run).count(said) == 2  # in the opening and at the table
    own, any_brain = "simulated from oriented filters and local colour", "This subject is simulated. The numbers"
    settings = json.loads((full_run / "settings.json").read_text())
    for brain, now in (("clip", said), ("gabor", own), ("<b>", any_brain)):
        settings["data"]["brain"] = brain
        (full_run / "settings.json").write_text(json.dumps(settings))
        assert [words_of(full_run).count(words) for words in (said, own, any_brain)] == [
            2 * (words == now) for words in (said, own, any_brain)
        ]
    settings["data"]["simulated"] = False
    (full_run / "settings.json").write_text(json.dumps(settings))
    assert not any(words in words_of(full_run) for words in (said, own, any_brain))


def test_failed_trials_are_named_with_the_reason(full_run: Path) -> None:
    failed = [3, {"trial": 7, "reason": "its picture is NaN"}]
    change_summary(full_run, lambda content: content.update(failed=failed))
    words = words_of(full_run)
    assert "Failed trials Trial 7: its picture is NaN Skipped trials" in words


def test_the_words_are_the_fields(full_run: Path) -> None:
    words = words_of(full_run).lower()
    for private in ("judge", "figures", " told", "slope", "mend", "scored", " seen"):
        assert private not in words


def test_a_broken_refinement_is_marked_and_a_missing_metric_explained(full_run: Path) -> None:
    page = page_of(full_run)
    assert [text for text in page.text if "diverged" in text] == ["loss −10 % · refinement diverged"]
    assert "concept_top1 was left out: no captions." in page.text


def test_a_run_from_before_there_were_refiners_is_adams(full_run: Path) -> None:
    words, text = words_of(full_run), (full_run / "report.html").read_text()
    assert "3 trials" in words
    assert " · stage 2: adam, 2 iterations · " in words
    assert "over its iterations; the dot marks the iterate that was kept" in words
    assert "kept 1, iteration 2" in words
    assert 'aria-label="Loss of trial 3 over 2 iterations"' in text
    assert not any(word in words for word in ("candidate", "guided"))


def test_a_guided_run_speaks_of_its_candidates(guided_run: Path) -> None:
    words, text = words_of(guided_run), (guided_run / "report.html").read_text()
    assert " · stage 2: guided, 3 candidates · " in words
    assert "keeps the picture with the lowest loss; nothing looks at the stimulus." in words
    assert "Stage 2 draws it again, and while the drawing emerges pulls it, step by step, toward" in words
    assert "kept 1, step 2" in words
    assert "2 steps" in words
    assert "iteration" not in words
    shown = re.findall(r'<p class="candidates">(.*?)</p>', text)
    assert shown == [
        "loss as sampled: lowest of 3, 1 to 1.5",
        "finished in 2 steps: loss 0.8 to 0.5, with less of the semantic term",
        "loss as sampled: lowest of 3, 1.8 to 2.5, 1 without a finite loss",
        "finished in 2 steps: loss 0.8 to 0.5, with less of the semantic term",
    ]
    assert [line for line in Page(text).text if "diverged" in line] == ["refinement diverged"]


@pytest.mark.parametrize("candidates", [[0.5], [], "three", None, [None], {"a": 1}, 3])
def test_without_several_candidates_none_is_spoken_of(guided_run: Path, candidates: object) -> None:
    path = guided_run / "curves" / "000000.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "candidates": candidates}))
    assert "lowest of 3, 1 to 1.5" not in words_of(guided_run)
    assert "lowest of 3, 1.8 to 2.5" in words_of(guided_run)


@pytest.mark.parametrize("refiner", [None, 3, ["guided"], {"guided": 1}, "later"])
def test_a_refiner_that_is_not_known_is_described_as_adam_was(guided_run: Path, refiner: object) -> None:
    path = guided_run / "settings.json"
    settings = json.loads(path.read_text())
    settings["settings"]["refine"]["refiner"] = refiner
    path.write_text(json.dumps(settings))
    assert "over its iterations" in words_of(guided_run)


def test_a_card_says_which_concept_was_decoded_and_shown(full_run: Path) -> None:
    said = words_of(full_run)
    assert "concept decoded: sea lion (nearer than the next by 0.125); shown: sea lion (rank 1)" in said
    assert "shown: dog (not in the list)" in said
    rows = json.loads((full_run / "trials.json").read_text())
    (full_run / "trials.json").write_text(json.dumps([{**row, "concept": {"decoded": "cat"}} for row in rows]))
    assert "concept decoded: cat" in words_of(full_run)
    (full_run / "trials.json").write_text(
        json.dumps([{k: v for k, v in row.items() if k != "concept"} for row in rows])
    )
    assert "concept decoded" not in words_of(full_run)


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


ODD = (None, True, "x", -1, 0.5, [], {}, [[1]], 10**400, 1e308, -1e308, float("nan"), {"a": {"b": [1]}}, "\x00\ud800")


def edits(content: Any, rng: np.random.Generator, n: int) -> Iterator[Any]:
    """Copies of a JSON value, each with one thing in it, at any depth, replaced by an odd one or taken away."""

    def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            yield (*path, key)
            yield from places(value[key], (*path, key))

    spots = list(places(content))
    for _ in range(n):
        changed = copy.deepcopy(content)
        *way, last = spots[rng.integers(len(spots))]
        inner = changed
        for key in way:
            inner = inner[key]
        choice = int(rng.integers(len(ODD) + 1))
        if choice == len(ODD):
            del inner[last]
        else:
            inner[last] = ODD[choice]
        yield changed


def sentence_of(run: Path) -> str | None:
    try:
        write_report(run)
    except FileError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["summary.json", "trials.json", "settings.json", "curves/000003.json"])
def test_any_single_edit_ends_in_a_page_or_one_sentence(
    full_run: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "embedded", lambda path: b"")  # pictures take the time, and none is edited
    content = json.loads((full_run / name).read_text())
    n_pages = 0
    for changed in edits(content, np.random.default_rng(11), 120):
        (full_run / name).write_text(json.dumps(changed))
        said = sentence_of(full_run)
        if said is not None:
            assert Path(name).name in said
            assert "\n" not in said
            continue
        n_pages += 1
        page = Page((full_run / "report.html").read_text(encoding="utf-8"))
        assert len(page.all("article")) == 3
        values = [str(value) for _, attributes in page.elements for value in attributes.values() if value is not None]
        if name != "settings.json":  # a setting is shown as it is
            assert not re.search(r"\b(nan|inf|None)\b", " ".join([*page.text, *values])), changed
    assert n_pages > 60


@pytest.mark.parametrize("name", ["summary.json", "settings.json"])
def test_deep_nesting_ends_in_a_page_or_one_sentence(full_run: Path, name: str) -> None:
    for depth in (30, 400, 900, 3000, 100_000):
        for text in ("[" * depth + "]" * depth, '{"a": ' * depth + "1" + "}" * depth):
            (full_run / name).write_text('{"settings": ' + text + ', "metrics": ' + text + "}")
            with contextlib.suppress(FileError):
                assert len(page_of(full_run).all("article")) == 3


def test_pictures_with_other_names_are_no_trials(full_run: Path) -> None:
    for name in ("1.png", "٣.png", "0000003.png", "000003 copy.png"):
        shutil.copy(full_run / "images/stage1/000003.png", full_run / "images/stage1" / name)
    assert [card["data-trial"] for card in page_of(full_run).all("article")] == ["0", "3", "12"]


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
