"""A run without one of the decoded features: the ablations of the paper's Table 6.

The paper names them and does not say what takes a feature's place. Here nothing of the trial does:

context     the empty caption's, so that stage 1 and stage 2 are told nothing of what was shown
latent      none: sampling begins at the last step of its grid, from noise alone, in both stages
structure   no stage 2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError, check_choice
from ..refine.settings import GuidedSettings
from ..sampling import Sampling

if TYPE_CHECKING:
    from .reconstruct import ReconstructSettings

WITHOUT = ("context", "latent", "structure")


def check_without(names: Sequence[str]) -> None:
    """Refuse names that are no feature's, or twice there.

    Raises
    ------
    InputError
        They are.
    """
    for name in names:
        check_choice("feature to leave out", name, WITHOUT)
    if len(set(names)) < len(names):
        raise InputError(f"the features to leave out are {', '.join(names)}: name each once")


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


def without_note(names: Sequence[str]) -> tuple[str, ...]:
    """What a reader of the run must know; nothing where nothing is left out."""
    if not names:
        return ()
    means = {
        "context": "the context is the empty caption's",
        "latent": "sampling begins from noise alone",
        "structure": "there is no stage 2",
    }
    parts = "; ".join(means[name] for name in names)
    return (f"An ablation: run without the decoded {' and '.join(names)} ({parts}).",)
