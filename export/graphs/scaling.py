"""Gradients brought to unit size before they enter a backward pass, so that half precision does not lose them."""

from __future__ import annotations

from torch import Tensor

# Below this a gradient is as good as zero; avoids 0 / 0 for a trial that has converged.
_TINY = 1e-30


def unit_scale(gradient: Tensor) -> Tensor:
    """The largest magnitude in each trial's rows, (n,), at least 1e-30.

    A backward pass is linear in what it is given: dividing by this before it and multiplying after it changes nothing
    but the range of the numbers in between: float16 ends at 6e-8, which is where the gradient of a mean over ten
    thousand dimensions begins. Trials do not mix.
    """
    return gradient.abs().flatten(1).amax(1).clamp_min(_TINY)
