from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.metrics.compare import differences, mean, summarise


def test_summary_has_means_differences_and_intervals() -> None:
    rng = np.random.default_rng(2)
    first = {"a": rng.random(8), "b": rng.random(8)}
    second = {"a": first["a"] + 0.5 + 0.1 * rng.random(8), "b": rng.random(8)}
    table = summarise(first, second, np.random.default_rng(0))
    assert list(table) == ["a", "b"]
    for name, row in table.items():
        assert row["stage1"] == pytest.approx(first[name].mean())
        assert row["stage2"] == pytest.approx(second[name].mean())
        assert row["difference"] == pytest.approx(row["stage2"] - row["stage1"])
        low, high = row["ci95"]
        assert low <= row["difference"] <= high
    assert table["a"]["ci95"][0] > 0.49
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_picture_counts_once_however_often_it_was_shown() -> None:
    """Seven trials of picture p and one each of four others: by trials the mean would be p's."""
    ids = ["p"] * 7 + list("qrst")
    first, second = np.zeros(11), np.array([1.0] * 7 + [0.0] * 4)
    row = summarise({"a": first}, {"a": second}, np.random.default_rng(0), stimulus_ids=ids)["a"]
    assert (row["stage2"], row["difference"]) == (0.2, 0.2)
    assert mean(second, ids) == 0.2
    assert mean(second) == pytest.approx(7 / 11)


def test_repeats_do_not_narrow_an_interval() -> None:
    """Each of six pictures shown ten times with the same outcome says what six trials say, not what sixty do."""
    once = np.random.default_rng(4).normal(size=6)
    ids = [str(picture) for picture in range(6) for _ in range(10)]
    zeros = {"a": np.zeros(6)}
    alone = differences(zeros, {"a": once}, np.random.default_rng(0))["a"]
    often = differences({"a": np.zeros(60)}, {"a": np.repeat(once, 10)}, np.random.default_rng(0), stimulus_ids=ids)[
        "a"
    ]
    assert alone["ci95"] is not None
    assert often["ci95"] == pytest.approx(alone["ci95"])


def test_there_is_no_interval_below_five_pictures() -> None:
    for n, has_one in ((1, False), (4, False), (5, True)):
        for repeats in (1, 3):
            ids = [str(picture) for picture in range(n)] * repeats
            zeros, ones = {"a": np.zeros(len(ids))}, {"a": np.ones(len(ids))}
            row = summarise(zeros, ones, np.random.default_rng(0), stimulus_ids=ids)["a"]
            assert (row["difference"], row["ci95"]) == (1.0, [1.0, 1.0] if has_one else None)


def test_an_interval_does_not_depend_on_the_other_metrics() -> None:
    rng = np.random.default_rng(1)
    first = {name: rng.random(15) for name in ("a", "b")}
    second = {name: rng.random(15) for name in ("a", "b")}
    both = summarise(first, second, np.random.default_rng(3), n_resamples=500)
    alone = summarise({"b": first["b"]}, {"b": second["b"]}, np.random.default_rng(3), n_resamples=500)
    assert alone["b"] == both["b"]


def test_what_does_not_fit_together_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="expected the same"):
        summarise({"a": np.zeros(2)}, {"b": np.zeros(2)}, rng)
    with pytest.raises(ShapeError, match="same trials"):
        summarise({"a": np.zeros(2)}, {"a": np.zeros(3)}, rng)
    with pytest.raises(ShapeError, match="3 stimulus ids for 2 trials"):
        summarise({"a": np.zeros(2)}, {"a": np.zeros(2)}, rng, stimulus_ids=["p", "q", "r"])


def test_metrics_import_nothing_heavier_than_numpy() -> None:
    script = (
        "import sys, minddiffuser.runtime.metrics.compare, minddiffuser.runtime.metrics.extractors\n"
        "print([name for name in ('torch', 'scipy', 'skimage', 'PIL', 'safetensors') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
