"""A budget or a deadline turned into candidates, once: what is settled stands in settings.json and is taken again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Backend
from ..errors import InputError
from ..files import read_json
from ..generators.noise import trial_noise
from ..refine.costs import guided_costs, loss_cost
from ..refine.search import relative_loss
from ..refine.settings import GuidedSettings
from ..refine.weights import StructuralWeights
from .identity import SETTINGS
from .reconstruct import ReconstructSettings

# Each step is measured so many times after a first one, which loads and compiles.
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
        Some good trials, to measure a deadline's step on.
    rows_at_once
        How many rows will be computed together.

    Raises
    ------
    InputError
        Not even one candidate fits.
    """
    refine = settings.refine
    if settings.stage == 1 or not isinstance(refine, GuidedSettings) or refine.candidates is not None:
        return settings
    before, one = guided_costs(backend.costs, refine, settings.sampling)
    given = refine.budget or 0.0
    if refine.deadline is not None:
        rate = seconds_per_unit(settings, backend, responses, rows_at_once=rows_at_once)
        given = round(refine.deadline / rate, 1)
    if given < before + one:
        asked = (
            f"the budget is {given:g}"
            if refine.deadline is None
            else f"the deadline of {refine.deadline:g} s is worth {given:g} UNet forward passes here"
        )
        raise InputError(
            f"{asked}, and one candidate of a trial costs {before + one:.1f}: give more, or fewer --n-steps, "
            "--start-steps or a smaller --guided-share"
        )
    candidates = max(1, int((given - before) / one))  # one fits, however the difference rounds
    return replace(settings, refine=replace(refine, candidates=candidates, budget=given))


def seconds_per_unit(
    settings: ReconstructSettings, backend: Backend[Any], responses: NDArray[np.float32], *, rows_at_once: int
) -> float:
    """Seconds of one trial's UNet forward pass, as a guided step spends them: the median of three, after a first."""
    refine = settings.refine
    assert isinstance(refine, GuidedSettings)
    rows = responses[np.arange(rows_at_once) % len(responses)]
    with_semantic = refine.semantic_weight > 0
    decoded = backend.decode(rows, semantic=with_semantic)
    noise = trial_noise(refine.seed, _names(rows_at_once), backend.latent_shape)
    sampler = backend.generator(decoded, noise, refine.sampling(settings.sampling))
    weights = StructuralWeights.of_settings(refine, decoded.structure, backend.decoder.mask)
    semantic = decoded.semantic if with_semantic else None
    loss = relative_loss(backend.structural, decoded.structure, weights, semantic, refine.semantic_weight)
    x, seconds = sampler.start(noise), []
    for _ in range(1 + _TIMES):
        started = time.perf_counter()
        clean, _, pull_back = sampler.linearise(x, 0)
        _, gradient, image = loss(clean)
        if refine.jacobian:
            gradient = pull_back(gradient)
        np.asarray(image if isinstance(image, np.ndarray) else image.detach().cpu())  # what a GPU still has to do
        np.asarray(gradient if isinstance(gradient, np.ndarray) else gradient.detach().cpu())
        seconds.append(time.perf_counter() - started)
    costs = backend.costs.at_guidance(settings.sampling.guidance_scale)
    units = costs.predict + loss_cost(costs, refine.semantic_weight) + (costs.back_only if refine.jacobian else 0.0)
    return median(seconds[1:]) / (units * rows_at_once)


def _names(n: int) -> Sequence[str]:
    return [f"measured/{row}" for row in range(n)]
