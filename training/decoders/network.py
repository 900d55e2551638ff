"""Networks of any architecture as decoders: one per feature, or one trunk for several."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import MODALITIES, ResponseLayout
from ...runtime.decoders.network import WEIGHTS, build_network, make_config
from ...runtime.decoders.networks import architecture_module
from ...runtime.errors import InputError
from ...runtime.files import hash_of_json
from ..networks.batches import Rows, open_batches
from ..networks.hardware import open_hardware
from ..networks.held_out import hold_out
from ..networks.loop import Keeping, Stopped, Training
from ..networks.loss import FIRST_LOG_SCALE, Objective
from ..networks.settings import TrainingSettings
from ..networks.state import Curves
from ..solvers.columns import Columns
from .base import Array, Progress

if TYPE_CHECKING:
    from torch import nn

# Settings that belong to a feature's head, so that features with different ones may share a trunk.
_OF_A_HEAD = ("contrastive",)
# Trials: what a network holds of each between its layers is many times the trial.
_PREDICTED_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class NetworkFitter(TrainingSettings, ABC):
    """Settings of one feature's network: see :class:`..networks.settings.TrainingSettings` for its training.

    A fitter is a frozen dataclass over this one, with its `fitter` and `architecture`, and a field for each one of the
    architecture's `Config`. One that takes only some modalities says so by `modalities`; one whose config depends on
    the layout (positions of sensors) gives it in `with_layout`.
    """

    fitter: ClassVar[str]
    architecture: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]] = MODALITIES
    validates_itself: ClassVar[bool] = True

    def __post_init__(self) -> None:
        make_config(self.architecture, self.config())  # which knows what its own settings may be
        super().__post_init__()

    def config(self) -> dict[str, Any]:
        """The architecture's own settings."""
        return {
            field.name: getattr(self, field.name) for field in fields(architecture_module(self.architecture).Config)
        }

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """The same settings for every feature."""
        return cls(**options)

    def fitted_to(self, layout: ResponseLayout) -> Self:
        """Itself, where the network takes such responses.

        Raises
        ------
        InputError
            It is for another modality, or the architecture refuses the `response_shape`.
        """
        given = f"these are {layout.modality} of response_shape {list(layout.shape)}"
        if layout.modality not in self.modalities:
            takes = " or ".join(self.modalities)
            raise InputError(f"decoder {self.fitter!r} takes {takes} responses, {given}: give another --decoder")
        made = self.with_layout(layout)
        check_shape(self.architecture, make_config(self.architecture, made.config()), layout.shape)
        return made

    def with_layout(self, layout: ResponseLayout) -> Self:
        """Itself with the settings that follow from the layout, whose modality it takes: none of its own."""
        return self

    @property
    def trunk(self) -> str:
        """The same for fitters whose features may be heads of one network."""
        return hash_of_json({name: value for name, value in self.describe().items() if name not in _OF_A_HEAD})

    def hold_out(self, pictures: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which trials decide when to stop; see :func:`..networks.held_out.hold_out`."""
        return hold_out(pictures, self.validation, self.seed)

    def fit(
        self,
        responses: Array,
        targets: Columns,
        *,
        pictures: NDArray[np.integer[Any]] | None = None,
        n_threads: int | None = None,
        progress: Progress | None = None,
    ) -> FittedNetwork:
        """Fit one feature on the CPU; see :meth:`fit_together`."""
        shown = np.arange(len(responses)) if pictures is None else pictures
        return self.fit_together({"feature": self}, responses, {"feature": targets}, pictures=shown, progress=progress)

    @staticmethod
    def fit_together(  # noqa: PLR0913 (what a training may begin with and go by; most has a default)
        fitters: Mapping[str, NetworkFitter],
        responses: Rows,
        targets: Mapping[str, Columns],
        *,
        pictures: NDArray[np.integer[Any]],
        device: str = "cpu",
        keeping: Keeping | None = None,
        held_out: NDArray[np.bool_] | None = None,
        first: Mapping[str, Array] | None = None,
        progress: Progress | None = None,
    ) -> FittedNetwork:
        """Fit one network with a head for each feature.

        On the CPU the same seed, data and number of threads (PyTorch's own) give the same weights.

        Parameters
        ----------
        fitters : feature to fitter, all of the same `trunk`
        responses : (n_trials, *response_shape)
            Z-scored: an array, or what makes rows of it when they are asked for.
        targets : feature to Columns
            Z-scored, (n_trials, n_targets).
        pictures : (n_trials,) int
            The same for trials of one picture.
        device : str
            See :func:`..networks.hardware.open_hardware`.
        keeping : Keeping, optional
            Where the state is kept between epochs, and the one to go on from.
        held_out : (n_trials,) bool, optional
            The trials that decide when to stop; those of :meth:`hold_out` when not given.
        first : name to array, optional
            The weights to begin with, as :meth:`FittedNetwork.weights` gives them; drawn when not given.
        progress : callable, optional
            Receives (epochs done, of at most how many).

        Raises
        ------
        InputError
            There are fewer than four pictures, no such device, or a loss that is no number before any epoch is done.
        """
        import torch

        settings = next(iter(fitters.values()))
        held_out = settings.hold_out(pictures) if held_out is None else held_out
        hardware = open_hardware(device, settings.precision)
        with hardware.seeded(settings.seed):
            config = make_config(settings.architecture, settings.config())
            n_outputs = {feature: columns.shape[1] for feature, columns in targets.items()}
            network = build_network(settings.architecture, config, tuple(responses.shape[1:]), n_outputs)
            if first is not None:
                network.load_state_dict({name: torch.from_numpy(array) for name, array in first.items()})
            training = Training(
                network=network.to(hardware.device),
                objective=_objective(fitters, hardware.device),
                batches=open_batches(responses, targets, pictures, hardware.device),
                settings=settings,
                hardware=hardware,
            )
            known, hidden = np.flatnonzero(~held_out), np.flatnonzero(held_out)
            # Drawn once, so that repetitions that lie side by side do not fill a batch.
            hidden = np.random.default_rng(settings.seed).permutation(hidden)
            training.run(torch.from_numpy(known), torch.from_numpy(hidden), keeping=keeping, progress=progress)
        if training.best.epoch == 0:
            raise InputError(
                f"the {settings.fitter} cannot be trained, {training.stopped}, before any epoch was done: give a "
                "smaller learning_rate"
            )
        network.load_state_dict(training.best.weights)
        return FittedNetwork(
            network=network.cpu().eval().requires_grad_(False),
            features=tuple(fitters),
            architecture=settings.architecture,
            config=settings.config(),
            held_out=held_out,
            epoch=training.best.epoch,
            loss=training.best.loss,
            curves=training.curves,
            stopped=training.stopped,
            computed=(hardware.device.type, hardware.precision),
        )

    def describe(self) -> dict[str, Any]:
        return {"fitter": self.fitter, **asdict(self)}


def check_shape(architecture: str, config: Any, response_shape: tuple[int, ...]) -> None:
    """Refuse responses that an architecture cannot be built for.

    Raises
    ------
    InputError
        From the architecture.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):  # nothing is computed or held
        build_network(architecture, config, response_shape, {"feature": 1})


def _objective(fitters: Mapping[str, NetworkFitter], device: Any) -> Objective:
    import torch

    scales = {
        feature: torch.tensor(FIRST_LOG_SCALE, device=device, requires_grad=fitter.logit_scale == "learned")
        for feature, fitter in fitters.items()
        if fitter.contrastive > 0
    }
    return Objective({feature: fitter.contrastive for feature, fitter in fitters.items()}, scales)


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedNetwork:
    """A trained network, in float32 on the CPU.

    Attributes
    ----------
    features
        One for each output of the network; `output` is the number of the one that is predicted: see :meth:`of`.
    held_out : (n_trials,) bool
        The trials that no weight was fitted to; they decided at which epoch to stop.
    epoch, loss
        The epoch whose weights these are, from 1, and its validation loss. Without a contrastive term it is the mean
        squared error of z-scores, 1 for a decoder that always gives the mean.
    curves
        The losses of every epoch.
    stopped
        Where the loss was no number any more; None where training ended by itself.
    computed
        The device's type and the precision of the training.
    """

    network: nn.Module
    features: tuple[str, ...]
    architecture: str
    config: dict[str, Any]
    held_out: NDArray[np.bool_]
    epoch: int
    loss: float
    curves: Curves
    stopped: Stopped | None
    computed: tuple[str, str]
    output: int = 0

    kind: ClassVar[str] = "network"

    def of(self, feature: str) -> FittedNetwork:
        """The same network as the decoder of one of its features."""
        return replace(self, output=self.features.index(feature))

    def predict(self, responses: Array, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        import torch

        parts = torch.split(torch.from_numpy(np.asarray(responses, np.float32)), _PREDICTED_AT_ONCE)
        with torch.no_grad():
            found = [self.network(part)[self.output][:, start:stop] for part in parts]
        return np.asarray(torch.cat(found).numpy(), np.float64)

    def weights(self) -> dict[str, Array]:
        """The network's own, by their names in it."""
        return {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}

    def arrays(self) -> dict[str, Array]:
        return {f"{WEIGHTS}{name}": array for name, array in self.weights().items()}

    def described(self) -> dict[str, Any]:
        validation: dict[str, Any] = {"n_trials": int(self.held_out.sum()), "epoch": self.epoch, "loss": self.loss}
        if self.stopped is not None:
            validation["stopped"] = str(self.stopped)
        return {
            "network": {"architecture": self.architecture, "config": self.config},
            "validation": validation,
            "computed": {"device": self.computed[0], "precision": self.computed[1]},
        }
