"""A budget or a deadline is candidates before anything is computed, and stays what it was when the run goes on.

The toy bundle's graphs are given costs by hand: a UNet forward pass is 1000 operations.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime import backends, cli
from minddiffuser.runtime.backends import torch as torch_backend
from minddiffuser.runtime.backends.base import Options
from minddiffuser.runtime.refine.costs import Costs
from minddiffuser.runtime.refine.settings import AdamSettings, GuidedSettings
from minddiffuser.runtime.run import budget
from minddiffuser.runtime.run.reconstruct import ReconstructSettings

ROWS = np.random.default_rng(1).standard_normal((3, 24)).astype(np.float32)
FLOPS = {"denoise": 2000, "vae_decode": 1000, "structure_gradient": 5000, "denoise_gradient": 3000}
# Once for a trial, three steps of the decoded latent itself. For each candidate, four denoising steps of two passes,
# two of them guided (5, and 3 for the way back), and the loss of the picture.
STEPS = [
    "--start-steps",
    "3",
    "--finish-steps",
    "0",
    "--n-steps",
    "8",
    "--strength",
    "0.5",
    "--guided-share",
    "0.5",
    "--semantic-weight",
    "0",
]
COUNTED: dict[str, Costs] = {}
ONCE = 3 * 5
ONE_CANDIDATE = 4 * 2 + 2 * (5 + 3) + 5


@pytest.fixture(autouse=True)
def _counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are those of the small world's shapes, whoever opens it: they are counted once, which takes seconds."""
    real = torch_backend.autograd_costs

    def once(models: Any) -> Costs:
        if models.hash not in COUNTED:
            COUNTED[models.hash] = real(models)
        return COUNTED[models.hash]

    monkeypatch.setattr(torch_backend, "autograd_costs", once)


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    content = json.loads(path.read_text())
    for name, flops in FLOPS.items():
        content["graphs"][name]["flops"] = flops
    path.write_text(json.dumps(content))
    return tmp_path / "bundle"


@pytest.fixture
def run(bundle: Path, tmp_path: Path) -> Callable[..., int]:
    np.save(tmp_path / "responses.npy", ROWS)
    start = ["run", str(bundle), str(tmp_path / "responses.npy"), "--out", str(tmp_path / "run"), *STEPS]

    def go(*options: str) -> int:
        return cli.main([*start, "--threads", "1", *options])

    return go


def settled(tmp_path: Path) -> dict[str, Any]:
    refine: dict[str, Any] = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]["refine"]
    return refine


@pytest.mark.parametrize(
    ("options", "cost"), [([], ONE_CANDIDATE), (["--no-jacobian"], 4 * 2 + 2 * 5 + 5), (["--step-size", "0"], 13)]
)
def test_a_budget_is_as_many_candidates_as_it_pays(
    options: list[str], cost: float, run: Callable[..., int], tmp_path: Path
) -> None:
    assert run("--budget", str(ONCE + 3.9 * cost), *options) == 0
    assert (settled(tmp_path)["candidates"], settled(tmp_path)["budget"]) == (3, pytest.approx(ONCE + 3.9 * cost))
    curves = [json.loads(path.read_text()) for path in (tmp_path / "run" / "curves").iterdir()]
    assert [len(curve["candidates"]) for curve in curves] == [3, 3, 3]


def test_the_very_cost_of_one_candidate_pays_it_and_less_does_not(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--budget", str(ONCE + ONE_CANDIDATE - 0.5)) == 2
    said = "the budget is 43.5, and one candidate of a trial costs 44.0: give more, or fewer finish_steps"
    assert capsys.readouterr().err.startswith(f"md-reconstruct: {said}")
    assert not (tmp_path / "run").exists()
    assert run("--budget", str(ONCE + ONE_CANDIDATE)) == 0
    assert settled(tmp_path)["candidates"] == 1


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Seconds of a UNet forward pass in what is done once and in a candidate, of each measurement to come."""
    left: list[tuple[float, float]] = []
    monkeypatch.setattr(budget, "paces", lambda *_given, **_named: left.pop(0))
    return left


def test_a_deadline_is_measured_once_and_kept(
    run: Callable[..., int], pace: list[tuple[float, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on when the machine has become slower computes what it would have computed."""
    pace += [(2.0, 0.5), (50.0, 50.0)]
    worth = ONCE + 2.5 * ONE_CANDIDATE
    options = ["--deadline", str(2.0 * ONCE + 0.5 * 2.5 * ONE_CANDIDATE)]
    assert run(*options) == 0
    assert (settled(tmp_path)["candidates"], settled(tmp_path)["budget"]) == (2, worth)
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("images/*/*.png")}
    shutil.rmtree(tmp_path / "run" / "journal")
    assert run(*options) == 0
    assert {path: path.read_bytes() for path in before} == before
    assert pace == [(50.0, 50.0)], "it was measured again"
    assert settled(tmp_path)["candidates"] == 2
    capsys.readouterr()
    for other in (["--deadline", "1000"], ["--budget", str(worth)], ["--candidates", "2"]):
        assert run(*other) == 2
        assert "belongs to a run with other settings" in capsys.readouterr().err
    assert pace == [(50.0, 50.0)]


