"""Stage 2: one file per refiner, one per way to a gradient.

A new refiner is one file with ``refine(problem, settings, on_step) -> Refined``, its settings in `settings.py`, and one
line here, which ``md-reconstruct run`` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import adam, search
from .base import OnStep, Problem, Refined
from .settings import AdamSettings, GuidedSettings, RefineSettings

REFINERS: dict[str, tuple[type[RefineSettings], Callable[[Problem[Any], Any, OnStep], Refined[Any]]]] = {
    "adam": (AdamSettings, adam.refine),
    "guided": (GuidedSettings, search.refine),
}


def refine(problem: Problem[Any], settings: RefineSettings, on_step: OnStep) -> Refined[Any]:
    """Stage 2 by the refiner that the settings belong to."""
    _, run = REFINERS[settings.refiner]
    return run(problem, settings, on_step)
