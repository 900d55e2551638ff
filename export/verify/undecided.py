"""What `structure_gradient` may differ by where rounding decides whether a pixel is clamped.

A clamped pixel has no gradient. Two engines whose pictures agree up to rounding may clamp differently the few pixels
that lie within that error of black or white, and what these pixels contribute is the difference between the two
gradients: both are right, and they differ by far more than rounding does (docs/results.md has a case).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.backends.reference import loss_of
from ...runtime.models.models import Models
from .parity import TOLERANCES

Array = NDArray[np.float32]
# Passes back through the decoder for each window: pixels that are differentiated together may cancel.
N_GROUPS = 4


def undecided(models: Models, precisions: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """How far each element of `structure_gradient` may be off, by precision.

    A pixel is undecided within the tolerance of pictures of the precision.

    Parameters
    ----------
    feeds
        Inputs of `structure_gradient`.

    Returns
    -------
    dict
        precision -> {"latent_gradient": (n, 4, h, w) float32, not negative}
    """
    windows = [TOLERANCES[precision].worst for precision in precisions]
    bounds = clamp_bounds(models, feeds, windows)
    return {p: {"latent_gradient": bound} for p, bound in zip(precisions, bounds, strict=True)}


def clamp_bounds(models: Models, feeds: Mapping[str, Array], windows: Sequence[float]) -> list[Array]:
    """The sum of what undecided pixels contribute to the gradient at the latent, whatever the sign of each.

    The strongest pixels are differentiated one by one as far as there are groups; where there are more, those of a
    group are summed with their signs. What one pixel does is local, so few of a group meet at one element.

    Parameters
    ----------
    windows
        How far from 0 and 1 a pixel is undecided, in units of the picture.

    Returns
    -------
    list of (n, 4, h, w) float32 arrays, not negative, one for each window
    """
    given = {name: torch.as_tensor(array).to(models.device, models.precise) for name, array in feeds.items()}
    latent = given["latent"].detach().requires_grad_()
    with torch.enable_grad():
        pixels = models.decode_unclamped(latent)
        image = pixels.detach().clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(models, given, image).sum(), image)
    distance = torch.minimum(pixels.detach().abs(), (pixels.detach() - 1).abs())
    bounds = []
    for window in windows:
        bound = torch.zeros_like(latent, requires_grad=False)
        for group in _groups(gradient * (distance <= window)):
            (part,) = torch.autograd.grad(pixels, latent, group, retain_graph=True)
            bound += part.abs()
        bounds.append(np.asarray(bound.float().cpu()))
    return bounds


def _groups(gradient: Tensor) -> list[Tensor]:
    """The non-zero gradients in groups, with the strongest pixels of each picture in different groups."""
    rank = gradient.abs().flatten(1).argsort(1, descending=True).argsort(1).view_as(gradient)
    groups = [torch.where(rank % N_GROUPS == k, gradient, 0) for k in range(N_GROUPS)]
    return [group for group in groups if bool(group.any())]
