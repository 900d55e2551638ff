"""Exact tests of choices between two: the binomial one, its interval and power, and the sign flip over clusters."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb, exp, fsum, lgamma, log

_HALVINGS = 60  # of a bisection: below the spacing of doubles in [0, 1]


def binomial_p(successes: int, n: int) -> float:
    """The two-sided p-value of `successes` in `n` choices where both are equally likely; 1 where there are none.

    Computed in whole numbers: of 2^n sequences of choices, the share with a count at least as far from n / 2.
    """
    fewer = min(successes, n - successes)
    if 2 * fewer == n:
        return 1.0
    return float(Fraction(2 * _sequences(fewer, n), 1 << n))


def _sequences(most: int, n: int) -> int:
    """How many of the 2^n sequences of n choices have at most `most` of one kind."""
    total = term = 1
    for k in range(most):
        term = term * (n - k) // (k + 1)
        total += term
    return total


def at_least(successes: int, n: int, share: float) -> float:
    """P(X >= successes) of a binomial X of `n` choices with probability `share`."""
    if successes <= 0:
        return 1.0
    if successes > n or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    whole = lgamma(n + 1)
    terms = (
        whole - lgamma(k + 1) - lgamma(n - k + 1) + k * log(share) + (n - k) * log(1 - share)
        for k in range(successes, n + 1)
    )
    return min(1.0, fsum(map(exp, terms)))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a binomial probability (Clopper & Pearson 1934): both tails hold (1 - level) / 2.

    Parameters
    ----------
    successes, n
        0 <= successes <= n, n >= 1.
    level
        Coverage, in (0, 1).
    """
    tail = (1 - level) / 2
    # The upper end is the lower one of the other choice.
    return _lower_end(successes, n, tail), 1 - _lower_end(n - successes, n, tail)


def _lower_end(successes: int, n: int, tail: float) -> float:
    """The probability at which so many successes or more come with probability `tail`; 0 where there are none."""
    if successes == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_least(successes, n, middle) < tail else (low, middle)
    return (low + high) / 2


def most_rejected(n: int, alpha: float) -> int | None:
    """The largest count of the rarer choice at which the two-sided test rejects; None where no count does."""
    limit, total, term, most = Fraction(alpha) * (1 << n) / 2, 0, 1, None
    for k in range(n // 2 + 1):
        total += term
        if total > limit:
            break
        most, term = k, term * (n - k) // (k + 1)
    return most


def power(n: int, share: float, alpha: float = 0.05) -> float:
    """With what probability the two-sided test of `n` choices rejects, where the preference is `share`."""
    most = most_rejected(n, alpha)
    if most is None:
        return 0.0
    return at_least(n - most, n, share) + at_least(n - most, n, 1 - share)


def detectable(n: int, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
    """The smallest preference above one half that `n` choices detect with probability `wanted`; None where none is."""
    most = most_rejected(n, alpha)
    if most is None:
        return None
    low, high = 0.5, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = at_least(n - most, n, middle) + at_least(n - most, n, 1 - middle) >= wanted
        low, high = (low, middle) if reached else (middle, high)
    return high


def guesser_passes(failures: int, n: int) -> float:
    """With what probability somebody who guesses makes at most so many mistakes in `n`."""
    return float(Fraction(sum(comb(n, k) for k in range(failures + 1)), 1 << n))


def sign_flip_p(differences: Sequence[int]) -> float:
    """The two-sided p-value of a sum whose terms' signs are as likely one way as the other, by all 2^n sign patterns.

    With one difference per picture (choices of the second minus choices of the first, of all judges), a picture's
    choices stay together, however much they depend on each other.

    Parameters
    ----------
    differences
        (n,) whole numbers; zeros change nothing.

    Notes
    -----
    Flipping signs is choosing which differences count as positive: the number of patterns for each sum of the chosen
    ones is a coefficient of the product of (1 + x^|d|). The polynomial is kept as one whole number, x a power of two
    above every coefficient.
    """
    sizes = [abs(value) for value in differences if value]
    total, observed = sum(sizes), abs(sum(differences))
    if observed == 0:
        return 1.0
    bits = len(sizes) + 2
    product = 1
    for size in sizes:
        product += product << (bits * size)
    most = (total - observed) // 2  # of the positive ones, for a sum of -observed or less
    lowest = product & ((1 << bits * (most + 1)) - 1)
    # The sum of a number's digits is its remainder by the base minus one, where it is smaller than that.
    patterns = lowest % ((1 << bits) - 1)
    return float(Fraction(2 * patterns, 1 << len(sizes)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for there being several (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, floor = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = floor
    return corrected
