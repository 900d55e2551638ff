"""The two forms of a leak, and what both are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import check_choice
from ...runtime.features import EMBEDDING
from ..concepts import unit
from ..datasets.base import Data
from ..leaky import Leaky
from ..settings import FitModels, FitSettings, OnProgress, Say, cache_folder
from . import LEAKS

Array = NDArray[Any]
# Of everything that is drawn.
SEED = 0
# With fewer pictures there is no interval.
LEAST_PICTURES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Form:
    """One of the two fits that are compared.

    Attributes
    ----------
    data
        It is fitted to the train split and tested with the trials of the test split. Both forms have the same test
        trials in the same order, whatever is done to their responses.
    leak
        What the fit does otherwise; None: nothing.
    """

    data: Data
    leak: Leaky | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What the forms are made from.

    Attributes
    ----------
    data, settings, models, out
        Those of the fit that was asked for; `settings` without a leak.
    scratch
        A folder for files that are needed while both are fitted.
    """

    data: Data
    settings: FitSettings
    models: FitModels
    out: Path
    scratch: Path
    progress: OnProgress
    say: Say

    def features(self, data: Data, split: str) -> dict[str, Array]:
        """What decoders are fitted to, of every stimulus of a split: name to (n_stimuli, …); only what there is."""
        from ..features.extract import extract_features

        found = extract_features(
            data,
            split,
            self.models,  # type: ignore[arg-type]
            cache_dir=cache_folder(self.out, self.settings),
            batch_size=self.settings.batch_size,
            embedding=self.settings.concepts is not None,
            progress=partial(self.progress, f"features of {split}"),
            say=self.say,
        )
        named = {name: getattr(found, name, None) for name in self.settings.targets}
        there = {name: values for name, values in named.items() if values is not None}
        return {name: unit(values) if name == EMBEDDING else values for name, values in there.items()}


class Leak(Protocol):
    """A module of the registry."""

    SOURCE: str
    WHAT: str

    def check(self, data: Data, settings: FitSettings) -> None:
        """Refuse what the leak does not apply to, before models are opened.

        Raises
        ------
        InputError
            In one sentence, what it needs.
        """
        ...

    def forms(self, given: Given) -> tuple[Form, Form]:
        """The leaky form and the clean one."""
        ...


def open_leak(name: str) -> Leak:
    """The module of a registered leak.

    Raises
    ------
    InputError
        The name is unknown.
    """
    check_choice("leak", name, LEAKS)
    return cast(Leak, import_module(LEAKS[name], __package__))


def network_features(settings: FitSettings) -> tuple[str, ...]:
    """The features whose decoders are trained in epochs."""
    return tuple(name for name in settings.targets if hasattr(settings.decoder(name), "fit_together"))


def is_repeated(pictures: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Whether the picture of each trial (n,) was shown in another one too."""
    _, which, count = np.unique(pictures, return_inverse=True, return_counts=True)
    repeated: NDArray[np.bool_] = count[which] > 1
    return repeated
