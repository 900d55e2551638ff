"""Several start noises: which is kept, whose noise is whose, and what must make no difference to a trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.base import Problem, Refined, Step
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

SAMPLING = Sampling(guidance_scale=3.0, n_steps=10, n_noise=None, n_reverse=5)
AS_STAGE_1: dict[str, Any] = {
    "semantic_weight": 0.0,
    "start_steps": 0,
    "finish_steps": 0,
    "n_steps": None,
    "strength": None,
    "step_size": 0.2,
    "guided_share": 0.6,
}
TRIALS = ("a", "b", "c", "d")
Make = Callable[..., Problem[Any]]


def settings(candidates: int = 3, **given: Any) -> GuidedSettings:
    return GuidedSettings(**{**AS_STAGE_1, "candidates": candidates, **given})


def run(problem: Problem[Any], chosen: GuidedSettings, on_step: Any = lambda _step: None) -> Refined[Any]:
    return refine(problem, chosen, on_step)


def loss_of(problem: Problem[Any], latent: Any, rows: Sequence[int]) -> np.ndarray:
    """Eq. 5 over what it is for a picture all of whose features are 0."""
    weights = StructuralWeights.of_settings(GuidedSettings(), problem.target, problem.mask).rows(rows)
    target = problem.target[list(rows)]
    sizes = [[(layer[kept] ** 2).mean() for layer, kept in zip(one, problem.mask, strict=True)] for one in target]
    return np.asarray(problem.backend.structural(latent, target, weights)[0]) / np.mean(sizes, axis=1)


@pytest.fixture
def problem(toy_models: Any, problem_of: Make) -> Problem[Any]:
    return problem_of(toy_models, TRIALS, SAMPLING)


def test_the_candidate_with_the_lowest_final_loss_is_kept(problem: Problem[Any]) -> None:
    """Each pass by itself, from the noise that the function of seed, id and candidate gives."""
    found = run(problem, settings(4))
    passes = []
    for candidate in range(4):
        alone = replace(problem, noise=lambda _c, mine=candidate: problem.noise(mine))
        passes.append(run(alone, settings(1)))
    losses = np.stack([one.candidate_losses[0] for one in passes])
    np.testing.assert_allclose(found.candidate_losses, losses, rtol=1e-9)
    best = losses.argmin(0)
    assert len(set(best.tolist())) > 1  # else nothing was chosen
    for trial, candidate in enumerate(best):
        torch.testing.assert_close(found.image[trial], passes[candidate].image[trial], rtol=0, atol=1e-9)
        torch.testing.assert_close(found.params["latent"][trial], passes[candidate].params["latent"][trial])
        np.testing.assert_allclose(found.loss_curve[:, trial], passes[candidate].loss_curve[:, trial], rtol=1e-9)
    assert found.loss_curve.shape == (3 + 1, len(TRIALS))
    assert found.best_step.tolist() == found.last_step.tolist() == [3] * len(TRIALS)
    assert not found.failed.any()


def test_the_loss_is_that_of_the_picture_that_is_given(problem: Problem[Any]) -> None:
    found = run(problem, settings(3))
    np.testing.assert_allclose(
        loss_of(problem, found.params["latent"], range(len(TRIALS))), found.candidate_losses.min(0), rtol=1e-6
    )
    torch.testing.assert_close(problem.generator.decode(found.params["latent"]), found.image, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.loss_curve[-1], found.candidate_losses.min(0))


def test_more_candidates_never_raise_the_loss(problem: Problem[Any]) -> None:
    losses = [run(problem, settings(count)).candidate_losses for count in (1, 2, 5)]
    for few, more in zip(losses, losses[1:], strict=False):
        np.testing.assert_allclose(more[: len(few)], few, rtol=1e-9)
        assert (more.min(0) <= few.min(0) * (1 + 1e-9)).all()
    assert (losses[2].min(0) < losses[0].min(0)).any()


@pytest.mark.parametrize("rows_at_once", [1, 3, 4, 5, 12])
def test_each_row_has_its_own_noise_however_many_run_together(
    toy_models: Any, problem_of: Make, rows_at_once: int
) -> None:
    whole = run(problem_of(toy_models, TRIALS, SAMPLING), settings(3))
    problem = problem_of(toy_models, TRIALS, SAMPLING, rows_at_once=rows_at_once)
    found = run(problem, settings(3))
    # A product of another number of rows may add up in another order.
    np.testing.assert_allclose(found.candidate_losses, whole.candidate_losses, rtol=1e-9)
    torch.testing.assert_close(found.image, whole.image, rtol=0, atol=1e-9)
    latents = problem.start(range(len(TRIALS))).latent
    given = []
    for start, noise in problem.backend.started:
        assert len(noise) <= rows_at_once
        trials = [int(np.flatnonzero((latents == row).all((1, 2, 3)))[0]) for row in start.latent]
        given += list(zip(trials, noise, strict=True))
    assert [trial for trial, _ in given] == [*range(len(TRIALS))] * 3
    for row, (trial, noise) in enumerate(given):
        expected = trial_noise(5, [TRIALS[trial]], toy_models.latent_shape, candidate=row // len(TRIALS))
        np.testing.assert_array_equal(noise, expected[0])


@pytest.mark.parametrize("others", [("b",), ("b", "c"), ("d", "b", "a", "c", "e")])
def test_a_trial_does_not_depend_on_its_batch(toy_models: Any, problem_of: Make, others: tuple[str, ...]) -> None:
    whole, found = (run(problem_of(toy_models, trials, SAMPLING), settings(2)) for trials in (TRIALS, others))
    here, there = others.index("b"), TRIALS.index("b")
    torch.testing.assert_close(found.image[here], whole.image[there], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.loss_curve[:, here], whole.loss_curve[:, there], rtol=1e-9)


@pytest.mark.parametrize("unguided", [{"step_size": 0.0}, {"guided_share": 0.0}])
def test_without_guidance_it_is_the_very_picture_of_stage_1(
    small_models: Any, problem_of: Make, torch_engines: Any, unguided: dict[str, float]
) -> None:
    problem = problem_of(small_models, TRIALS, SAMPLING)
    found = run(problem, settings(1, **unguided))
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(problem.stage1))
    assert found.loss_curve.shape == (1, len(TRIALS))
    expected = loss_of(problem, found.params["latent"], range(len(TRIALS)))
    np.testing.assert_allclose(found.loss_curve[0], expected, rtol=1e-6)
    # Engines take stage 1's steps with the two coefficients of eq. 12 rounded to float32.
    problem = problem_of(small_models, TRIALS, SAMPLING, graphs=torch_engines(small_models, semantic=True))
    np.testing.assert_allclose(run(problem, settings(1, **unguided)).image, problem.stage1, atol=2e-5)


def test_a_grid_of_its_own(toy_models: Any, problem_of: Make) -> None:
    """7 of 20 steps from the noise that belongs there; the same as a stage 1 with that grid, guided."""
    own = settings(2, n_steps=20, strength=0.35)
    found = run(problem_of(toy_models, TRIALS, SAMPLING), own)
    grid = Sampling(guidance_scale=3.0, n_steps=20, n_noise=None, n_reverse=7)
    expected = run(problem_of(toy_models, TRIALS, grid), settings(2))
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=0)
    assert len(found.loss_curve) == 1 + round(0.6 * 7)


def with_bad(problem: Problem[Any], trial: int, candidates: Sequence[int]) -> Problem[Any]:
    """The same with NaN in the noise of some candidates of one trial."""

    def noise(candidate: int) -> np.ndarray:
        drawn = problem.noise(candidate)
        if candidate in candidates:
            drawn[trial, 0, 0, 0] = np.nan
        return drawn

    return replace(problem, noise=noise)


def test_a_candidate_that_comes_to_nothing_is_passed_over(problem: Problem[Any]) -> None:
    good = run(problem, settings(3))
    bad = int(good.candidate_losses[:, 1].argmin())
    found = run(with_bad(problem, 1, [bad]), settings(3))
    assert np.isnan(found.candidate_losses[bad, 1])
    assert found.loss_curve[-1, 1] == np.delete(good.candidate_losses[:, 1], bad).min()
    assert not found.failed.any()
    for trial in (0, 2, 3):
        np.testing.assert_array_equal(np.asarray(found.image[trial]), np.asarray(good.image[trial]))


def test_a_trial_without_any_finite_candidate_keeps_stage_1(problem: Problem[Any]) -> None:
    good, found = run(problem, settings(2)), run(with_bad(problem, 2, [0, 1]), settings(2))
    assert found.failed.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(np.asarray(found.image[2]), np.asarray(problem.stage1[2]))
    assert np.isnan(found.loss_curve[:, 2]).all()
    for trial in (0, 1, 3):
        np.testing.assert_array_equal(np.asarray(found.image[trial]), np.asarray(good.image[trial]))
        np.testing.assert_array_equal(found.loss_curve[:, trial], good.loss_curve[:, trial])


@pytest.mark.parametrize(("name", "weight"), [("target", 0.0), ("semantic", 0.3)])
def test_a_target_that_is_not_finite_is_named_by_its_row_of_the_batch(
    name: str, weight: float, toy_models: Any, problem_of: Make
) -> None:
    problem = problem_of(toy_models, TRIALS, SAMPLING, rows_at_once=2)
    bad = getattr(problem, name).copy()
    bad[3] = np.nan
    what = "semantic" if name == "semantic" else "structural"
    with pytest.raises(InputError, match=rf"the {what} target of row \[3\] is not finite: leave these trials out"):
        run(replace(problem, **{name: bad}), settings(2, semantic_weight=weight))


def test_candidates_that_nobody_settled_are_refused(problem: Problem[Any]) -> None:
    with pytest.raises(InputError, match=r"candidates is None.*budget\.settle.*or give candidates"):
        run(problem, replace(settings(), candidates=None, budget=500.0))


def test_the_picture_of_stage_1_is_not_written_over(problem: Problem[Any]) -> None:
    before = problem.stage1.clone()
    run(problem, settings(2))
    assert torch.equal(problem.stage1, before)


def test_the_semantic_term_is_in_the_loss(problem: Problem[Any], toy_models: Any) -> None:
    weight = 0.3
    found = run(problem, settings(2, semantic_weight=weight))
    structure, token = (array.numpy() for array in toy_models.structure(found.image, semantic=True))
    for trial in range(len(TRIALS)):
        layers = zip(structure[trial], problem.target[trial], problem.mask, strict=True)
        each = [(((ours - theirs)[kept] ** 2).mean(), (theirs[kept] ** 2).mean()) for ours, theirs, kept in layers]
        eq5 = np.mean([error for error, _ in each]) / np.mean([size for _, size in each])
        eq6 = ((token[trial] - problem.semantic[trial]) ** 2).mean() / (problem.semantic[trial] ** 2).mean()
        assert found.loss_curve[-1, trial] == pytest.approx(eq5 + weight * eq6, rel=1e-6)
        assert eq6 * weight > 1e-3 * eq5
    plain = run(problem, settings(2))
    assert (plain.image - found.image).abs().amax((1, 2, 3)).min() > 1e-6


def test_engines_search_as_pytorch_does(small_models: Any, problem_of: Make, torch_engines: Any) -> None:
    """The same noises, choices and pictures, up to float32."""
    by_torch = run(problem_of(small_models, TRIALS, SAMPLING), settings(3, semantic_weight=0.1))
    graphs = torch_engines(small_models, semantic=True)
    problem = problem_of(small_models, TRIALS, SAMPLING, graphs=graphs, rows_at_once=5)
    found = run(problem, settings(3, semantic_weight=0.1))
    assert all(type(a) is np.ndarray and a.dtype == np.float32 for a in (found.image, found.params["latent"]))
    np.testing.assert_allclose(found.candidate_losses, by_torch.candidate_losses, rtol=1e-3)
    np.testing.assert_allclose(found.image, by_torch.image, atol=1e-3)


@pytest.mark.parametrize("rows_at_once", [3, 8])
def test_steps_are_counted_up_to_what_the_settings_announce(
    toy_models: Any, problem_of: Make, rows_at_once: int
) -> None:
    problem, seen, chosen = (
        problem_of(toy_models, TRIALS, SAMPLING, rows_at_once=rows_at_once),
        list[Step[Any]](),
        settings(2),
    )
    run(problem, chosen, seen.append)
    counted = [step.step for step in seen]
    assert counted == sorted(counted)
    assert (counted[-1], {step.steps for step in seen}) == (2 * 5, {2 * 5})
    assert chosen.n_reports(SAMPLING) == 2 * 5
    for step in seen:
        assert step.image is None or len(step.image) == len(step.rows)
    assert {row for step in seen for row in step.rows} == set(range(len(TRIALS)))


def test_every_candidate_begins_where_the_latent_came_to(problem: Problem[Any]) -> None:
    """The descent is made once for a trial, and its own noise is put on what came out."""
    chosen = settings(3, start_steps=4, start_step_size=0.1)
    steps: list[Step[Any]] = []
    found = run(problem, chosen, steps.append)
    decoded = problem.start(range(len(TRIALS))).latent
    starts = problem.backend.started[-1][0].latent.reshape(3, *decoded.shape)  # all rows went together
    for start in starts:
        np.testing.assert_array_equal(start, starts[0])
        assert (np.abs(start - decoded).max((1, 2, 3)) > 1e-3).all()
    before, after = (loss_of(problem, latent, range(len(TRIALS))) for latent in (decoded, starts[0]))
    assert (after < before).all()
    assert np.isfinite(found.candidate_losses).all()
    # Three candidates' steps at once, after those of the latent.
    assert [step.step for step in steps] == [1, 2, 3, 4, 7, 10, 13, 16, 19]
    assert {step.steps for step in steps} == {4 + 3 * SAMPLING.n_reverse}


def test_the_descent_is_by_the_structure_alone(problem: Problem[Any]) -> None:
    """The semantic term would lead it elsewhere; it acts in sampling."""
    starts = []
    for weight in (0.0, 0.5):
        run(problem, settings(1, start_steps=3, start_step_size=0.1, semantic_weight=weight))
        starts.append(problem.backend.started[-1][0].latent)
    np.testing.assert_allclose(starts[1], starts[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows_at_once", [3, 100])
def test_the_kept_picture_is_finished(toy_models: Any, problem_of: Make, rows_at_once: int) -> None:
    """What was chosen goes on from where sampling left it, by the loss that chose."""
    problem = problem_of(toy_models, TRIALS, SAMPLING, rows_at_once=rows_at_once)
    steps: list[Step[Any]] = []
    how: dict[str, Any] = {"semantic_weight": 0.3, "finish_semantic_share": 1.0}
    plain = run(problem, settings(3, **how))
    found = run(problem, settings(3, finish_steps=4, finish_step_size=0.05, **how), steps.append)
    np.testing.assert_array_equal(found.candidate_losses, plain.candidate_losses)
    np.testing.assert_allclose(found.loss_curve, plain.loss_curve, rtol=1e-9)
    assert plain.finish_curve is None
    assert found.finish_curve is not None
    assert found.finish_curve.shape == (4 + 1, len(TRIALS))
    np.testing.assert_allclose(found.finish_curve[0], plain.loss_curve[-1], rtol=1e-9)
    assert (found.finish_curve.min(0) < found.finish_curve[0]).all()
    kept = loss_of(problem, found.params["latent"], range(len(TRIALS)))
    assert (kept < loss_of(problem, plain.params["latent"], range(len(TRIALS)))).any()
    torch.testing.assert_close(problem.generator.decode(found.params["latent"]), found.image, rtol=0, atol=1e-12)
    assert steps[-1].step == steps[-1].steps == 3 * SAMPLING.n_reverse + 4
    assert [step.step for step in steps] == sorted(step.step for step in steps)


def test_less_of_the_semantic_term_acts_in_what_finishes(problem: Problem[Any]) -> None:
    """Half of a weight of 0.6 there is the same as 0.3: the loss of the same picture under either."""
    how: dict[str, Any] = {"finish_steps": 2, "finish_step_size": 0.05}
    sampled = run(problem, settings(1, semantic_weight=0.6))
    found = run(problem, settings(1, semantic_weight=0.6, finish_semantic_share=0.5, **how))
    structure = loss_of(problem, sampled.params["latent"], range(len(TRIALS)))
    expected = structure + 0.5 * (sampled.loss_curve[-1] - structure)
    np.testing.assert_allclose(found.finish_curve[0], expected, rtol=1e-6)


def test_a_trial_that_failed_is_not_finished(problem: Problem[Any]) -> None:
    how: dict[str, Any] = {"finish_steps": 2, "finish_step_size": 0.05}
    good, found = run(problem, settings(2, **how)), run(with_bad(problem, 2, [0, 1]), settings(2, **how))
    assert found.failed.tolist() == [False, False, True, False]
    assert np.isnan(found.finish_curve[:, 2]).all()
    np.testing.assert_array_equal(np.asarray(found.image[2]), np.asarray(problem.stage1[2]))
    for trial in (0, 1, 3):
        torch.testing.assert_close(found.image[trial], good.image[trial], rtol=0, atol=1e-12)
