from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.compare import per_trial, summarise


def _embed(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, ::7]


def _classify(images: np.ndarray) -> np.ndarray:
    return (images.mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)


@pytest.fixture
def stimuli() -> np.ndarray:
    pictures = 0.4 * np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32)
    pictures[::2] += 0.6
    return pictures


def _blend(stimuli: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * stimuli + share * np.random.default_rng(1).random(stimuli.shape)).astype(np.float32)


def test_all_metrics_with_everything_given(stimuli: np.ndarray) -> None:
    pictures = _blend(stimuli, 0.2)
    labels = np.array([1, 0, 1, 1])
    values = per_trial(stimuli, pictures, embed=_embed, classify=_classify, labels=labels)
    assert list(values) == list(METRICS)
    np.testing.assert_array_equal(values["ssim"], METRICS["ssim"].function(stimuli, pictures))
    expected = METRICS["clip_two_way"].function(_embed(stimuli), _embed(pictures))
    np.testing.assert_array_equal(values["clip_two_way"], expected)
    assert values["concept_top1"].tolist() == [1, 1, 1, 0]


def test_what_is_not_given_is_left_out(stimuli: np.ndarray) -> None:
    pictures = ["pixcorr", "ssim", "ssim_columns"]
    assert list(per_trial(stimuli, stimuli)) == pictures
    assert list(per_trial(stimuli, stimuli, embed=_embed)) == [*pictures, "clip_two_way"]
    assert list(per_trial(stimuli, stimuli, classify=_classify)) == pictures
    assert list(per_trial(stimuli, stimuli, labels=np.arange(4))) == pictures


def test_two_way_needs_two_trials(stimuli: np.ndarray) -> None:
    assert "clip_two_way" not in per_trial(stimuli[:1], stimuli[:1], embed=_embed)
    assert "clip_two_way" in per_trial(stimuli[:2], stimuli[:2], embed=_embed)


def test_encoders_see_bounded_batches_in_order() -> None:
    images = np.random.default_rng(2).random((130, 3, 2, 2), dtype=np.float32)
    seen = []

    def classify(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return np.round(batch[:, 0, 0, 0] * 1000).astype(int)

    labels = np.round(images[:, 0, 0, 0] * 1000).astype(int)
    values = per_trial(images, images, classify=classify, labels=labels)
    assert seen == [64, 64, 2]
    assert values["concept_top1"].tolist() == [1] * 130


def test_a_faulty_encoder_or_label_list_is_refused(stimuli: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="one row per image"):
        per_trial(stimuli, stimuli, embed=lambda images: _embed(images)[:1])
    with pytest.raises(ShapeError, match="3 true and 4 predicted"):
        per_trial(stimuli, stimuli, classify=_classify, labels=np.zeros(3, int))


def test_summary_has_means_differences_and_intervals(stimuli: np.ndarray) -> None:
    stimuli = np.concatenate([stimuli, stimuli[:, :, ::-1]])
    first, second = (per_trial(stimuli, _blend(stimuli, share), embed=_embed) for share in (0.9, 0.1))
    table = summarise(first, second, np.random.default_rng(0))
    assert list(table) == list(first)
    for name, row in table.items():
        assert row["stage1"] == pytest.approx(first[name].mean())
        assert row["stage2"] == pytest.approx(second[name].mean())
        assert row["difference"] == pytest.approx(row["stage2"] - row["stage1"])
        low, high = row["ci95"]
        assert low <= row["difference"] <= high
    assert table["pixcorr"]["ci95"][0] > 0
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_there_is_no_interval_below_five_trials() -> None:
    for n, has_one in ((1, False), (4, False), (5, True)):
        row = summarise({"a": np.zeros(n)}, {"a": np.ones(n)}, np.random.default_rng(0))["a"]
        assert (row["difference"], row["ci95"]) == (1.0, [1.0, 1.0] if has_one else None)


def test_an_interval_does_not_depend_on_the_other_metrics() -> None:
    rng = np.random.default_rng(1)
    first = {name: rng.random(15) for name in ("a", "b")}
    second = {name: rng.random(15) for name in ("a", "b")}
    both = summarise(first, second, np.random.default_rng(3), n_resamples=500)
    alone = summarise({"b": first["b"]}, {"b": second["b"]}, np.random.default_rng(3), n_resamples=500)
    assert alone["b"] == both["b"]


def test_stages_with_other_metrics_are_refused() -> None:
    with pytest.raises(InputError, match="expected the same"):
        summarise({"a": np.zeros(2)}, {"b": np.zeros(2)}, np.random.default_rng(0))
    with pytest.raises(ShapeError, match="same images"):
        summarise({"a": np.zeros(2)}, {"a": np.zeros(3)}, np.random.default_rng(0))


def test_metrics_import_nothing_heavier_than_numpy() -> None:
    script = (
        "import sys, minddiffuser.runtime.metrics.compare, minddiffuser.runtime.metrics.judge\n"
        "print([name for name in ('torch', 'scipy', 'skimage', 'PIL', 'safetensors') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
