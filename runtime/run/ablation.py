"""The settings of a run that leaves out decoded features; what that means stands in :mod:`.without`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..refine.settings import GuidedSettings
from ..sampling import Sampling
from .reconstruct import ReconstructSettings
from .without import WITHOUT, check_without


def without(settings: ReconstructSettings, names: Sequence[str]) -> ReconstructSettings:
    """The settings of a run that leaves out some features: where it samples from, and where it stops.

    Raises
    ------
    InputError
        A name that is no feature's; or controls, where there is no stage 2.
    """
    check_without(names)
    changed = replace(settings, without=tuple(name for name in WITHOUT if name in names))
    if "latent" in names:
        refine = settings.refine
        if isinstance(refine, GuidedSettings):
            own: dict[str, Any] = {} if refine.strength is None else {"strength": 1.0}
            refine = replace(refine, start_steps=0, **own)
        changed = replace(changed, refine=refine, sampling=_whole(settings.sampling))
    return replace(changed, stage=1) if "structure" in names else changed


def _whole(sampling: Sampling) -> Sampling:
    """All steps of the grid, from its noise."""
    return replace(sampling, n_noise=None, n_reverse=sampling.n_steps)
