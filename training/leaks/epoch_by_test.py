"""The epoch of a training chosen by the test trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..datasets.base import Data
from ..decoders.network import FittedNetwork, NetworkFitter
from ..leaky import Leaky
from ..normalise import TargetColumns, ZScored
from ..settings import FitSettings
from .base import Form, Given
from .tested_trials import Stacked, check_networks, tested_trials

SOURCE = "ATM (EEG_Image_decode); EEG-Conformer, issues 2 and 51; LibEER, issue 12"
WHAT = (
    "early stopping and the kept epoch are decided by the loss on the test trials; weights learn from the same "
    "training trials as in the clean fit, and the held-out training pictures serve for nothing"
)


def check(data: Data, settings: FitSettings) -> None:
    check_networks("test-epoch", data, settings, why="a decoder that is trained in epochs")


def forms(given: Given) -> tuple[Form, Form]:
    tested = tested_trials(given)

    def fit_network(
        fitters: Mapping[str, NetworkFitter],
        responses: ZScored,
        targets: Mapping[str, TargetColumns],
        *,
        pictures: NDArray[np.integer[Any]],
        **options: Any,
    ) -> FittedNetwork:
        fitter = next(iter(fitters.values()))
        held_out = fitter.hold_out(pictures)
        known, every = np.flatnonzero(~held_out), np.arange(len(tested.stimulus))
        of_test = tested.targets(targets)
        after = int(pictures.max()) + 1  # no picture of one split is one of the other
        fitted = fitter.fit_together(
            fitters,
            Stacked([(responses, known), (tested.normalised(responses), every)]),
            {name: Stacked([(columns, known), (of_test[name], every)]) for name, columns in targets.items()},
            pictures=np.concatenate([pictures[known], tested.pictures + after]),
            held_out=np.repeat([False, True], [len(known), len(every)]),
            **options,
        )
        return replace(fitted, held_out=held_out)  # what no weight was fitted to, of the training trials

    leak = Leaky(name="test-epoch", decided_by={"test": tested.hash()}, fit_network=fit_network)
    return Form(data=given.data, leak=leak), Form(data=given.data)
