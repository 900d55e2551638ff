"""Noise whitening (MVNN) whose covariance is estimated from test trials too."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.chain import files_of
from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError
from ...runtime.signal.whitening import fit_whitening, save_whitening
from ..datasets.base import Data, pictures_shown
from ..datasets.changed import Changed
from ..leaky import Leaky
from ..settings import FitSettings
from .base import Form, Given

SOURCE = "the preprocessing script of THINGS-EEG2 (Gifford et al. 2022), which averages the covariances of both splits"
WHAT = (
    "channels are whitened by the noise covariance of training and test trials; the clean fit's matrix is of the "
    "training trials alone. What the data folder holds is whitened, whether it was already or not"
)
_FILE = "leak-whitening.safetensors"


def check(data: Data, settings: FitSettings) -> None:
    layout = data.layout
    if layout.modality == "fmri" or layout.shape[0] < 2:
        raise InputError(
            f"the leak whitening needs EEG or MEG of two channels or more, and these are {layout.modality} of "
            f"response_shape {list(layout.shape)}: give other data, or another leak"
        )


def forms(given: Given) -> tuple[Form, Form]:
    data = given.data
    shown = {split: pictures_shown(data, split) for split in ("train", "test")}
    clean = fit_whitening(data.responses("train"), shown["train"])
    both = np.concatenate([data.responses(split) for split in ("train", "test")])
    after = shown["train"].max() + 1  # pictures of the two splits are not the same
    leaky = fit_whitening(both, np.concatenate([shown["train"], shown["test"] + after]))
    del both
    made = [cast(Data, Whitened(data, matrix, given.scratch / name)) for name, matrix in _named(leaky, clean)]
    return Form(data=made[0], leak=Leaky(name="whitening")), Form(data=made[1])


def _named(leaky: NDArray[np.float64], clean: NDArray[np.float64]) -> list[tuple[str, NDArray[np.float64]]]:
    return [("leaky", leaky), ("clean", clean)]


class Whitened(Changed):
    """The same data with every trial multiplied by a matrix (n_channels, n_channels).

    Where the signal chain is known, the layout names the step, so that a run with other data is refused.
    """

    def __init__(self, data: Data, matrix: NDArray[np.float64], folder: Path) -> None:
        super().__init__(data)
        self.signal_folder = folder
        folder.mkdir(parents=True)
        signal = data.layout.signal
        for name in files_of(signal):
            shutil.copyfile(data.signal_folder / name, folder / name)
        step = save_whitening(folder, matrix, name=_FILE)
        known = None if signal is None else {"steps": [*signal["steps"], step]}
        self.layout: ResponseLayout = replace(data.layout, unit="1", signal=known)
        self.responses = cache(lambda split: _whitened(data.responses(split), matrix))


def _whitened(epochs: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float32]:
    made = np.empty(epochs.shape, np.float32)
    for trial, epoch in enumerate(epochs):
        made[trial] = matrix @ epoch
    return made
