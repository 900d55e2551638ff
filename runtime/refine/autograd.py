"""The gradient of stage 2 by PyTorch's reverse mode, through generator and CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ShapeError
from ..generators.base import Generator
from .loss import semantic_loss, structural_loss, weights_of_layers
from .settings import AdamSettings
from .target import check_semantic_target, check_target
from .weights import StructuralWeights


class AutogradObjective:
    """Structural (eq. 5) and semantic (eq. 6) loss of a generator's pictures, differentiated by PyTorch.

    Memory is the generator's: the diffusion generator keeps one checkpoint per denoising step.

    Parameters
    ----------
    models : Models
        Anything with ``structure(image, semantic=...)``, `device` and `dtype`.
    generator : Generator
    target : float array of shape (n, n_layers, n_tokens, d_vision)
        Decoded structure. Finite where the mask is True; elsewhere it does not matter.
    mask : bool array of shape (n_layers, n_tokens, d_vision)
    settings : AdamSettings
        `params`, `backprop_steps`, `layer_weights`, `loss_mean` and `semantic_weight` act here.
    semantic_target : float array of shape (n, d), optional
        Needed when `semantic_weight` is above 0.

    Raises
    ------
    ShapeError
        Arrays that do not fit each other.
    InputError
        An empty mask, a target that is not finite, or a missing `semantic_target`.
    """

    def __init__(
        self,
        models: Any,
        generator: Generator[Tensor],
        target: NDArray[np.float32],
        mask: NDArray[np.bool_],
        settings: AdamSettings,
        semantic_target: NDArray[np.float32] | None = None,
    ) -> None:
        target, mask = np.asarray(target), np.asarray(mask)
        check_target(target, mask)
        self._models, self._generator, self._settings = models, generator, settings
        real = torch.promote_types(models.dtype, torch.float32)
        weights = weights_of_layers(settings.layer_weights, target, mask)
        self._target = _tensor(np.where(mask, target, 0), models.device, real)
        self._mask = _tensor(mask, models.device, real)
        self._weights = _tensor(weights, models.device, real)
        self._scale = _loss_scale(mask) if models.dtype == torch.float16 else 1.0
        self._semantic_target: Tensor | None = None
        if settings.semantic_weight > 0:
            checked = check_semantic_target(semantic_target, len(target), settings)
            self._semantic_target = _tensor(checked, models.device, real)

    def value_and_gradient(self, params: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Render, compare, and differentiate each trial's own loss with respect to the parameters of the settings.

        Parameters
        ----------
        params : mapping of tensors, one row per trial

        Returns
        -------
        loss : tensor (n,)
        gradients : dict of tensors
            For ``settings.params`` only.
        image : tensor (n, 3, H, W), detached

        Raises
        ------
        InputError
            ``settings.params`` names a parameter that is not there.
        """
        chosen = self._settings.optimised(params)
        leaves = {name: tensor.detach().requires_grad_(name in chosen) for name, tensor in params.items()}
        with torch.enable_grad():
            image = self._generator.render(leaves)
            loss = self._loss(image)
            # Trials are independent: the gradient of the sum is each trial's own gradient.
            scaled = torch.autograd.grad(
                loss.sum() * self._scale, [leaves[name] for name in chosen], allow_unused=True, materialize_grads=True
            )
        gradients = {name: gradient / self._scale for name, gradient in zip(chosen, scaled, strict=True)}
        return loss.detach(), gradients, image.detach()

    def _loss(self, image: Tensor) -> Tensor:
        structure, semantic = self._models.structure(image, semantic=self._semantic_target is not None)
        if structure.shape != self._target.shape:
            raise ShapeError(
                f"the pictures' structure has shape {tuple(structure.shape)}, the target {tuple(self._target.shape)}: "
                "decode the target with the CLIP and layer preset that refinement uses"
            )
        loss: Tensor = structural_loss(
            structure, self._target, self._mask, self._weights, mean=self._settings.loss_mean
        )
        if self._semantic_target is not None:
            loss = loss + self._settings.semantic_weight * semantic_loss(semantic, self._semantic_target)
        return loss


def structural(
    models: Any,
    x0: Any,
    target: NDArray[np.float32],
    weights: StructuralWeights,
    semantic: tuple[NDArray[np.float32], float] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Structural loss of clean latents, its gradient and the pictures; see :meth:`..backends.base.Backend.structural`.

    Parameters
    ----------
    models : Models
        Anything with `decode_latent`, ``structure(image, semantic=...)``, `device` and `dtype`.
    """
    real = torch.promote_types(models.dtype, torch.float32)
    placed = (weights.counted(target), weights.dimensions, weights.layers)
    wanted, dimensions, layers = (_tensor(array, models.device, real) for array in placed)
    scale = _loss_scale(weights.dimensions > 0) if models.dtype == torch.float16 else 1.0
    latent = torch.as_tensor(x0).to(models.device, real).detach().requires_grad_()
    if len(latent) != len(wanted):
        raise ShapeError(f"{len(latent)} latents and {len(wanted)} targets were given: give one of each per trial")
    with torch.enable_grad():
        image = models.decode_latent(latent)
        structure, token = models.structure(image, semantic=semantic is not None)
        loss = structural_loss(structure, wanted, dimensions, layers)
        if semantic is not None:
            loss = loss + semantic[1] * semantic_loss(token, _tensor(semantic[0], models.device, real))
        # Trials are independent: the gradient of the sum is each trial's own gradient.
        (gradient,) = torch.autograd.grad(loss.sum() * scale, latent)
    return loss.detach(), gradient / scale, image.detach()


def _loss_scale(mask: NDArray[np.bool_]) -> float:
    """Give a power of two that keeps a mean's small scaled above float16's smallest number, 6e-8, on the way back.

    The gradient of a mean over the kept dimensions is of the order of one over their number; a sixteenth of that number
    leaves room above (float16 ends at 65,504) for what sums up in the networks.
    """
    return float(2.0 ** max(0, int(np.log2(mask.sum())) - 4))


def _tensor(array: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array)).to(device=device, dtype=dtype)
