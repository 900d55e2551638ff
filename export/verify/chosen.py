"""Comparing contexts that a graph chooses among candidates: of two that are equally near, rounding may take either.

Both are right, and they differ by far more than rounding does. So an engine's context is compared with that of the
candidate which its own similarities name, exactly, and the similarities with the reference's as any output is: an
engine that is wrong in either is found, and one that decides a tie otherwise is not blamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.concepts import SIMILARITY

Arrays = Mapping[str, NDArray[Any]]
CONTEXT = "context"


def as_chosen(found: Arrays, expected: Arrays, contexts: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """The reference's outputs, the context being that of the candidate which the engine's similarities name.

    Parameters
    ----------
    found : name to (n, …)
        The engine's outputs.
    expected : name to (n, …)
        The reference's.
    contexts : (n_candidates, 15, d_text), optional
        Of the candidates; None where the graph does not choose among any. Nor is anything changed where the engine's
        similarities are not such as there could be: the comparison itself says so.
    """
    similarity = np.asarray(found.get(SIMILARITY, np.zeros(0)))
    if contexts is None or SIMILARITY not in expected or similarity.shape != expected[SIMILARITY].shape:
        return dict(expected)
    if not np.isfinite(similarity).all():
        return dict(expected)
    return {**expected, CONTEXT: contexts[similarity.argmax(axis=1)]}


def not_as_chosen(found: Arrays, contexts: NDArray[Any] | None) -> str | None:
    """Why the context is not that of the candidate which the similarities name, bit by bit; None where it is.

    Whatever the precision of a graph, it hands contexts on and computes nothing with them.
    """
    if contexts is None or SIMILARITY not in found:
        return None
    best = np.asarray(found[SIMILARITY]).argmax(axis=1)
    wrong = [row for row, one in enumerate(best) if not np.array_equal(np.asarray(found[CONTEXT])[row], contexts[one])]
    if not wrong:
        return None
    return f"the context of trial {wrong[0]} is not that of the nearest candidate ({best[wrong[0]]})"
