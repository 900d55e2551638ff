"""The loop on objectives of a few lines; nothing here is a generator."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.errors import ShapeError
from minddiffuser.runtime.refine.adam import minimise
from minddiffuser.runtime.refine.base import Refined
from minddiffuser.runtime.refine.settings import AdamSettings

N = 3


class Bowl:
    """loss[i] = sum(scale * (params[i] - centre[i])**2) over every parameter; the "image" is the first parameter."""

    def __init__(self, centres: Mapping[str, Any], bad: Mapping[tuple[int, int], float] | None = None) -> None:
        self.centres, self.bad, self.calls = centres, dict(bad or {}), 0

    def value_and_gradient(self, params: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
        losses, gradients = [], {}
        for order, (name, centre) in enumerate(self.centres.items(), start=1):
            away = params[name] - centre
            losses.append((order * away**2).reshape(len(away), -1).sum(-1))
            gradients[name] = 2 * order * away
        loss = sum(losses)
        for (call, trial), value in self.bad.items():
            if call == self.calls:
                loss[trial] = value
                for gradient in gradients.values():
                    gradient[trial] = value
        self.calls += 1
        return loss, gradients, params[next(iter(self.centres))] * 2


def start(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    shapes = {"latent": (N, 2, 3), "context": (N, 4)}
    return (
        {k: rng.standard_normal(s) for k, s in shapes.items()},
        {k: rng.standard_normal(s) for k, s in shapes.items()},
    )


def torch_adam(params, centres, *, steps: int, rate: float, decay: float) -> dict[str, np.ndarray]:
    """The same descent by torch.optim.Adam, with gradients by autograd."""
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in params.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, decay)
    for _ in range(steps):
        optimiser.zero_grad()
        terms = [order * (leaves[k] - torch.tensor(c)) ** 2 for order, (k, c) in enumerate(centres.items(), start=1)]
        sum(term.sum() for term in terms).backward()
        optimiser.step()
        schedule.step()
    return {name: leaf.detach().numpy() for name, leaf in leaves.items()}


@pytest.mark.parametrize("decay", [1.0, 0.97])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_adam_is_torchs(library, decay, rng) -> None:
    params, centres = start(rng)
    expected = torch_adam(params, centres, steps=30, rate=0.02, decay=decay)
    convert = torch.tensor if library == "torch" else np.array
    given = {k: convert(v) for k, v in params.items()}
    settings = AdamSettings(steps=30, learning_rate=0.02, decay=decay)
    refined = minimise(Bowl({k: convert(v) for k, v in centres.items()}), given, settings)
    assert refined.best_step.tolist() == [30] * N  # so small a step only goes down: the best is the last
    for name, value in expected.items():
        assert type(refined.params[name]) is type(given[name])
        np.testing.assert_allclose(np.asarray(refined.params[name]), value, atol=1e-6, rtol=0)
        np.testing.assert_array_equal(np.asarray(given[name]), params[name])  # the caller's own are left alone


def test_float32_stays_float32(rng) -> None:
    params, centres = ({k: v.astype(np.float32) for k, v in part.items()} for part in start(rng))
    refined = minimise(Bowl(centres), params, AdamSettings(steps=3))
    assert {value.dtype for value in refined.params.values()} == {np.dtype(np.float32)}
    assert refined.loss_curve.dtype == np.float64


def test_the_curve_begins_at_the_start_and_ends_at_the_last_update(rng) -> None:
    params, centres = start(rng)
    seen: list[tuple[int, list[float]]] = []
    refined = minimise(
        Bowl(centres),
        params,
        AdamSettings(steps=5),
        on_step=lambda step, loss, _image: seen.append((step, loss.tolist())),
    )
    assert refined.loss_curve.shape == (6, N)
    first, _, _ = Bowl(centres).value_and_gradient(params)
    last, _, image = Bowl(centres).value_and_gradient(refined.params)
    np.testing.assert_allclose(refined.loss_curve[0], first)
    np.testing.assert_allclose(refined.loss_curve[-1], last)
    np.testing.assert_allclose(refined.image, image)
    assert [step for step, _ in seen] == list(range(6))
    np.testing.assert_array_equal([loss for _, loss in seen], refined.loss_curve)


def test_no_steps_gives_the_start_back(rng) -> None:
    params, centres = start(rng)
    refined = minimise(Bowl(centres), params, AdamSettings(steps=0))
    assert refined.loss_curve.shape == (1, N)
    np.testing.assert_array_equal(refined.params["latent"], params["latent"])


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_each_trial_keeps_its_own_best_params_and_image(library, rng) -> None:
    """A step far too large overshoots: what comes back is the lowest row of each column."""
    params, centres = start(rng)
    params["latent"][1] = centres["latent"][1] + 1e-3  # this one can only get worse at first
    params["context"][1] = centres["context"][1]
    convert = torch.tensor if library == "torch" else np.array
    objective = Bowl({k: convert(v) for k, v in centres.items()})
    refined = minimise(objective, {k: convert(v) for k, v in params.items()}, AdamSettings(steps=4, learning_rate=2.0))
    np.testing.assert_array_equal(refined.best_step, refined.loss_curve.argmin(axis=0))
    assert refined.best_step[1] == 0
    assert 0 < refined.best_step[[0, 2]].min() <= refined.best_step[[0, 2]].max() < 4
    loss, _, image = objective.value_and_gradient(refined.params)
    np.testing.assert_allclose(np.asarray(loss), refined.loss_curve.min(axis=0))
    np.testing.assert_allclose(np.asarray(refined.image), np.asarray(image))


def test_a_trial_stops_by_itself_and_then_stays(rng) -> None:
    params, centres = start(rng)
    for name in params:
        params[name][1] = centres[name][1]  # at its minimum: nothing to gain
    settings = AdamSettings(steps=40, learning_rate=0.01, patience=4, min_change=1e-3)
    refined = minimise(Bowl(centres), params, settings)
    assert refined.last_step.tolist() == [40, 4, 40]
    assert np.isnan(refined.loss_curve[5:, 1]).all()
    assert np.isfinite(refined.loss_curve[:, [0, 2]]).all()
    free = minimise(Bowl(centres), params, AdamSettings(steps=40, learning_rate=0.01))
    np.testing.assert_array_equal(refined.params["latent"][[0, 2]], free.params["latent"][[0, 2]])


def test_the_loop_ends_when_all_have_stopped(rng) -> None:
    params, centres = start(rng)
    objective = Bowl(centres)
    settings = AdamSettings(steps=1000, learning_rate=0.1, patience=5, min_change=0.05)
    refined = minimise(objective, params, settings)
    assert objective.calls == len(refined.loss_curve) == refined.last_step.max() + 1 < 1000
    assert len(set(refined.last_step.tolist())) > 1


def test_small_progress_adds_up_before_patience_ends(rng) -> None:
    """min_change is measured from the last change that counted, not from the step before."""

    class Slope:
        def value_and_gradient(self, params):
            return 1.0 + params["x"].sum(-1), {"x": np.ones_like(params["x"])}, params["x"]

    params = {"x": np.zeros((2, 1))}
    settings = AdamSettings(params=("x",), steps=50, learning_rate=0.005, patience=4, min_change=0.01)
    assert minimise(Slope(), params, settings).last_step.tolist() == [50, 50]  # half a percent a step: 1 % in two
    slow = AdamSettings(params=("x",), steps=50, learning_rate=0.001, patience=4, min_change=0.01)
    assert minimise(Slope(), params, slow).last_step.tolist() == [4, 4]


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_failed_trial_keeps_its_best_and_disturbs_nobody(library, value, rng) -> None:
    params, centres = start(rng)
    convert = torch.tensor if library == "torch" else np.array
    params, centres = ({k: convert(v) for k, v in part.items()} for part in (params, centres))

    def run(bad: dict[tuple[int, int], float]) -> Refined:
        return minimise(Bowl(centres, bad), params, AdamSettings(steps=9))

    whole, broken = run({}), run({(4, 1): value, (0, 2): value})
    assert broken.failed.tolist() == [False, True, True]
    assert broken.last_step.tolist() == [9, 4, 0]
    assert broken.best_step.tolist() == [9, 3, 0]
    assert np.isfinite(broken.loss_curve[:, 1]).sum() == 4
    np.testing.assert_array_equal(np.asarray(broken.params["latent"])[0], np.asarray(whole.params["latent"])[0])
    np.testing.assert_array_equal(np.asarray(broken.params["latent"])[2], np.asarray(params["latent"])[2])
    np.testing.assert_array_equal(broken.loss_curve[:4, 1], whole.loss_curve[:4, 1])
    three = minimise(Bowl(centres), params, AdamSettings(steps=3))
    np.testing.assert_array_equal(np.asarray(broken.params["context"])[1], np.asarray(three.params["context"])[1])
    np.testing.assert_array_equal(np.asarray(broken.image)[1], np.asarray(three.image)[1])
    assert not whole.failed.any()


def test_trials_do_not_depend_on_their_batch(rng) -> None:
    params, centres = start(rng)
    settings = AdamSettings(steps=20, learning_rate=0.3, patience=3)
    whole = minimise(Bowl(centres), params, settings)
    for trial in range(N):
        row = slice(trial, trial + 1)
        alone = minimise(
            Bowl({k: v[row] for k, v in centres.items()}), {k: v[row] for k, v in params.items()}, settings
        )
        np.testing.assert_array_equal(alone.params["latent"], whole.params["latent"][row])
        np.testing.assert_array_equal(alone.best_step, whole.best_step[row])
        n_alone = len(alone.loss_curve)
        np.testing.assert_array_equal(alone.loss_curve[:, 0], whole.loss_curve[:n_alone, trial])
        assert np.isnan(whole.loss_curve[n_alone:, trial]).all()


def test_parameters_without_a_gradient_stay(rng) -> None:
    params, centres = start(rng)
    refined = minimise(Bowl({"latent": centres["latent"]}), params, AdamSettings(steps=5))
    np.testing.assert_array_equal(refined.params["context"], params["context"])
    assert not np.array_equal(refined.params["latent"], params["latent"])


def test_one_loss_for_the_whole_batch_is_refused() -> None:
    class Summed:
        def value_and_gradient(self, params):
            return np.float64(1.0), {}, params["x"]

    with pytest.raises(ShapeError, match="one number per trial"):
        minimise(Summed(), {"x": np.zeros((2, 1))}, AdamSettings(params=("x",)))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_parameters_stay_on_their_surface(library, rng) -> None:
    """From the sphere to a centre on the sphere without leaving it; a trial that failed is left where it is."""
    convert = torch.tensor if library == "torch" else np.array
    start, centre = (rng.standard_normal((N, 5)) for _ in range(2))
    for points in (start, centre):
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    given = []

    def project(params: Mapping[str, Any]) -> dict[str, Any]:
        given.append(np.asarray(params["z"]).copy())
        z = params["z"]
        return {"z": z / (z**2).sum(-1)[:, None] ** 0.5}

    settings = AdamSettings(steps=600, learning_rate=0.05, decay=0.99, params=("z",))
    objective = Bowl({"z": convert(centre)}, {(5, 1): np.nan})
    refined = minimise(objective, {"z": convert(start)}, settings, project=project)
    found = np.asarray(refined.params["z"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found[[0, 2]], centre[[0, 2]], atol=1e-3)
    np.testing.assert_array_equal(given[-1][1], given[5][1])
    assert refined.failed.tolist() == [False, True, False]
