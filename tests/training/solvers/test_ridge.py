"""The solver against FastL2LiR 0.11, against the normal equations, and against what it promises."""

from __future__ import annotations

import contextlib
import io
from typing import Any
from unittest import mock

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.training.solvers import ridge as ridge_module
from minddiffuser.training.solvers.centred import Centred, Double
from minddiffuser.training.solvers.on_device import fit_ridge_on_device
from minddiffuser.training.solvers.ranking import largest, largest_of_rough
from minddiffuser.training.solvers.ridge import SparseRidge, fit_ridge, fit_ridge_path
from minddiffuser.training.solvers.single import Single
from minddiffuser.training.solvers.target import TargetSolver


class FlatSolve:
    """numpy, but a system with one right-hand side has a flat solution (FastL2LiR needs that since numpy 2.4)."""

    class linalg:  # noqa: N801
        @staticmethod
        def solve(matrix: Any, right: Any) -> Any:
            return np.linalg.solve(matrix, right[:, 0] if right.shape[1] == 1 else right)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def rival(x: np.ndarray, y: np.ndarray, n: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    from fastl2lir import FastL2LiR, fastl2lir

    model = FastL2LiR()
    with contextlib.redirect_stderr(io.StringIO()), mock.patch.object(fastl2lir, "np", FlatSolve()):
        model.fit(x, y, alpha=alpha, n_feat=n)
    return model.W, model.b[0]


def world(rng: np.random.Generator, n_trials: int, n_voxels: int, n_targets: int) -> tuple[np.ndarray, np.ndarray]:
    causes = rng.standard_normal((n_trials, 6))
    x = causes @ rng.standard_normal((6, n_voxels)) + rng.standard_normal((n_trials, n_voxels))
    y = causes @ rng.standard_normal((6, n_targets)) + rng.standard_normal((n_trials, n_targets))
    return (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)


def dense(fitted: SparseRidge) -> np.ndarray:
    weight = np.zeros((fitted.n_voxels, len(fitted.bias)))
    for target, (voxels, values) in enumerate(zip(fitted.index, fitted.weight, strict=True)):
        weight[voxels, target] = values
    return weight


REGIMES = {
    "few voxels": (90, 40, 12),
    "float32 factors": (400, 260, 130),
    "dual": (40, 160, 100),
    "fewer trials, primal": (70, 160, 100),
    "all voxels, tall": (90, 40, 40),
    "all voxels, wide": (40, 90, 90),
    "as many trials as voxels": (40, 40, 40),
    "all but one": (90, 40, 39),
    "one voxel": (90, 40, 1),
}


@pytest.mark.parametrize("alpha", [0.15, 30.0])
@pytest.mark.parametrize("regime", REGIMES)
def test_equals_fastl2lir(regime: str, alpha: float, rng: np.random.Generator) -> None:
    n_trials, n_voxels, n = REGIMES[regime]
    x, y = world(rng, n_trials, n_voxels, 21)
    fitted = fit_ridge(x, y, n_selected=n, alpha=alpha, n_threads=2)
    weight, bias = rival(x, y, n, alpha)
    np.testing.assert_allclose(dense(fitted), weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, bias, rtol=0, atol=1e-6)
    fresh = rng.standard_normal((5, n_voxels))
    np.testing.assert_allclose(fitted.predict(fresh), fresh @ weight + bias, rtol=0, atol=1e-6)


def test_equals_fastl2lir_when_means_are_not_zero_and_a_voxel_is_constant(rng: np.random.Generator) -> None:
    x, y = world(rng, 80, 30, 9)
    x = x * rng.uniform(0.5, 2, 30) + rng.standard_normal(30)
    x[:, 4] = 0.7
    y = y * 3 + 2
    fitted = fit_ridge(x, y, n_selected=11, alpha=0.15)
    weight, bias = rival(x, y, 11, 0.15)
    np.testing.assert_allclose(dense(fitted), weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, bias, rtol=0, atol=1e-6)
    assert not (fitted.index == 4).any()


@pytest.mark.parametrize(("n_trials", "n_voxels", "n"), [(60, 25, 7), (20, 60, 50), (50, 25, 25), (20, 60, 60)])
def test_solves_the_penalised_normal_equations(n_trials: int, n_voxels: int, n: int, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((n_trials, n_voxels)) + 0.3, rng.standard_normal((n_trials, 5)) - 1
    fitted = fit_ridge(x, y, n_selected=n, alpha=0.5)
    correlation = np.corrcoef(x.T, y.T)[:n_voxels, n_voxels:]
    for target in range(5):
        best = np.argsort(-np.abs(correlation[:, target]))[:n]
        assert set(fitted.index[target]) == set(best)
        design = np.column_stack([x[:, fitted.index[target]], np.ones(n_trials)])
        solution = np.linalg.solve(design.T @ design + 0.5 * np.eye(n + 1), design.T @ y[:, target])
        np.testing.assert_allclose(np.append(fitted.weight[target], fitted.bias[target]), solution, atol=1e-8)


def test_badly_conditioned_voxels_fall_back_to_float64(rng: np.random.Generator) -> None:
    x, y = world(rng, 300, 150, 4)
    x[:, 1:] = x[:, :1] + 1e-4 * x[:, 1:]  # nearly the same voxel again and again
    fitted = fit_ridge(x, y, n_selected=140, alpha=1e-6)
    for target in range(4):
        design = np.column_stack([x[:, fitted.index[target]], np.ones(300)])
        gram = design.T @ design + 1e-6 * np.eye(141)
        right = np.linalg.solve(gram, design.T @ y[:, target])
        # What float64 can tell of a system so badly conditioned; in float32 it would be nothing (1e-7 times 1e10).
        tolerance = np.finfo(np.float64).eps * np.linalg.cond(gram) * np.abs(y[:, target]).max()
        assert tolerance < 1e-3
        np.testing.assert_allclose(fitted.predict(x)[:, target], design @ right, rtol=0, atol=tolerance)


def test_result_depends_neither_on_threads_nor_on_how_targets_are_read(rng: np.random.Generator) -> None:
    x, y = world(rng, 200, 120, 800)

    class Read:
        shape = y.shape

        def columns(self, start: int, stop: int) -> np.ndarray:
            return y[:, start:stop].copy()

    one = fit_ridge(x, y, n_selected=30, alpha=0.15, n_threads=1)
    for other in (
        fit_ridge(x, y, n_selected=30, alpha=0.15, n_threads=2),
        fit_ridge(x, y, n_selected=30, alpha=0.15, n_threads=3),
        fit_ridge(x, Read(), n_selected=30, alpha=0.15),
    ):
        np.testing.assert_array_equal(one.index, other.index)
        np.testing.assert_array_equal(one.weight, other.weight)
        np.testing.assert_array_equal(one.bias, other.bias)


def test_without_threadpoolctl_the_result_is_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = world(rng, 100, 60, 8)
    expected = fit_ridge(x, y, n_selected=20, alpha=0.15)
    monkeypatch.setitem(__import__("sys").modules, "threadpoolctl", None)
    np.testing.assert_allclose(fit_ridge(x, y, n_selected=20, alpha=0.15).weight, expected.weight, atol=1e-10)


def test_a_part_of_the_targets_can_be_predicted(rng: np.random.Generator) -> None:
    x, y = world(rng, 60, 20, 300)
    fitted = fit_ridge(x, y, n_selected=5, alpha=0.15)
    np.testing.assert_allclose(fitted.predict(x, 250, 290), fitted.predict(x)[:, 250:290])


def test_equal_scores_go_to_the_lower_voxel() -> None:
    score = np.array([[1.0, 3.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    np.testing.assert_array_equal(largest(score, 3), [[0, 1, 4], [0, 1, 2], [0, 1, 2]])


def test_voxels_without_correlation_are_chosen_in_order(rng: np.random.Generator) -> None:
    x, y = world(rng, 50, 10, 3)
    x[:, 2:9] = 0.0
    np.testing.assert_array_equal(fit_ridge(x, y, n_selected=5, alpha=0.15).index, [[0, 1, 2, 3, 9]] * 3)


def test_a_constant_target_is_its_own_prediction(rng: np.random.Generator) -> None:
    x, y = world(rng, 50, 10, 3)
    y[:, 1] = 0.0
    fitted = fit_ridge(x, y, n_selected=4, alpha=0.15)
    np.testing.assert_allclose(fitted.predict(x)[:, 1], 0.0, atol=1e-12)


def test_progress_counts_to_the_end(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge_module, "_TARGETS_PER_JOB", 4)
    x, y = world(rng, 50, 10, 10)
    for n in (3, 10):
        reported: list[tuple[int, int]] = []
        fit_ridge(
            x, y, n_selected=n, alpha=0.15, n_threads=2, progress=lambda *a, reported=reported: reported.append(a)
        )
        assert reported == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.parametrize("n_trials", [50, 12], ids=["primal", "dual"])
def test_workers_write_every_target(n_trials: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge_module, "_TARGETS_PER_JOB", 3)
    x, y = world(rng, n_trials, 40, 32)
    reported: list[int] = []
    one = fit_ridge(x, y, n_selected=25, alpha=0.15, n_threads=1)
    two = fit_ridge(x, y, n_selected=25, alpha=0.15, n_threads=2, progress=lambda done, _: reported.append(done))
    for name in ("index", "weight", "bias"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert len(reported) == 11
    assert reported == sorted(reported)
    assert reported[-1] == 32


def test_bad_targets_in_a_worker_are_one_input_error(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge_module, "_TARGETS_PER_JOB", 4)
    x, y = world(rng, 50, 10, 40)
    y[3, 21] = np.nan
    with pytest.raises(InputError, match="^targets 20 to 23 hold NaN"):
        fit_ridge(x, y, n_selected=3, alpha=0.15, n_threads=2)


def test_an_exception_in_progress_stops_the_fit(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge_module, "_TARGETS_PER_JOB", 4)
    x, y = world(rng, 50, 10, 40)

    def stop(done: int, _total: int) -> None:
        raise KeyboardInterrupt

    for threads in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            fit_ridge(x, y, n_selected=3, alpha=0.15, n_threads=threads, progress=stop)


def test_bad_input_is_refused(rng: np.random.Generator) -> None:
    x, y = world(rng, 50, 10, 3)
    with pytest.raises(ShapeError, match="same, non-zero n_trials"):
        fit_ridge(x, y[:-1], n_selected=3, alpha=0.15)
    with pytest.raises(ShapeError, match="non-zero"):
        fit_ridge(x, y[:, :0], n_selected=3, alpha=0.15)
    with pytest.raises(InputError, match="n_selected is 0"):
        fit_ridge(x, y, n_selected=0, alpha=0.15)
    with pytest.raises(InputError, match="alpha is -1"):
        fit_ridge(x, y, n_selected=3, alpha=-1.0)
    with pytest.raises(InputError, match="n_threads is 0"):
        fit_ridge(x, y, n_selected=3, alpha=0.15, n_threads=0)
    with pytest.raises(InputError, match="responses hold NaN"):
        fit_ridge(np.where(x > 2, np.nan, x), y, n_selected=3, alpha=0.15)
    with pytest.raises(InputError, match="targets 0 to 2 hold NaN"):
        fit_ridge(x, np.where(y > 2, np.nan, y), n_selected=3, alpha=0.15)
    with pytest.raises(InputError, match="larger alpha"):
        fit_ridge(np.repeat(x[:, :1], 10, axis=1), y, n_selected=5, alpha=0.0)
    with pytest.raises(ShapeError, match=r"fitted on \(n_trials, 10\)"):
        fit_ridge(x, y, n_selected=3, alpha=0.15).predict(x[:, :4])


@pytest.mark.parametrize(("n_trials", "n"), [(900, 120), (4000, 200)])
def test_float32_products_keep_what_is_promised(n_trials: int, n: int, rng: np.random.Generator) -> None:
    """Against float64 on the same voxels: weights within 1e-6, predictions within 1e-6 root mean square."""
    x, y = world(rng, n_trials, 400, 40)
    x += rng.standard_normal((n_trials, 1)) * np.linspace(0, 2, 400)  # some voxels nearly the same
    x = (x - x.mean(0)) / x.std(0)
    found = fit_ridge(x, y, n_selected=n, alpha=0.15)
    for target in range(40):
        design = np.column_stack([x[:, found.index[target]], np.ones(n_trials)])
        exact = np.linalg.solve(design.T @ design + 0.15 * np.eye(n + 1), design.T @ y[:, target])
        np.testing.assert_allclose(np.append(found.weight[target], found.bias[target]), exact, rtol=0, atol=1e-6)
        off = found.predict(x)[:, target] - design @ exact
        assert np.sqrt(np.mean(off**2)) < 1e-6


def test_float32_takes_over_where_it_bears_and_only_there(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    for kind in ("Single", "Double"):
        made = getattr(ridge_module, kind)
        monkeypatch.setattr(ridge_module, kind, lambda c, made=made, kind=kind: used.append(kind) or made(c))
    x, y = rng.standard_normal((3000, 300)), rng.standard_normal((3000, 8))
    fit_ridge(x, y, n_selected=120, alpha=0.15)
    assert used == ["Single"]
    x[:, 1:] = x[:, :1] + 1e-4 * x[:, 1:]
    used.clear()
    fit_ridge(x, y, n_selected=120, alpha=1e-3)
    assert used == ["Single", "Double"]


def test_a_target_that_float32_does_not_bear_is_solved_in_float64(rng: np.random.Generator) -> None:
    """One target chooses voxels that are nearly the same; most others do not."""
    x, y = rng.standard_normal((3000, 400)), rng.standard_normal((3000, 40))
    x[:, :110] = x[:, :1] + 1e-4 * x[:, :110]
    y[:, 7] = x[:, 0] + 0.1 * y[:, 7]
    centred = Centred(x)
    single, double = Single(centred), Double(centred)
    ranked, exact = single.rank(y, 110), double.rank(y, 110)
    solver, reference = TargetSolver(single, centred, 110), TargetSolver(double, centred, 110)
    for target in range(40):
        ((weight, bias),) = solver.solve(y[:, target], ranked, target, [0.15])
        ((expected, expected_bias),) = reference.solve(y[:, target], exact, target, [0.15])
        np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-6)
        np.testing.assert_allclose(bias, expected_bias, rtol=0, atol=1e-6)
    assert 1 <= solver.n_rough < 20


def test_several_penalties_are_as_many_fits(rng: np.random.Generator) -> None:
    for n_trials, n_voxels, n in ((90, 40, 12), (400, 260, 130), (40, 160, 100), (90, 40, 40), (40, 90, 90)):
        x, y = world(rng, n_trials, n_voxels, 9)
        x = x + rng.standard_normal(n_voxels)  # means that the penalty of the bias counts
        path = fit_ridge_path(x, y, n_selected=n, alphas=[0.15, 3.0, 200.0])
        for alpha, found in zip([0.15, 3.0, 200.0], path, strict=True):
            alone = fit_ridge(x, y, n_selected=n, alpha=alpha)
            np.testing.assert_array_equal(found.index, alone.index)
            np.testing.assert_allclose(found.weight, alone.weight, rtol=0, atol=1e-6)
            np.testing.assert_allclose(found.bias, alone.bias, rtol=0, atol=1e-6)


def test_rough_scores_choose_what_exact_ones_do(rng: np.random.Generator) -> None:
    for kind in range(40):
        exact = rng.random(600) if kind % 2 else np.round(rng.random(600), 2)  # with many ties
        rough = (exact + rng.uniform(-1e-3, 1e-3, 600)).astype(np.float32)
        asked: list[int] = []
        for n in (1, 40, 300, 599):
            found = largest_of_rough(rough, n, 2.1e-3, lambda at, e=exact, a=asked: a.append(len(at)) or e[at])
            np.testing.assert_array_equal(found, largest(exact[None], n)[0])
    assert max(asked) < 600


def test_float32_ranks_nearly_equal_voxels_as_float64(rng: np.random.Generator) -> None:
    """Copies of a voxel with differences that float32 does not see."""
    x, y = rng.standard_normal((500, 300)), rng.standard_normal((500, 6))
    x[:, 100:200] = x[:, :100] + 1e-9 * rng.standard_normal((500, 100))
    centred = Centred(x)
    np.testing.assert_array_equal(Single(centred).rank(y, 101).chosen, Double(centred).rank(y, 101).chosen)


@pytest.mark.parametrize("name", ["few voxels", "float32 factors", "fewer trials, primal", "dual", "all voxels, tall"])
def test_pytorch_gives_the_same(name: str, rng: np.random.Generator) -> None:
    n_trials, n_voxels, n = REGIMES[name]
    x, y = world(rng, n_trials, n_voxels, 21)
    x = x + rng.standard_normal(n_voxels)
    y[:, 3] = 0.0  # equal scores
    reported: list[tuple[int, int]] = []
    found = fit_ridge_on_device(
        x, y, n_selected=n, alpha=0.15, device="cpu", progress=lambda *now: reported.append(now)
    )
    expected = fit_ridge(x, y, n_selected=n, alpha=0.15)
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_allclose(found.weight, expected.weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.bias, expected.bias, rtol=0, atol=1e-6)
    assert reported[-1] == (21, 21)


def test_pytorch_falls_back_to_float64_and_refuses_what_cannot_be_solved(rng: np.random.Generator) -> None:
    x, y = world(rng, 300, 150, 4)
    x[:, 1:] = x[:, :1] + 1e-4 * x[:, 1:]
    found = fit_ridge_on_device(x, y, n_selected=140, alpha=1e-6, device="cpu")
    expected = fit_ridge(x, y, n_selected=140, alpha=1e-6)
    np.testing.assert_allclose(found.predict(x), expected.predict(x), rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="larger alpha"):
        fit_ridge_on_device(np.repeat(x[:, :1], 10, axis=1), y, n_selected=5, alpha=0.0, device="cpu")
    with pytest.raises(InputError, match="cannot compute on device 'cuda:99'"):
        fit_ridge_on_device(x, y, n_selected=5, alpha=0.15, device="cuda:99")
