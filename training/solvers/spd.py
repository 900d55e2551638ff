"""Many symmetric positive definite systems, each a submatrix of one large matrix.

Half of the work of a float64 Cholesky is saved by factorising in float32 and refining the solution against the
float64 matrix (Wilkinson's iterative refinement; the driver that LAPACK calls dsposv, except that ours stops on
the measured contraction and not on a bound). When float32 cannot contract, float64 takes over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from ...runtime.errors import InputError

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

# Below this many unknowns the call overhead outweighs the arithmetic that float32 saves.
_MIN_MIXED = 96
# The error left after the last correction, relative to the largest unknown, as the contraction predicts it.
_TOLERANCE = 1e-8
_MAX_CORRECTIONS = 6
# Poorer contraction than this would need as many corrections as float64 costs.
_MAX_CONTRACTION = 0.05
# Strips per gather: each saves traffic and costs a few calls.
_GATHER_STRIPS = 8
_GATHER_ELEMENTS = 1 << 20


def factorise(matrix: Float64) -> Float64:
    """Lower Cholesky factor in place of a C-ordered symmetric `matrix` (n, n), Fortran-ordered.

    Raises
    ------
    InputError
        When the matrix is singular to working precision.
    """
    factor, info = lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        raise InputError(
            "the selected voxels are linearly dependent and the penalty is too small to tell them apart: "
            "use a larger alpha or fewer voxels"
        )
    return factor  # type: ignore[no-any-return]


def solve_factorised(factor: Float64, right: Float64) -> Float64:
    """Solve with the result of :func:`factorise`; `right` (n,) or (n, k)."""
    solution, info = lapack.dpotrs(factor, right, lower=1)
    if info != 0:
        raise InputError(f"the triangular solve failed (LAPACK dpotrs gave {info}): check the data for NaN")
    return solution  # type: ignore[no-any-return]


class SubmatrixSolver:
    """Solves ``matrix[rows][:, rows] @ x = right`` again and again with one set of buffers (one per worker).

    Parameters
    ----------
    matrix : (N, N) float64, C-ordered, symmetric positive definite
    size : int
        How many rows each system takes.
    """

    def __init__(self, matrix: Float64, size: int) -> None:
        self._source = matrix
        self._strip = max(1, min(-(-size // _GATHER_STRIPS), _GATHER_ELEMENTS // matrix.shape[1]))
        self._values = np.empty(self._strip * size)
        # Only the upper triangle (in C order; LAPACK's lower one) is ever filled and read.
        self._matrix = np.zeros((size, size))
        self._mixed = size >= _MIN_MIXED
        self._single = np.zeros((size, size) if self._mixed else (0, 0), np.float32)

    def solve(self, rows: Indices, right: Float64) -> Float64:
        """Return the solution (size,) for `rows` (size,), ascending, and `right` (size,)."""
        self._gather(rows)
        if self._mixed:
            solution = self._solve_mixed(right)
            if solution is not None:
                return solution
            self._mixed = False  # neighbouring targets share the conditioning of the data
        return solve_factorised(factorise(self._matrix), right)

    def _gather(self, rows: Indices) -> None:
        # The cost is memory traffic. A strip of whole rows streams into the cache, from the strip's own diagonal
        # on; its columns are then picked there.
        for first in range(0, len(rows), self._strip):
            strip = slice(first, min(first + self._strip, len(rows)))
            near = self._source[:, rows[first] :][rows[strip]]
            values = self._values[: len(near) * (len(rows) - first)].reshape(len(near), -1)
            # mode="clip" writes straight into `out`; the default mode goes through a checked copy.
            np.take(near, rows[first:] - rows[first], axis=1, out=values, mode="clip")
            self._matrix[strip, first:] = values
            if self._mixed:
                self._single[strip, first:] = values

    def _solve_mixed(self, right: Float64) -> Float64 | None:
        factor, info = lapack.spotrf(self._single.T, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            return None
        solution = np.zeros_like(right)
        residual, previous = right, np.inf
        for _ in range(_MAX_CORRECTIONS):
            scale = float(np.abs(residual).max())
            if scale == 0.0:
                return solution
            correction = self._correct(factor, residual, scale)
            step = float(np.abs(correction).max())
            contraction = step / previous
            if not np.isfinite(step) or contraction > _MAX_CONTRACTION:
                return None
            solution += correction
            if np.isfinite(previous) and step * contraction <= _TOLERANCE * float(np.abs(solution).max()):
                return solution
            # right - A x, from the filled triangle alone.
            residual = blas.dsymv(-1.0, self._matrix.T, solution, beta=1.0, y=right, lower=1)
            previous = step
        return None

    @staticmethod
    def _correct(factor: NDArray[Any], residual: Float64, scale: float) -> Float64:
        # Scaled to 1, so that a small residual does not underflow in float32.
        # Two strsv calls, not spotrs: that one packs the whole factor for a single right-hand side.
        half = blas.strsv(factor, (residual / scale).astype(np.float32), lower=1)
        correction = blas.strsv(factor, half, lower=1, trans=1)
        return correction.astype(np.float64) * scale  # type: ignore[no-any-return]
