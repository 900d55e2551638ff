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
MIN_MIXED = 96
# The error left after the last correction, relative to the largest unknown, as the contraction predicts it.
REFINED = 1e-8
MAX_CORRECTIONS = 6
# Poorer contraction than this would need as many corrections as float64 costs.
MAX_CONTRACTION = 0.05
DEPENDENT = (
    "the selected voxels are linearly dependent and the penalty is too small to tell them apart: "
    "use a larger alpha or fewer voxels"
)
# Strips per gather: each saves traffic and costs a few calls.
_GATHER_STRIPS = 8
_GATHER_ELEMENTS = 1 << 20
# From this many rows of the matrix for one of a system, nearly every wanted value lies in a cache line of its own, and
# to copy whole rows first would move more.
_SCATTERED = 6


def factorise(matrix: Float64) -> Float64:
    """Lower Cholesky factor in place of a C-ordered symmetric `matrix` (n, n), Fortran-ordered.

    Raises
    ------
    InputError
        When the matrix is singular to working precision.
    """
    factor, info = lapack.dpotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    if info != 0:
        raise InputError(DEPENDENT)
    return factor  # type: ignore[no-any-return]


def shifted(matrix: Float64, alpha: float) -> Float64:
    """A copy of a square matrix with `alpha` added to its diagonal."""
    copy = matrix.copy()
    copy[np.diag_indices_from(copy)] += alpha
    return copy


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
    matrix : (N, N) float64 or float32, C-ordered, symmetric positive definite
        At least its upper triangle is filled. Of a float32 one, the system is solved as exactly as of a float64 one:
        what is lost is what its entries lost.
    size : int
        How many rows each system takes.
    """

    def __init__(self, matrix: NDArray[Any], size: int) -> None:
        self._source = matrix
        self._scattered = size * _SCATTERED <= len(matrix)
        width = size if self._scattered else len(matrix)
        self._strip = max(1, min(-(-size // _GATHER_STRIPS), _GATHER_ELEMENTS // width))
        self._values = np.empty(self._strip * size, matrix.dtype)
        self._places = np.empty(self._strip * size if self._scattered else 0, np.intp)
        # Only the upper triangle (in C order; LAPACK's lower one) is ever filled and read.
        self._matrix, self._single = np.zeros((size, size)), np.zeros((size, size), np.float32)
        self._single_is_current = False
        self._factor: NDArray[Any] | None = None

    def load(self, rows: Indices) -> None:
        """Take the submatrix of `rows` (size,), ascending, for the other methods."""
        single = self._source.dtype == np.float32
        self._gather(rows, self._single if single else self._matrix)
        if single:
            np.copyto(self._matrix, self._single)
        self._single_is_current = single

    def add(self, factor: float, vector: Float64) -> None:
        """Add ``factor * vector vector'`` (size,) to what is loaded."""
        self._matrix += factor * np.outer(vector, vector)
        self._single_is_current = False

    def solve(self, right: Float64, diagonal: Float64) -> Float64 | None:
        """Return the solution (size,) for the loaded submatrix with another `diagonal` (size,).

        By float32 factors, whose error is refined away; None when they are too poor for that.
        """
        self._set_diagonal(self._matrix, diagonal)
        if self._single_is_current:
            self._set_diagonal(self._single, diagonal)
        else:
            np.copyto(self._single, self._matrix, casting="same_kind")
        self._single_is_current = False  # it becomes the factor
        self._factor, info = lapack.spotrf(self._single.T, lower=1, clean=0, overwrite_a=1)
        return None if info != 0 else self._refine(right)

    def effect(self, error: NDArray[np.float32]) -> NDArray[np.float32]:
        """How much an error (size,) of the last right-hand side changes the last solution of :meth:`solve`."""
        return _substituted(self._factor, error)

    def solve_double(self, right: Float64, diagonal: Float64) -> Float64:
        """Return what :meth:`solve` does, by float64 factors.

        Raises
        ------
        InputError
            When the matrix is singular to working precision.
        """
        self._set_diagonal(self._matrix, diagonal)
        return solve_factorised(factorise(self._matrix.copy()), right)

    @staticmethod
    def _set_diagonal(matrix: NDArray[Any], diagonal: Float64) -> None:
        matrix.reshape(-1)[:: len(diagonal) + 1] = diagonal

    def _gather(self, rows: Indices, out: NDArray[Any]) -> None:
        # The cost is memory traffic. Few of many: each value by its place. Many of them: a strip of whole rows streams
        # into the cache, from the strip's own diagonal on, and its columns are picked there.
        flat, starts = self._source.reshape(-1), rows * len(self._source)
        for first in range(0, len(rows), self._strip):
            strip, wide = slice(first, min(first + self._strip, len(rows))), len(rows) - first
            values = self._values[: (strip.stop - first) * wide].reshape(-1, wide)
            # mode="clip" writes straight into `out`; the default mode goes through a checked copy.
            if self._scattered:
                places = self._places[: values.size].reshape(values.shape)
                np.add(starts[strip, None], rows[first:], out=places)
                np.take(flat, places, out=values, mode="clip")
            else:
                near = self._source[:, rows[first] :][rows[strip]]
                np.take(near, rows[first:] - rows[first], axis=1, out=values, mode="clip")
            out[strip, first:] = values

    def _refine(self, right: Float64) -> Float64 | None:
        solution = np.zeros_like(right)
        residual, previous = right, np.inf
        for _ in range(MAX_CORRECTIONS):
            scale = float(np.abs(residual).max())
            if scale == 0.0:
                return solution
            # Scaled to 1, so that a small residual does not underflow in float32.
            correction = _substituted(self._factor, (residual / scale).astype(np.float32)).astype(np.float64)
            correction *= scale
            step = float(np.abs(correction).max())
            contraction = step / previous
            if not np.isfinite(step) or contraction > MAX_CONTRACTION:
                return None
            solution += correction
            if np.isfinite(previous) and step * contraction <= REFINED * float(np.abs(solution).max()):
                return solution
            # right - A x, from the filled triangle alone.
            residual = blas.dsymv(-1.0, self._matrix.T, solution, beta=1.0, y=right, lower=1)
            previous = step
        return None


def _substituted(factor: NDArray[Any] | None, right: NDArray[np.float32]) -> NDArray[np.float32]:
    # Two strsv calls, not spotrs: that one packs the whole factor for a single right-hand side.
    half = blas.strsv(factor, right, lower=1)
    return blas.strsv(factor, half, lower=1, trans=1)  # type: ignore[no-any-return]
