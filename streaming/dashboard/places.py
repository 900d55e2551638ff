"""Where a channel lies on the head seen from above."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...runtime.data.layout import Channel

Place = tuple[float, float]
# Fewer sensors fit any sphere; a head's middle is no higher above the ears.
_FEWEST, _HIGHEST_M = 8, 0.06


def places(channels: Sequence[Channel]) -> tuple[Place | None, ...]:
    """Each channel's (x, y): x to the right ear, y to the nose, the head's rim at distance 1; None where not known.

    The azimuthal equidistant projection of the direction in which it lies, as topographic maps have it: what is level
    with the middle of the head (90° from the vertex) lies on the rim. Where sensors reach lower, as a helmet does, all
    are drawn closer together so that the lowest lies on the rim.
    """
    given = [channel.position for channel in channels]
    middle = _middle([place for place in given if place is not None and any(place)])
    flat = [None if place is None or not any(place) else _projected(*place, middle) for place in given]
    known = [math.hypot(*place) for place in flat if place is not None]
    scale = 1 / max(1.0, max(known, default=1.0))
    return tuple(None if place is None else (place[0] * scale, place[1] * scale) for place in flat)


def _middle(known: Sequence[tuple[float, float, float]]) -> float:
    """How high above the origin, on its vertical axis, the middle of the sphere lies that fits the sensors best.

    Head coordinates begin between the ears, and the sphere of a cap's electrodes some 4 cm above. Of a sphere around
    (0, 0, c), x^2 + y^2 + z^2 is 2 c z plus a constant: the gradient of a line.
    """
    if len(known) < _FEWEST:
        return 0.0
    spots = np.array(known)
    height = spots[:, 2] - spots[:, 2].mean()
    spread = height @ height
    middle = 0.5 * float(height @ (spots**2).sum(axis=1)) / spread if spread > 0 else 0.0
    return min(max(middle, 0.0), _HIGHEST_M)


def _projected(x: float, y: float, z: float, middle: float) -> Place:
    across = math.hypot(x, y)
    angle = math.atan2(across, z - middle) / (math.pi / 2)
    return (0.0, 0.0) if across == 0 else (angle * x / across, angle * y / across)
