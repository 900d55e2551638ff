"""A training between two epochs as arrays, so that a killed one goes on as if it had not been."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .hardware import Hardware
from .loss import Objective

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

Arrays = dict[str, NDArray[Any]]
_NETWORK, _BEST, _OBJECTIVE, _MOMENTS = "network.", "best.", "logit_scale.", "optimiser."
_NUMBERS, _RNG, _CUDA_RNG = "numbers", "rng", "rng_cuda"


# Part ("train" or "validation") to term of the loss to its mean in each epoch.
Curves = dict[str, dict[str, list[float]]]


@dataclass(frozen=True, eq=False)
class Best:
    """The weights with the lowest validation loss, the epoch (from 1) that gave them, and that loss."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    loss: float = math.inf


class Resumable(Protocol):
    """What a training is made of; `epoch` counts those that are finished."""

    network: nn.Module
    objective: Objective
    hardware: Hardware
    optimiser: optim.Optimizer
    scaler: Any
    epoch: int
    best: Best
    curves: Curves


def state_of(training: Resumable) -> Arrays:
    """Weights, the best epoch's weights, optimiser, random numbers, losses."""
    import torch

    tensors = {f"{_NETWORK}{name}": tensor for name, tensor in training.network.state_dict().items()}
    tensors |= {f"{_BEST}{name}": tensor for name, tensor in training.best.weights.items()}
    tensors |= {f"{_OBJECTIVE}{name}": tensor for name, tensor in training.objective.log_scale.items()}
    for number, moments in training.optimiser.state_dict()["state"].items():
        tensors |= {f"{_MOMENTS}{number}.{name}": tensor for name, tensor in moments.items()}
    tensors[_RNG] = torch.get_rng_state()
    if training.hardware.is_cuda:
        tensors[_CUDA_RNG] = torch.cuda.get_rng_state(training.hardware.device)
    numbers = {
        "epoch": training.epoch,
        "best": [training.best.epoch, training.best.loss],
        "curves": training.curves,
        "scaler": training.scaler.state_dict(),
    }
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    return {**arrays, _NUMBERS: np.frombuffer(json.dumps(numbers).encode(), np.uint8)}


def restore(training: Resumable, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put what :func:`state_of` gave into a training of the same settings."""
    import torch

    def tensors(start: str) -> dict[str, Any]:
        device = training.hardware.device
        return {
            name.removeprefix(start): torch.from_numpy(array).clone().to(device)
            for name, array in arrays.items()
            if name.startswith(start)
        }

    numbers = json.loads(arrays[_NUMBERS].tobytes())
    training.network.load_state_dict(tensors(_NETWORK))
    with torch.no_grad():
        for name, tensor in tensors(_OBJECTIVE).items():
            training.objective.log_scale[name].copy_(tensor)
    moments: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors(_MOMENTS).items():
        number, _, moment = name.partition(".")
        moments.setdefault(int(number), {})[moment] = tensor
    groups = training.optimiser.state_dict()["param_groups"]
    training.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    training.scaler.load_state_dict(numbers["scaler"])
    training.epoch, training.curves = numbers["epoch"], numbers["curves"]
    training.best = Best(tensors(_BEST), *numbers["best"])
    torch.set_rng_state(torch.from_numpy(arrays[_RNG]))
    if training.hardware.is_cuda and _CUDA_RNG in arrays:
        torch.cuda.set_rng_state(torch.from_numpy(arrays[_CUDA_RNG]), training.hardware.device)
