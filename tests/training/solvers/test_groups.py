"""Ridge of several groups against the normal equations and a cross-validation written out."""

from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import ShapeError
from minddiffuser.training.solvers.groups import predict_groups

ALPHAS = (0.5, 10.0, 300.0)


def solved(x: Any, y: Any, alpha: float) -> Any:
    return np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y)


@pytest.mark.parametrize("n_values", [7, 60])
def test_it_solves_the_normal_equations_with_the_best_penalty_of_each_group(
    n_values: int, rng: np.random.Generator
) -> None:
    x, x_new = rng.standard_normal((40, n_values)), rng.standard_normal((5, n_values))
    weights = rng.standard_normal((n_values, 3))
    groups = {"clear": x @ weights, "noise": rng.standard_normal((40, 4))}
    fold = np.arange(40) % 4
    predicted, chosen = predict_groups(x, groups, x_new, fold, alphas=ALPHAS)
    for name, y in groups.items():
        errors = [
            sum(np.square(x[fold == f] @ solved(x[fold != f], y[fold != f], a) - y[fold == f]).sum() for f in range(4))
            for a in ALPHAS
        ]
        assert chosen[name] == ALPHAS[int(np.argmin(errors))]
        np.testing.assert_allclose(predicted[name], x_new @ solved(x, y, chosen[name]), rtol=1e-7, atol=1e-9)
    assert chosen["clear"] < chosen["noise"]


def test_rows_that_do_not_belong_together_are_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 3))
    with pytest.raises(ShapeError, match="one row per trial"):
        predict_groups(x, {"a": np.ones((8, 2))}, x, np.arange(9) % 3)
