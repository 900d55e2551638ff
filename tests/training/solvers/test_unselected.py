"""Predictions without weights: against the normal equations, and against the weights of the solver."""

from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.training.decoders.base import make_decoder, predictor
from minddiffuser.training.solvers.ridge import fit_ridge
from minddiffuser.training.solvers.unselected import Unselected


@pytest.mark.parametrize("n_voxels", [7, 200])
@pytest.mark.parametrize("alpha", [0.15, 150.0])
def test_it_predicts_what_the_normal_equations_do(n_voxels: int, alpha: float, rng: np.random.Generator) -> None:
    x, x_new = 2 + rng.standard_normal((40, n_voxels)), 2 + rng.standard_normal((9, n_voxels))
    y = 1 + x[:, :3] + rng.standard_normal((40, 3))
    design, new = (np.hstack([rows, np.ones((len(rows), 1))]) for rows in (x, x_new))
    expected = new @ np.linalg.solve(design.T @ design + alpha * np.eye(n_voxels + 1), design.T @ y)
    np.testing.assert_allclose(Unselected(x, x_new, y, alpha).predict(0, 3), expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(Unselected(x, x_new, y, alpha).predict(1, 2), expected[:, 1:2], rtol=1e-7, atol=1e-8)
    fitted = fit_ridge(x, y, n_selected=n_voxels, alpha=alpha, n_threads=1)
    np.testing.assert_allclose(Unselected(x, x_new, y, alpha).predict(0, 3), fitted.predict(x_new), atol=1e-6)


def test_what_does_not_fit_together_is_refused(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((20, 5)), rng.standard_normal((20, 2))
    with pytest.raises(ShapeError, match=r"new x is \(3, 4\), expected \(n_new, 5\)"):
        Unselected(x, np.ones((3, 4)), y, 1.0)
    with pytest.raises(ShapeError, match="same, non-zero n_trials"):
        Unselected(x, x, y[:19], 1.0)
    y[3, 1] = np.nan
    made = Unselected(x, x, y, 1.0)
    assert np.isfinite(made.predict(0, 1)).all()
    with pytest.raises(InputError, match="targets 1 to 1 hold NaN"):
        made.predict(1, 2)


class Targets:
    """A whole array, as columns."""

    def __init__(self, y: Any) -> None:
        self._y, self.shape = y, y.shape

    def columns(self, start: int, stop: int) -> Any:
        return self._y[:, start:stop]


def test_only_a_ridge_from_every_value_does_without_weights(rng: np.random.Generator) -> None:
    x, others, y = rng.standard_normal((20, 3, 2)), rng.standard_normal((4, 3, 2)), rng.standard_normal((20, 2))
    every = make_decoder("ridge", "structure", n_selected=6, alpha=3.0)
    found = predictor(every, x, Targets(y), others)
    assert found is not None
    fitted = every.fit(x, Targets(y), n_threads=1)
    np.testing.assert_allclose(found.predict(0, 2), fitted.predict(others), atol=1e-6)
    assert predictor(make_decoder("ridge", "structure", n_selected=5, alpha=3.0), x, Targets(y), others) is None
    assert predictor(make_decoder("mlp", "structure"), x, Targets(y), others) is None
