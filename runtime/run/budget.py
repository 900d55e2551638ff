"""A budget or a deadline turned into candidates, once: what is settled stands in settings.json and is taken again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Backend
from ..decoders.belonging import Decoded
from ..errors import InputError
from ..files import read_json
from ..generators.noise import trial_noise
from ..refine.arrays import as_float64
from ..refine.base import Loss
from ..refine.costs import guided_costs, loss_cost
from ..refine.guided import guided_pass
from ..refine.search import relative_loss
from ..refine.settings import GuidedSettings
from ..refine.weights import StructuralWeights
from ..sampling import Sampling
from .identity import SETTINGS
from .reconstruct import ReconstructSettings

# Everything is measured so many times after a first one.
_TIMES = 3


def settled_before(settings: ReconstructSettings, folder: Path) -> ReconstructSettings:
    """Take the candidates over from the run folder, where its run had the same budget or deadline."""
    refine = settings.refine
    if not isinstance(refine, GuidedSettings) or refine.candidates is not None or not (folder / SETTINGS).exists():
        return settings
    there = read_json(folder / SETTINGS, "the run's settings").get("settings")
    before = there.get("refine") if isinstance(there, Mapping) else None
    if not isinstance(before, Mapping):
        return settings
    same = before.get("deadline") == refine.deadline and (
        refine.deadline is not None or before.get("budget") == refine.budget
    )
    candidates, budget = before.get("candidates"), before.get("budget")
    if not same or not isinstance(candidates, int):
        return settings
    return replace(settings, refine=replace(refine, candidates=candidates, budget=budget))


def settle(
    settings: ReconstructSettings, backend: Backend[Any], responses: NDArray[np.float32], *, rows_at_once: int
) -> ReconstructSettings:
    """Say how many candidates fit a budget or a deadline, where the settings leave that open.

    Parameters
    ----------
    settings
    backend
        Started.
    responses : (k, *response_shape)
        The good trials of a batch, to measure a deadline's steps on.
    rows_at_once
        How many rows will be computed together at most.

    Raises
    ------
    InputError
        Not even one candidate fits.
    """
    refine = settings.refine
    if settings.stage == 1 or not isinstance(refine, GuidedSettings) or refine.candidates is not None:
        return settings
    once, one = guided_costs(backend.costs, refine, settings.sampling)
    given = refine.budget or 0.0
    if refine.deadline is not None:
        of_once, of_one = paces(refine, settings.sampling, backend, responses, rows_at_once=rows_at_once)
        given = round(once + (refine.deadline - once * of_once) / of_one, 1)
    if given < once + one:
        asked = (
            f"the budget is {given:g}, and one candidate of a trial costs {once + one:.1f}"
            if refine.deadline is None
            else f"the deadline is {refine.deadline:g} s, and one candidate of a trial takes "
            f"{once * of_once + one * of_one:.3g} s here"
        )
        raise InputError(
            f"{asked}: give more, or fewer finish_steps, start_steps or n_steps, a smaller guided_share, or the preset "
            "single"
        )
    candidates = max(1, int((given - once) / one))  # one fits, however the difference rounds
    return replace(settings, refine=replace(refine, candidates=candidates, budget=given))


def paces(
    refine: GuidedSettings,
    stage1: Sampling,
    backend: Backend[Any],
    responses: NDArray[np.float32],
    *,
    rows_at_once: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Seconds per UNet forward pass of one trial: of what is done once for a picture, and of a candidate.

    The first is measured on the loss by itself, for as many rows as there are responses, the second on a pass of one
    step, for `rows_at_once` rows: candidates of all trials go through the sampler together.

    Parameters
    ----------
    refine
    stage1
        How stage 1 samples.
    backend
        Started.
    responses : (k, *response_shape)
    rows_at_once
    clock
        Gives seconds.
    """
    once, once_loss = _measured_on(refine, backend, responses)
    latent = np.asarray(once.latent)
    of_loss = _seconds(lambda: as_float64(once_loss(latent)[0]), clock)  # as_float64 waits for a GPU
    decoded, loss = _measured_on(refine, backend, responses[np.arange(rows_at_once) % len(responses)])
    sampling, short = replace(refine.sampling(stage1), n_reverse=1), replace(refine, n_steps=None, strength=None)
    noise = trial_noise(refine.seed, [f"measured/{row}" for row in range(rows_at_once)], backend.latent_shape)
    sampler = backend.generator(decoded, noise, sampling)

    def one_step() -> None:
        guided_pass(
            sampler,
            sampler.start(noise),
            loss,
            step_size=short.step_size,
            n_guided=short.n_guided(sampling),
            jacobian=short.jacobian,
        )

    of_step = _seconds(one_step, clock)
    _, units = guided_costs(backend.costs, short, sampling)
    once_units = loss_cost(backend.costs, refine.semantic_weight)
    return of_loss / (once_units * len(responses)), of_step / (units * rows_at_once)


def _measured_on(refine: GuidedSettings, backend: Backend[Any], rows: NDArray[np.float32]) -> tuple[Decoded, Loss]:
    """What is decoded of these rows, and the loss that guides them."""
    with_semantic = refine.semantic_weight > 0
    decoded = backend.decode(rows, semantic=with_semantic)
    weights = StructuralWeights.of_settings(refine, decoded.structure, backend.decoder.mask)
    semantic = decoded.semantic if with_semantic else None
    loss = relative_loss(backend.structural, decoded.structure, weights, semantic, refine.semantic_weight)
    return decoded, loss


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """The median of three calls, after a first one, which loads and compiles."""
    spent = []
    for _ in range(1 + _TIMES):
        started = clock()
        call()
        spent.append(clock() - started)
    return median(spent[1:])
