"""The benchmark of a fold computes the same in both ways."""

import json
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.mark.parametrize("n_trials", [20, 60])
def test_both_ways_agree(
    n_trials: int,
    load: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--shape", "4", "6", "--n-trials", str(n_trials), "--n-targets", "9", "--repeats", "2", "--alpha", "2"]
    monkeypatch.setattr("sys.argv", ["ridge_folds.py", *given, "--json"])
    load("ridge_folds").main()
    found = json.loads(capsys.readouterr().out)
    assert found["largest_difference"] < 1e-6
    assert found["ratio"] > 0
    assert found["shape"] == [4, 6]
