"""`network`: an architecture by name, its config, and its weights; one trunk may serve several features.

checkpoint.json says ``"network": {"architecture": …, "config": {…}}``. The file holds the weights under the module's
own names after "network.", and of each feature the placement after "<feature>.". Predicted by PyTorch here, and by
the exported graph in a bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileError, InputError, MissingExtra, ShapeError
from ..files import Array, check_arrays, read_tensors
from .base import ADVICE, Float32, Placement, Stored
from .networks import architecture_module

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "network."


def make_config(architecture: str, settings: Mapping[str, Any]) -> Any:
    """The config of a registered architecture.

    Raises
    ------
    InputError
        The name or a setting is unknown, or a value cannot be used.
    """
    config = architecture_module(architecture).Config
    try:
        return config(**settings)
    except TypeError as error:
        raise InputError(
            f"the architecture {architecture!r} cannot use its config ({error}): give other values"
        ) from error


def build_network(
    architecture: str, config: Any, response_shape: tuple[int, ...], n_outputs: Mapping[str, int]
) -> nn.Module:
    """Make a registered architecture's module, with fresh weights.

    Parameters
    ----------
    config
        Of :func:`make_config`.
    n_outputs
        feature -> how many of its dimensions are predicted.

    Returns
    -------
    A module from (n_trials, *response_shape) to a tuple with (n_trials, n_outputs) for each feature, in that order.

    Raises
    ------
    MissingExtra
        There is no PyTorch.
    """
    needs_torch()
    made: nn.Module = architecture_module(architecture).build(config, response_shape, n_outputs)
    return made


def needs_torch() -> None:
    """Raise :class:`MissingExtra` where there is no PyTorch."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra(
            "a checkpoint with a network is decoded by PyTorch: pip install 'minddiffuser[torch]', or run the bundle "
            "that md-export bundle makes of it"
        ) from error


@dataclass(frozen=True, eq=False)
class Network:
    """A network that is built when it is first asked for; see :class:`~.base.Decoder`.

    Attributes
    ----------
    weights
        As the module names them.
    """

    stored: Stored
    architecture: str
    config: Any
    placements: Mapping[str, Placement]
    weights: Mapping[str, Array]

    @cached_property
    def module(self) -> nn.Module:
        """On the CPU, in float32, for decoding: nothing is dropped, nothing has a gradient.

        Raises
        ------
        FileError
            The weights are not those of the architecture.
        """
        needs_torch()
        import torch

        n_outputs = {feature: len(place.position) for feature, place in self.placements.items()}
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # fresh weights are made for nothing
            try:
                module = build_network(self.architecture, self.config, self.stored.response_shape, n_outputs)
            except InputError as error:
                raise self.stored.refuse(str(error)) from error
        wanted = {
            name: (np.dtype(str(tensor.dtype).removeprefix("torch.")).type, tuple(tensor.shape))
            for name, tensor in module.state_dict().items()
        }
        if wanted.keys() != self.weights.keys():
            strange = ", ".join(sorted(wanted.keys() ^ self.weights.keys())[:4])
            raise self.stored.refuse(f"its weights are not those of the network {self.architecture!r} ({strange})")
        check_arrays(self.weights, self.stored.path, wanted, ADVICE)
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in self.weights.items()}
        module.load_state_dict(tensors, assign=True)
        return module.eval().requires_grad_(False)

    def prepare(self) -> None:
        """Build the network: weights of another one are found now, not at the first trial."""
        _ = self.module

    def predict(self, scores: Float32, features: Collection[str]) -> dict[str, Float32]:
        if not any(feature in features for feature in self.placements):
            return {}
        import torch

        module = self.module
        with torch.no_grad():
            rows = [module(torch.from_numpy(np.ascontiguousarray(row[None]))) for row in scores]
        return {
            feature: np.concatenate([row[number].numpy() for row in rows])
            for number, feature in enumerate(self.placements)
            if feature in features
        }


def check_fitted(arrays: Mapping[str, Array], feature: str, _n_targets: int) -> None:
    """Refuse arrays of a fitter that no network could be built from, before they become a file.

    Raises
    ------
    ShapeError
        One of them is not called as a weight is, or there is none.
    """
    strange = sorted(name for name in arrays if not name.startswith(WEIGHTS))
    if strange or not arrays:
        raise ShapeError(
            f"the decoder of {feature} gave {', '.join(strange[:4]) or 'no array'}: a checkpoint holds a network's "
            f"weights by their names after {WEIGHTS!r}"
        )


def open_decoder(stored: Stored) -> Network:
    """Read the description, the weights and the placements; the network is built when it is first used.

    Raises
    ------
    FileError
        The description or the file cannot be used.
    """
    described = stored.description.get("network")
    if not isinstance(described, dict) or not isinstance(described.get("config"), dict):
        raise stored.refuse("'network' in checkpoint.json is missing or wrong, expected architecture and config")
    architecture = described.get("architecture")
    try:
        config = make_config(str(architecture), described["config"])
    except InputError as error:
        raise FileError(f"{stored.path}: {error}") from error
    features = stored.description["features"]
    arrays = read_tensors(stored.path, f"the checkpoint's {' and '.join(features)}")
    placements = {feature: stored.placement(arrays, feature) for feature in features}
    weights = {name.removeprefix(WEIGHTS): array for name, array in arrays.items() if name.startswith(WEIGHTS)}
    return Network(stored, str(architecture), config, placements, weights)
