"""A picture optimised directly: no diffusion, no decoder, only a pyramid of pixels under a sigmoid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError, ShapeError

# Logits beyond this are pictures that no display can distinguish from 0 and 1, with gradients near nothing.
_EDGE = 0.01


class PixelGenerator:
    """Pictures as the sigmoid of a sum of images at halving resolutions, added to a start picture.

    The coarse levels move a whole region with one parameter, which plain pixels under Adam do not; without them the
    loss falls by high-frequency patterns. Parameters are ``level_0`` (full size), ``level_1`` (half), and so on, all
    zero at the start.

    Parameters
    ----------
    start : float tensor of shape (n, 3, H, W)
        Pictures in [0, 1] to begin with: a grey field, or stage 1 of any method. Values are kept 0.01 away from
        0 and 1, where the sigmoid is flat.
    n_levels : int
        H and W must be divisible by ``2 ** (n_levels - 1)``.

    Raises
    ------
    ShapeError
        `start` is not a batch of RGB pictures.
    InputError
        `n_levels` does not fit the picture's size.
    """

    def __init__(self, start: Tensor, *, n_levels: int = 4) -> None:
        if start.ndim != 4 or start.shape[1] != 3 or not start.is_floating_point():
            raise ShapeError(f"start has shape {tuple(start.shape)} and type {start.dtype}: give float (n, 3, H, W)")
        if n_levels < 1 or any(side % 2 ** (n_levels - 1) for side in start.shape[2:]):
            raise InputError(
                f"n_levels is {n_levels} for pictures of {start.shape[2]} x {start.shape[3]} px: "
                "choose 1 or more levels, such that the size can be halved n_levels - 1 times"
            )
        self._base = torch.logit(start.detach().clamp(_EDGE, 1 - _EDGE))
        self._n_levels = n_levels

    def initial(self) -> dict[str, Tensor]:
        """Give ``level_k`` of shape (n, 3, H / 2**k, W / 2**k), all zero."""
        n, channels, height, width = self._base.shape
        return {f"level_{k}": self._base.new_zeros(n, channels, height >> k, width >> k) for k in range(self._n_levels)}

    def stage1(self) -> Tensor:
        """Give the start pictures."""
        with torch.no_grad():
            return self.render(self.initial())

    def render(self, params: Mapping[str, Tensor]) -> Tensor:
        """Sum the levels: image (n, 3, H, W) in (0, 1)."""
        total = self._base
        for level in params.values():
            total = total + interpolate(level, size=self._base.shape[2:], mode="bilinear", align_corners=False)
        return torch.sigmoid(total)
