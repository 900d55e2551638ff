"""The learning rate of each step."""

from __future__ import annotations

import math

# One cycle: a share of the steps up from peak / 25, the rest down to peak / 250,000, each along half a cosine (Smith
# and Topin 2018, as PyTorch's OneCycleLR has it by default; AdamW's betas stay).
_RISE, _START, _END = 0.3, 25.0, 1e4


def learning_rate(schedule: str, peak: float, step: int, n_steps: int) -> float:
    """The learning rate of step `step`, from 0, of `n_steps` in all.

    Parameters
    ----------
    schedule
        "constant" or "onecycle".
    peak
        The highest one.
    """
    if schedule == "constant":
        return peak
    top = _RISE * n_steps - 1
    low = peak / _START
    if step <= top and top > 0:
        return _between(low, peak, step / top)
    return _between(peak, low / _END, (step - top) / (n_steps - 1 - top))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
