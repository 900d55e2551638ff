"""The network's training: the best epoch is kept, training stops in time, and what cannot be used is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.errors import InputError
from minddiffuser.training.decoders.base import fitted_to
from minddiffuser.training.decoders.mlp import Mlp
from minddiffuser.training.decoders.network import hold_out
from minddiffuser.training.decoders.ridge import Ridge
from minddiffuser.training.normalise import TargetColumns

SMALL: dict[str, Any] = {"hidden": 16, "depth": 1, "dropout": 0.0, "batch_size": 16}


def world(rng: np.random.Generator, n: int = 80) -> tuple[np.ndarray, TargetColumns]:
    """Responses and targets that have nothing to do with one another: a network can only learn them by heart."""
    targets = TargetColumns(rng.standard_normal((n, 4)).astype(np.float32), np.arange(n), np.arange(4))
    return rng.standard_normal((n, 3, 5)), targets


def validation_loss(fitted: Any, responses: np.ndarray, targets: TargetColumns) -> float:
    hidden = fitted.held_out
    return float(np.mean((fitted.predict(responses[hidden]) - targets.columns(0, 4)[hidden]) ** 2))


def test_the_best_epochs_weights_are_kept(rng: np.random.Generator) -> None:
    """Trained for as many epochs as were best, another fit ends with the same weights; the loss is theirs."""
    responses, targets = world(rng)
    reported: list[tuple[int, int]] = []
    fitted = Mlp(**SMALL, epochs=60, patience=60, learning_rate=0.003).fit(
        responses, targets, progress=lambda *now: reported.append(now)
    )
    assert 1 <= fitted.epoch < 60, "learning by heart makes the held-out trials worse"
    assert reported == [(epoch, 60) for epoch in range(61)]
    assert validation_loss(fitted, responses, targets) == pytest.approx(fitted.loss, rel=1e-5)
    stopped = Mlp(**SMALL, epochs=fitted.epoch, patience=60, learning_rate=0.003).fit(responses, targets)
    for key, array in stopped.arrays().items():
        np.testing.assert_array_equal(array, fitted.arrays()[key])


def test_it_stops_when_nothing_gets_better(rng: np.random.Generator) -> None:
    responses, targets = world(rng)
    reported: list[tuple[int, int]] = []
    fitted = Mlp(**SMALL, epochs=500, patience=5, learning_rate=0.01).fit(
        responses, targets, progress=lambda *now: reported.append(now)
    )
    assert reported[-1] == (fitted.epoch + 5, fitted.epoch + 5)
    assert len(reported) < 200


def test_another_seed_is_another_network(rng: np.random.Generator) -> None:
    responses, targets = world(rng)
    first, second = (Mlp(**SMALL, epochs=2, seed=seed).fit(responses, targets) for seed in (0, 1))
    assert (first.held_out != second.held_out).any()
    assert (first.arrays()["network.trunk.1.weight"] != second.arrays()["network.trunk.1.weight"]).any()


def test_a_share_of_pictures_is_held_out_with_their_repetitions() -> None:
    pictures = np.repeat(np.arange(100, 140), 3)
    for share, n in ((0.1, 4), (0.25, 10), (0.01, 2)):
        held_out = hold_out(pictures, share, seed=0)
        assert len(np.unique(pictures[held_out])) == n
        assert held_out.sum() == 3 * n
    assert hold_out(np.arange(4), 0.5, seed=3).sum() == 2
    with pytest.raises(InputError, match="3 training pictures are too few for a network"):
        hold_out(np.array([0, 1, 2, 2, 2]), 0.5, seed=0)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"hidden": 0}, "hidden is 0, expected a whole number from 1"),
        ({"hidden": 1.5}, "hidden is 1.5"),
        ({"depth": 65}, "depth is 65, expected a whole number from 1 to 64"),
        ({"dropout": 1.0}, "dropout is 1.0, expected a share from 0 to below 1"),
        ({"learning_rate": 0}, "learning_rate is 0, expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1}, "weight_decay is -1, expected a number of at least 0"),
        ({"epochs": "many"}, "epochs is 'many', expected a whole number of at least 1"),
        ({"patience": True}, "patience is True"),
        ({"batch_size": 1}, "batch_size is 1, expected a whole number of at least 2"),
        ({"validation": 0}, "validation is 0, expected a share above 0 and at most 0.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_values_that_cannot_be_used_are_refused(option: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Mlp(**option)


def test_a_loss_that_explodes_is_said(rng: np.random.Generator) -> None:
    responses, targets = world(rng)
    with pytest.raises(InputError, match="loss became .* give a smaller learning_rate"):
        Mlp(**SMALL, epochs=50, learning_rate=1e6).fit(1e18 * responses, targets)


@dataclass(frozen=True, kw_only=True)
class OfSensors(Mlp):
    """Takes EEG alone, and has as many hidden values as there are channels."""

    modalities: ClassVar[tuple[str, ...]] = ("eeg",)

    def with_layout(self, layout: ResponseLayout) -> OfSensors:
        return replace(self, hidden=layout.shape[0])


def eeg(n_channels: int) -> ResponseLayout:
    channels = tuple(Channel(name=f"E{number}", type="eeg") for number in range(n_channels))
    return ResponseLayout(
        modality="eeg", shape=(n_channels, 10), channels=channels, sfreq=100.0, tmin=0.0, unit="V", signal=None
    )


def test_a_fitter_takes_from_the_layout_what_it_needs_or_refuses_it() -> None:
    assert fitted_to(OfSensors(), eeg(3)).describe() == {**OfSensors().describe(), "hidden": 3}
    assert fitted_to(Mlp(hidden=7), eeg(3)) == Mlp(hidden=7)
    assert fitted_to(Ridge(n_selected=3), eeg(3)) == Ridge(n_selected=3)
    fmri = ResponseLayout(modality="fmri", shape=(30,))
    with pytest.raises(InputError, match=r"takes eeg responses, these are fmri of response_shape \[30\]: give another"):
        fitted_to(OfSensors(), fmri)