def test_a_deadline_too_short_for_one_candidate_is_one_sentence(
    run: Callable[..., int], pace: list[tuple[float, float]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pace += [(2.0, 0.5)]
    assert run("--deadline", "44") == 2
    said = "the deadline is 44 s, and one candidate of a trial takes 44.5 s here: give more, or fewer finish_steps"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "there",
    [None, 3, {}, {"refine": 3}, {"refine": {"deadline": 5.0}}, {"refine": {"deadline": 5.0, "candidates": "2"}}],
)
def test_what_a_damaged_folder_says_is_not_taken_over(there: Any, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"settings": there}))
    settings = ReconstructSettings(refine=GuidedSettings(candidates=None, deadline=5.0))
    assert budget.settled_before(settings, tmp_path) == settings


def test_what_needs_no_candidates_is_left_alone(tmp_path: Path) -> None:
    nothing: Any = None
    for settings in (
        ReconstructSettings(refine=AdamSettings()),
        ReconstructSettings(refine=GuidedSettings(candidates=3)),
        ReconstructSettings(stage=1, refine=GuidedSettings(candidates=None, budget=10.0)),
    ):
        assert budget.settle(settings, nothing, ROWS, rows_at_once=2) == settings


GUIDANCE: list[tuple[dict[str, Any], int, int]] = [
    # settings, and how many guided steps and ways back through the UNet a pass of one step has
    ({}, 1, 1),
    ({"jacobian": False}, 1, 0),
    ({"step_size": 0.0}, 0, 0),
    ({"guided_share": 0.0}, 0, 0),
]


@pytest.mark.parametrize(("given", "n_guided", "n_back"), GUIDANCE)
@pytest.mark.parametrize("kind", ["bundle", pytest.param("checkpoint", marks=pytest.mark.long)])
def test_paces_are_medians_of_the_run_s_own_steps_per_forward_pass(
    kind: str,
    given: dict[str, Any],
    n_guided: int,
    n_back: int,
    bundle: Path,
    small_checkpoint: Path,
    small_world: Path,
) -> None:
    """By a clock on which each first call, which compiles, takes an hour, and the others 4, 2 and 100 s, or 7, 9, 8.

    The backend is opened for what a run of the settings needs, and no more.
    """
    clock = iter(np.cumsum([0, 3600, 1, 4, 1, 2, 1, 100, 1, 3600, 1, 7, 1, 9, 1, 8]).tolist())
    refine = GuidedSettings(semantic_weight=0.0, **given)
    settings = ReconstructSettings(refine=refine)
    if kind == "bundle":
        folder, options = bundle, Options(threads=1, needs=settings.needs)
    else:
        folder, options = small_checkpoint, Options(models=str(small_world), device="cpu", needs=settings.needs)
    with backends.open(folder, options) as backend:
        backend.start()
        once, one = budget.paces(
            refine, settings.sampling, backend, ROWS[:2], rows_at_once=3, clock=lambda: next(clock)
        )
        costs = backend.costs
    assert once == pytest.approx(4 / (2 * costs.structural))
    units = costs.predict + n_guided * costs.structural + n_back * costs.back_only + costs.structural
    assert one == pytest.approx(8 / (3 * units))


def test_pytorchs_networks_have_costs_of_their_own(small_checkpoint: Path, small_world: Path) -> None:
    refine = GuidedSettings(
        candidates=None,
        budget=1e4,
        start_steps=30,
        finish_steps=0,
        n_steps=8,
        strength=0.5,
        guided_share=0.5,
        semantic_weight=0.0,
    )
    with backends.open(small_checkpoint, Options(models=str(small_world), device="cpu")) as backend:
        backend.start()
        found = budget.settle(ReconstructSettings(refine=refine), backend, ROWS, rows_at_once=2).refine
        costs = backend.costs
    once = 30 * costs.structural
    one = 4 * costs.predict + 2 * (costs.structural + costs.back_only) + costs.structural
    assert isinstance(found, GuidedSettings)
    assert found.candidates == int((1e4 - once) / one) > 1
