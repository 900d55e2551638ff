"""From picture files to summary.json and the page: by picture, against a floor, and never twice."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.images import read_image, to_float, write_png
from minddiffuser.runtime.metrics import METRICS, measuring
from minddiffuser.runtime.metrics.base import Metric
from minddiffuser.runtime.metrics.extractors import Features, Given
from minddiffuser.runtime.report.page import write_report
from minddiffuser.runtime.report.text import metrics_table
from minddiffuser.runtime.report.words import number_text
from minddiffuser.runtime.run.batches import Outcome
from minddiffuser.runtime.run.measure import KEPT, Measured, measure_run, open_extractors
from minddiffuser.runtime.run.summary import write_summary

SHOWN = "aabbccddeeff"  # the picture of each trial
SIDE = 12


def correlation(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    pairs = zip(images, reconstructions, strict=True)
    return np.array([np.corrcoef(image.ravel(), other.ravel())[0, 1] for image, other in pairs])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics of images at the pictures' own size: what is tested is who is compared with whom, and how often."""
    monkeypatch.setitem(METRICS, "pixcorr", replace(METRICS["pixcorr"], function=correlation))
    for name in ("ssim", "ssim_columns"):
        monkeypatch.delitem(METRICS, name)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)


def write_run(run: Path, shown: str = SHOWN, kinds: tuple[str, ...] = ("stage1", "stage2", "shuffled")) -> Path:
    """Stage 2 is nearer to the stimulus than stage 1, and the shuffled control in between."""
    share = {"stage1": 0.3, "shuffled": 0.4, "stage2": 0.6, "oracle": 0.8}
    for trial, name in enumerate(shown):
        stimulus = picture(ord(name))
        write_png(run / "stimuli" / f"{trial:06d}.png", stimulus)
        for place, kind in enumerate(kinds):
            noise = picture(1000 + 100 * place + trial)
            blend = share[kind] * stimulus.astype(float) + (1 - share[kind]) * noise
            write_png(run / "images" / kind / f"{trial:06d}.png", blend.astype(np.uint8))
    return run


def embed(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, ::3].astype(np.float32)


def measured(run: Path, shown: str = SHOWN, function: Callable[..., Any] = embed, **choices: Any) -> Measured:
    extractors, _ = open_extractors(Given(embed=function))
    return measure_run(run, range(len(shown)), extractors, stimulus_ids=tuple(shown), **choices)


def summary_of(run: Path, found: Measured, shown: str = SHOWN, **choices: Any) -> dict[str, Any]:
    outcome = Outcome(trials=tuple(range(len(shown))), skipped={}, seconds={})
    return write_summary(run, outcome, found, seed=0, **choices)


def of_file(metric: str, stimulus: Path, other: Path) -> float:
    one, two = (to_float(read_image(path)[None]) for path in (stimulus, other))
    return float(METRICS[metric].function(one, two)[0])


def test_perfect_predictions_of_two_pictures_are_perfect_in_the_summary(tmp_path: Path) -> None:
    """2 pictures x 3 trials, which used to get 0.60 in clip_two_way."""
    for trial, name in enumerate("aaabbb"):
        for place in ("stimuli", "images/stage1"):
            write_png(tmp_path / place / f"{trial:06d}.png", picture(ord(name)))
    found = measured(tmp_path, "aaabbb")
    assert found.values["stage1"]["clip_two_way"].tolist() == [1.0] * 6
    content = summary_of(tmp_path, found, "aaabbb")
    assert {name: row["stage1"] for name, row in content["metrics"].items()} == pytest.approx(
        {"pixcorr": 1.0, "clip_two_way": 1.0}
    )
    assert (content["n_trials"], content["n_pictures"]) == (6, 2)
    assert content["metrics"]["clip_two_way"]["stage1_floor"] == 0


