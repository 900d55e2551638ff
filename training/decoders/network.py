"""Training of a network of any architecture: held-out pictures, batches, early stopping, the best epoch's weights."""

from __future__ import annotations

import sys
from abc import ABC
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import MODALITIES, ResponseLayout
from ...runtime.decoders.network import WEIGHTS, build_network, make_config
from ...runtime.decoders.networks import architecture_module
from ...runtime.errors import InputError
from ..solvers.columns import Columns
from .base import Array, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

# Numbers of targets that are read at a time: 32 MB in float64.
_VALUES_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class NetworkFitter(ABC):
    """Settings of one feature's network, the same for every feature.

    A fitter is a frozen dataclass over this one, with its `fitter` and `architecture`, and a field for each one of the
    architecture's `Config`. One that takes only some modalities says so by `modalities`; one whose config depends on
    the layout (positions of sensors) gives it in `with_layout`.

    Attributes
    ----------
    learning_rate, weight_decay : float
        Of AdamW.
    epochs : int
        At most so many passes over the trials.
    patience : int
        Training stops after so many epochs without a lower validation loss; the best epoch's weights are kept.
    batch_size : int
        Trials per step.
    validation : float
        Share of the training *pictures* whose trials are held out to decide when to stop, at least two pictures.
    seed : int
        Of the weights, the held-out pictures, the order of trials and the dropout.
    """

    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    epochs: int = 200
    patience: int = 15
    batch_size: int = 64
    validation: float = 0.1
    seed: int = 0

    fitter: ClassVar[str]
    architecture: ClassVar[str]
    modalities: ClassVar[tuple[str, ...]] = MODALITIES
    validates_itself: ClassVar[bool] = True

    def __post_init__(self) -> None:
        make_config(self.architecture, self.config())  # which knows what its own settings may be
        for name in ("epochs", "patience", "batch_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r:.60}, expected a whole number of at least 1")
        if type(self.seed) is not int or not 0 <= self.seed < 1 << 63:
            raise InputError(f"seed is {self.seed!r:.60}, expected a whole number from 0 to 2^63 - 1")
        for name, least in (("learning_rate", sys.float_info.min), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not least <= value <= 1e6:
                raise InputError(f"{name} is {value!r:.60}, expected a number {'above' if least else 'of at least'} 0")
        if type(self.validation) not in (int, float) or not 0 < self.validation <= 0.5:
            raise InputError(f"validation is {self.validation!r:.60}, expected a share above 0 and at most 0.5")

    def config(self) -> dict[str, Any]:
        """The architecture's own settings."""
        return {
            field.name: getattr(self, field.name) for field in fields(architecture_module(self.architecture).Config)
        }

    @classmethod
    def for_feature(cls, _feature: str, **options: Any) -> Self:
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

    def with_layout(self, _layout: ResponseLayout) -> Self:
        """Itself with the settings that follow from the layout, whose modality it takes: none of its own."""
        return self

    def fit(
        self,
        responses: Array,
        targets: Columns,
        *,
        pictures: NDArray[np.integer[Any]] | None = None,
        n_threads: int | None = None,
        progress: Progress | None = None,
    ) -> FittedNetwork:
        """Fit to z-scored responses (n_trials, *response_shape) and z-scored targets (n_trials, n_targets).

        Minimises the squared error with AdamW, on the CPU, where the same seed, data and number of threads (PyTorch's
        own; `n_threads` is not looked at) give the same weights. Targets are held as float32, four bytes per trial and
        target. `progress` receives (epochs, `epochs`).

        Raises
        ------
        InputError
            There are fewer than four pictures, or the loss is not finite.
        """
        import torch

        held_out = hold_out(np.arange(len(responses)) if pictures is None else pictures, self.validation, self.seed)
        inputs = torch.from_numpy(np.asarray(responses, np.float32))
        wanted = torch.from_numpy(_read(targets))
        known, hidden = (torch.from_numpy(np.flatnonzero(which)) for which in (~held_out, held_out))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            config = make_config(self.architecture, self.config())
            network = build_network(self.architecture, config, responses.shape[1:], {"feature": targets.shape[1]})
            learning = _Learning(self, network, inputs, wanted)
            best = learning.until_no_better(known, hidden, progress)
        network.load_state_dict(best.weights)
        return FittedNetwork(
            network=network.eval().requires_grad_(False),
            architecture=self.architecture,
            config=self.config(),
            held_out=held_out,
            epoch=best.epoch,
            loss=best.loss,
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


def hold_out(pictures: NDArray[np.integer[Any]], share: float, seed: int) -> NDArray[np.bool_]:
    """Which trials to hold out, (n_trials,): all those of a drawn share of the pictures, two pictures or more.

    Raises
    ------
    InputError
        There are fewer than four pictures, so that two would not be left to fit to.
    """
    shown = np.unique(pictures)
    if len(shown) < 4:
        raise InputError(
            f"{len(shown)} training pictures are too few for a network, which holds out two or more: give 4"
        )
    n_held_out = max(2, round(share * len(shown)))
    drawn = np.random.default_rng(seed).permutation(shown)[: min(n_held_out, len(shown) - 2)]
    return np.isin(pictures, drawn)


def _read(targets: Columns) -> NDArray[np.float32]:
    n_trials, n_targets = targets.shape
    values, step = np.empty((n_trials, n_targets), np.float32), max(1, _VALUES_AT_ONCE // n_trials)
    for start in range(0, n_targets, step):
        stop = min(start + step, n_targets)
        values[:, start:stop] = targets.columns(start, stop)
    return values


@dataclass(frozen=True, eq=False)
class _Best:
    """The weights with the lowest validation loss, the epoch (from 1) that gave them, and that loss."""

    weights: dict[str, Tensor]
    epoch: int
    loss: float


@dataclass(frozen=True, eq=False)
class _Learning:
    settings: NetworkFitter
    network: nn.Module
    inputs: Tensor
    wanted: Tensor

    def until_no_better(self, known: Tensor, hidden: Tensor, progress: Progress | None) -> _Best:
        """Train until `patience` epochs have brought no lower validation loss."""
        import torch

        settings = self.settings
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        best = _Best({}, 0, float("inf"))
        for epoch in range(1, settings.epochs + 1):
            self.network.train()
            for batch in self._batches(known):
                optimiser.zero_grad()
                self._loss(batch).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            loss = self._validation_loss(hidden)
            if not np.isfinite(loss):
                raise InputError(
                    f"the {settings.fitter}'s loss became {loss} in epoch {epoch}: give a smaller learning_rate"
                )
            if loss < best.loss:
                best = _Best({k: v.detach().clone() for k, v in self.network.state_dict().items()}, epoch, loss)
            stop = epoch - best.epoch >= settings.patience
            if progress is not None:
                progress(epoch, epoch if stop else settings.epochs)
            if stop:
                break
        return best

    def _batches(self, rows: Tensor) -> Iterator[Tensor]:
        import torch

        return iter(torch.split(rows[torch.randperm(len(rows))], self.settings.batch_size))

    def _loss(self, rows: Tensor) -> Tensor:
        (found,) = self.network(self.inputs[rows])
        loss: Tensor = (found - self.wanted[rows]).square().mean()
        return loss

    def _validation_loss(self, rows: Tensor) -> float:
        import torch

        self.network.eval()
        with torch.no_grad():
            parts = torch.split(rows, self.settings.batch_size)
            return sum(float(self._loss(part)) * len(part) for part in parts) / len(rows)


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedNetwork:
    """A trained network, in float32 on the CPU.

    Attributes
    ----------
    held_out : (n_trials,) bool
        The trials that no weight was fitted to; they decided at which epoch to stop.
    epoch, loss
        The epoch whose weights these are, from 1, and its validation loss: mean squared error of z-scores, 1 for a
        decoder that always gives the mean.
    """

    network: nn.Module
    architecture: str
    config: dict[str, Any]
    held_out: NDArray[np.bool_]
    epoch: int
    loss: float

    kind: ClassVar[str] = "network"

    def predict(self, responses: Array, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        import torch

        with torch.no_grad():
            (found,) = self.network(torch.from_numpy(np.asarray(responses, np.float32)))
        return np.asarray(found[:, start:stop].numpy(), np.float64)

    def arrays(self) -> dict[str, Array]:
        return {f"{WEIGHTS}{name}": tensor.numpy() for name, tensor in self.network.state_dict().items()}

    def described(self) -> dict[str, Any]:
        return {
            "network": {"architecture": self.architecture, "config": self.config},
            "validation": {"n_trials": int(self.held_out.sum()), "epoch": self.epoch, "loss": self.loss},
        }
