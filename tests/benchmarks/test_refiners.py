"""The bench of refiners: rivals that go down their loss, runs that resume, and what the tables and the figure say."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from small_data import write_small_data

from minddiffuser.runtime.backends.torch import TorchBackend
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.files import read_tensors
from minddiffuser.runtime.generators.ddim import NoiseTable, add_noise, clean_estimate, ddim_schedule
from minddiffuser.runtime.refine.base import Problem
from minddiffuser.runtime.refine.costs import Costs
from minddiffuser.runtime.refine.settings import PRESETS, GuidedSettings
from minddiffuser.runtime.sampling import Sampling

FOLDER = Path(__file__).parents[2] / "benchmarks"
Load = Callable[[str], ModuleType]
COSTS = Costs(
    predict=2.0,
    pull_back=5.0,
    back_only=3.0,
    back_with_context=3.5,
    decode=4.0,
    structural=10.0,
    with_semantic=11.0,
    structural_forward=6.0,
    reference_flops=1,
    engines=False,
)


# ---- rivals, on a sampler of one formula whose derivatives are known by hand


class ToySampler:
    """The noise found in x is a smooth function of each value alone; everything in float64."""

    def __init__(self, latent: np.ndarray, sampling: Sampling) -> None:
        self._latent = latent
        self.schedule = ddim_schedule(NoiseTable(np.cumprod(1 - np.linspace(0.0009, 0.012, 1000))), sampling)

    def start(self, noise: Any) -> Any:
        return add_noise(self._latent, np.asarray(noise, np.float64), self.schedule.noise_keep)

    def predict(self, x: Any, k: int) -> tuple[Any, Any]:
        noise = np.tanh(x + 0.1 * k) + 0.3 * x
        return clean_estimate(x, noise, float(self.schedule.keep[k])), noise

    def linearise(self, x: Any, k: int) -> tuple[Any, Any, Callable[[Any], Any]]:
        keep = float(self.schedule.keep[k])
        found = 1.3 - np.tanh(x + 0.1 * k) ** 2
        return *self.predict(x, k), lambda v: v * (1 - (1 - keep) ** 0.5 * found) / keep**0.5


class ToyBackend:
    def __init__(self, latent: np.ndarray) -> None:
        self._latent = latent

    def generator(self, start: Any, noise: Any, sampling: Sampling, **_none: Any) -> ToySampler:
        return ToySampler(start, sampling)

    def structural(self, x0: Any, target: Any, weights: Any) -> tuple[Any, Any, Any]:
        error = x0 - target.reshape(x0.shape)
        return (error**2).sum((1, 2, 3)), 2 * error, x0[:, :3]


def toy_problem(rows: slice = slice(None)) -> Problem[Any]:
    rng = np.random.default_rng(0)
    latent, noise, target = (rng.standard_normal((3, 4, 2, 2))[rows] for _ in range(3))
    backend, sampling = ToyBackend(latent), Sampling(n_steps=20, n_noise=None, n_reverse=10)
    generator = backend.generator(latent, noise, sampling)
    problem: Any = Problem(
        backend=backend,  # type: ignore[arg-type]
        start=lambda trials: latent[list(trials)],
        noise=lambda _candidate: noise.astype(np.float32),
        generator=generator,  # type: ignore[arg-type]
        stage1=np.zeros((len(latent), 3, 2, 2)),
        sampling=sampling,
        target=target.reshape(-1, 1, 1, 16).astype(np.float32),
        mask=np.ones((1, 1, 16), bool),
        semantic=None,
        rows_at_once=16,
    )
    return problem


def unheard(_step: object) -> None:
    pass


def test_gradient_at_the_start_noise_is_that_of_finite_differences(load: Load) -> None:
    rivals, problem = load("refiner_rivals"), toy_problem()
    sampler = problem.backend.generator(problem.start(range(3)), None, Sampling(n_steps=8, n_noise=None, n_reverse=5))

    def loss(x0: Any) -> Any:
        return problem.backend.structural(x0, problem.target, None)  # type: ignore[arg-type]

    noise = np.random.default_rng(3).standard_normal((3, 4, 2, 2))
    _, gradient, _, _ = rivals.noise_gradient(sampler, noise, loss)
    direction = np.random.default_rng(4).standard_normal(noise.shape)
    ahead, behind = (rivals.noise_gradient(sampler, noise + step * direction, loss)[0] for step in (1e-5, -1e-5))
    assert (gradient * direction).sum((1, 2, 3)) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_start_noise_goes_down_and_keeps_the_best(load: Load) -> None:
    rivals, heard = load("refiner_rivals"), []
    settings = rivals.StartNoiseSettings(evaluations=8, learning_rate=0.5)
    found = rivals.start_noise(toy_problem(), settings, lambda step: heard.append((step.step, step.steps)))
    assert (found.loss_curve[1] < found.loss_curve[0]).all()
    assert (found.loss_curve.min(0) < 0.8 * found.loss_curve[0]).all()
    error = found.params["latent"] - toy_problem().target.reshape(3, 4, 2, 2)
    assert (error**2).sum((1, 2, 3)) == pytest.approx(found.loss_curve.min(0))
    assert found.best_step.tolist() == found.loss_curve.argmin(0).tolist()
    assert np.array_equal(found.image, found.params["latent"][:, :3])
    assert heard == [(k, 8) for k in range(1, 9)]
    assert not found.failed.any()


def test_start_noise_keeps_its_length(load: Load) -> None:
    """Without a loss, noise that is too long comes down to the length that Gaussian noise has."""
    rivals, problem = load("refiner_rivals"), toy_problem()
    lengths: list[float] = []

    def gradient(_sampler: Any, noise: Any, _loss: Any) -> Any:
        lengths.append(float(np.linalg.norm(noise[0])))
        return np.zeros(3), np.zeros(noise.shape), np.zeros((3, 3, 2, 2)), noise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals, "noise_gradient", gradient)
        longer = replace(problem, noise=lambda _candidate: np.full((3, 4, 2, 2), 3.0, np.float32))
        rivals.start_noise(longer, rivals.StartNoiseSettings(evaluations=200, clip=1e9, learning_rate=1.0), unheard)
    assert lengths[0] == 12.0
    assert lengths[-1] == pytest.approx(15**0.5, rel=0.05)  # (d - 1) ** 0.5


def test_raw_scale_goes_down_and_without_a_scale_it_is_stage_1(load: Load) -> None:
    rivals, problem = load("refiner_rivals"), toy_problem()
    plain, little = (
        rivals.raw_scale(problem, rivals.RawScaleSettings(scale=scale, guided_share=1.0), unheard)
        for scale in (0.0, 0.01)
    )
    x = problem.generator.start(problem.noise(0))
    for k, (_, _keep, keep_next) in enumerate(problem.generator.schedule):
        clean, noise = problem.generator.predict(x, k)
        x = keep_next**0.5 * clean + (1 - keep_next) ** 0.5 * noise
    assert np.allclose(plain.params["latent"], x)
    assert (little.loss_curve[-1] < plain.loss_curve[-1]).all()
    assert little.loss_curve.shape == (11, 3)


def test_raw_scale_steps_by_the_gradient_itself(load: Load) -> None:
    """One guided step: twice the scale moves twice as far, along the noise level times dL/dx."""
    rivals, problem = load("refiner_rivals"), toy_problem()
    one_step = replace(
        problem,
        sampling=Sampling(n_steps=20, n_noise=None, n_reverse=1),
        generator=ToySampler(problem.start(range(3)), Sampling(n_steps=20, n_noise=None, n_reverse=1)),  # type: ignore[arg-type]
    )
    latents = [
        rivals.raw_scale(one_step, rivals.RawScaleSettings(scale=scale, guided_share=1.0), unheard).params["latent"]
        for scale in (0.0, 0.1, 0.2)
    ]
    assert latents[2] - latents[0] == pytest.approx(2 * (latents[1] - latents[0]))
    sampler = one_step.generator
    x = sampler.start(problem.noise(0))
    clean, _, pull_back = sampler.linearise(x, 0)
    gradient = pull_back(2 * (clean - problem.target.reshape(clean.shape)))
    ((_, keep, keep_next),) = sampler.schedule
    of_noise = (1 - keep_next) ** 0.5 - (keep_next / keep) ** 0.5 * (1 - keep) ** 0.5
    assert latents[1] - latents[0] == pytest.approx(0.1 * of_noise * (1 - keep) ** 0.5 * gradient)


@pytest.mark.parametrize("name", ["raw_scale", "start_noise"])
def test_rivals_keep_trials_apart(load: Load, name: str) -> None:
    rivals = load("refiner_rivals")
    settings = {"raw_scale": rivals.RawScaleSettings(scale=0.1), "start_noise": rivals.StartNoiseSettings()}[name]
    together, alone = (
        getattr(rivals, name)(problem, settings, unheard) for problem in (toy_problem(), toy_problem(slice(1, 2)))
    )
    assert np.array_equal(together.image[1:2], alone.image)
    assert np.array_equal(together.loss_curve[:, 1:2], alone.loss_curve)


def test_a_trial_that_overflows_keeps_stage_1(load: Load) -> None:
    rivals, problem = load("refiner_rivals"), toy_problem()
    with np.errstate(all="ignore"):
        found = rivals.raw_scale(problem, rivals.RawScaleSettings(scale=1e200, guided_share=1.0), unheard)
    assert found.failed.all()
    assert np.array_equal(found.image, problem.stage1)


# ---- contestants


def test_costs_are_those_of_the_calls(load: Load) -> None:
    sampling = Sampling()
    module = load("refiner_contestants")
    known = module.at_equal_cost(module.contestants(), COSTS, sampling)
    single, default = PRESETS["single"], PRESETS["default"]
    assert isinstance(single, GuidedSettings)
    assert isinstance(default, GuidedSettings)
    n, n_guided = single.sampling(sampling).n_reverse, single.n_guided(sampling)
    cost = {name: contestant.cost(COSTS, sampling) for name, contestant in known.items()}
    assert cost["stage1"] == 35 * 2 + 4
    loss = 11 if single.semantic_weight > 0 else 10
    assert cost["start"] == n * 2 + loss
    # Steps before sampling, and after it, which begin and end with a loss.
    once, of_default = (each.start_steps * 10 + (each.finish_steps + 1) * loss for each in (single, default))
    one_pass = n * 2 + n_guided * (3 + loss) + loss
    assert cost["single"] == once + one_pass
    assert cost["no-jacobian"] == once + n * 2 + n_guided * loss + loss
    assert default.candidates is not None
    assert cost["default"] == of_default + default.candidates * one_pass
    assert cost["mpgd"] == 35 * 2 + 21 * 10 + 10
    assert cost["paper"] == 61 * (35 * 5.5 + 10)
    assert cost["final-latent"] == 35 * 2 + 61 * 10
    evaluations = known["start-noise"].settings.evaluations
    assert cost["start-noise"] == evaluations * (5 * 5 + 10)
    assert abs(cost["start-noise"] / cost["default"] - 1) < 0.05


def test_without_guidance_steps_cost_half(load: Load) -> None:
    module, plain = load("refiner_contestants"), Sampling(guidance_scale=1.0)
    half = replace(COSTS, predict=1.0, pull_back=2.5, back_only=1.5, back_with_context=1.75)
    for name, contestant in module.contestants().items():
        assert contestant.cost(COSTS, plain) == contestant.cost(half, Sampling()), name


def test_a_variant_changes_what_it_says(load: Load) -> None:
    module = load("refiner_contestants")
    known = module.contestants()
    changed = module.variant(known, "single@step_size=0.1,jacobian=false")
    assert changed.settings == replace(PRESETS["single"], step_size=0.1, jacobian=False)
    assert changed.name == "single@step_size=0.1,jacobian=false"
    names = [found.name for found in module.chosen(known, ["paper", "single"], ["raw-scale@scale=3"])]
    assert names == ["stage1", "paper", "single", "raw-scale@scale=3"]
    lists = module.variant(known, "single@layer_weights=[1,2,0.5],loss_mean=all").settings
    assert (lists.layer_weights, lists.loss_mean) == ((1, 2, 0.5), "all")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("nobody@a=1", "'nobody@a=1' is not understood"),
        ("single", "'single' is not understood"),
        ("stage1@a=1", "'stage1@a=1' is not understood"),
        ("start@step_size=0.1", "'start@step_size=0.1' is not understood"),
        ("single@nothing=1", "no setting 'nothing'"),
        ("single@step_size=fast", "step_size is 'fast'"),
        ("single@candidates=null,budget=300", "budget, which the bench does not use"),
        ("single@deadline=1", "deadline, which the bench does not use"),
        ("single@seed=7", "seed, which the bench does not use"),
        ("raw-scale@guided_share=1.5", "guided_share is 1.5"),
        ("raw-scale@scale=null", "scale is None"),
        ("raw-scale@semantic_weight=0.5", "semantic_weight is 0.5"),
        ("start-noise@evaluations=0", "evaluations is 0"),
        ("start-noise@evaluations=2.5", "evaluations is 2.5"),
        ("start-noise@n_reverse=9", "n_reverse is 9"),
    ],
)
def test_a_variant_that_is_none_is_refused(load: Load, text: str, part: str) -> None:
    module = load("refiner_contestants")
    with pytest.raises(InputError, match=re.escape(part)):
        module.variant(module.contestants(), text)


# ---- tables


def result(load: Load, name: str, condition: str, **values: list[float]) -> Any:
    arrays = {metric: np.array(given) for metric, given in values.items()}
    return load("refiner_table").Result(
        name=name, label=name.upper(), condition=condition, values=arrays, cost=2.0, seconds=[3.0, 1.0, 8.0]
    )


def test_differences_are_paired_and_pictures_count_once(load: Load) -> None:
    table = load("refiner_table")
    shown = ["a", "b", "b", "c", "d", "e"]
    results = [
        result(load, "stage1", "none", pixcorr=[0.1, 0.2, 0.4, 0.5, 0.0, 0.2]),
        result(load, "ours", "decoded", pixcorr=[0.2, 0.5, 0.5, 0.5, 0.2, 0.4]),
        result(load, "ours", "shuffled", pixcorr=[0.0, 0.2, 0.2, 0.3, 0.0, 0.1]),
    ]
    rows = table.rows_of(results, shown, reference="stage1", decoded="decoded", shuffled="shuffled")
    stage1, ours, shuffled = rows
    assert stage1.means["pixcorr"] == pytest.approx((0.1 + 0.3 + 0.5 + 0.0 + 0.2) / 5)
    assert ours.against_stage1["pixcorr"]["difference"] == pytest.approx((0.1 + 0.2 + 0.0 + 0.2 + 0.2) / 5)
    low, high = ours.against_stage1["pixcorr"]["ci95"]
    assert 0 < low < 0.14 < high <= 0.2 + 1e-9
    assert ours.against_shuffled["pixcorr"]["difference"] == pytest.approx((0.2 + 0.3 + 0.2 + 0.2 + 0.3) / 5)
    assert stage1.against_shuffled is shuffled.against_shuffled is None
    assert stage1.against_stage1["pixcorr"] == {"difference": 0.0, "ci95": [0.0, 0.0]}
    assert ours.seconds == 3.0


def test_the_text_has_a_line_for_each_row(load: Load) -> None:
    table = load("refiner_table")
    results = [
        result(load, "stage1", "none", pixcorr=[0.1] * 6, place=[0.5] * 6),
        result(load, "ours", "decoded", pixcorr=[0.2] * 6, place=[0.25] * 6),
        result(load, "ours", "shuffled", pixcorr=[0.15] * 6, place=[0.5] * 6),
    ]
    rows = table.rows_of(results, list("abcdef"), reference="stage1", decoded="decoded", shuffled="shuffled")
    title, means, changes, over = table.text(rows, "a title", reference="stage1").split("\n\n")
    assert title == "a title"
    assert [line.split() for line in means.splitlines()[1:]] == [
        ["STAGE1", "none", "0.100", "0.500", "2", "3.000"],
        ["OURS", "decoded", "0.200", "0.250", "2", "3.000"],
        ["OURS", "shuffled", "0.150", "0.500", "2", "3.000"],
    ]
    assert [line.split()[:3] for line in changes.splitlines()[1:]] == [
        ["OURS", "decoded", "+0.100"],
        ["OURS", "shuffled", "+0.050"],
    ]
    assert "+0.050 [+0.050, +0.050]" in over
    assert "-0.250 [-0.250, -0.250]" in over
    assert json.loads(json.dumps(table.as_json(rows[1])))["against_stage1"]["place"]["difference"] == -0.25


def test_subjects_are_pooled_by_the_metrics_of_all(load: Load) -> None:
    measure = load("refiner_measure")
    pooled = measure.pooled([{"a": np.array([1.0]), "b": np.array([2.0])}, {"b": np.array([3.0, 4.0])}])
    assert list(pooled) == ["b"]
    assert pooled["b"].tolist() == [2, 3, 4]
    subjects = [SimpleNamespace(place=SimpleNamespace(name=name), stimulus_ids=["x", "y"]) for name in "AB"]
    assert measure.pooled_ids(subjects, 1) == ["A/x", "B/x"]


# ---- the command, on networks of random weights


@pytest.fixture
def small(
    load: Load, monkeypatch: pytest.MonkeyPatch, small_world: Path, small_checkpoint: Path, tmp_path: Path
) -> Any:
    """The command on trials of a small subject, two in a batch: few steps, and the paper's setting with one update."""
    rows = np.random.default_rng(1).standard_normal((6, 24)).astype(np.float32)
    data = write_small_data(tmp_path / "data", rows).folder
    module, runs, known = load("refiners"), load("refiner_runs"), load("refiner_contestants")
    monkeypatch.setattr(runs, "BATCH", 2)
    opened, short = module.open_subject, Sampling(n_steps=10, n_noise=None, n_reverse=4)
    monkeypatch.setattr(module, "open_subject", lambda *a, **more: replace(opened(*a, **more), sampling=short))
    monkeypatch.setattr(known, "PAPER", replace(PRESETS["paper"], steps=1))
    few = {"start_steps": 2, "finish_steps": 1, "n_steps": 6, "strength": 0.5}
    monkeypatch.setattr(known, "SINGLE", replace(PRESETS["single"], **few, semantic_weight=0.0))
    monkeypatch.setattr(TorchBackend, "costs", COSTS)  # counting takes longer than everything else here

    def run(out: str, *more: str) -> int:
        names = ["--refiners", "single,paper,raw-scale", "--trials", "3", "--heavy-trials", "2"]
        where = ["--out", str(tmp_path / out), "--models", str(small_world)]
        return int(module.main([*where, "--subject", str(data), str(small_checkpoint), *names, *more]))

    return SimpleNamespace(run=run, folder=tmp_path, module=module, runs=runs, known=known)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.relative_to(folder).as_posix(): read_tensors(path, "pictures")["pictures"]
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.mark.long
def test_a_run_that_was_stopped_goes_on(
    small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["--conditions", "decoded,shuffled"]
    assert small.run("whole", *kinds) == 0
    whole, real, calls = pictures(small.folder / "whole"), small.runs.reconstruct, []

    def stopped(*given: Any) -> Any:
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(small.runs, "reconstruct", stopped)
    assert small.run("broken", *kinds) == 130
    first = pictures(small.folder / "broken")
    assert len(first) == 4
    calls.clear()
    monkeypatch.setattr(small.runs, "reconstruct", lambda *given: (calls.append(given), real(*given))[1])
    assert small.run("broken", *kinds) == 0
    assert len(calls) == len(whole) - 4
    resumed = pictures(small.folder / "broken")
    assert resumed.keys() == whole.keys()
    assert all(np.array_equal(resumed[name], array) for name, array in whole.items())
    # two batches, of 2 trials and of 1: stage 1 once, two refiners toward two targets, the heavy one in the first
    assert len(whole) == 2 * (1 + 2 * 2) + 2
    toward = [array for name, array in whole.items() if "/single/" in name and name.endswith("0000-0001.safetensors")]
    assert len(toward) == 2
    assert not np.array_equal(*toward)
    printed = capsys.readouterr().out
    assert printed.count("first 2 trials") == 2
    assert printed.count("3 trials each") == 2


def test_heavy_refiners_are_compared_on_the_trials_that_they_have(small: Any) -> None:
    path = small.folder / "found.json"
    assert small.run("out", "--json", str(path), "--conditions", "decoded,shuffled") == 0
    all_trials, few = json.loads(path.read_text())["tables"]
    assert (all_trials["n_trials"], few["n_trials"]) == (3, 2)
    names = [[(row["name"], row["condition"]) for row in found["rows"]] for found in (all_trials, few)]
    light = [
        ("stage1", "none"),
        *((name, kind) for name in ("single", "raw-scale") for kind in ("decoded", "shuffled")),
    ]
    assert sorted(names[0]) == sorted(light)
    assert sorted(names[1]) == sorted([*light, ("paper", "decoded"), ("paper", "shuffled")])
    rows = {(row["name"], row["condition"]): row for row in few["rows"]}
    paper, stage1 = rows["paper", "decoded"], rows["stage1", "none"]
    assert paper["n_trials"] == stage1["n_trials"] == 2
    change = paper["against_stage1"]["pixcorr"]
    assert change["difference"] == pytest.approx(paper["means"]["pixcorr"] - stage1["means"]["pixcorr"])
    assert change["ci95"] is None  # of two pictures there is no interval


def test_without_recognition_there_is_no_front(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    figure = small.folder / "front.svg"
    assert small.run("out", "--refiners", "single", "--conditions", "decoded", "--figure", str(figure)) == 2
    assert "concept_top1" in capsys.readouterr().err
    assert not figure.exists()


def test_pictures_of_other_settings_are_refused(
    small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small.run("out", "--conditions", "decoded") == 0
    before = pictures(small.folder / "out")
    monkeypatch.setattr(small.known, "SINGLE", replace(small.known.SINGLE, step_size=0.01))
    capsys.readouterr()
    assert small.run("out", "--conditions", "decoded") == 2
    assert "pictures of other settings (there is another settings)" in capsys.readouterr().err
    assert small.run("out", "--conditions", "decoded", "--table-only") == 2
    assert "pictures of other settings (there is another settings)" in capsys.readouterr().err
    after = pictures(small.folder / "out")
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], array) for name, array in before.items())