def test_the_summary_is_what_a_loop_over_the_files_says(tmp_path: Path) -> None:
    run, shown = write_run(tmp_path, "aaaabcdef"), "aaaabcdef"
    content = summary_of(run, measured(run, shown, seed=4), shown)
    trials = json.loads((run / "trials.json").read_text())
    for metric in ("pixcorr",):
        by_kind = {
            kind: np.array(
                [
                    of_file(metric, run / "stimuli" / f"{t:06d}.png", run / "images" / kind / f"{t:06d}.png")
                    for t in range(len(shown))
                ]
            )
            for kind in ("stage1", "stage2", "shuffled")
        }

        def mean(values: np.ndarray) -> float:
            return float(np.mean([values[[s == name for s in shown]].mean() for name in sorted(set(shown))]))

        row = content["metrics"][metric]
        assert row["n_pictures"] == 6
        assert row["better"] == "higher"
        assert row["stage1"] == pytest.approx(mean(by_kind["stage1"]))
        assert row["stage2"] == pytest.approx(mean(by_kind["stage2"]))
        assert row["difference"] == pytest.approx(mean(by_kind["stage2"] - by_kind["stage1"]))
        worth = row["decoded_minus_shuffled"]
        assert worth["difference"] == pytest.approx(mean(by_kind["stage2"] - by_kind["shuffled"]))
        assert worth["ci95"][0] < worth["difference"] < worth["ci95"][1]
        assert content["controls"]["shuffled"][metric]["stage2"] == pytest.approx(mean(by_kind["shuffled"]))
        assert [t["metrics"][metric] for t in trials] == [
            pytest.approx([one, two]) for one, two in zip(by_kind["stage1"], by_kind["stage2"], strict=True)
        ]
        assert [t["controls"]["shuffled"][metric] for t in trials] == pytest.approx(by_kind["shuffled"].tolist())
    assert [t["stimulus_id"] for t in trials] == list(shown)


def test_the_floor_is_stage_1_of_a_trial_with_another_picture(tmp_path: Path) -> None:
    run = write_run(tmp_path, kinds=("stage1",))
    floors = []
    for seed in range(2):
        values = measured(run, seed=seed).values
        for trial, floor in enumerate(values["stage1_floor"]["pixcorr"]):
            others = [
                of_file("pixcorr", run / "stimuli" / f"{trial:06d}.png", run / "images/stage1" / f"{other:06d}.png")
                for other in range(len(SHOWN))
                if SHOWN[other] != SHOWN[trial]
            ]
            assert any(floor == pytest.approx(other) for other in others)
        assert values["stage1_floor"]["pixcorr"].mean() < values["stage1"]["pixcorr"].mean() - 0.1
        row = summary_of(run, measured(run, seed=seed))["metrics"]["pixcorr"]
        difference = float(np.mean(values["stage1"]["pixcorr"] - values["stage1_floor"]["pixcorr"]))  # two trials each
        assert row["stage1_minus_floor"]["difference"] == pytest.approx(difference)
        assert row["stage1_minus_floor"]["ci95"][0] > 0
        floors.append(tuple(values["stage1_floor"]["pixcorr"]))
    assert len(set(floors)) == 2


def test_one_picture_has_neither_floor_nor_identification_and_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path, "aaa", kinds=("stage1", "stage2"))
    found = measured(run, "aaa")
    assert "stage1_floor" not in found.values
    assert list(found.values["stage1"]) == ["pixcorr"]
    assert found.notes == ("clip_two_way was left out: it needs 2 different pictures or more, not 1.",)
    content = summary_of(run, found, "aaa")
    assert content["metrics"]["pixcorr"]["stage1_floor"] is None
    assert content["metrics"]["pixcorr"]["ci95"] is None
    assert content["notes"] == list(found.notes)


def test_concepts_are_counted_by_picture(tmp_path: Path) -> None:
    """One picture shown nine times and always right, three once and always wrong: 1 of 4, not 9 of 12."""
    shown = "aaaaaaaaabcd"
    run = write_run(tmp_path, shown, kinds=("stage1",))
    truth = np.array([0] * 9 + [1, 2, 3])
    labels = Features(identity="by hand", of_pictures=lambda images: np.zeros(len(images), np.int64), truth=truth)
    found = measure_run(run, range(12), {"labels": labels}, stimulus_ids=tuple(shown))
    row = summary_of(run, found, shown)["metrics"]["concept_top1"]
    assert row["stage1"] == 0.25
    assert found.values["stage1"]["concept_top1"].tolist() == [1.0] * 9 + [0.0] * 3


