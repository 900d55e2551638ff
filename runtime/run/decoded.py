"""How good a run's decoded features are by themselves: retrieval of the stimulus, and their dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Backend
from ..images import to_float
from ..metrics.compare import differences, mean
from ..metrics.dimension import participation_ratio
from ..metrics.retrieval import n_nearer, top_of

POOLS, TOP = (50, 200), (1, 5)
_BLOCK = 64

Rows = NDArray[np.float32]
# Numbers of trials -> what they showed, (n, H, W, 3) uint8.
ReadStimuli = Callable[[Sequence[int]], NDArray[np.uint8]]


def measure_decoded(
    asked: Sequence[str],
    backend: Backend[Any],
    responses: NDArray[np.float32],
    trials: Sequence[int],
    stimuli: ReadStimuli,
    stimulus_ids: Sequence[str] | None,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Compare the decoded features of some trials with those of their stimuli.

    Parameters
    ----------
    asked
        Names of :data:`~minddiffuser.runtime.metrics.select.DECODED`.
    backend
        Decodes, and computes the true features.
    responses : (n_all, *response_shape)
        Screened; of all trials.
    trials
        Numbers of those that are wanted, all good.
    stimuli
        What they showed.
    stimulus_ids
        Of `trials`, the same where the same picture was shown; None: each showed another one.
    seed
        Of the bootstrap.
    on_progress
        Called with the number of finished trials and of all.

    Returns
    -------
    The feature ("semantic", where it is decoded, and "structure", of which the trusted dimensions are taken) -> what
    summary.json says of it; and why something is left out.
    """
    n_pictures = len(trials) if stimulus_ids is None else len(set(stimulus_ids))
    if n_pictures < 2:
        return {}, (f"{' and '.join(asked)} left out: 2 different pictures or more are needed, not {n_pictures}.",)
    decoded, true = _features(backend, responses, trials, stimuli, on_progress)
    found: dict[str, Any] = {}
    notes: list[str] = []
    for name, rows in decoded.items():
        if not (np.isfinite(rows).all() and np.isfinite(true[name]).all()):
            notes.append(f"{' and '.join(asked)} of the {name} feature left out: it is NaN or infinite for some trial.")
            continue
        found[name] = {"n_dims": rows.shape[1]}
        if "retrieval" in asked:
            found[name]["retrieval"] = _retrieval(true[name], rows, stimulus_ids, n_pictures, seed)
        if "dimension" in asked:
            dimension, missing = _dimension(true[name], rows, stimulus_ids)
            found[name]["dimension"] = dimension
            notes += [f"dimension of the {name} feature left out: {missing}."] if missing else []
    small = [pool for pool in POOLS if pool > n_pictures]
    if "retrieval" in asked and found and small:
        notes.append(f"retrieval of {' and of '.join(map(str, small))} left out: there are {n_pictures} pictures.")
    return found, tuple(notes)


def _features(
    backend: Backend[Any],
    responses: NDArray[np.float32],
    trials: Sequence[int],
    stimuli: ReadStimuli,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Feature -> decoded and true rows (n, d), in blocks: whole structures of a thousand trials would be a gigabyte."""
    mask, has_semantic = backend.decoder.mask, "semantic" in backend.decoder.shapes
    decoded: dict[str, list[Rows]] = {}
    true: dict[str, list[Rows]] = {}
    for start in range(0, len(trials), _BLOCK):
        block = list(trials[start : start + _BLOCK])
        given = backend.decode(responses[block], semantic=has_semantic)
        structure, semantic = backend.features(to_float(stimuli(block)), semantic=has_semantic)
        if given.semantic is not None and semantic is not None:
            decoded.setdefault("semantic", []).append(given.semantic)
            true.setdefault("semantic", []).append(semantic)
        decoded.setdefault("structure", []).append(given.structure[:, mask])
        true.setdefault("structure", []).append(structure[:, mask])
        if on_progress is not None:
            on_progress(start + len(block), len(trials))
    return tuple({name: np.concatenate(rows) for name, rows in parts.items()} for parts in (decoded, true))  # type: ignore[return-value]


def _retrieval(
    true: Rows, decoded: Rows, ids: Sequence[str] | None, n_pictures: int, seed: int
) -> dict[str, dict[str, Any]]:
    nearer = n_nearer(true, decoded, ids)
    pools = [pool for pool in POOLS if pool < n_pictures] + [n_pictures]
    found = {}
    for pool in pools:
        for k in TOP:
            if k >= pool:
                continue
            name, values = f"top{k}_of_{pool}", top_of(nearer, n_pictures, pool, k)
            chance = np.full(len(values), k / pool)
            above = differences({name: chance}, {name: values}, np.random.default_rng(seed), stimulus_ids=ids)
            found[name] = {"value": mean(values, ids), "chance": k / pool, "minus_chance": above[name]}
    return found


def _dimension(true: Rows, decoded: Rows, ids: Sequence[str] | None) -> tuple[dict[str, float] | None, str]:
    for what, rows in (("true", true), ("decoded", decoded)):
        if not (rows != rows[0]).any():
            return None, f"the {what} ones do not vary"
    sizes = {"decoded": participation_ratio(decoded, ids), "true": participation_ratio(true, ids)}
    return {**sizes, "ratio": sizes["decoded"] / sizes["true"]}, ""


def decoded_lines(found: dict[str, Any]) -> list[str]:
    """One line for each feature, for people, from what :func:`measure_decoded` returns."""
    lines = []
    for name, entry in found.items():
        parts = [
            f"top-{rank.removeprefix('top').replace('_', ' ')} {one['value']:.3f} (chance {one['chance']:.3f})"
            for rank, one in entry.get("retrieval", {}).items()
        ]
        if entry.get("dimension"):
            sizes = entry["dimension"]
            parts.append(f"dimension {sizes['decoded']:.1f}, of the true features {sizes['true']:.1f}")
        if parts:
            lines.append(f"decoded {name} feature: {', '.join(parts)}")
    return lines
