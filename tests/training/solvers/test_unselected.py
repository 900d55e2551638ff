"""Predictions without weights: against the normal equations, and against the weights of the solver."""

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.training.decoders.base import make_decoder, predictor
from minddiffuser.training.solvers.ridge import fit_ridge
from minddiffuser.training.solvers.unselected import Unselected


@pytest.mark.parametrize("n_targets", [3, 10])  # below and above the number of other trials
@pytest.mark.parametrize("n_voxels", [7, 200])
@pytest.mark.parametrize("alpha", [0.15, 150.0])
def test_it_predicts_what_the_normal_equations_do(
    n_voxels: int, alpha: float, n_targets: int, rng: np.random.Generator
) -> None:
    x, x_new = 2 + rng.standard_normal((40, n_voxels)), 2 + rng.standard_normal((9, n_voxels))
    y = 1 + x[:, :3] + rng.standard_normal((40, 3))
    design, new = (np.hstack([rows, np.ones((len(rows), 1))]) for rows in (x, x_new))
    expected = new @ np.linalg.solve(design.T @ design + alpha * np.eye(n_voxels + 1), design.T @ y)
    found = Unselected(x, x_new, alpha, n_targets=n_targets)
    np.testing.assert_allclose(found.predict(y), expected, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.predict(y[:, 1:2]), expected[:, 1:2], rtol=1e-7, atol=1e-8)
    fitted = fit_ridge(x, y, n_selected=n_voxels, alpha=alpha, n_threads=1)
    np.testing.assert_allclose(found.predict(y), fitted.predict(x_new), atol=1e-6)


def test_what_does_not_fit_together_is_refused(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((20, 5)), rng.standard_normal((20, 2))
    with pytest.raises(ShapeError, match=r"new x is \(3, 4\), expected \(n_new, 5\)"):
        Unselected(x, np.ones((3, 4)), 1.0, n_targets=2)
    made = Unselected(x, x, 1.0, n_targets=2)
    with pytest.raises(ShapeError, match=r"targets are \(19, 2\), expected \(20, n\)"):
        made.predict(y[:19])
    y[3, 1] = np.nan
    assert np.isfinite(made.predict(y[:, :1])).all()
    with pytest.raises(InputError, match="targets hold NaN"):
        made.predict(y)


def test_only_a_settled_ridge_from_every_value_does_without_weights(rng: np.random.Generator) -> None:
    x, others = rng.standard_normal((20, 3, 2)), rng.standard_normal((4, 3, 2))
    few = make_decoder("ridge", "structure", n_selected=5, alpha=3.0)
    assert predictor(few, x, others, n_targets=2) is None
    assert predictor(make_decoder("mlp", "structure"), x, others, n_targets=2) is None
    with pytest.raises(InputError, match="alpha is 'cv', which is chosen first"):
        predictor(make_decoder("ridge", "structure", n_selected=6, alpha="cv"), x, others, n_targets=2)
