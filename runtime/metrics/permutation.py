"""Permutation tests over pictures: of the pairing of pictures with stimuli, and of paired differences.

A metric's value of one picture may depend on other stimuli, as two-way identification's does: it is compared with the
stimuli of the others. Its values are then not independent of each other, and a test that counts comparisons as
independent ones (the binomial over all pairs, say) finds far too much. Both tests here stay right:

- the pairing test gives a picture another stimulus and looks at what the metric says of it *then*, with all other
  stimuli as its competitors; it does not exchange values that were computed under the true pairing;
- the sign-flip test exchanges two methods' pictures of one stimulus. What the metric says of the one or the other
  depends on the stimuli, which stay, and not on other pictures, so exchanging the values is exchanging the pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from .base import Array, FloatArray

N_PERMUTATIONS = 10_000
# Pictures exchange their stimuli in groups of so many: all with all would take n times n comparisons.
GROUP = 10
_CHUNK = 2_000_000  # numbers held at a time
# Rounding must not decide whether a permutation that gives the same sum counts as one at least as good.
_TIE = 1e-12


@dataclass(frozen=True)
class PermutationTest:
    """A p-value, of how many permutations, and whether these are all that there are."""

    p_value: float
    n_permutations: int
    exact: bool


def groups_of(n_pictures: int, rng: np.random.Generator, size: int = GROUP) -> tuple[NDArray[np.intp], ...]:
    """Pictures put at random into groups of about `size`, at least two in each where there are two.

    Parameters
    ----------
    n_pictures
        How many there are.
    rng
        Of the order.
    size
        The most in a group.

    Returns
    -------
    Numbers of pictures, ascending, group by group; all in one where there are at most `size`.
    """
    if n_pictures < 1 or size < 2:
        raise InputError(f"{n_pictures} pictures were to be put into groups of {size}: give 1 or more, and 2 or more")
    n_groups = -(-n_pictures // size)
    return tuple(np.sort(part) for part in np.array_split(rng.permutation(n_pictures), n_groups))


def pairing_test(
    crossed: Sequence[Array],
    rng: np.random.Generator,
    *,
    better: str = "higher",
    n_permutations: int = N_PERMUTATIONS,
) -> PermutationTest:
    """Whether pictures are better reconstructions of their own stimuli than of each other's; one-sided.

    Under the null hypothesis it does not matter which picture belongs to which stimulus, so the mean value over
    pictures is one of those that all permutations of the pairing give. Permutations within groups are a subgroup of
    all permutations, which is what makes a test exact: a p-value of 0.05 or less turns up in at most one of twenty
    cases where there is nothing.

    Parameters
    ----------
    crossed
        Of each group, (k, k): the metric's value of picture j if it were a reconstruction of stimulus i, at [i, j];
        the true pairing is the diagonal.
    rng
        Source of the permutations where there are more than `n_permutations`.
    better
        Which direction is better, "higher" or "lower".
    n_permutations
        Where there are at most so many, all of them are taken and the p-value is the share of those whose mean is at
        least as good, the true pairing among them; else so many are drawn and it is (k + 1) / (n + 1).

    Raises
    ------
    ShapeError, InputError
        For other shapes, values that are not finite, no picture, or settings out of range.
    """
    sign = _sign(better)
    values = [_square(group) for group in crossed]
    if not values or n_permutations < 1:
        raise InputError(f"{len(values)} groups and {n_permutations} permutations were given: give at least 1 of each")
    observed = sum(float(np.trace(group)) for group in values)
    tie = _TIE * sum(float(np.abs(group).max(axis=0).sum()) for group in values)
    n_all = prod(factorial(len(group)) for group in values)
    exact = n_all <= n_permutations
    sums = _all_sums(values) if exact else _drawn_sums(values, rng, n_permutations)
    k = sum(int((sign * (part - observed) >= -tie).sum()) for part in sums)
    return PermutationTest(k / n_all, n_all, True) if exact else _of_draws(k, n_permutations)


def sign_flip_test(
    differences: Array, rng: np.random.Generator, *, n_permutations: int = N_PERMUTATIONS
) -> PermutationTest:
    """Whether two methods differ on the same pictures, by the mean of paired differences; two-sided.

    Under the null hypothesis either method could have made either picture of a stimulus, so each difference could as
    well have the other sign.

    Parameters
    ----------
    differences
        (n,) finite, one per picture.
    rng, n_permutations
        As for :func:`pairing_test`; there are 2 ** n flips.

    Raises
    ------
    ShapeError, InputError
        For another rank, no difference, values that are not finite, or settings out of range.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not len(values):
        raise ShapeError(f"differences have shape {values.shape}, expected (n,), n >= 1: give one per picture")
    if not np.isfinite(values).all():
        raise InputError("differences hold NaN or infinite values, expected finite ones: drop those pictures")
    if n_permutations < 1:
        raise InputError(f"{n_permutations} permutations were asked for: give at least 1")
    n = len(values)
    exact = n < 63 and 2**n <= n_permutations
    observed, tie = abs(values.sum()), _TIE * np.abs(values).sum()
    n_all = 2**n if exact else n_permutations
    k = 0
    step = max(1, _CHUNK // n)
    for start in range(0, n_all, step):
        rows = min(step, n_all - start)
        if exact:
            flips = (np.arange(start, start + rows)[:, None] >> np.arange(n)) & 1
        else:
            flips = rng.integers(2, size=(rows, n), dtype=np.int8)
        k += int((np.abs((1 - 2.0 * flips) @ values) >= observed - tie).sum())
    return PermutationTest(k / n_all, n_all, True) if exact else _of_draws(k, n_permutations)


def mean_of_others(crossed: Sequence[Array]) -> float | None:
    """The mean value of pictures as reconstructions of other stimuli of their group: what no relation would give.

    None where every group is a single picture.
    """
    pairs = sum(group.size - len(group) for group in crossed)
    if not pairs:
        return None
    return sum(float(group.sum() - np.trace(group)) for group in crossed) / pairs


def _of_draws(k: int, n: int) -> PermutationTest:
    return PermutationTest((k + 1) / (n + 1), n, False)


def _all_sums(values: Sequence[FloatArray]) -> Iterator[FloatArray]:
    """The sum of every permutation within the groups."""
    total = np.zeros(1)
    for group in values:
        order = np.array(list(permutations(range(len(group)))))
        sums = group[order, np.arange(len(group))].sum(axis=1)
        total = (total[:, None] + sums).ravel()
    yield total


def _drawn_sums(values: Sequence[FloatArray], rng: np.random.Generator, n: int) -> Iterator[FloatArray]:
    step = max(1, _CHUNK // sum(map(len, values)))
    for start in range(0, n, step):
        rows = min(step, n - start)
        sums = np.zeros(rows)
        for group in values:
            order = rng.random((rows, len(group))).argsort(axis=1)
            sums += group[order, np.arange(len(group))].sum(axis=1)
        yield sums


def _square(group: Array) -> FloatArray:
    values = np.asarray(group, np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not len(values):
        raise ShapeError(f"a group of pictures has values of shape {values.shape}: give (k, k), stimuli by pictures")
    if not np.isfinite(values).all():
        raise InputError("values hold NaN or infinite ones, expected finite ones: drop those pictures")
    return values


def _sign(better: str) -> int:
    if better not in ("higher", "lower"):
        raise InputError(f"better is {better!r}: give 'higher' or 'lower'")
    return 1 if better == "higher" else -1
