"""Whether what was found goes the way that the paper's numbers go, in one word."""

from __future__ import annotations

from collections.abc import Sequence

from .paper import Number, PaperTable
from .results import Estimate

AGREES, DISAGREES, UNDECIDED, PARTLY = "agrees", "disagrees", "undecided", "partly"
MEANINGS = {
    AGREES: "the difference goes the way of the paper's, and its interval excludes 0",
    DISAGREES: "it goes the other way, and its interval excludes 0",
    UNDECIDED: "its interval includes 0, or there are fewer than five pictures",
    PARTLY: "of a row: some metrics agree and others disagree",
}


def direction(table: PaperTable, row: str, against: str | None, metric: str) -> int | None:
    """Which way the paper's numbers go: 1 or -1; 0 where they differ by no more than both "±"; None without numbers.

    Of a table of gains the sign of the gain, else that of row minus `against`; of the metric's own values, so that of a
    distance -1 is an improvement.
    """
    own = table.rows.get(row, {}).get(metric)
    if own is None:
        return None
    if table.gains:
        return _sign(own[0])
    other = None if against is None else table.rows.get(against, {}).get(metric)
    if other is None:
        return None
    apart = own[0] - other[0]
    return 0 if abs(apart) <= (own[1] or 0.0) + (other[1] or 0.0) else _sign(apart)


def verdict(paper: int | None, found: Estimate | None) -> str | None:
    """The word for one comparison; None where the paper has no direction, or nothing was measured."""
    if not paper or found is None:
        return None
    if not found.clear:
        return UNDECIDED
    return AGREES if found.clear == paper else DISAGREES


def of_row(words: Sequence[str | None]) -> str | None:
    """The word for a row of comparisons; None where there is none."""
    given = [word for word in words if word is not None]
    if not given:
        return None
    clear = set(given) - {UNDECIDED}
    if not clear:
        return UNDECIDED
    return clear.pop() if len(clear) == 1 else PARTLY


def number_text(number: Number, *, gain: bool) -> str:
    """A number of the paper as it stands there."""
    value, spread = number
    if gain:
        return f"{value:+.1f} %"
    return f"{value:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def _sign(value: float) -> int:
    return int(value > 0) - int(value < 0)
