"""Where a channel lies on the head seen from above."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...runtime.data.layout import Channel

Place = tuple[float, float]


def places(channels: Sequence[Channel]) -> tuple[Place | None, ...]:
    """Each channel's (x, y): x to the right ear, y to the nose, the head's rim at distance 1; None where not known.

    The azimuthal equidistant projection of the direction in which it lies, as topographic maps have it: what is level
    with the origin of its coordinates (90° from the vertex) lies on the rim. Where sensors reach lower, as a helmet
    does, all are drawn closer together so that the lowest lies on the rim.
    """
    flat = [None if channel.position is None else _projected(*channel.position) for channel in channels]
    known = [math.hypot(*place) for place in flat if place is not None]
    scale = 1 / max(1.0, max(known, default=1.0))
    return tuple(None if place is None else (place[0] * scale, place[1] * scale) for place in flat)


def _projected(x: float, y: float, z: float) -> Place | None:
    across = math.hypot(x, y)
    if across == z == 0:
        return None  # a position that was never filled in
    angle = math.atan2(across, z) / (math.pi / 2)
    return (0.0, 0.0) if across == 0 else (angle * x / across, angle * y / across)