def test_trials_without_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    whole = measured(run).values["stage1"]["pixcorr"]
    (run / "images" / "stage2" / "000003.png").unlink()
    (run / "images" / "stage1" / "000010.png").unlink()
    truth = np.arange(12)
    seen: list[int] = []

    def classify(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return np.zeros(len(images), np.int64)

    extractors = {**open_extractors(Given(embed=embed))[0]}
    extractors["labels"] = Features(identity="by hand", of_pictures=classify, truth=truth)
    found = measure_run(run, range(12), extractors, stimulus_ids=tuple(SHOWN))
    left = [trial for trial in range(12) if trial not in (3, 10)]
    assert found.trials == tuple(left)
    assert found.notes == ("Trial(s) 3, 10 have no picture and are left out of the metrics.",)
    assert found.values["stage1"]["pixcorr"].tolist() == whole[left].tolist()
    assert found.values["stage1"]["concept_top1"].tolist() == [1.0] + [0.0] * 9  # the truth of the right trials
    content = summary_of(run, found)
    assert (content["n_trials"], content["n_measured"], content["n_pictures"]) == (12, 10, 6)
    assert json.loads((run / "trials.json").read_text())[3] == {"trial": 3, "stimulus": False, "metrics": {}}
    words = write_report(run).read_text()
    assert "Trial(s) 3, 10 have no picture" in words
    assert "Means over 6 pictures of 10 trials: a picture counts once" in words


class Counting:
    """Counts the pairs that PixCorr measures and the pictures that are embedded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pairs = self.pictures = 0
        real = METRICS["pixcorr"]

        @wraps(real.function)
        def pixcorr(images: np.ndarray, others: np.ndarray) -> np.ndarray:
            self.pairs += len(images)
            return real.function(images, others)

        monkeypatch.setitem(METRICS, "pixcorr", replace(real, function=pixcorr))

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.pictures += len(images)
        return embed(images)

    def since(self) -> tuple[int, int]:
        counts = self.pairs, self.pictures
        self.pairs = self.pictures = 0
        return counts


def test_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, counting = write_run(tmp_path), Counting(monkeypatch)
    reports: list[tuple[int, int]] = []
    first = measured(run, function=counting.embed, on_progress=lambda *step: reports.append(step))
    assert counting.since() == (60, 42)  # 3 kinds and two floors; 36 pictures and 6 different stimuli
    assert reports[0] == (0, 102)
    assert reports[-1] == (102, 102)
    assert [done for done, _ in reports] == sorted({done for done, _ in reports})
    reports.clear()
    again = measured(run, function=counting.embed, on_progress=lambda *step: reports.append(step))
    assert counting.since() == (0, 0)
    assert reports == []
    for kind, values in first.values.items():
        for name, row in values.items():
            np.testing.assert_array_equal(again.values[kind][name], row)
    write_png(run / "images" / "stage2" / "000004.png", picture(5))
    changed = measured(run, function=counting.embed)
    assert counting.since() == (2, 1)  # the picture of its own trial, and as the floor of another
    assert changed.values["stage2"]["pixcorr"][4] != first.values["stage2"]["pixcorr"][4]
    write_png(run / "stimuli" / "000004.png", picture(6))
    measured(run, function=counting.embed)
    pairs, pictures = counting.since()
    assert pictures == 1
    assert pairs == 5  # three kinds and both floors of that trial


def test_other_weights_and_damaged_records_measure_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, counting = write_run(tmp_path), Counting(monkeypatch)
    for identity in ("weights 1", "weights 2"):
        extractors, _ = open_extractors(Given(embed=counting.embed, embed_identity=identity))
        measure_run(run, range(12), extractors, stimulus_ids=tuple(SHOWN))
    assert counting.since() == (60, 84)
    whole = (run / KEPT).read_bytes()
    (run / KEPT).write_bytes(whole[:-20])
    measure_run(run, range(12), extractors, stimulus_ids=tuple(SHOWN))
    assert counting.since() == (60, 42)
    assert (run / KEPT).read_bytes() == whole


def test_measuring_that_is_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_BLOCK", 5)
    run, counting = write_run(tmp_path), Counting(monkeypatch)

    def interrupted(done: int, _total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(run, function=counting.embed, on_progress=interrupted)
    assert counting.since() == (20, 0)
    measured(run, function=counting.embed)
    assert counting.since() == (40, 42)


def test_measuring_that_is_killed_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_BLOCK", 5)
    monkeypatch.setattr(measuring, "_SAVE_EVERY", 15)
    run, counting = write_run(tmp_path), Counting(monkeypatch)
    there: dict[int, bytes] = {}

    def on_progress(done: int, _total: int) -> None:
        there[done] = (run / KEPT).read_bytes() if (run / KEPT).exists() else b""

    measured(run, function=counting.embed, on_progress=on_progress)
    assert [done for done in there if there[done]][0] == 15
    counting.since()
    (run / KEPT).write_bytes(there[20])  # as a kill after 20 would have left it
    measured(run, function=counting.embed)
    assert counting.since() == (45, 42)


def test_a_damaged_picture_is_one_sentence(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "images" / "stage2" / "000002.png").write_bytes(b"no picture")
    with pytest.raises(FileError, match=r"000002\.png cannot be decoded"):
        measured(run)


def roughness(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Root mean square difference: lower is better."""
    return np.sqrt(((images - reconstructions) ** 2).mean(axis=(1, 2, 3))).astype(np.float64)


def test_a_registered_metric_is_everywhere_without_another_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric(
        name="rms",
        label="RMS <error>",
        meaning="Root mean square of the pixels' differences.",
        needs="images",
        function=roughness,
        better="lower",
    )
    monkeypatch.setitem(METRICS, "rms", metric)
    run = write_run(tmp_path)
    content = summary_of(run, measured(run))
    row = content["metrics"]["rms"]
    assert row["better"] == "lower"
    assert row["stage2"] < row["stage1"]
    assert row["decoded_minus_shuffled"]["ci95"][1] < 0
    assert content["controls"]["shuffled"]["rms"]["difference"] < 0
    (line,) = [line for line in metrics_table(content).splitlines() if line.startswith("RMS <error>")]
    assert line.split()[2:5] == [
        number_text(row["stage1"]),
        number_text(row["stage2"]),
        number_text(row["difference"], signed=True),
    ]
    page = write_report(run).read_text()
    label = "RMS &lt;error&gt;"
    assert f"{label} falls in stage 2, and ends below shuffled targets (better)" in page
    assert "PixCorr rises in stage 2, and ends above shuffled targets (better)" in page
    assert f"{label}<small>Root mean square of the pixels&#x27; differences. Lower is better.</small>" in page
    assert f"Higher is better, except for {label}, of which lower is better." in page
    assert f'<option value="gain-rms">gain in {label}</option>' in page
    assert f"<strong>{label}</strong>, stage 2 minus stage 1; lower is better" in page
    trials = json.loads((run / "trials.json").read_text())
    gains = [one - two for one, two in (trial["metrics"]["rms"] for trial in trials)]
    assert [float(part.partition('"')[0]) for part in page.split('data-gain-rms="')[1:]] == pytest.approx(gains)
    card = page.split(f"<dt>{label}</dt>")[1].partition("</div>")[0]
    assert "▼" in card
    assert 'class="better"' in card


def test_a_faulty_metric_or_extractor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path)
    with pytest.raises(ShapeError, match="one row per image"):
        measured(run, function=lambda images: embed(images)[:1])
    monkeypatch.setitem(METRICS, "pixcorr", replace(METRICS["pixcorr"], function=lambda one, other: np.zeros(1)))
    with pytest.raises(ShapeError, match=r"metric pixcorr gave \(1,\)"):
        measured(run)
    monkeypatch.setitem(METRICS, "pixcorr", replace(METRICS["pixcorr"], function=lambda one, other: 2 + np.zeros(3)))
    with pytest.raises(InputError, match=r"metric pixcorr gave 2, its range is -1 to 1: correct one of them"):
        METRICS["pixcorr"](np.zeros(3), np.zeros(3), "abc")
    monkeypatch.setitem(METRICS, "pixcorr", replace(METRICS["pixcorr"], needs="nothing"))
    with pytest.raises(InputError, match="extractor 'nothing'"):
        open_extractors(Given())


def test_features_of_a_network_that_overflowed_cost_their_metric_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path)

    def overflowing(images: np.ndarray) -> np.ndarray:
        features = embed(images)
        features[-1, 0] = np.inf
        return features

    found = measured(run, function=overflowing)
    assert set(found.values["stage2"]) == {"pixcorr"}
    assert len(found.notes) == 1
    assert found.notes[0].startswith("clip_two_way was left out: it is NaN or infinite for some pictures of ")
    assert list(summary_of(run, found)["metrics"]) == ["pixcorr"]


def test_what_is_missing_is_said_by_metric() -> None:
    extractors, notes = open_extractors(Given())
    assert list(extractors) == ["images"]
    names = [note.partition(" left out: ")[0] for note in notes]
    assert names == ["clip_two_way was", "concept_top1 was", "place, size, overlap were"]
    assert "the bundle has no graph clip_structure" in notes[0]
    assert "classifier" in notes[1]
    assert "locator" in notes[2]


def test_a_simulated_subject_is_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert summary_of(run, measured(run), simulated=True)["simulated"] is True
