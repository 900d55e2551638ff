"""One target's system: the chosen voxels' submatrix, for one penalty after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .centred import Centred, Products, Ranked
from .spd import MIN_MIXED, SubmatrixSolver, factorise, solve_factorised

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

# The largest error of a prediction, from independent z-scored responses of a z-scored target, that float32 may leave;
# no weight is wrong by more.
_TOLERANCE = 1e-6
# One error is drawn for each system, of the size measured on other voxels. The true one had up to 2.05 times its effect
# in 300 systems of 6 kinds (half had less than 1.4), never near the tolerance.
_SAFETY = 2.0
# Squared means of voxels below this share of their spread move no weight by more than that share of itself.
_NO_MEAN = 1e-12


class TargetSolver:
    """Solves one target after another with one set of buffers (one per job).

    Parameters
    ----------
    again : bool
        Solve a system in float64 for which float32 products were too rough; else it is only counted.

    Attributes
    ----------
    n_rough : int
        How many these were so far.
    """

    def __init__(self, products: Products, centred: Centred, n_selected: int, *, again: bool = True) -> None:
        self._again = again
        self._products, self._centred = products, centred
        self._solver = SubmatrixSolver(products.gram, n_selected)
        self._mixed = n_selected >= MIN_MIXED
        # Not of one size: equal errors of voxels that are nearly the same would cancel.
        self._errors = np.random.default_rng(0).standard_normal(n_selected)
        self.n_rough = 0

    def solve(
        self, y: Float64, ranked: Ranked, target: int, alphas: Sequence[float]
    ) -> Iterator[tuple[Float64, float]]:
        """Weights (n_selected,) of the chosen voxels, and the bias, for each penalty; y (n_trials,) is the target."""
        chosen, y_mean, n_trials = ranked.chosen[target], float(ranked.mean[target]), len(y)
        mean, scale, square = (of[chosen] for of in (self._products.mean, self._products.scale, self._products.square))
        moved = float(mean @ mean) > _NO_MEAN * float((scale**2).min())
        self._solver.load(chosen)
        before = 0.0
        for alpha in alphas:
            kappa = self._centred.kappa(alpha)
            if moved:
                self._solver.add(kappa - before, mean)
                before = kappa
            right = ranked.product[target] + kappa * y_mean * mean
            solution = self._solved(right, square + kappa * mean**2 + alpha * scale**2, ranked, target)
            if solution is None and not self._again:
                continue
            weight = self._in_double(y, chosen, alpha) if solution is None else solution * scale
            yield weight, n_trials * (y_mean - self._centred.mean[chosen] @ weight) / (n_trials + alpha)

    def _solved(self, right: Float64, diagonal: Float64, ranked: Ranked, target: int) -> Float64 | None:
        solution = self._solver.solve(right, diagonal) if self._mixed else None
        if self._products.gram.dtype == np.float32:
            if solution is not None and self._bears(solution, ranked, target):
                return solution
            self.n_rough += 1
            return None
        if solution is None:
            self._mixed = False  # neighbouring targets share the conditioning of the data
            return self._solver.solve_double(right, diagonal)
        return solution

    def _bears(self, solution: Float64, ranked: Ranked, target: int) -> bool:
        """Whether what float32 lost of the products leaves the weights as they are."""
        length = np.sqrt(solution @ solution)
        error = np.hypot(self._products.loss[ranked.chosen[target]] * length, ranked.loss[target])
        size = float(error.max())
        if not size > 0:
            return True
        drawn = (self._errors * (error / size)).astype(np.float32)
        effect = float(np.linalg.norm(self._solver.effect(drawn))) * size
        return bool(_SAFETY * effect <= _TOLERANCE * ranked.norm[target])

    def _in_double(self, y: Float64, chosen: Indices, alpha: float) -> Float64:
        """From the responses themselves, (n_trials, n_selected) of them."""
        rows, mean, kappa = self._centred.columns(chosen), self._centred.mean[chosen], self._centred.kappa(alpha)
        gram = rows.T @ rows + kappa * np.outer(mean, mean)
        gram.reshape(-1)[:: len(mean) + 1] += alpha
        return solve_factorised(factorise(gram), rows.T @ (y - y.mean()) + kappa * y.mean() * mean)
