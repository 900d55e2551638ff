"""Which concepts a run has decoded, where contexts are found by way of them, and how often they are the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Decoder
from ..candidates import Candidates
from ..data.concepts import alike
from ..metrics.compare import differences, mean

TOP = (1, 5)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedConcepts:
    """What was decoded from the trials of a run.

    Attributes
    ----------
    candidates : Candidates
    similarity : (n, n_candidates) float32
        Of each trial to each candidate.
    true : sequence of str, optional
        The concept that each trial showed; empty where that is not known.
    stimulus_ids : sequence of str, optional
        Of each trial, the same for trials that showed the same picture.
    """

    candidates: Candidates
    similarity: NDArray[np.float32]
    true: Sequence[str] = ()
    stimulus_ids: Sequence[str] | None = None

    @cached_property
    def ranks(self) -> list[int | None]:
        """Of each trial's true concept, 1 for the one that was taken; None where it is no candidate, or not known."""
        place: dict[str, int] = {}
        for number, name in enumerate(self.candidates.names):
            place.setdefault(alike(name), number)
        found = [place.get(alike(name)) for name in self.true] if self.true else [None] * len(self.similarity)
        # As the first of equally near candidates is taken, a stable sort puts it first.
        order = np.argsort(-self.similarity, axis=1, kind="stable")
        return [
            None if number is None else int(np.flatnonzero(row == number)[0]) + 1
            for number, row in zip(found, order, strict=True)
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Of each trial, as JSON: the concept that was taken, and by how much it is nearer than the next one."""
        nearest = np.sort(self.similarity, axis=1)[:, ::-1]
        best = self.similarity.argmax(axis=1)
        rows = []
        for row, (number, rank) in enumerate(zip(best, self.ranks, strict=True)):
            margin = float(nearest[row, 0] - nearest[row, 1]) if nearest.shape[1] > 1 else None
            true = self.true[row] if self.true else None
            rows.append({"decoded": self.candidates.names[number], "margin": margin, "true": true, "rank": rank})
        return rows

    def summary(self, seed: int) -> dict[str, Any]:
        """How often the true concept is among the nearest, over pictures, as JSON; null where it is not known.

        A trial whose concept is not among the candidates counts as wrong, and for it chance is 0.
        """
        n = len(self.candidates.names)
        found: dict[str, Any] = {
            "n_candidates": n,
            "prompt": self.candidates.prompt,
            "prototypes": self.candidates.prototypes,
            "n_trials": len(self.true),
            "n_outside": sum(rank is None for rank in self.ranks) if self.true else 0,
        }
        ids = self.stimulus_ids
        for k in TOP:
            if not self.true:
                found |= {f"top{k}": None, f"chance{k}": None, f"top{k}_minus_chance": None}
                continue
            hit = np.array([rank is not None and rank <= k for rank in self.ranks], np.float64)
            chance = np.array([0.0 if rank is None else min(1.0, k / n) for rank in self.ranks])
            name, rng = f"top{k}", np.random.default_rng(seed)
            found |= {
                name: mean(hit, ids),
                f"chance{k}": mean(chance, ids),
                f"{name}_minus_chance": differences({name: chance}, {name: hit}, rng, stimulus_ids=ids)[name],
            }
        return found


def decode_concepts(
    decoder: Decoder,
    responses: NDArray[np.float32],
    trials: Sequence[int],
    *,
    concepts: Sequence[str] = (),
    stimulus_ids: Sequence[str] | None = None,
) -> DecodedConcepts | None:
    """Decode the concepts of some trials; None where contexts are decoded directly, or there is no trial.

    Parameters
    ----------
    responses : (n_all, *response_shape)
        Screened; of all trials, as are `concepts` (empty where they are not known) and `stimulus_ids`.
    trials
        Numbers of those that are wanted, all good.
    """
    if decoder.candidates is None or not trials:
        return None
    return DecodedConcepts(
        candidates=decoder.candidates,
        similarity=decoder.similarity(responses[list(trials)], screened=True),
        true=[concepts[trial] for trial in trials] if concepts else (),
        stimulus_ids=None if stimulus_ids is None else [stimulus_ids[trial] for trial in trials],
    )


def concepts_line(found: dict[str, Any]) -> str:
    """One sentence for people, from :meth:`DecodedConcepts.summary`."""
    said = f"each context is that of the nearest of {found['n_candidates']} candidate concepts"
    if found["top1"] is None:
        return f"{said}; which one was shown is not known."
    parts = [f"top-{k} {found[f'top{k}']:.3f} (chance {found[f'chance{k}']:.3f})" for k in TOP]
    missing = f"; {found['n_outside']} of {found['n_trials']} trials showed none of them" if found["n_outside"] else ""
    return f"{said}: the true one is {', '.join(parts)}{missing}."
