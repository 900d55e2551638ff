"""What a run is to reconstruct, with what, into which folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends.base import Needs, Options
from ..errors import FileError, InputError
from ..metrics.select import select_for_run
from .reconstruct import ReconstructSettings

DEFAULTS = ("default",)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to reconstruct, with what, into which folder.

    Attributes
    ----------
    checkpoint, responses, out
        Folders and files as a person gives them; `checkpoint` may be a bundle.
    options
        What computes; see :class:`~minddiffuser.runtime.backends.base.Options`.
    trial_ids
        A file of the trials' ids; None takes the data folder's, the names of a file's arrays, or the rows.
    stimuli
        A folder of the stimuli, named by the trials' ids or in their order; None takes the data folder's
        own, if any.
    stimuli_root
        The folder that holds the pictures of a data folder that only names them; None takes the one that it states.
    train_data
        The data folder that holds the training pictures, of which the control "nearest" shows some; None: `responses`.
    skip_trials
        Trials to leave out, by their id, or their row where no id is a number; nothing of them is looked at.
    settings
        Both stages.
    batch_size
        None chooses by the picture's size.
    metrics
        Names of metrics and groups; see :func:`~minddiffuser.runtime.metrics.select.select_for_run`.
    weights
        Folder with the weights of published networks that metrics need, beside PyTorch's cache.
    download_weights
        Whether weights that are in neither may be downloaded.
    notes
        Lines for the report.
    """

    checkpoint: Path
    responses: Path
    out: Path
    options: Options = field(default_factory=Options)
    trial_ids: Path | None = None
    stimuli: Path | None = None
    stimuli_root: Path | None = None
    train_data: Path | None = None
    skip_trials: tuple[str, ...] = ()
    settings: ReconstructSettings = field(default_factory=ReconstructSettings)
    batch_size: int | None = None
    metrics: tuple[str, ...] = DEFAULTS
    weights: Path | None = None
    download_weights: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = self.batch_size
        if size is not None and (not isinstance(size, int) or size < 1):
            raise InputError(f"batch_size is {size!r}: give a whole number of 1 or more")
        for name in ("skip_trials", "metrics", "notes"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))
        paths = ("checkpoint", "responses", "out", "trial_ids", "stimuli", "stimuli_root", "train_data", "weights")
        for name in paths:
            if getattr(self, name) is not None:  # a text, as people give paths in Python
                object.__setattr__(self, name, Path(getattr(self, name)))
        object.__setattr__(self, "metrics", tuple(name for text in self.metrics for name in text.split(",")))
        select_for_run(self.metrics)
        if self.weights is not None and not self.weights.is_dir():
            raise FileError(f"the weights folder {self.weights} does not exist: check the path (--weights)")

    @property
    def needs(self) -> Needs:
        """What it asks of a backend: decoded features are measured by the semantic one too, where there is one."""
        needs = self.settings.needs
        return replace(needs, semantic=needs.semantic or bool(select_for_run(self.metrics).decoded))


def _texts(name: str, given: Any) -> tuple[str, ...]:
    """Texts as people give them in Python: one alone, or any sequence, of texts or whole numbers."""
    one_by_one = (given,) if isinstance(given, str | int | np.integer) else given
    if not isinstance(one_by_one, Iterable) or isinstance(one_by_one, bytes):
        raise InputError(f"{name} is {given!r:.60}: give texts")
    several = tuple(one_by_one)
    if not all(isinstance(one, str | int | np.integer) and not isinstance(one, bool) for one in several):
        raise InputError(f"{name} is {given!r:.60}: give texts")
    return tuple(str(one) for one in several)
