"""Weights carried over from a fit that has learned from the trials that are tested now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets.base import Data
from ..decoders.network import FittedNetwork, NetworkFitter
from ..leaky import Leaky
from ..normalise import TargetColumns, ZScored
from ..settings import FitSettings
from .base import Form, Given
from .tested_trials import Stacked, check_networks, tested_trials

SOURCE = "EEG_Image_decode, issue 7, acknowledged there: in a loop over subjects the weights did not begin anew"
WHAT = (
    "the network begins with the weights of an earlier fit that has learned from the trials that are tested now, as "
    "when a loop over left-out subjects does not begin anew; the clean one begins with drawn weights"
)


def check(data: Data, settings: FitSettings) -> None:
    check_networks("other-subject", data, settings, why="a decoder that begins with weights, a network")


def forms(given: Given) -> tuple[Form, Form]:
    tested = tested_trials(given)

    def fit_network(
        fitters: Mapping[str, NetworkFitter],
        responses: ZScored,
        targets: Mapping[str, TargetColumns],
        **options: Any,
    ) -> FittedNetwork:
        fitter = next(iter(fitters.values()))
        # Each trial twice: once to learn from, and once to decide when there is nothing more to learn.
        every = np.arange(len(tested.stimulus))
        twice = {name: Stacked([(one, every), (one, every)]) for name, one in tested.targets(targets).items()}
        known = tested.normalised(responses)
        earlier = fitter.fit_together(
            fitters,
            Stacked([(known, every), (known, every)]),
            twice,
            pictures=np.tile(tested.pictures, 2),
            held_out=np.repeat([False, True], len(every)),
            device=options.get("device", "cpu"),
        )
        return fitter.fit_together(fitters, responses, targets, first=earlier.weights(), **options)

    leak = Leaky(name="other-subject", decided_by={"test": tested.hash()}, fit_network=fit_network)
    return Form(data=given.data, leak=leak), Form(data=given.data)
