"""The tables of costs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.settings import PRESETS
from minddiffuser.runtime.sampling import Sampling

_WAYS: list[Any] = []


@pytest.fixture
def costs(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, small_world: Path) -> ModuleType:
    """benchmarks/costs.py, with the same small networks in both places, whose operations are counted once."""
    module = load("costs")
    count: Callable[[Any], Any] = module.ways

    def ways(models: Any) -> Any:
        if not _WAYS:
            _WAYS.append(count(models))
        return _WAYS[0]

    monkeypatch.setattr(module, "ways", ways)
    models = load_models(str(small_world))
    monkeypatch.setattr(module, "load_models", lambda _name: models)
    monkeypatch.setattr(module, "random_models", lambda _device: models)
    return module


@pytest.mark.long
def test_timed_calls_are_costs_of_the_same_pictures(
    costs: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each call takes what is written here; the real calls are made once."""
    seconds = {
        "predict": 4.0,
        "pull_back": 10.0,
        "decode": 6.0,
        "structural": 12.0,
        "with_semantic": 14.0,
        "structural_forward": 7.0,
    }

    def in_turn(work: dict[str, Any], repeats: int) -> dict[str, list[float]]:
        for call in work.values():
            call()
        return {name: [seconds[name]] * repeats for name in work}

    monkeypatch.setattr(sys.modules["call_times"], "interleaved", in_turn)
    monkeypatch.setattr(costs, "rows", list)  # they have a test of their own
    assert costs.main(["--json", "--time", "--repeats", "2", "--threads", "1"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    timed = [row for row in found if row["way"] == "autograd, timed"]
    assert [row["world"] for row in timed] == ["tiny world", "SD 1.4"]
    for row in timed:
        assert row["calls"] == {
            "predict": 2.0,
            "back_only": 3.0,
            "pull_back": 5.0,
            "decode": 3.0,
            "structural": 6.0,
            "with_semantic": 7.0,
            "structural_forward": 3.5,
        }
        assert row["pictures"]["stage 1"] == pytest.approx(2 * Sampling().n_reverse + 3)


def test_both_worlds_and_both_ways(costs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert costs.main(["--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [(row["world"], row["way"]) for row in rows] == [
        (world, way) for world in ("tiny world", "SD 1.4") for way in ("autograd", "engines")
    ]
    n_reverse = Sampling().n_reverse
    for row in rows:
        calls, pictures = row["calls"], row["pictures"]
        assert calls["predict"] == 2.0
        assert pictures["stage 1"] == pytest.approx(2 * n_reverse + calls["decode"], rel=1e-12)
        single = PRESETS["single"]
        n_steps, n_guided = single.sampling(Sampling()).n_reverse, single.n_guided(Sampling())
        guided = n_guided * (calls["back_only"] + calls["with_semantic"]) + calls["with_semantic"]
        finish = (single.n_finish + 1) * calls["with_semantic"] if single.n_finish else 0
        expected = n_steps * 2 + guided + single.start_steps * calls["structural"] + finish
        engines = row["way"] == "engines"  # which compute the term always
        assert (
            calls["with_semantic"] == calls["structural"] if engines else calls["with_semantic"] > calls["structural"]
        )
        assert pictures["guided, single"] == pytest.approx(expected, rel=1e-12)
        assert pictures["guided, single"] <= pictures["guided, default"]
        assert pictures["adam, final latent"] < pictures["adam, activations kept"] <= pictures["adam, checkpoints"]
    autograd, engines = rows[:2]
    assert autograd["pictures"]["adam, activations kept"] < engines["pictures"]["adam, activations kept"]
    assert autograd["reference_flops"] == engines["reference_flops"] > 0


def test_the_tables_are_aligned(costs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert costs.main([]) == 0
    calls, pictures = capsys.readouterr().out.strip("\n").split("\n\n")
    for table in (calls, pictures):
        head, *lines = table.split("\n")
        assert len(lines) == 4
        assert {len(line) for line in lines} == {len(head)}
    assert all(name in calls for name in costs.CALLS)


@pytest.mark.parametrize("option", ["--threads", "--repeats"])
def test_counts_are_one_or_more(costs: ModuleType, capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        costs.main([option, "0"])
    assert f"{option}: '0' is not a whole number from 1" in capsys.readouterr().err