def test_pictures_of_other_code_are_refused(
    small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A rival's code decides the rival's pictures alone."""
    digests = {name: small.runs.code_digest(one) for name, one in small.known.contestants().items()}
    assert len({digests[name] for name in ("single", "default", "paper")}) == 1
    assert len({digests[name] for name in ("stage1", "single", "raw-scale")}) == 3
    assert small.run("out", "--refiners", "raw-scale", "--conditions", "decoded") == 0
    other = tmp_path / "refiner_rivals.py"
    other.write_text("changed")
    monkeypatch.setattr(small.runs, "refiner_rivals", SimpleNamespace(__file__=str(other)))
    changed = [name for name, one in small.known.contestants().items() if small.runs.code_digest(one) != digests[name]]
    assert changed == ["raw-scale", "start-noise"]
    capsys.readouterr()
    assert small.run("out", "--refiners", "raw-scale", "--conditions", "decoded") == 2
    assert "there is another code" in capsys.readouterr().err


def test_a_refiner_without_all_its_pictures_is_left_out_aloud(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["--refiners", "raw-scale", "--conditions", "decoded"]
    assert small.run("out", *names) == 0
    next((small.folder / "out").rglob("raw-scale/decoded/*.safetensors")).unlink()
    capsys.readouterr()
    assert small.run("out", *names, "--table-only") == 0
    printed = capsys.readouterr()
    assert printed.err == "left out: raw-scale, decoded, 1 of 2 batches\n"
    assert "raw gradient" not in printed.out


def test_names_are_checked_before_a_subject_is_made(
    small: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(small.module, "open_subject", None)
    for wrong in (["--refiners", "nobody"], ["--variant", "single@seed=7"], ["--heavy-trials", "1"]):
        assert small.run("out", *wrong) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_subject_counts_once(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("refiners")
    monkeypatch.setattr(module, "simulated", lambda _out, _brain, seed, **_more: seed)
    words = ["--out", str(tmp_path), "--seed", "1", "2", "1"]
    assert list(module.places(module.parser().parse_args(words))) == [1, 2]


def test_one_subject_is_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module, made = load("refiners"), []
    monkeypatch.setattr(module, "simulated", lambda _out, _brain, seed, **_more: made.append(seed) or seed)
    monkeypatch.setattr(module, "open_subject", lambda place, *_given, **_more: place)
    monkeypatch.setattr(module, "time_refiners", lambda subject, **_more: {"subject": subject})
    monkeypatch.setattr(module.torch, "set_num_threads", lambda _n: None)
    assert module.main(["--out", str(tmp_path), "--seed", "4", "5", "--time"]) == 0
    assert made == [4]
    assert "one subject" in capsys.readouterr().err


@pytest.mark.long
def test_more_trials_keep_whole_batches(small: Any) -> None:
    assert small.run("out", "--conditions", "decoded", "--trials", "2") == 0
    (path,) = (small.folder / "out").rglob("single/decoded/*.safetensors")
    at = path.stat().st_mtime_ns
    assert small.run("out", "--conditions", "decoded", "--trials", "4") == 0
    assert path.stat().st_mtime_ns == at
    assert len(list((small.folder / "out").rglob("single/decoded/*.safetensors"))) == 2


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--trials", "7"], "6 test trials"),
        (["--conditions", "guessed"], "--conditions"),
        (["--heavy-trials", "1"], "--heavy-trials"),
        (["--refiners", "nobody"], "no refiner nobody"),
        (["--table-only"], "stage 1 are not there yet"),
        (["--variant", "single@candidates=null,budget=300"], "budget"),
        (["--variant", "single@seed=7"], "seed"),
        (["--variant", "raw-scale@scale=null"], "scale is None"),
        (["--variant", "single@layer_weights=heavy"], "layer_weights is 'heavy'"),
        (["--threads", "0"], "--threads"),
        (["--repeats", "0"], "--repeats"),
    ],
)
def test_a_mistake_is_one_sentence(small: Any, capsys: pytest.CaptureFixture[str], more: list[str], part: str) -> None:
    assert small.run("out", *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("refiners.py: ")
    assert part in line


def test_a_subject_is_simulated_and_fitted_once(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, commands = load("refiner_runs"), []

    def command(words: Any) -> int:
        commands.append(list(words))
        sys.stdout.write("a table\n")
        done = {"simulate": "data/data.json", "fit": "checkpoint/checkpoint.json"}[words[0]]
        (tmp_path / "gabor-3" / done).parent.mkdir(parents=True)
        (tmp_path / "gabor-3" / done).write_text("{}")
        return 0

    monkeypatch.setattr(runs, "md_train", command)
    places = [runs.simulated(tmp_path, "gabor", 3, threads=1, say=lambda _line: None) for _ in range(2)]
    assert places[0] == places[1]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "a table\na table\n")
    assert [words[0] for words in commands] == ["simulate", "fit"]
    assert commands[0][1:6] == ["fmri", "--brain", "gabor", "--seed", "3"]
    monkeypatch.setattr(runs, "md_train", lambda _words: 2)
    with pytest.raises(InputError, match="md-train simulate fmri"):
        runs.simulated(tmp_path, "clip", 4, threads=1, say=lambda _line: None)


# ---- figure and times


def mark(load: Load, x: float, y: float, **settings: Any) -> Any:
    base = {"refiner": "guided", "jacobian": True, "step_size": 0.25, "candidates": 1}
    given = {**base, **settings}
    return load("refiner_front").Mark(
        label=f"<{x}>", x=(x, x - 0.01, x + 0.01), y=(y, y - 0.02, y + 0.02), settings=given
    )


def test_passes_that_differ_in_one_setting_are_joined(load: Load) -> None:
    front = load("refiner_front")
    single, default = mark(load, 0.1, 0.0), mark(load, 0.2, 0.01, candidates=6)
    start, strong = mark(load, 0.02, 0.0, step_size=0), mark(load, 0.15, -0.1, step_size=0.5)
    others = [mark(load, 0.3, -0.3, refiner="adam"), mark(load, 0.1, 0.1, jacobian=False)]
    found = front.lines([strong, *others, default, start, single])
    assert found == [[single, strong], [single, default]]  # at the start nothing is guided
    assert not start.is_ours


def test_the_figure_is_whole_and_for_both_schemes(load: Load) -> None:
    marks = [mark(load, 0.1, -0.05), mark(load, 0.2, 0.01, candidates=6), mark(load, -0.02, -0.3, refiner="adam")]
    drawn = load("refiner_front").front(marks, x="more & more", y="meaning")
    root = ElementTree.fromstring(drawn)
    name = "{http://www.w3.org/2000/svg}"
    circles, squares = root.findall(f"{name}circle"), root.findall(f"{name}rect")[1:]
    assert (len(circles), len(squares)) == (2, 1)
    assert float(circles[0].attrib["cx"]) < float(circles[1].attrib["cx"])  # more PixCorr to the right
    assert float(circles[1].attrib["cy"]) < float(circles[0].attrib["cy"])  # more meaning further up
    bars = [line for line in root.findall(f"{name}line") if "bar" in line.attrib["class"]]
    assert len(bars) == 6
    zeros = [line for line in root.findall(f"{name}line") if line.attrib["class"] == "zero"]
    assert len(zeros) == 2
    texts = ["".join(text.itertext()) for text in root.findall(f"{name}text")]
    assert "more & more" in texts
    assert "3 <-0.02>" in texts
    assert "prefers-color-scheme:dark" in drawn
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    for shape in (*circles, *squares):
        x, y = (float(shape.attrib[key]) for key in (("cx", "cy") if "cx" in shape.attrib else ("x", "y")))
        assert 0 < x < width
        assert 0 < y < height


def test_heavy_refiners_are_drawn_from_their_own_trials(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    module, table = load("refiners"), load("refiner_table")

    def rows(names: list[str], shift: float) -> list[Any]:
        stage1 = result(load, "stage1", "none", pixcorr=[0.0] * 6, concept_top1=[1.0] * 6)
        others = [result(load, name, "decoded", pixcorr=[shift] * 6, concept_top1=[1.0 - shift] * 6) for name in names]
        found: list[Any] = table.rows_of(
            [stage1, *others], list("abcdef"), reference="stage1", decoded="decoded", shuffled="shuffled"
        )
        return found

    known = load("refiner_contestants").contestants()
    plan = SimpleNamespace(contestants=[known[name] for name in ("stage1", "single", "paper")], n_trials=9)
    drawn: list[Any] = []
    monkeypatch.setattr(module, "front", lambda marks, **_axes: drawn.extend(marks))
    module.figure({9: rows(["single"], 0.1), 6: rows(["single", "paper"], 0.2)}, plan)
    assert [(mark.label, round(mark.x[0], 6), round(mark.y[0], 6)) for mark in drawn] == [
        ("SINGLE", 0.1, -0.1),
        ("PAPER, 6 trials", 0.2, -0.2),
    ]
    assert drawn[0].is_ours
    assert not drawn[1].is_ours


def test_times_are_compared_with_what_was_asked(
    load: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times, timed = load("refiner_times"), {}
    few, more = (f"paper, {n} of 60 updates" for n in (1, 3))

    def in_turn(work: dict[str, Any], repeats: int) -> dict[str, list[float]]:
        for name, one in work.items():
            timed[name] = one()
        assert repeats == 2
        return {few: [3.0, 6.0], more: [5.0, 10.0], "default": [10.0, 20.0], "single": [4.0, 8.0]}

    batch = SimpleNamespace(trials=range(4), problem=lambda _condition, _contestant: None)
    monkeypatch.setattr(times, "Batch", lambda _subject, _trials: batch)
    monkeypatch.setattr(times, "reconstruct", lambda _batch, contestant, _condition: contestant.settings)
    monkeypatch.setattr(times, "interleaved", in_turn)
    monkeypatch.setattr(times, "random_models", lambda _device: None)
    monkeypatch.setattr(times, "ways", lambda _models: {"autograd": COSTS})

    class Four(SimpleNamespace):
        def __len__(self) -> int:
            return 4

    subject = Four(backend=SimpleNamespace(costs=COSTS), sampling=Sampling())
    found = times.time_refiners(subject, repeats=2, say=lambda _line: None)
    assert timed == {
        few: replace(PRESETS["paper"], steps=1),
        more: replace(PRESETS["paper"], steps=3),
        "default": PRESETS["default"],
        "single": PRESETS["single"],
    }
    assert found["seconds per trial"] == pytest.approx({"paper": 62 * 1.5 / 4, "default": 15 / 4, "single": 6 / 4})
    seconds = {verdict["goal"]: verdict for verdict in found["verdicts"]}
    assert seconds["seconds, tiny world, default"]["times_less"] == pytest.approx(6.2)
    assert seconds["seconds, tiny world, default"]["met"] is True
    assert seconds["seconds, tiny world, single"]["met"] is False  # 15.5 times, asked 18
    assert len(found["verdicts"]) == 2 + 2 * 2
    assert capsys.readouterr().out.count(" x less, asked ") == 6


def test_few_updates_count_as_all_and_costs_as_ratios(load: Load) -> None:
    times = load("refiner_times")
    once, each = 5.0, 2.0
    turns = {f"paper, {n} of 60 updates": [once + (n + 1) * each] for n in (1, 3)}
    assert times.with_whole_paper({**turns, "default": [3.0], "single": [1.0]}) == {
        "paper": [once + 61 * each],
        "default": [3.0],
        "single": [1.0],
    }
    found = times.cost_ratios(COSTS, Sampling())
    known = load("refiner_contestants").contestants()
    single = known["single"].cost(COSTS, Sampling())
    assert found["activations kept"]["single"] == pytest.approx(61 * (35 * 5.5 + 10) / single)
    assert found["checkpoints"]["single"] == pytest.approx(61 * (35 * 7.5 + 10) / single)
    engines = times.cost_ratios(replace(COSTS, engines=True, back_only=5.0, back_with_context=5.0), Sampling())
    assert list(engines) == ["engines"]
    assert times.verdict("goal", 5.9, 6.0)["met"] is False
    assert times.verdict("goal", 6.0, 6.0)["met"] is True
